"""The commands of README and docs/ are right: module, flags, config, settings, stage, plans, model ids.

Nothing is executed to check a command (test_commands_run.py does): its words are compared with the flags that its
module defines and with the config that it names.
"""

import ast
import copy
import functools
import importlib
import importlib.util
import json
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from ml_collections import ConfigDict

from dd_jax.data import labels
from dd_jax.families import tokenizer
from dd_jax.method import baselines, plans
from dd_jax.stages.workdir import STAGES
from port_weights.catalog import CATALOG

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
DEFAULT = "configs/mnist_flow.py"


def commands(text: str) -> Iterator[list[str]]:
    """Words of every `python -m ...` in shell blocks and inline code: module first, flags and arguments behind it."""
    blocks = [body for kind, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S) if kind != "python"]
    inline = re.findall(r"(?<!`)`(python -m [^`]+)`(?!`)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S))
    for block in [*blocks, *(one.replace("\n", " ") for one in inline)]:
        block = block.replace("\\\n", " ")
        for name, value in re.findall(r'^(\w+)="([^"]*)"$', block, re.M):
            block = block.replace(f'{name}="{value}"', "").replace(f"${name}", value.replace("\n", " "))
        for line in block.splitlines():
            for one in re.split(r"python -m ", line.split(" #")[0])[1:]:
                one = re.split(r"\s+(?:&&|;)", one)[0]
                yield shlex.split(one.rstrip("'") if one.count("'") % 2 else one)


FOUND = [(page, words) for page in PAGES for words in commands(page.read_text())]


@functools.cache
def flags_of(module: str) -> frozenset[str]:
    """Names of the flags that a program defines, read and not run (two of them may define the same one)."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"there is no module {module}"
    if spec.submodule_search_locations:
        return flags_of(f"{module}.__main__")
    tree, found = ast.parse(Path(str(spec.origin)).read_text()), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            words = [arg.value for arg in node.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
            if node.func.attr.startswith("DEFINE_") and words:
                found.add(words[0])
            elif node.func.attr == "add_argument":
                found |= {word.lstrip("-") for word in words if word.startswith("-")}
        elif isinstance(node, ast.ImportFrom) and node.module in (
            "scripts",
            "dd_jax.scripts",
        ):  # one that builds on another
            found |= {flag for alias in node.names for flag in flags_of(f"scripts.{alias.name}")}
    return frozenset(found)


@functools.cache
def config_of(where: str) -> ConfigDict:
    """`configs/llamagen_xl.py:384` -> its settings."""
    path, _, option = where.partition(":")
    assert (ROOT / path).is_file(), f"there is no {path}"
    module = importlib.import_module(path.removesuffix(".py").replace("/", "."))
    return module.get_config(option) if option else module.get_config()


def check_setting(config: ConfigDict, name: str, value: str) -> None:
    """It is there, and takes such a value."""
    *parents, last = name.split(".")
    for parent in parents:
        config = config[parent]
    assert last in config, f"config.{name} is no setting"
    default = config[last]
    if isinstance(default, bool):
        assert value in ("true", "false"), f"config.{name}={value}"
    elif isinstance(default, tuple):
        assert isinstance(ast.literal_eval(value), tuple), f"config.{name}={value}"
    elif isinstance(default, int | float):
        type(default)(value)


def check_plans(config: ConfigDict, value: str) -> None:
    """Each is a plan of this model, or a baseline."""
    config = copy.deepcopy(config)
    tokenizer.settle(config)  # sides that follow from the resolution
    steps = len(config.tokenizer.sides) if config.family == "var" else config.tokenizer.side**2
    for plan in ast.literal_eval(value):
        if plan != "decode" and not baselines.known(plan):
            plans.parse(plan, steps)


def check_run(flags: dict[str, str]) -> None:
    """A command of `dd_jax.main`."""
    config = config_of(flags.get("config", DEFAULT))
    if flags.get("labels") and ("config" in flags or "workdir" not in flags):  # else those of the run's own pictures
        assert labels.find(flags["labels"], config.data.name, config.data.classes)
    assert flags.get("stage", "all") in {"all", "config", *STAGES}
    for name, value in flags.items():
        if name in ("config.sample.plans", "config.speed.plans", "config.evaluate.plans"):
            check_plans(config, value)


@pytest.mark.parametrize(("page", "words"), FOUND, ids=[f"{page.stem}-{' '.join(w)[:60]}" for page, w in FOUND])
def test_a_command_is_right(page, words):
    module, *rest = words
    named = [word.lstrip("-").partition("=") for word in rest if word.startswith("-") and not word.endswith("=...")]
    flags, known = {name: value for name, _, value in named}, flags_of(module)
    for name, value in flags.items():
        if name.startswith("config.") and name != "config.FIELD":
            assert value, f"--{name} has no value"
            check_setting(config_of(flags.get("config", DEFAULT)), name.removeprefix("config."), value)
        else:
            assert name.split(".")[0] in known, f"{module} has no flag --{name}"
    if module == "dd_jax.main":
        check_run(flags)
    if module in ("port_weights", "scripts.fake_release"):
        ids = [word for word in rest[: _first_flag(rest)] if word not in ("list", "MODEL", "...")]
        assert set(ids) <= set(CATALOG), f"{module} knows no {set(ids) - set(CATALOG)}"


def _first_flag(words: list[str]) -> int:
    return next((i for i, word in enumerate(words) if word.startswith("-")), len(words))


def test_there_are_commands_of_every_kind():
    modules = {words[0] for _, words in FOUND}
    assert {"dd_jax.main", "port_weights", "dd_jax.metrics.score", "scripts.aot", "scripts.fake_release"} <= modules


@functools.cache
def every_setting() -> frozenset[str]:
    """`train.lr` and the like, of all configs."""
    found: set[str] = set()

    def walk(config: ConfigDict, name: str) -> None:
        for key, value in config.items():
            found.add(f"{name}{key}")
            if isinstance(value, ConfigDict):
                walk(value, f"{name}{key}.")

    for path in sorted((ROOT / "configs").glob("*.py")):
        if "def get_config" in path.read_text():
            walk(config_of(f"configs/{path.name}"), "")
    return frozenset(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_settings_that_a_page_names_exist(page):
    named = re.findall(r"(?<![\w./*])(?:--)?config\.([a-z_][\w.]*\w)", page.read_text())
    missing = {name for name in named if name not in every_setting()} - {"json"}
    assert not missing, f"{page.name}: config.{missing}"


METHOD = (ROOT / "docs" / "method.md").read_text().split("## Where the paper lives")[1].split("\n## ")[0]


@pytest.mark.parametrize("symbol", sorted(set(re.findall(r"`((?:method|stages|data|text)\.[\w.]+)`", METHOD))))
def test_every_symbol_of_the_method_exists(symbol):
    if importlib.util.find_spec(f"dd_jax.{symbol}") if symbol.count(".") == 1 else None:
        return
    module, _, name = symbol.rpartition(".")
    assert getattr(importlib.import_module(f"dd_jax.{module}"), name).__doc__


def test_pictures_of_the_docs_are_small():
    sizes = {path.name: path.stat().st_size for path in (ROOT / "docs" / "pictures").iterdir()}
    assert max(sizes.values()) < 150_000, sizes
    assert sum(sizes.values()) < 600_000, sizes


def run(module: str, *words: object) -> None:
    """A program of argparse, in this process."""
    entry = module if not hasattr(importlib.import_module(module), "__path__") else f"{module}.__main__"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *map(str, words)])
        importlib.import_module(entry).main()


def test_list_shows_every_model(capsys):
    run("port_weights", "list")
    assert set(CATALOG) <= set(capsys.readouterr().out.split())


@pytest.fixture
def finished(tmp_path):
    """As much of a run's folder as the figures need."""
    rows = [("teacher", "T0:16", 16), ("student", "S0", 1), ("student", "S0 J*", 7.5), ("onestep*", "marginals", 1)]
    numbers = {"fd_teacher": 2.0, "agreement": 0.5, "ms_per_image": 3.0, "n": 9}
    lines = [{"generator": name, "plan": plan, "steps": steps, **numbers} for name, plan, steps in rows]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    np.savez(tmp_path / "grids.npz", **{f"{name}|{plan}": np.zeros((20, 8, 8, 1), np.uint8) for name, plan, _ in rows})
    (tmp_path / "student").mkdir()
    curve = [{"step": step, "agreement": step / 9} for step in range(9)]
    (tmp_path / "student" / "curve.jsonl").write_text("".join(json.dumps(line) + "\n" for line in curve))
    return tmp_path


def test_figures_are_made_again_from_runs(finished, tmp_path):
    run("scripts.figures", finished, finished, "--out", tmp_path / "made")
    made = {path.name: path.read_bytes() for path in (tmp_path / "made").iterdir()}
    assert set(made) == {path.name for path in (ROOT / "docs" / "pictures").iterdir()}
    for name, content in made.items():
        assert name.endswith(".png") or ElementTree.fromstring(content).tag.endswith("svg")
