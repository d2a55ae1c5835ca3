"""Winograd's convolution is the plain one, values and gradients, and is used where it pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dd_jax.nn import conv, winograd
from dd_jax.system import flops


def plain(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


@pytest.mark.parametrize("shape", [(1, 64, 64, 3), (2, 6, 10, 5), (1, 2, 2, 1)])
def test_equals_the_plain_convolution(shape):
    x, kernel = jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), (3, 3, shape[-1], 7))
    assert_allclose(winograd.convolve(x, kernel), plain(x, kernel), rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (2, 3, 5, 4)])
def test_equals_the_plain_convolution_of_a_doubled_map(shape):
    x, kernel = jax.random.normal(jax.random.key(0), shape), jax.random.normal(jax.random.key(1), (3, 3, shape[-1], 7))
    wanted = plain(jnp.repeat(jnp.repeat(x, 2, 1), 2, 2), kernel)
    assert_allclose(winograd.convolve_doubled(x, kernel), wanted, rtol=1e-5, atol=2e-5)
    assert_allclose(conv.convolve_doubled(x, kernel, jnp.zeros(7)), wanted, rtol=1e-5, atol=2e-5)


def test_gradients_too():
    x, kernel = jax.random.normal(jax.random.key(0), (1, 6, 6, 2)), jax.random.normal(jax.random.key(1), (3, 3, 2, 3))
    ours, theirs = (
        jax.grad(lambda x, k, f=f: jnp.sum(jnp.sin(f(x, k))), (0, 1))(x, kernel) for f in (winograd.convolve, plain)
    )
    for a, b in zip(ours, theirs, strict=True):
        assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_where_it_pays():
    for rows, cols, dtype, pays in ((64, 64, "float32", 1), (62, 64, "float32", 0), (65, 66, "float32", 0)):
        assert winograd.pays(jnp.zeros((1, rows, cols, 4), dtype)) == pays
    assert not winograd.pays(jnp.zeros((1, 64, 64, 4), "bfloat16"))
    x, kernel, bias = jnp.ones((1, 64, 64, 4)), jnp.ones((3, 3, 4, 4)), jnp.ones(4)
    on_cpu = jax.jit(conv.convolve).lower(x, kernel, bias).as_text()
    assert "stablehlo.convolution" not in on_cpu
    on_tpu = jax.jit(conv.convolve).trace(x, kernel, bias).lower(lowering_platforms=("tpu",)).as_text()
    assert "stablehlo.convolution" in on_tpu
    assert flops.count(conv.convolve, x, kernel, bias) == 2 * 64 * 64 * 9 * 4 * 4  # as a plain one
    np.testing.assert_allclose(conv.convolve(x, kernel, bias)[0, 32, 32], 37.0, rtol=1e-6)
