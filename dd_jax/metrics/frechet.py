"""Frechet distance of Gaussians and of feature sets (Heusel et al., arXiv 1706.08500), in float64.

Never a matrix square root: cov_a cov_b has the eigenvalues of the symmetric L^T cov_b L with cov_a = L L^T, which is
ten times faster, and with few samples the nuclear norm of X L, which stays exact where cov_b is singular.
"""

import numpy as np

from dd_jax.metrics.moments import checked, statistics
from dd_jax.system.errors import UserError


def frechet(
    mean_a: np.ndarray, cov_a: np.ndarray, mean_b: np.ndarray, cov_b: np.ndarray, root_a: np.ndarray | None = None
) -> float:
    """|mean_a - mean_b|^2 + Tr(cov_a + cov_b - 2 (cov_a cov_b)^1/2). `root_a`: root(cov_a), where it is known.

    UserError for statistics of different widths or with entries that are not finite.
    """
    mean_a, cov_a, mean_b, cov_b = (np.asarray(x, np.float64) for x in (mean_a, cov_a, mean_b, cov_b))
    _check(mean_a, cov_a)
    _check(mean_b, cov_b)
    if mean_a.shape != mean_b.shape:
        raise UserError(f"statistics of {len(mean_a)} and {len(mean_b)} dimensions: they are of two networks")
    factor = root(cov_a) if root_a is None else root_a
    product = factor.T @ cov_b @ factor
    value = np.linalg.eigvalsh((product + product.T) / 2)
    cross = np.sqrt(np.maximum(value, 0)).sum()
    return float(np.sum((mean_a - mean_b) ** 2) + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def frechet_to(feature_NxF: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> float:
    """Frechet distance of a feature set to given statistics."""
    feature = checked(feature_NxF).astype(np.float64)
    mean, cov = np.asarray(mean, np.float64), np.asarray(cov, np.float64)
    if len(feature) > feature.shape[1] or mean.shape != feature.shape[1:]:
        return frechet(mean, cov, *statistics(feature))
    _check(mean, cov)
    gap = np.sum((feature.mean(0) - mean) ** 2)
    centred = _centred(feature)
    return float(gap + np.sum(centred**2) + np.trace(cov) - 2 * _nuclear_norm(centred @ root(cov)))


def frechet_features(a_NxF: np.ndarray, b_MxF: np.ndarray) -> float:
    """Frechet distance of two feature sets."""
    a, b = checked(a_NxF).astype(np.float64), checked(b_MxF).astype(np.float64)
    if min(len(a), len(b)) > a.shape[1] or a.shape[1] != b.shape[1]:
        return frechet(*statistics(a), *statistics(b))
    gap = np.sum((a.mean(0) - b.mean(0)) ** 2)
    a, b = _centred(a), _centred(b)
    return float(gap + np.sum(a * a) + np.sum(b * b) - 2 * _nuclear_norm(a @ b.T))


def root(cov: np.ndarray) -> np.ndarray:
    """L with cov = L L^T: Cholesky's, or the symmetric one where that does not exist."""
    try:
        return np.linalg.cholesky(cov)
    except np.linalg.LinAlgError:
        value, vector = np.linalg.eigh(cov)
        return vector * np.sqrt(np.maximum(value, 0))


def _centred(feature: np.ndarray) -> np.ndarray:
    """X with cov = X^T X."""
    return (feature - feature.mean(0)) / np.sqrt(len(feature) - 1)


def _nuclear_norm(x: np.ndarray) -> float:
    return float(np.linalg.svd(x, compute_uv=False).sum())


def _check(mean: np.ndarray, cov: np.ndarray) -> None:
    if mean.ndim != 1 or cov.shape != (len(mean), len(mean)):
        raise UserError(f"statistics of shapes {mean.shape} and {cov.shape}: a mean (F,) and a covariance (F, F)")
    if not (np.isfinite(mean).all() and np.isfinite(cov).all()):
        raise UserError("statistics with entries that are not finite: record them again")
