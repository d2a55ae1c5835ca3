"""What keeps the project small: imports point down, family words stay home, files stay short."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dd_jax"

# From the top down; a module may import from lower layers and from its own (without a cycle). A family's
# `build` counts as a piece of the factory, which is all that calls it.
LAYERS = [
    {"main"},
    {"stages"},
    {
        "pretrain",
        "generate",
        "evaluate",
        "fid",
        "speed",
        "report",
        "pipeline",
        "workdir",
        "publish",
        "pictures",
        "watch",
    },
    {"factory", "build"},
    {"pairs", "verify", "train", "loop", "samples", "captioned", "diary"},
    {"ar", "fewstep", "baselines", "student", "losses"},
    {"families", "nn", "metrics", "text"},
    {"conditions", "layout", "flow", "interfaces", "plans", "solvers", "filtering", "weights"},
    {
        "sharding",
        "checkpoint",
        "data",
        "emoji",
        "pictures",
        "progress",
        "metrics_writer",
        "errors",
        "files",
        "labels",
        "rng",
    }
    | {"batches", "flops", "meter", "pairset", "pictures", "processes", "runtime", "sinks", "stopping"},
]
FAMILY_HOMES = ("dd_jax/families/", "dd_jax/factory.py", "configs/", "port_weights/", "tests/")
FILES = sorted(PACKAGE.rglob("*.py"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def layer(part: str) -> int:
    return next(i for i, parts in enumerate(LAYERS) if part in parts)


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path) -> set[str]:
    """Names of the parts of dd_jax (first-level modules) that a file imports."""
    found = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    full = {name for name in found if name.startswith("dd_jax.")} - {"dd_jax.__version__"}
    return {"build" if re.search(r"families\.\w+\.build", name) else name.split(".")[1] for name in full}


def parts() -> dict[str, set[str]]:
    """Part -> the parts that it imports. The package's own `__init__` stands outside: it is the door."""
    graph: dict[str, set[str]] = {}
    for path in FILES:
        first = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        part = "build" if path.name == "build.py" else first
        if path != PACKAGE / "__init__.py":
            graph.setdefault(part, set()).update(imports(path) - {part})
    return graph


def test_every_part_has_a_layer():
    assert set(parts()) <= set().union(*LAYERS)


def test_imports_point_down():
    wrong = {f"{a} -> {b}" for a, below in parts().items() for b in below if layer(b) < layer(a)}
    assert not wrong


def test_imports_have_no_cycle():
    graph, done = parts(), set()
    while ready := {part for part in graph if part not in done and graph[part] <= done}:
        done |= ready
    assert set(graph) == done, f"a cycle among {set(graph) - done}"


def test_one_family_knows_nothing_of_the_other():
    for path in FILES:
        if "families" in path.parts and path.parent.name != "families":
            other = {"llamagen": "var", "var": "llamagen"}[path.parent.name]
            assert f"families.{other}" not in path.read_text(), name(path)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_family_names_stay_in_their_homes(path):
    if not name(path).startswith(FAMILY_HOMES):
        # The paper's own spelling (LlamaGen, VAR) may be cited; the family names are for code.
        assert not re.search(r"\b(llamagen|var)\b", path.read_text())


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= 300
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 50, f"{name(path)}:{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_module_says_what_it_is(path):
    if path.read_text().strip():
        assert ast.get_docstring(tree(path)), name(path)
