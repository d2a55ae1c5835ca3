"""Every setting of every config has a line that says what it is."""

import importlib
from pathlib import Path

import pytest

from dd_jax import settings
from dd_jax.configs import about
from port_weights.catalog import CATALOG

FOLDER = Path(__file__).parents[1] / "configs"
CONFIGS = [path.stem for path in sorted(FOLDER.glob("*.py")) if "def get_config" in path.read_text()]


def config_of(name):
    return importlib.import_module(f"dd_jax.configs.{name}").get_config()


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_is_explained(name):
    lines = settings.table(config_of(name)).splitlines()
    assert len(lines) == len(list(settings.flat(config_of(name))))
    assert all(line.startswith("--config.") and "  " in line for line in lines)


def test_nothing_is_explained_that_is_not_there():
    names = {name for one in CONFIGS for name, _ in settings.flat(config_of(one))}
    known = {*about.ABOUT}
    assert {one for one in known if not any(name == one or name.startswith(f"{one}.") for name in names)} == set()
    last = {name.rpartition(".")[2] for name in names}
    assert {*about.RECIPE, *about.FILTER} <= last


@pytest.mark.parametrize("name", CONFIGS)
def test_ported_models_exist_and_are_what_they_are_named_for(name):
    known = {one.id: one.part for one in CATALOG.values()}
    for part, id in (config_of(name).get("ported") or {}).items():
        assert known[id] == part


def test_values_are_shown_as_a_shell_takes_them():
    text = settings.table(config_of("digits_llamagen"))
    assert "--config.train.timesteps='(0, 0, 5)'" in text
    assert "--config.train.muon=true " in text
    assert """--config.speed.plans="('S0', 'S0 S5')" """ in text
    assert "--config.pairs.first=none " in text
