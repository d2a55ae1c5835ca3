"""The product of a few rows is the plain one, values and gradients, and is used where it pays."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose

from dd_jax.nn.product import product
from dd_jax.system import flops

ON_CPU = jax.default_backend() == "cpu"


def operands(m, k, n, dtype=jnp.float32):
    x, w = jax.random.normal(jax.random.key(0), (m, k)), jax.random.normal(jax.random.key(1), (k, n))
    return x.astype(dtype), w.astype(dtype)


@pytest.mark.parametrize("m", [2, 3, 8])
@pytest.mark.parametrize("shape", [(128, 4100), (768, 768)])
def test_equals_the_exact_product(m, shape):
    x, w = operands(m, *shape)
    assert reads_once(x, w) == ON_CPU
    assert_allclose(jax.jit(product)(x, w), np.asarray(x, np.float64) @ np.asarray(w, np.float64), rtol=1e-4, atol=5e-5)


def test_half_precision_is_summed_in_float32():
    x, w = operands(2, 768, 768, jnp.bfloat16)
    found = jax.jit(product)(x, w)
    assert found.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float64) @ np.asarray(w, np.float64)
    assert_allclose(np.asarray(found, np.float64), exact, rtol=2**-8, atol=2**-14)  # only the result is rounded


def test_gradients_too():
    x, w = operands(2, 768, 768)
    ours, theirs = (jax.grad(lambda x, w, f=f: jnp.sum(jnp.sin(f(x, w))), (0, 1))(x, w) for f in (product, jnp.matmul))
    for a, b in zip(ours, theirs, strict=True):
        assert_allclose(a, b, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("m", "k", "n", "used"),
    [
        (2, 768, 768, True),
        (4, 128, 4096, True),
        (1, 768, 768, False),  # one row: XLA reads W once
        (8, 768, 768, True),
        (9, 768, 768, False),  # many rows: bound by FLOPs
        (2, 128, 128, False),  # W lies in a cache
        (2, 764, 768, False),  # no whole blocks
    ],
)
def test_where_it_pays(m, k, n, used):
    assert reads_once(*operands(m, k, n)) == (used and ON_CPU)


def test_elsewhere_it_is_the_plain_product():
    x, w = operands(2, 768, 768)
    lowered = jax.jit(product).trace(x, w).lower(lowering_platforms=("tpu",)).as_text()
    assert "complex" not in lowered
    assert "dot_general" in lowered


def test_its_flops_are_counted():
    x, w = operands(2, 768, 768)
    assert flops.count(product, x, w) == 2 * 2 * 768 * 768


def reads_once(x, w):
    return "c64[" in jax.jit(product).lower(x, w).compile().as_text()  # two rows are one complex row
