"""x W. A few rows at a time, as when one image is drawn, it takes as long as W takes to be read: read it once.

W may lie in memory as bfloat16 or int8 and is multiplied in float32: fewer bytes are read, and so it takes less time.
"""

from typing import Any

import jax
import jax.numpy as jnp

FEW = 8  # rows
LARGE = 2**19  # entries of a W that no core's own cache holds
TERMS = 8  # products that one pass over a partial sum adds
HELD = 2**16  # partial sums, of two rows each: half a MB, which the cores' own caches hold


def product(x_MxK: jax.Array, w_KxN: jax.Array) -> jax.Array:
    """x W (M, N), in x's type whatever W's. Few rows of x and a large W on a CPU: the same to rounding, and faster.

    Few are up to eight; one row of float32 alone is left to XLA, which reads W once too.
    """
    (m, k), least = x_MxK.shape, 2 if w_KxN.dtype == jnp.float32 else 1
    few = least <= m <= FEW and w_KxN.size >= LARGE and k % TERMS == 0 and _sums(m, *w_KxN.shape) > 1
    return _few_rows(x_MxK, w_KxN) if few else _plain(x_MxK, w_KxN)


def _plain(x_MxK: jax.Array, w_KxN: jax.Array) -> jax.Array:
    return x_MxK @ w_KxN.astype(x_MxK.dtype)


@jax.custom_jvp  # gradients of the plain product: those of the loop would keep every partial sum
def _few_rows(x_MxK: jax.Array, w_KxN: jax.Array) -> jax.Array:
    return jax.lax.platform_dependent(x_MxK, w_KxN, cpu=_read_once, default=_plain)


@_few_rows.defjvp
def _tangent(primals: tuple, tangents: tuple) -> tuple[jax.Array, jax.Array]:
    (x, w), (dx, dw) = primals, tangents
    along = _plain(dx, w)
    return _few_rows(x, w), along if dw.dtype == jax.dtypes.float0 else along + x @ dw  # integers have no tangent


def _read_once(x_MxK: jax.Array, w_KxN: jax.Array) -> jax.Array:
    """One pass over W for all rows, where XLA's CPU product would copy W into another order first.

    Two rows are one of P complex rows: columns are the innermost loop, which then reads a number of W for both at once.
    W's rows come in blocks of `_sums` x TERMS: block after block, all TERMS of a sum in one pass, all cores at once.
    """
    (m, k), n = x_MxK.shape, w_KxN.shape[1]
    sums = _sums(m, k, n)
    blocks, x = k // (TERMS * sums), jnp.pad(x_MxK, ((0, m % 2), (0, 0))).astype(jnp.float32)
    z_KxP = jax.lax.complex(x[::2], x[1::2]).T
    z_IxSxTxP, w_IxSxTxN = z_KxP.reshape(blocks, sums, TERMS, -1), _bits(w_KxN).reshape(blocks, sums, TERMS, n)

    def add(i: jax.Array, sum_SxPxN: jax.Array) -> jax.Array:
        for t in range(TERMS):
            z_SxPx1 = jax.lax.dynamic_slice(z_IxSxTxP, (i, 0, t, 0), (1, sums, 1, z_KxP.shape[1])).reshape(sums, -1, 1)
            w_Sx1xN = jax.lax.dynamic_slice(w_IxSxTxN, (i, 0, t, 0), (1, sums, 1, n)).reshape(sums, 1, n)
            w_Sx1xN = _number(w_Sx1xN)
            sum_SxPxN += jax.lax.complex(z_SxPx1.real * w_Sx1xN, z_SxPx1.imag * w_Sx1xN)
        return sum_SxPxN

    zero_SxPxN = jnp.zeros((sums, z_KxP.shape[1], n), jnp.complex64)
    # A loop from zero would copy the zeros. A block whose number the compiler knows would be kept as float32 by a loop
    # around this: the first one's comes with x, which every turn changes.
    first, z_IxSxTxP = jax.lax.optimization_barrier((jnp.int32(0), z_IxSxTxP))
    sum_PxN = jax.lax.fori_loop(first + 1, blocks, add, add(first, zero_SxPxN)).sum(0)
    return jnp.stack([sum_PxN.real, sum_PxN.imag], 1).reshape(-1, n)[:m].astype(x_MxK.dtype)


def _sums(m: int, k: int, n: int) -> int:
    """How many partial sums (M, N): so many that a block is worth sharing, so few that a cache holds them."""
    most = HELD // (n * -(-m // 2))
    return max((s for s in range(2, most + 1) if k // TERMS % s == 0), default=1)


def _bits(w: jax.Array) -> jax.Array:
    """W as it lies in memory. Of bfloat16 its bits: XLA would make float32 of all of W before it takes a block of it.

    That they are bits costs one copy of W, which a loop over AR steps makes once, before it begins.
    """
    return jax.lax.bitcast_convert_type(w, jnp.uint16) if w.dtype == jnp.bfloat16 else w


def _number(w: Any) -> jax.Array:
    """float32 of what `_bits` gave."""
    return (jax.lax.bitcast_convert_type(w, jnp.bfloat16) if w.dtype == jnp.uint16 else w).astype(jnp.float32)
