"""Plans: what they mean, what they cost, and how a wrong one is told."""

import dataclasses
import warnings

import pytest
import tiny

from dd_jax.method.filtering import Filter
from dd_jax.method.models import Special
from dd_jax.method.plans import Op, cost, parse, spelled
from dd_jax.system.errors import UserError


@pytest.mark.parametrize(
    ("plan", "ops"),
    [
        ("S0", [Op("S", 0)]),
        ("S0 S5", [Op("S", 0), Op("S", 5)]),
        ("S 0  S 5", [Op("S", 0), Op("S", 5)]),
        ("S0 T4:5 S5", [Op("S", 0), Op("T", 4, 5), Op("S", 5)]),
        ("T 0:10", [Op("T", 0, 10)]),
        ("S0 J2", [Op("S", 0), Op("J", sweeps=2)]),
        ("J*", [Op("J")]),
        ("S0 J*/4", [Op("S", 0), Op("J", window=4)]),
        ("T0:3 J 2/5", [Op("T", 0, 3), Op("J", sweeps=2, window=5)]),
    ],
)
def test_words(plan, ops):
    assert parse(plan, 10) == tuple(ops)


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        ("", "leaves steps 0..9 undrawn: end it with S0"),
        ("X3", "cannot read 'X3'; words are S<t>, T<a>:<b>"),
        ("S-1", "cannot read 'S-1'"),
        ("S0,S5", "cannot read 'S0,S5'"),
        ("S0 J", "cannot read 'J'"),
        ("S10", "'S10' is out of range, steps are 0..9"),
        ("T5:5", "'T5:5' is out of range, it needs 0 <= a < b <= 10"),
        ("T0:11", "'T0:11' is out of range"),
        ("S5", "S5 needs steps < 5, only 0 are drawn"),
        ("T0:4 S5", "S5 needs steps < 5, only 4 are drawn"),
        ("T0:4", "leaves steps 4..9 undrawn: end it with S4"),
        ("S0 J2/0", "the window of 'J2/0' must lie in 1..10"),
        ("S0 J2/11", "the window of 'J2/11' must lie in 1..10"),
    ],
)
def test_a_wrong_plan_is_told(plan, told):
    with pytest.raises(UserError, match="plan") as error:
        parse(plan, 10)
    assert told in str(error.value)


def test_a_boundary_that_was_never_trained_is_warned_of():
    with pytest.warns(UserWarning, match=r"trained for steps \[0, 5\], not 3"):
        parse("S0 S3", 10, trained=(0, 0, 5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parse("S0 T3:5 S5", 10, trained=(0, 0, 5))


@pytest.mark.parametrize(
    ("plan", "steps", "passes"),
    [
        ("S0", 256, 1),
        ("S0 S80", 256, 2),
        ("S0 T60:80 S80", 256, 22),
        ("T0:80 S80", 256, 81),
        ("S0 T4:5 S5", 10, 3),
        ("T0:10", 10, 10),
        ("S0 J3", 10, 4),
        ("S0 J3/4", 10, 4),
        ("S0 J*", 10, None),
    ],
)
def test_cost_counts_network_passes_in_sequence(plan, steps, passes):
    assert cost(plan, steps) == passes


def test_a_plan_is_known_however_it_is_spelled():
    assert spelled(" S 0   T4:5 S5") == "S0 T4:5 S5"
    special = Special(7, Filter(top_k=3))
    models = dataclasses.replace(tiny.raster()[0], special=((spelled("S 0  S5"), special),))
    assert models.of("S0  S5").split == models.of("S 0 S5").split == 7
    with pytest.raises(UserError, match="a plan is a string"):
        parse(None, 9)
