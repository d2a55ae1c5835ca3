"""The front page: short, its table of the paper and its pictures are right; configs say how to run them."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TABLE = README.split("## Where the paper lives")[1].split("\n## ")[0]
SYMBOLS = sorted(set(re.findall(r"`(\w+\.\w+\.\w+)`", TABLE)))


def test_it_is_short():
    assert len(README.splitlines()) <= 150


def test_the_table_names_the_method():
    wanted = {"method.flow.velocity", "method.flow.transport", "method.ar.decode", "method.fewstep.run_plan"}
    assert wanted | {"stages.train.train_step", "method.refine.refine"} <= set(SYMBOLS)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_symbol_of_the_table_exists(symbol):
    module, _, name = symbol.rpartition(".")
    assert getattr(importlib.import_module(f"dd_jax.{module}"), name).__doc__


@pytest.mark.parametrize("path", re.findall(r"!\[.*?\]\((?!https:)(\S+?)\)", README))
def test_every_picture_exists(path):
    assert (ROOT / path).stat().st_size > 10_000


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_configs_say_how_to_run_them(path):
    text = path.read_text()
    if "def get_config" in text:
        assert f"--config=configs/{path.name}" in text
