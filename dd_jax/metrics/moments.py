"""Mean and covariance of features, in float64: at once or as they come."""

import numpy as np

from dd_jax.system.errors import UserError

BUFFER = 2048  # rows that are added at a time: products of matrices, not of vectors


def checked(feature_NxF: np.ndarray) -> np.ndarray:
    """The features themselves. UserError unless they are (N >= 2, F) and finite."""
    feature = np.asarray(feature_NxF)
    if feature.ndim != 2 or len(feature) < 2:
        raise UserError(f"scores need features (N >= 2, F), got {feature.shape}: draw more samples")
    if not np.isfinite(feature).all():
        bad = int((~np.isfinite(feature).all(1)).sum())
        raise UserError(f"{bad} of {len(feature)} feature vectors are not finite: look at the samples themselves")
    return feature


def statistics(feature_NxF: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean (F,) and covariance (F, F; N - 1 in the denominator) in float64."""
    feature = checked(feature_NxF).astype(np.float64)
    mean = feature.mean(0)
    feature -= mean
    return mean, feature.T @ feature / (len(feature) - 1)


class Moments:
    """Statistics of a set that never is in memory: sums of squares about means, merged as Chan et al. (1979) do."""

    def __init__(self) -> None:
        self.count = 0
        self._mean = self._scatter = np.zeros(())
        self._waiting: list[np.ndarray] = []

    def add(self, feature_BxF: np.ndarray) -> None:
        """Count B more vectors in."""
        self._waiting.append(np.asarray(feature_BxF))
        if sum(len(x) for x in self._waiting) >= BUFFER:
            self._merge()

    def _merge(self) -> None:
        x = np.concatenate(self._waiting).astype(np.float64)
        self._waiting = []
        if not np.isfinite(x).all():
            raise UserError("features are not finite: look at the images and the weights")
        total, mean = self.count + len(x), x.mean(0)
        gap, centred = mean - self._mean, x - mean
        shift = np.outer(gap, gap) * (self.count * len(x) / total) if self.count else 0.0
        self._scatter = self._scatter + centred.T @ centred + shift
        self._mean = self._mean + gap * (len(x) / total)
        self.count = total

    def statistics(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean (F,) and covariance (F, F) of all that was added. UserError for fewer than two vectors."""
        if self._waiting:
            self._merge()
        if self.count < 2:
            raise UserError(f"statistics of {self.count} images: give at least two")
        return self._mean, self._scatter / (self.count - 1)
