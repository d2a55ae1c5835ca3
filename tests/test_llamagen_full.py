"""Real sizes against the reference, with weights that are rebuilt from a recipe."""

import functools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax import factory
from dd_jax.method.interfaces import Cond
from port_weights.catalog import find

near = functools.partial(assert_allclose, rtol=1e-5)


@functools.cache
def load(name):
    """(system, params) of a published model."""
    known = find(name)
    config = known.config()
    config.dtype.teacher = "float32"
    return factory.build(config), helpers.recipe_params(known.table(), known.expected())


def test_gpt_b():
    system, params = load("llamagen_b")
    golden = helpers.arrays("llamagen/gptB_recipe/io.npz")
    run = jax.jit(system.teacher.forward)
    logits = np.asarray(run({"trunk": params}, Cond(jnp.asarray(golden["cond"])), jnp.asarray(golden["idx"])))
    near(logits[:, golden["positions"]], golden["logits"], atol=5e-5)
    near(logits.mean(-1), golden["logits_mean"], atol=5e-5)
    near(logits.std(-1), golden["logits_std"], atol=5e-5)
    assert_array_equal(logits.argmax(-1), golden["argmax"])


@pytest.mark.parametrize("t", [0, 80])
def test_dd_b(t):
    system, params = load("llamagen_b_dd")
    golden = helpers.arrays("llamagen/ddB_recipe/io.npz")
    weight = helpers.recipe("quantize.embedding.weight", (16384, 8))
    codebook = system.tokenizer.codebook({"quantizer": {"embedding": jnp.asarray(weight)}})
    x = system.layout.mix(t, codebook[golden["data_idx"]], jnp.asarray(golden["noise"]))
    logits, token = jax.jit(system.student)(params, Cond(jnp.asarray(golden["cond"])), x, jnp.full(1, t))
    near(token, golden[f"t{t}_tokens"], atol=5e-5)
    near(logits[:, golden["positions"]], golden[f"t{t}_logits"], atol=5e-5)
    assert_array_equal(jnp.argmax(logits, -1), golden[f"t{t}_argmax"])


def test_vq16():
    system, params = load("vq16")
    golden = helpers.arrays("llamagen/vq16_recipe/io.npz")
    img = jnp.asarray(helpers.nhwc(golden["img"]))
    features, decode = jax.jit(system.tokenizer.features), jax.jit(system.tokenizer.decode)
    near(features(params, img), helpers.nhwc(golden["z_prequant"]), atol=2e-5)
    code = jax.jit(system.tokenizer.encode)(params, img)
    assert_array_equal(code.reshape(-1), golden["indices"])
    token = system.tokenizer.codebook(params)[code]
    near(decode(params, token), helpers.nhwc(golden["dec_from_codes"]), atol=2e-5)
    loose = jnp.asarray(helpers.nhwc(golden["cont_latent"])).reshape(1, 16, 8)
    near(decode(params, loose), helpers.nhwc(golden["dec_from_cont"]), atol=2e-5)
