"""x W. A few rows at a time, as when one image is drawn, it takes as long as W takes to be read: read it once."""

import jax
import jax.numpy as jnp

FEW = 4  # rows
LARGE = 2**19  # entries of a W that no core's own cache holds
TERMS, SUMS = 8, 16  # products that one pass over a partial sum adds, and partial sums


def product(x_MxK: jax.Array, w_KxN: jax.Array) -> jax.Array:
    """x W (M, N). Two to four rows of x and a large W on a CPU: to rounding the same, up to twice as fast."""
    few = 1 < x_MxK.shape[0] <= FEW and w_KxN.size >= LARGE and w_KxN.shape[0] % (TERMS * SUMS) == 0
    return _few_rows(x_MxK, w_KxN) if few else x_MxK @ w_KxN


@jax.custom_jvp  # gradients of the plain product: those of the loop would keep every partial sum
def _few_rows(x_MxK: jax.Array, w_KxN: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(x_MxK, w_KxN, cpu=_read_once, default=jnp.matmul)


@_few_rows.defjvp
def _tangent(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (x, w), (dx, dw) = primals, tangents
    return _few_rows(x, w), dx @ w + x @ dw


def _read_once(x_MxK: jax.Array, w_KxN: jax.Array) -> jax.Array:
    """One pass over W for all rows, where XLA's CPU product would copy W into another order first.

    W's rows come in blocks of SUMS x TERMS: block after block, all TERMS of a sum in one pass, all cores at once.
    """
    (m, k), n = x_MxK.shape, w_KxN.shape[1]
    blocks = k // (TERMS * SUMS)
    x_IxSxTxM, w_IxSxTxN = x_MxK.T.reshape(blocks, SUMS, TERMS, m), w_KxN.reshape(blocks, SUMS, TERMS, n)

    def add(i: jax.Array, sum_SxMxN: jax.Array) -> jax.Array:
        for t in range(TERMS):
            x_SxM = jax.lax.dynamic_slice(x_IxSxTxM, (i, 0, t, 0), (1, SUMS, 1, m)).reshape(SUMS, m)
            w_SxN = jax.lax.dynamic_slice(w_IxSxTxN, (i, 0, t, 0), (1, SUMS, 1, n)).reshape(SUMS, n)
            sum_SxMxN += x_SxM[:, :, None].astype(jnp.float32) * w_SxN[:, None].astype(jnp.float32)
        return sum_SxMxN

    sum_SxMxN = jax.lax.fori_loop(0, blocks, add, jnp.zeros((SUMS, m, n), jnp.float32))
    return sum_SxMxN.sum(0).astype(x_MxK.dtype)
