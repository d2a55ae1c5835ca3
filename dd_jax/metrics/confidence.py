"""How sure a Frechet distance is: its spread by resampling, and its limit for infinitely many samples."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.metrics.frechet import frechet, root
from dd_jax.metrics.moments import checked
from dd_jax.system.errors import UserError

HIGHEST = jax.lax.Precision.HIGHEST


def standard_error(
    feature_NxF: np.ndarray, mean: np.ndarray, cov: np.ndarray, resamples: int = 20, seed: int = 0
) -> float:
    """Standard deviation of the distance to given statistics over bootstrap resamples of the samples.

    For error bars, not as an estimate: a resample's own distance is higher, since it repeats samples.
    """
    if resamples < 2:
        raise UserError(f"{resamples} resamples have no spread: take at least 2, better 20")
    distance, rng = _distance(feature_NxF, mean, cov), np.random.default_rng(seed)
    count = len(feature_NxF)
    draws = (rng.multinomial(count, np.full(count, 1 / count)) for _ in range(resamples))
    return float(np.std([distance(draw) for draw in draws], ddof=1))


def extrapolate(feature_NxF: np.ndarray, mean: np.ndarray, cov: np.ndarray, points: int = 15, seed: int = 0) -> float:
    """FID-infinity (Chong & Forsyth, arXiv 1911.07023): the distance is linear in 1/N; its value at 1/N = 0.

    A line through `points` subsets of between a tenth of the samples (more than dimensions) and all of them.
    UserError where the samples are no more than twice the dimensions: the law does not hold there.
    """
    count, width = np.shape(feature_NxF)
    if count <= 2 * width:
        raise UserError(f"FID-infinity of {count} samples in {width} dimensions: it needs more than {2 * width}")
    if points < 2:
        raise UserError(f"a line through {points} points: take at least 2, usually 15")
    distance, rng = _distance(feature_NxF, mean, cov), np.random.default_rng(seed)
    sizes = np.linspace(max(count // 10, width + 1), count, points).astype(int)
    takes = (np.isin(np.arange(count), rng.permutation(count)[:size]) for size in sizes)
    return float(np.polyfit(1 / sizes, [distance(take) for take in takes], 1)[1])


def _distance(feature_NxF: np.ndarray, mean: np.ndarray, cov: np.ndarray) -> Callable[[np.ndarray], float]:
    """A function of (N,) counts: the distance of the set in which sample i is so many times.

    Sums are made on the device about the samples' mean, where float32 is enough: 6e-8 of a FID.
    """
    feature = checked(feature_NxF)
    centre, factor = feature.mean(0, dtype=np.float64), root(np.asarray(cov, np.float64))
    centred = jnp.asarray((feature - centre).astype(np.float32))

    def distance(times_N: np.ndarray) -> float:
        first, second = (np.asarray(x, np.float64) for x in _sums(centred, jnp.asarray(times_N, jnp.float32)))
        total = int(times_N.sum())
        shift = first / total
        spread = (second - total * np.outer(shift, shift)) / (total - 1)
        return frechet(mean, cov, centre + shift, spread, factor)

    return distance


@jax.jit
def _sums(x_NxF: jax.Array, times_N: jax.Array) -> tuple[jax.Array, jax.Array]:
    weighted = x_NxF * times_N[:, None]
    return weighted.sum(0), jnp.matmul(weighted.T, x_NxF, precision=HIGHEST)
