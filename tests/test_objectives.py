"""Laws of every objective: memory and stopping change nothing, no noise comes twice, the teacher counts."""

import dataclasses
import functools
import shutil

import jax
import numpy as np
import objectives
import optax
import pytest
import tiny

from dd_jax.data.conditions import Classes
from dd_jax.method import flow
from dd_jax.method.losses import Weights
from dd_jax.method.objectives import rows_of
from dd_jax.stages.train import batches, begin, check_batch, example, frozen_for, run, stepper
from dd_jax.system import flops
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE
from dd_jax.training.loop import Recipe, load_ema
from dd_jax.training.throughput import Throughput

CASES = [
    pytest.param(name, family, marks=[] if (name, family) == ("mixed", "raster") else [pytest.mark.slow])
    for name in objectives.ALL
    for family in objectives.FAMILIES
]
every = pytest.mark.parametrize(("name", "family"), CASES)
RECIPE = Recipe(objectives.STEPS, 8, 1e-3, warmup=0, ema=0.9, checkpoint_every=3)
case = functools.cache(objectives.case)


def frugal(models):
    """The same student, its blocks computed again in the backward pass, as a loop over them."""
    net = models.student.net
    trunk = net.trunk.clone(cfg=dataclasses.replace(net.trunk.cfg, remat=True, scan=True))
    return dataclasses.replace(models, student=dataclasses.replace(models.student, net=net.clone(trunk=trunk)))


def trained(folder, name, family, models, recipe=RECIPE):
    """A whole training, or what is left of it -> the averaged parameters."""
    _, params, objective, distance = case(name, family)
    pairs, frozen = objectives.pairs(models.layout.tokens), frozen_for(objective, models.tokenizer, params)
    pairs = pairs if objective.rows(recipe.batch)[0] else None
    given = recipe, objective, models
    run(folder, *given, params["student"], frozen, distance, pairs, Classes(tiny.CLASSES), "balanced", 0)
    whole = frozen | {"tokenizer": params["tokenizer"], "teacher": params["teacher"]}
    return load_ema(folder, recipe, lambda: params["student"], lambda x: begin(*given, x, whole, 0))


@every
def test_a_stopped_training_ends_in_the_same_bits_and_memory_changes_nothing(name, family, tmp_path):
    models = case(name, family)[0]
    whole = trained(tmp_path / "whole", name, family, models)
    started = case(name, family)[1]["student"]
    pieces = dataclasses.replace(RECIPE, accumulate=1 if "drift" in name else 2)
    for other, more, recipe in (("stopped", models, RECIPE), ("frugal", frugal(models), pieces)):
        shutil.copytree(tmp_path / "whole/3", tmp_path / other / "3")
        found = trained(tmp_path / other, name, family, more, recipe)
        if other == "stopped":
            jax.tree.map(np.testing.assert_array_equal, found, whole)
        far, moved = (float(optax.global_norm(jax.tree.map(np.subtract, found, x))) for x in (whole, started))
        assert far < 1e-4 * moved, (far, moved)


def test_pictures_that_are_compared_with_each_other_are_one_batch():
    objective = case("drift", "raster")[2]
    for recipe in (RECIPE, dataclasses.replace(RECIPE, accumulate=2)):
        check_batch(recipe, dataclasses.replace(objective, weights=Weights(1.0, 0.0)), ALONE)
    check_batch(RECIPE, objective, ALONE)
    with pytest.raises(UserError, match=r"accumulate=2: drift compares .* set it to 1"):
        check_batch(dataclasses.replace(RECIPE, accumulate=2), objective, ALONE)


def test_no_fresh_noise_comes_twice_and_none_is_a_pair_s():
    models, params, objective, _ = case("mixed", "raster")
    pairs = objectives.pairs(models.layout.tokens)
    at = batches(RECIPE, objective, pairs, Classes(tiny.CLASSES), "balanced", 0)
    ids = np.concatenate([at(step)["fresh"]["id"] for step in range(20)])
    assert (ids == np.arange(20 * 4)).all()
    np.testing.assert_array_equal(at(7)["fresh"]["cond"].label_B, at(7)["fresh"]["id"] % tiny.CLASSES)
    given = params["tokenizer"]["codebook"], models.layout, dataclasses.replace(objective, timesteps=(0,)), 0
    parts = rows_of(at(3) | {"id": at(3)["fresh"]["id"]}, 3, *given)  # a pair of the same number has another noise
    assert (parts["pairs"]["x"] != parts["fresh"]["x"]).all()


@pytest.mark.parametrize("family", objectives.FAMILIES)
def test_the_teacher_s_pass_counts(family):
    """In FLOPs of a step, from which MFU and the hours of `scripts.aot` follow."""

    def work(name, fresh):
        models, params, objective, _ = case(name, family)
        objective = dataclasses.replace(objective, fresh=fresh, middle=0.0, timesteps=(0,))
        step, frozen = stepper(RECIPE, objective, models, None, 0), frozen_for(objective, models.tokenizer, params)
        meter = Throughput(lambda *given: step.trace(*given).jaxpr.jaxpr, 1, 1)
        state = begin(RECIPE, objective, models, params["student"], params, 0)
        meter.begin(state, example(8, objective, models), frozen)
        return meter._work

    models, params, *_ = case("on_policy", family)
    cond, code = tiny.cond(8), np.zeros((8, models.layout.tokens), np.int32)
    teacher = flops.count(lambda p: models.teacher.parallel(p, cond, code), params["teacher"])
    noise = np.zeros((8, models.layout.tokens, tiny.CODE), np.float32)
    logits = np.zeros((8, models.layout.tokens, tiny.VOCAB), np.float32)
    draws = flops.count(lambda x: flow.transport(x, logits, params["tokenizer"]["codebook"], models.solver), noise)
    pairs = work("on_policy", 0.0)
    assert work("on_policy", 1.0) == pytest.approx(pairs + teacher + draws, rel=1e-6)
    assert work("on_policy", 0.5) == pytest.approx(pairs + (teacher + draws) / 2, rel=1e-6)
