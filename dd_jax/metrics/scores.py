"""Scores of sample sets, from their features: Frechet distance, precision and recall, class accuracy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.errors import UserError

HIGHEST = jax.lax.Precision.HIGHEST


def statistics(feature_NxF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) and covariance (F, F; N - 1 in the denominator) in float64."""
    feature = _features(feature_NxF)
    mean = feature.mean(0)
    centred = feature - mean
    return mean, centred.T @ centred / (len(feature) - 1)


def frechet(mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray) -> float:
    """|mean_a - mean_b|^2 + Tr(cov_a + cov_b - 2 (cov_a cov_b)^1/2), in float64.

    cov_a cov_b has the eigenvalues of L^T cov_b L with cov_a = L L^T: symmetric, ten times faster than a
    matrix square root. A cov_a that is not positive definite takes its symmetric square root as L.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(x, np.float64) for x in (mean_a, cov_a, mean_b, cov_b))
    try:
        root = np.linalg.cholesky(cov_a)
    except np.linalg.LinAlgError:
        value, vector = np.linalg.eigh(cov_a)
        root = vector * np.sqrt(np.maximum(value, 0))
    product = root.T @ cov_b @ root
    value = np.linalg.eigvalsh((product + product.T) / 2)
    cross = np.sqrt(np.maximum(value, 0)).sum()
    return float(np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def frechet_features(a_NxF: np.ndarray, b_MxF: np.ndarray) -> float:
    """Frechet distance of two feature sets.

    With no more samples than dimensions the trace is the nuclear norm of A B^T (centred), which stays exact
    where a covariance is singular and its square roots would be rounding noise.
    """
    a, b = _features(a_NxF), _features(b_MxF)
    if min(len(a), len(b)) > a.shape[1]:
        return frechet(*statistics(a), *statistics(b))
    gap = np.sum((a.mean(0) - b.mean(0)) ** 2)
    a = (a - a.mean(0)) / np.sqrt(len(a) - 1)
    b = (b - b.mean(0)) / np.sqrt(len(b) - 1)
    cross = np.linalg.svd(a @ b.T, compute_uv=False).sum()
    return float(gap + np.sum(a * a) + np.sum(b * b) - 2 * cross)


def precision_recall(ref_NxF: np.ndarray, sample_MxF: np.ndarray, k: int = 3, block: int = 1024) -> tuple[float, float]:
    """Shares of samples inside the k-NN balls of the reference, and of the reference inside the samples'.

    Exact, float32, in blocks of `block` columns: memory grows as N * block, never N * M. A ball's squared
    radius is the (k + 1)-th smallest squared distance of its row, itself included; its border is inside.
    """
    centre = _features(ref_NxF).mean(0)  # distances of centred features round four times less
    ref = (np.asarray(ref_NxF, np.float64) - centre).astype(np.float32)
    sample = (_features(sample_MxF) - centre).astype(np.float32)
    if min(len(ref), len(sample)) <= k:
        raise UserError(f"precision and recall need more than k = {k} samples, got {min(len(ref), len(sample))}")
    ref_radius, sample_radius = _radii(ref, k, block), _radii(sample, k, block)
    columns, valid = _blocks(sample, block)
    radius, _ = _blocks(sample_radius, block)
    in_ref, in_sample = _inside(ref, ref_radius, columns, radius, valid)
    precision = np.mean(np.asarray(in_ref).reshape(-1)[: len(sample)])
    return float(precision), float(np.mean(np.asarray(in_sample)))


def class_accuracy(logits_BxK: np.ndarray, label_B: np.ndarray) -> float:
    """Share of examples whose largest logit is their label."""
    return float(np.mean(np.argmax(np.asarray(logits_BxK), -1) == np.asarray(label_B)))


def _features(feature_NxF: np.ndarray) -> np.ndarray:
    feature = np.asarray(feature_NxF, np.float64)
    if feature.ndim != 2 or len(feature) < 2:
        raise UserError(f"scores need features (N >= 2, F), got {feature.shape}: draw more samples")
    if not np.isfinite(feature).all():
        bad = int((~np.isfinite(feature).all(1)).sum())
        raise UserError(f"{bad} of {len(feature)} feature vectors are not finite: look at the samples themselves")
    return feature


def _blocks(x: np.ndarray, block: int) -> tuple[np.ndarray, np.ndarray]:
    """(M, ...) -> (blocks, block, ...), zero-padded, and which entries are real."""
    count = -(-len(x) // block)
    padded = np.zeros((count * block, *x.shape[1:]), x.dtype)
    padded[: len(x)] = x
    valid = np.arange(count * block) < len(x)
    return padded.reshape(count, block, *x.shape[1:]), valid.reshape(count, block)


def _radii(x_NxF: np.ndarray, k: int, block: int) -> np.ndarray:
    columns, valid = _blocks(x_NxF, block)
    rows, _ = _blocks(x_NxF, min(8 * block, len(x_NxF)))
    parts = [_row_radii(jnp.asarray(row), jnp.asarray(columns), jnp.asarray(valid), k) for row in rows]
    return np.concatenate(parts)[: len(x_NxF)]


def _squared(row_NxF: jax.Array, col_MxF: jax.Array) -> jax.Array:
    """Squared distances (N, M); at full precision, since accelerators would round the product to 10 bits."""
    cross = jnp.matmul(row_NxF, col_MxF.T, precision=HIGHEST)
    square = jnp.sum(row_NxF**2, -1)[:, None] + jnp.sum(col_MxF**2, -1) - 2 * cross
    return jnp.maximum(square, 0.0)


@functools.partial(jax.jit, static_argnums=3)
def _row_radii(row_NxF: jax.Array, columns: jax.Array, valid: jax.Array, k: int) -> jax.Array:
    """The (k + 1)-th smallest squared distance of every row to all columns, keeping k + 1 candidates."""

    def body(best: jax.Array, column: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        square = jnp.where(column[1], _squared(row_NxF, column[0]), jnp.inf)
        near = -jax.lax.top_k(-square, min(k + 1, square.shape[1]))[0]
        return -jax.lax.top_k(-jnp.concatenate([best, near], 1), k + 1)[0], None

    best = jnp.full((len(row_NxF), k + 1), jnp.inf)
    return jax.lax.scan(body, best, (columns, valid))[0][:, k]


@jax.jit
def _inside(
    ref: jax.Array, ref_radius: jax.Array, columns: jax.Array, radius: jax.Array, valid: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """One pass over sample blocks: samples inside any reference ball, references inside any sample ball."""

    def body(seen: jax.Array, column: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        sample, sample_radius, real = column
        square = _squared(ref, sample)
        seen |= jnp.any((square <= sample_radius) & real, 1)
        return seen, jnp.any(square <= ref_radius[:, None], 0)

    seen, in_ref = jax.lax.scan(body, jnp.zeros(len(ref), bool), (columns, radius, valid))
    return in_ref, seen
