"""Guidance and filters as arrays: the same draws as when they are settings, an image's own, and no compilation more."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax.method.fewstep import noise_for, run_plan
from dd_jax.method.filtering import Filter, TracedFilter
from dd_jax.method.models import Knobs
from dd_jax.system import rng

FAMILIES = {"raster": tiny.raster, "scales": tiny.scales}
BATCH = 4


def traced(temperature=1.0, top_k=0, top_p=1.0):
    return TracedFilter(jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p))


@pytest.mark.parametrize(
    "settings", [(1.0, 0, 1.0), (0.7, 0, 1.0), (1.0, 3, 1.0), (1.3, 5, 0.8), (1.0, 0, 0.6), (1, 999, 1)]
)
def test_a_traced_filter_keeps_what_a_static_one_keeps(settings):
    logits = jax.random.normal(jax.random.key(0), (5, 7, 16)) * 3
    np.testing.assert_array_equal(jax.jit(lambda f: f(logits))(traced(*settings)), Filter(*settings)(logits))


def test_a_filter_of_each_image():
    logits = jax.random.normal(jax.random.key(1), (3, 7, 16)) * 3
    each = [(1.0, 0, 1.0), (0.5, 4, 1.0), (2.0, 0, 0.7)]
    columns = zip(*each, strict=True)
    made = TracedFilter(
        *(jnp.asarray(x, kind) for x, kind in zip(columns, (jnp.float32, jnp.int32, jnp.float32), strict=True))
    )
    for row, settings, kept in zip(logits, each, made(logits), strict=True):
        np.testing.assert_array_equal(kept, Filter(*settings)(row))


@pytest.mark.parametrize(("family", "categorical"), [("raster", False), ("scales", True)])
def test_knobs_draw_what_settings_draw(family, categorical):
    """One program for all values; the last step of the draft is refined too."""
    build, compiled = FAMILIES[family], []
    models, params = build()
    steps = models.layout.steps
    plan = f"T0:{steps}" if categorical else f"T0:{steps - 1} J1"
    noise = noise_for(rng.example_keys(rng.stream(0, "sample"), jnp.arange(BATCH)), models.layout.tokens, tiny.CODE)
    keys = jax.random.split(rng.key(0), BATCH)
    models = dataclasses.replace(models, categorical=categorical)

    @jax.jit
    def draw(guidance_B, settings):
        compiled.append(plan)
        cond = dataclasses.replace(tiny.cond(BATCH), guidance_B=guidance_B)
        return run_plan(plan, models, params, cond, noise, keys, Knobs(filter=settings, draw=settings)).code_BxL

    seen = {}
    for guidance, settings in {0.5: (1.0, 0, 1.0), 3.0: (0.8, 4, 0.9)}.items():
        own, _ = build(guidance=guidance)
        own = dataclasses.replace(own, categorical=categorical, filter=Filter(*settings), draw=Filter(*settings))
        expected = run_plan(plan, own, params, tiny.cond(BATCH), noise, keys).code_BxL
        seen[guidance] = draw(jnp.full(BATCH, guidance), traced(*settings))
        np.testing.assert_array_equal(seen[guidance], expected)
    assert len(compiled) == 1
    mixed = draw(jnp.array([0.5, 3.0] * (BATCH // 2)), traced())
    np.testing.assert_array_equal(mixed[0], seen[0.5][0])  # each image has its own guidance
