"""Parallel refinement is lossless: laws that hold for any weights, drafts and windows."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.method import ar
from dd_jax.method.fewstep import noise_for, run_plan
from dd_jax.method.refine import refine
from dd_jax.system.errors import UserError

BATCH = 6
FAMILIES = {"raster": tiny.raster, "scales": tiny.scales}


@functools.cache
def system(family):
    """(models, params, cond, noise, the teacher's own codes for that noise)."""
    models, params = FAMILIES[family]()
    layout, cond = models.layout, tiny.cond(BATCH)
    noise = noise_for(jax.random.split(jax.random.key(5), BATCH), layout.tokens, tiny.CODE)

    @jax.jit
    def sample(params):
        pick = ar.by_flow(noise, params["tokenizer"]["codebook"], layout, models.filter, models.solver)
        code = jnp.zeros((BATCH, layout.tokens), jnp.int32)
        return ar.decode(models.teacher, params["teacher"], cond, pick, 0, layout.steps, code)

    return models, params, cond, noise, sample(params)


@functools.cache
def sweeper(family, window):
    """`refine`, compiled once for all numbers of sweeps."""
    models, _, cond, noise, _ = system(family)
    return jax.jit(lambda params, code, exact, sweeps: refine(models, params, cond, code, noise, exact, sweeps, window))


def refined(family, draft, sweeps=None, window=None, exact=0):
    models, params, *_ = system(family)
    sweeps = models.layout.steps if sweeps is None else sweeps
    return sweeper(family, window)(params, draft, jnp.full(BATCH, exact, jnp.int32), sweeps)


def random_codes(family, seed):
    shape = system(family)[-1].shape
    return jax.random.randint(jax.random.key(seed), shape, 0, tiny.VOCAB)


def exact_steps(family, code):
    """Leading steps that truly equal the teacher's sample."""
    models, _, _, _, sample = system(family)
    wrong = np.where(np.asarray(code == sample), models.layout.steps, models.layout.step_L)
    return wrong.min(-1)


CASES = [("raster", None), ("raster", 1), ("raster", 2), ("raster", 4), ("raster", 9), ("scales", None)]


@pytest.mark.parametrize(("family", "window"), CASES)
@pytest.mark.parametrize("seed", [0, 1])
def test_the_fixed_point_is_the_teachers_sample(family, window, seed):
    models, *_, sample = system(family)
    code, exact, ran = refined(family, random_codes(family, seed), None, window)
    assert np.array_equal(code, sample)
    assert np.all(exact == models.layout.steps)
    assert np.all(ran <= models.layout.steps)


@pytest.mark.parametrize(("family", "window"), CASES)
def test_k_sweeps_make_k_steps_exact_and_never_claim_more(family, window):
    for k in range(system(family)[0].layout.steps + 1):
        code, exact, ran = refined(family, random_codes(family, 2), k, window)
        assert np.all(exact >= k)
        assert np.all(exact <= exact_steps(family, code))
        assert np.all(ran <= k)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_teachers_own_sample_is_certified_by_one_sweep(family):
    models, *_, sample = system(family)
    code, exact, ran = refined(family, sample)
    assert np.array_equal(code, sample)
    assert np.all(exact == models.layout.steps)
    assert np.all(ran == 1)


def test_a_window_never_needs_fewer_sweeps_than_the_whole():
    draft = random_codes("raster", 3)
    ran = [np.asarray(refined("raster", draft, None, w)[2]) for w in (None, 4, 1)]
    assert np.all(ran[0] <= ran[1])
    assert np.all(ran[1] <= ran[2])
    assert np.all(ran[2] == 9)


def test_certain_steps_are_not_run_again():
    *_, sample = system("raster")
    draft = jnp.where(jnp.arange(9) < 4, sample, random_codes("raster", 4))
    code, exact, ran = refined("raster", draft, None, None, exact=4)
    assert np.array_equal(code, sample)
    assert np.all(ran <= 5)
    code, exact, _ = refined("raster", draft, 2, None, exact=4)
    assert np.all(exact >= 6)
    assert np.all(exact <= exact_steps("raster", code))


def run(family, plan, models=None):
    own, params, cond, noise, _ = system(family)
    keys = jax.random.split(jax.random.key(0), BATCH)
    return jax.jit(lambda p: run_plan(plan, models or own, p, cond, noise, keys))(params)


@pytest.mark.parametrize("plan", ["S0 J*", pytest.param("S0 T1:2 S2 J*", marks=pytest.mark.slow), "T0:2 J1 S2 J*"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_plan_that_ends_at_the_fixed_point_ends_at_the_teacher(family, plan):
    models, *_, sample = system(family)
    draft = run(family, plan)
    assert np.array_equal(draft.code_BxL, sample)
    assert np.all(draft.exact_B == models.layout.steps)


@pytest.mark.parametrize(
    ("family", "plan", "known"),
    [
        ("raster", "T0:2 S2", 2),
        ("raster", "T0:2 J1", 3),
        ("raster", "T0:3 S2", 2),
        ("raster", "S0 T1:2 S2", 0),
        ("raster", "S0 J1 S2", 1),
        ("scales", "T0:1 T1:2 S2 J1", 3),
        ("scales", "T0:2 S1", 1),
    ],
)
def test_what_a_plan_certifies_is_true(family, plan, known):
    draft = run(family, plan)
    assert np.all(draft.exact_B <= exact_steps(family, draft.code_BxL))
    assert np.all(draft.exact_B >= known)


def test_categorical_draws_certify_nothing():
    loose = dataclasses.replace(system("raster")[0], categorical=True)
    assert np.all(run("raster", "T0:2 S2", loose).exact_B == 0)


def test_a_window_needs_single_token_steps():
    with pytest.raises(UserError, match="leave '/2' out"):
        run("scales", "J*/2")
