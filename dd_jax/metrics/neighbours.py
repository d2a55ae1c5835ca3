"""Precision and recall of feature sets by k-nearest-neighbour balls (Kynkaanniemi et al., arXiv 1904.06991)."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.metrics import devices
from dd_jax.metrics.moments import checked
from dd_jax.system.errors import UserError

HIGHEST = jax.lax.Precision.HIGHEST
DTYPES = ("float32", "float16")
ROWS = 8192  # of one tile of distances, on each device
K = 3  # the neighbour that a radius reaches to, in the paper and in ADM


def precision_recall(
    ref_NxF: np.ndarray,
    sample_MxF: np.ndarray,
    k: int = K,
    block: int = 1024,
    dtype: str = "float32",
    done: Callable[[int], None] = lambda rows: None,
) -> tuple[float, float]:
    """Shares of samples inside the k-NN balls of the reference, and of the reference inside the samples'.

    A ball's squared radius is the (k + 1)-th smallest squared distance of its row, itself included; its border is
    inside. Exact in float32. Tiles of `block` columns: memory grows as N * block, never N * M, and rows are spread
    over all devices. "float16" rounds as the ADM evaluator does, which moves both by up to 0.005. `done` hears of
    rows that are done, 2 N + M in all. UserError for features that are not finite, k or fewer samples, or different
    widths.
    """
    ref, sample = _comparable(ref_NxF, sample_MxF, k, dtype)
    ref_radius, sample_radius = (radii(x, k, block, dtype, done) for x in (ref, sample))
    columns, valid = blocks(sample, block)
    radius, _ = blocks(sample_radius, block)
    recalled, inside = [], np.zeros(len(columns) * block, bool)
    columns, radius, valid = devices.everywhere((columns, radius, valid))
    for first, rows in tiles(ref):
        count = min(len(rows), len(ref) - first)
        limit = devices.padded(ref_radius[first : first + count], len(rows))
        edge = (devices.apart(x) for x in (rows, limit, np.arange(len(rows)) < count))
        in_ref, in_sample = _inside(*edge, columns, radius, valid, dtype)
        inside |= np.asarray(in_ref).reshape(-1)
        recalled.append(np.asarray(in_sample)[:count])
        done(count)
    return float(np.mean(inside[: len(sample)])), float(np.mean(np.concatenate(recalled)))


def _comparable(ref_NxF: np.ndarray, sample_MxF: np.ndarray, k: int, dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """Both sets in float32, about the reference's mean where distances are exact: they round four times less."""
    if dtype not in DTYPES:
        raise UserError(f"distances in {dtype!r}: choose one of {', '.join(DTYPES)}")
    ref, sample = checked(ref_NxF), checked(sample_MxF)
    if ref.shape[1] != sample.shape[1]:
        raise UserError(f"features of {ref.shape[1]} and {sample.shape[1]} dimensions: they are of two networks")
    if min(len(ref), len(sample)) <= k:
        raise UserError(f"precision and recall need more than k = {k} samples, got {min(len(ref), len(sample))}")
    if dtype == "float32":
        centre = ref.mean(0, dtype=np.float64)
        ref, sample = ref - centre.astype(ref.dtype), sample - centre.astype(sample.dtype)
    return ref.astype(np.float32, copy=False), sample.astype(np.float32, copy=False)


def radii(
    x_NxF: np.ndarray,
    k: int,
    block: int = 1024,
    dtype: str = "float32",
    done: Callable[[int], None] = lambda rows: None,
) -> np.ndarray:
    """Squared distance (N,) of every row to its k-th neighbour."""
    columns, valid = devices.everywhere(blocks(x_NxF, block))
    parts = []
    for first, rows in tiles(x_NxF):
        parts.append(np.asarray(_row_radii(devices.apart(rows), columns, valid, k, dtype)))
        done(min(len(rows), len(x_NxF) - first))
    return np.concatenate(parts)[: len(x_NxF)]


def tiles(x_NxF: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(first row, rows), all of one size that devices can share: padded with zeros."""
    each = min(ROWS, -(-len(x_NxF) // devices.count())) * devices.count()
    return [(first, devices.padded(x_NxF[first : first + each], each)) for first in range(0, len(x_NxF), each)]


def blocks(x: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, ...) -> (blocks, block, ...), zero-padded, and which entries are real."""
    count = -(-len(x) // block)
    valid = np.arange(count * block) < len(x)
    return devices.padded(x, count * block).reshape(count, block, *x.shape[1:]), valid.reshape(count, block)


def _squared(row_NxF: jax.Array, col_MxF: jax.Array, dtype: str) -> jax.Array:
    """Squared distances (N, M); at full precision, since accelerators would round the product to 10 bits."""
    if dtype == "float16":
        rounded = _squared_float16(row_NxF, col_MxF)
        exact = functools.partial(_squared, dtype="float32")
        return jax.lax.cond(jnp.isfinite(rounded).all(), lambda *_: rounded, exact, row_NxF, col_MxF)
    cross = jnp.matmul(row_NxF, col_MxF.T, precision=HIGHEST)
    square = jnp.sum(row_NxF**2, -1)[:, None] + jnp.sum(col_MxF**2, -1) - 2 * cross
    return jnp.maximum(square, 0.0)


def _squared_float16(row_NxF: jax.Array, col_MxF: jax.Array) -> jax.Array:
    """As the ADM evaluator has it: every term rounded to float16, sums of products in float32."""
    row, col = row_NxF.astype(jnp.float16), col_MxF.astype(jnp.float16)
    cross = jnp.matmul(row.astype(jnp.float32), col.astype(jnp.float32).T, precision=HIGHEST).astype(jnp.float16)
    row_norm, col_norm = (jnp.sum((x * x).astype(jnp.float32), -1).astype(jnp.float16) for x in (row, col))
    return jnp.maximum(row_norm[:, None] - 2 * cross + col_norm, 0).astype(jnp.float32)


@functools.partial(jax.jit, static_argnums=(3, 4))
def _row_radii(row_NxF: jax.Array, columns: jax.Array, valid: jax.Array, k: int, dtype: str) -> jax.Array:
    """The (k + 1)-th smallest squared distance of every row to all columns, keeping k + 1 candidates."""

    def body(best: jax.Array, column: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        square = jnp.where(column[1], _squared(row_NxF, column[0], dtype), jnp.inf)
        near = -jax.lax.top_k(-square, min(k + 1, square.shape[1]))[0]
        return -jax.lax.top_k(-jnp.concatenate([best, near], 1), k + 1)[0], None

    best = jnp.full((len(row_NxF), k + 1), jnp.inf)
    return jax.lax.scan(body, best, (columns, valid))[0][:, k]


@functools.partial(jax.jit, static_argnums=6)
def _inside(
    ref: jax.Array,
    ref_radius: jax.Array,
    ref_real: jax.Array,
    columns: jax.Array,
    radius: jax.Array,
    valid: jax.Array,
    dtype: str,
) -> tuple[jax.Array, jax.Array]:
    """One pass over sample blocks: samples inside any of these reference balls, references inside any sample ball."""

    def body(seen: jax.Array, column: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        sample, sample_radius, real = column
        square = _squared(ref, sample, dtype)
        seen |= jnp.any((square <= sample_radius) & real, 1)
        return seen, jnp.any((square <= ref_radius[:, None]) & ref_real[:, None], 0)

    seen, in_ref = jax.lax.scan(body, jnp.zeros(len(ref), bool), (columns, radius, valid))
    return in_ref, seen
