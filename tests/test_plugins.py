"""Ideas by name, from outside the package: found, refused in one line before anything runs, trusted by choice only."""

import dataclasses
import sys
import types

import pytest
import tiny
from conftest import tiny_config

from dd_jax import factory
from dd_jax.method import baselines, distances, solvers
from dd_jax.method.flow import FlowSolver
from dd_jax.method.interfaces import CachedTrunk, Trunk
from dd_jax.stages import lineup
from dd_jax.system import plugins
from dd_jax.system.errors import UserError


@pytest.fixture
def mine(monkeypatch):
    """A module of somebody's own, `mine`."""
    module = types.ModuleType("mine")
    module.solver = solvers.one_step(None, 3, opening=1)
    module.far = distances.Distance(lambda token, target, eyes: None, ("decoder", "lpips"))
    module.draw = baselines.Sampler(lambda models: models, passes=lambda steps: steps // 2)
    module.number = 3
    monkeypatch.setitem(sys.modules, "mine", module)
    return module


def test_a_name_stands_for_what_it_says(mine):
    assert plugins.find("a", {"a": 1}, "choose") == 1
    assert solvers.named("mine:solver") is mine.solver
    assert distances.named("mine:far") is mine.far
    assert baselines.sampler("mine:draw") is mine.draw
    assert FlowSolver("mine:solver", 16).steps == 4  # (16 - x0 - opening - moments) / 3
    assert [baselines.known(name) for name in ("onestep*", "mine:draw", "T0:49", "S0 T4:5 S5", "S0")] == [1, 1, 0, 0, 0]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("lpips9", r"^config\.train\.distance is 'lpips9': choose lpips, mse, perceptual, drift or none, or name "),
        ("nowhere.at:all", r"^nowhere\.at:all cannot be imported \(ModuleNotFoundError: .*PYTHONPATH$"),
        ("mine:none", r"^mine:none: the module mine is there, and has no 'none': it has draw, far, number, solver$"),
        ("mine:solvr", r"^mine:solvr: the module mine is there, and has no 'solvr': did you mean solver\?$"),
        ("mine:number", r"^mine:number is of type int: it must be a dd_jax\.method\.distances\.Distance"),
        ("mine:solver", r"^mine:solver is of type Solver: it must be a"),
    ],
)
def test_what_a_name_does_not_stand_for_is_one_line(mine, name, message):
    with pytest.raises(UserError, match=message) as told:
        distances.named(name)
    assert "\n" not in str(told.value)


def test_a_module_that_breaks_is_one_line(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "broken_idea.py").write_text("raise ValueError('two\\nlines')\n")
    with pytest.raises(UserError, match=r"broken_idea:x cannot be imported \(ValueError: two lines\)"):
        plugins.imported("broken_idea:x")


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("family", "mine:number", "is of type int: it must be something to call"),
        ("family", "builtins:len", r"config\.family=builtins:len built a int: it must return a Family"),
        ("flow.name", "mine:far", "is of type Distance: it must be a dd_jax.method.solvers.Solver"),
        ("train.distance", "lpips9", "choose lpips, mse, perceptual, drift or none"),  # though its weight is 0
        ("sample.plans", ("S0", "mine:gone"), "mine:gone: the module mine is there, and has no 'gone'"),
        ("evaluate.plans", ("mine:far",), "is of type Distance"),
    ],
)
def test_names_are_looked_up_when_a_system_is_built(mine, field, value, message):
    config = tiny_config("llamagen")
    config.update_from_flattened_dict({field: value})
    with pytest.raises(UserError, match=message):
        factory.build(config)


def test_a_distance_gets_the_networks_that_it_needs_or_is_refused(mine):
    config = tiny_config("llamagen")
    assert factory.build(config).lpips is None
    config.train.embedding, config.train.distance = 1.0, "mine:far"
    assert factory.build(config).lpips is not None
    config.train.distance, config.classifier = "perceptual", None
    with pytest.raises(UserError, match="distance is perceptual, which needs a classifier: choose mse"):
        factory.build(config)
    with pytest.raises(UserError, match=r"needs \('eyes',\): choose from"):
        distances.Distance(lambda *x: None, ("eyes",))
    with pytest.raises(UserError, match=r"needs \('all',\): choose from"):
        baselines.Sampler(lambda models: models, ("all",))


def test_a_sampler_of_ones_own_is_a_row_of_results(mine):
    config = tiny_config("llamagen")
    config.evaluate.plans = ("S0", "mine:draw")
    rows = {row.name: row for row in lineup.rows(factory.build(config), config)}
    assert (rows["mine:draw"].steps, rows["mine:draw"].plan) == (8, "")
    assert baselines.networks("mine:draw") == ["student"]
    mine.draw = dataclasses.replace(mine.draw, passes=lambda steps: 0)
    with pytest.raises(UserError, match="mine:draw takes 0 passes for 16 steps"):
        factory.build(config)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("family", "evil:run"),
        ("flow.name", "evil:run"),
        ("train.distance", "evil:run"),
        ("sample.plans", ("S0", "evil:run")),
        ("evaluate.plans", ("evil:run",)),
    ],
)
def test_a_stored_run_imports_nothing_unless_it_is_trusted(field, value):
    config = tiny_config("llamagen")
    config.update_from_flattened_dict({field: value})
    for trust in ((), ("other", "evi")):
        with pytest.raises(UserError, match=rf"config\.{field} is 'evil:run', code from outside .*trust=\['evil'\]"):
            factory.frozen(config.to_dict(), trust)
    assert factory.frozen(config.to_dict(), ["evil"]).family == config.family


@pytest.mark.parametrize("make", [tiny.raster, tiny.scales], ids=["raster", "scales"])
def test_trunks_are_what_the_protocol_says(make):
    models, _ = make()
    assert isinstance(models.teacher.trunk, CachedTrunk)
    assert isinstance(models.student.net.trunk, Trunk)
