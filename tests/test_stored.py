"""A teacher's weights in int8: to half a scale the same, and everything that runs on them runs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.nn import stack
from dd_jax.nn.layers import Dense
from dd_jax.nn.product import product
from dd_jax.nn.stored import KERNEL, SCALE, restored, stored

KEY = jax.random.key(0)


def made(k=256, n=2304):
    return jax.random.normal(KEY, (k, n)) * jnp.linspace(0.0, 3.0, n)  # the first column is zeros


def test_every_weight_is_within_half_a_scale():
    w = made()
    layer = stored({"a": {KERNEL: w, "bias": w[0]}}, "int8")["a"]
    assert layer[KERNEL].dtype == jnp.int8
    assert layer["bias"].dtype == layer[SCALE].dtype == jnp.float32
    error = np.abs(np.asarray(restored(layer)[KERNEL], np.float64) - np.asarray(w, np.float64))
    assert (error <= 0.5001 * np.asarray(layer[SCALE])).all()
    assert not np.asarray(layer[KERNEL])[:, 0].any()
    assert (np.abs(np.asarray(layer[KERNEL], np.int32)).max(0)[1:] == 127).all()


@pytest.mark.parametrize("m", [1, 2, 3, 8, 9, 40])
def test_the_product_is_that_of_the_restored_weights(m):
    x, layer = jax.random.normal(jax.random.key(1), (m, 256)), stored({KERNEL: made()}, "int8")
    found = jax.jit(Dense(2304, False).apply)({"params": layer}, x)
    exact = np.asarray(x, np.float64) @ np.asarray(restored(layer)[KERNEL], np.float64)
    assert_allclose(found, exact, rtol=1e-4, atol=2e-4)


@pytest.mark.skipif(jax.default_backend() != "cpu", reason="how products are computed on a CPU")
@pytest.mark.parametrize("k", [512, 1024])
def test_a_loop_over_steps_keeps_no_wider_weights(k):
    w = stored({KERNEL: jax.random.normal(KEY, (k, 2048))}, "int8")[KERNEL]

    def steps(x, w):
        return jax.lax.fori_loop(0, 5, lambda i, x: jnp.tanh(product(x, w)[:, :k]), x)

    held = jax.jit(steps).lower(jnp.ones((2, k)), w).compile().memory_analysis().temp_size_in_bytes
    assert held < 1.5e6  # one block as float32 is 2 MB


def test_a_loop_over_blocks_leaves_int8_alone():
    assert stack._slim(jnp.ones((2, 2), jnp.int8), jnp.float32).dtype == jnp.int8


def test_gradients_pass_by_int8():
    x, w = jax.random.normal(jax.random.key(1), (2, 256)), stored({KERNEL: made()}, "int8")[KERNEL]
    found = jax.jit(jax.grad(lambda x: product(x, w).sum()))(x)
    assert_allclose(found, np.broadcast_to(np.asarray(w, np.float64).sum(1), x.shape), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_other_types_are_casts(dtype):
    params = {"norm": {"weight": jnp.ones(3)}, "layer": {KERNEL: made()}}
    found = stored(params, dtype)
    assert_array_equal(found["layer"][KERNEL], params["layer"][KERNEL].astype(dtype))
    assert {x.dtype for x in jax.tree.leaves(found)} == {jnp.dtype(dtype)}
