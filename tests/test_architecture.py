"""What keeps the project small: folders are layers, family words stay home, files stay short."""

import ast
import functools
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "dd_jax"

# From the top down. "" are the files of the package itself: the command, the library, config -> objects.
FOLDERS = (
    "explore",
    "",
    "stages",
    "report",
    "training",
    "text",
    "families",
    "metrics",
    "data",
    "method",
    "nn",
    "system",
)
FAMILY_HOMES = ("dd_jax/families/", "dd_jax/factory.py", "configs/", "port_weights/", "tests/")
BESIDE = ("dd_jax.configs", "dd_jax.scripts")  # where these folders are installed
HOMES = ("dd_jax", "port_weights", "configs", "scripts", "tests")
FAMILIES = sorted(path.parent.name for path in PACKAGE.glob("families/*/build.py"))
FILES = sorted(PACKAGE.rglob("*.py"))
DOORS = [path for path in FILES if path.name == "__init__.py"]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def module(path: Path) -> str:
    return name(path).removesuffix(".py").removesuffix("/__init__").replace("/", ".")


MODULES = {module(path): path for path in FILES}


def folder(module: str) -> str:
    """dd_jax.nn.conv -> nn; dd_jax.main -> ""."""
    first = module.split(".")[1:2]
    return first[0] if first and (PACKAGE / first[0]).is_dir() else ""


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Modules of this project that a file imports, at its top or inside a function."""
    found: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name(path)}: imports are absolute"
            whole = {f"{node.module}.{alias.name}" for alias in node.names}
            found |= {one if one in MODULES or one in BESIDE else str(node.module) for one in whole}
    return frozenset(one for one in found if one.split(".")[0] in ("dd_jax", "port_weights", "configs", "scripts"))


def test_folders_are_the_layers():
    assert {path.parent.relative_to(PACKAGE).parts[:1] for path in FILES} == {(one,) if one else () for one in FOLDERS}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_point_down(path):
    own = FOLDERS.index(folder(module(path)))
    outside = {one for one in imports(path) if one.startswith((*BESIDE, "port_weights"))}
    assert own <= FOLDERS.index("") or not outside, "only the top may know the configs"
    up = {one for one in imports(path) if one in MODULES and one != "dd_jax" and FOLDERS.index(folder(one)) < own}
    assert not up, f"{module(path)} -> {up}"


def test_configs_and_scripts_are_imported_as_they_are_installed():
    """Below dd_jax: by their bare names they are any other project's, wherever this one is installed."""
    for path in (path for folder in HOMES for path in sorted((ROOT / folder).rglob("*.py"))):
        assert not {one for one in imports(path) if one.split(".")[0] in ("configs", "scripts")}, name(path)


def test_imports_have_no_cycle():
    graph = {module(path): {one for one in imports(path) if one in MODULES} for path in FILES if path not in DOORS}
    done: set[str] = set()
    while ready := {one for one in graph if one not in done and not (graph[one] & {*graph}) - done}:
        done |= ready
    assert set(graph) == done, f"a cycle among {set(graph) - done}"


@pytest.mark.parametrize("path", DOORS, ids=name)
def test_a_folder_says_what_it_is_and_exports_nothing(path):
    told = ast.get_docstring(tree(path)) or ""
    assert 3 <= len(told.splitlines()) <= 6 or path.parent == PACKAGE, name(path)
    assert len(tree(path).body) == 1 or path.parent == PACKAGE, name(path)


def test_one_family_knows_nothing_of_the_other():
    for path in FILES:
        if "families" in path.parts and path.parent.name != "families":
            others = {one.name for one in path.parent.parent.iterdir() if one.is_dir()} - {path.parent.name}
            assert not any(one.startswith(f"dd_jax.families.{other}") for one in imports(path) for other in others)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_family_names_stay_in_their_homes(path):
    if not name(path).startswith(FAMILY_HOMES):
        # The paper's own spelling (LlamaGen, VAR) may be cited; the family names are for code.
        assert not re.search(rf"\b({'|'.join(FAMILIES)})\b", path.read_text())


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_and_functions_are_short(path):
    assert len(path.read_text().splitlines()) <= 300
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.FunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= 50, f"{name(path)}:{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_module_says_what_it_is(path):
    assert ast.get_docstring(tree(path)), name(path)
