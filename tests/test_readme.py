"""What README promises exists: the paper's symbols, the configs and modules of its commands, its pictures."""

import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
TABLE = README.split("## Where the paper lives")[1].split("\n## ")[0]
SYMBOLS = sorted(set(re.findall(r"`(\w+\.\w+)`", TABLE)) - {"flow.py"})


def test_the_table_names_the_method():
    assert {"flow.velocity", "flow.transport", "ar.decode", "train.train_step", "fewstep.run_plan"} <= set(SYMBOLS)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_every_symbol_of_the_table_exists(symbol):
    module, name = symbol.split(".")
    assert getattr(importlib.import_module(f"dd_jax.{module}"), name).__doc__


@pytest.mark.parametrize("path", sorted(set(re.findall(r"--config=(\S+?\.py)", README))))
def test_every_config_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("path", re.findall(r"!\[.*?\]\((\S+?)\)", README))
def test_every_picture_exists(path):
    assert (ROOT / path).stat().st_size > 10_000


@pytest.mark.parametrize("module", sorted(set(re.findall(r"python -m ([\w.]+)", README))))
def test_every_module_exists(module):
    assert (ROOT / Path(*module.split("."))).is_dir() or (ROOT / Path(*module.split("."))).with_suffix(".py").exists()


@pytest.mark.parametrize("path", sorted((ROOT / "configs").glob("*.py")), ids=lambda path: path.stem)
def test_configs_say_how_to_run_them(path):
    text = path.read_text()
    if "def get_config" in text:
        assert f"--config=configs/{path.name}" in text
