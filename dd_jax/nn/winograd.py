"""3x3 convolution by Winograd's F(2x2, 3x3): 16 products a 2x2 tile of the output, where the plain way takes 36.

On CPUs large maps gain a third; small ones with wide layers lose, since their kernels have to be transformed.
GPUs have it in their own libraries, TPUs do not need it.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]], np.float32)
LEAST = 64  # side of the output
AT_ONCE = 1 << 23  # values of a map: up to so many, all tiles are one product, which compiles in a third of the time


def pays(x: jax.Array, scale: int = 1) -> bool:
    """Does (B, rows, cols, width) gain, where it is a CPU that computes? `scale`: output side per input side."""
    rows, cols = scale * x.shape[1], scale * x.shape[2]
    return min(rows, cols) >= LEAST and rows % 2 == cols % 2 == 0 and x.dtype == jnp.float32


def convolve(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """(B, rows, cols, in) and (3, 3, in, out) -> (B, rows, cols, out), zeros around the map; even sides."""
    return _convolve(x, kernel, _spread, G, _gather)


def convolve_doubled(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """`convolve` of the map with every position four times, (B, 2 rows, 2 cols, out): 9 products, since c = b."""
    return _convolve(x, kernel, _spread_doubled, G[[0, 1, 3]], _gather_doubled)


def _convolve(x: jax.Array, kernel: jax.Array, spread: Callable, basis: np.ndarray, gather: Callable) -> jax.Array:
    kernels = jnp.einsum("ip,jq,pqcd->ijcd", basis, basis, kernel, precision=jax.lax.Precision.HIGHEST)
    maps = jnp.stack(spread(jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))), 1))
    parts = [slice(None)] if x.size <= AT_ONCE else [slice(i, i + 1) for i in range(len(maps))]
    columns = [gather(*_products(jnp.stack(spread(maps[part], 3)), kernels[part])) for part in parts]
    left, right = (gather(*jnp.concatenate(side)) for side in zip(*columns, strict=True))
    return interleave([[left[0], right[0]], [left[1], right[1]]])


def interleave(phases: list[list[jax.Array]]) -> jax.Array:
    """Maps of the even and odd rows and columns, `phases[row][column]` -> the map of twice the side."""
    batch, rows, cols, width = phases[0][0].shape
    wide = [jnp.stack(pair, 3).reshape(batch, rows, 2 * cols, width) for pair in phases]
    return jnp.stack(wide, 2).reshape(batch, 2 * rows, 2 * cols, width)


def _spread(x: jax.Array, axis: int) -> tuple[jax.Array, ...]:
    """Overlapping tiles of four along an axis, transformed: four maps of a tile each."""
    last = x.shape[axis] - 3
    a, b, c, d = (jax.lax.slice_in_dim(x, i, i + last, 2, axis) for i in range(4))
    return a - c, b + c, c - b, b - d


def _gather(a: jax.Array, b: jax.Array, c: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    return a + b + c, b - c - d


def _spread_doubled(x: jax.Array, axis: int) -> tuple[jax.Array, ...]:
    last = x.shape[axis] - 2
    a, b, d = (jax.lax.slice_in_dim(x, i, i + last, 1, axis) for i in range(3))
    return a - b, 2 * b, b - d


def _gather_doubled(a: jax.Array, b: jax.Array, d: jax.Array) -> tuple[jax.Array, jax.Array]:
    return a + b, b - d


def _products(tile: jax.Array, kernel: jax.Array) -> jax.Array:
    """(columns' tiles j, rows' tiles i, B, rows, cols, in) and (i, j, in, out) -> the same of out."""
    flat = tile.reshape(*tile.shape[:2], -1, tile.shape[-1])
    return jnp.einsum("jitc,ijcd->jitd", flat, kernel).reshape(*tile.shape[:-1], -1)
