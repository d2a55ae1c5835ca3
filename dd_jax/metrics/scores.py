"""Scores of sample sets, from their features: Frechet distance, Inception score, class accuracy.

Precision and recall are in `neighbours`, how sure a Frechet distance is in `confidence`; both are at hand here.
"""

import numpy as np

from dd_jax.metrics.confidence import extrapolate, standard_error
from dd_jax.metrics.frechet import frechet, frechet_features, frechet_to
from dd_jax.metrics.moments import checked, statistics
from dd_jax.metrics.neighbours import precision_recall
from dd_jax.system.errors import UserError

__all__ = [
    "class_accuracy",
    "extrapolate",
    "frechet",
    "frechet_features",
    "frechet_to",
    "inception_score",
    "precision_recall",
    "standard_error",
    "statistics",
]


def inception_score(logits_NxK: np.ndarray, split: int = 5000) -> tuple[float, float]:
    """exp(mean KL(p(y|x) || p(y))), Salimans et al., arXiv 1606.03498: mean and spread over parts of `split` samples.

    Parts are in the order given; a last one that is shorter counts as much, as in the ADM evaluator, which takes
    logits without their bias. Float64, from log-probabilities: no class is too unlikely.
    """
    logits = checked(logits_NxK)
    if split < 1:
        raise UserError(f"parts of {split} samples: an Inception score needs at least 1, usually 5000")
    scores = [_diversity(logits[i : i + split].astype(np.float64)) for i in range(0, len(logits), split)]
    return float(np.mean(scores)), float(np.std(scores))


def _diversity(logits: np.ndarray) -> float:
    log_p = logits - logits.max(1, keepdims=True)
    log_p -= np.log(np.exp(log_p).sum(1, keepdims=True))
    p = np.exp(log_p)
    marginal = np.log(np.maximum(p.mean(0), np.finfo(np.float64).tiny))
    return float(np.exp(np.mean(np.sum(p * (log_p - marginal), 1))))


def class_accuracy(logits_BxK: np.ndarray, label_B: np.ndarray) -> float:
    """Share of examples whose largest logit is their label."""
    return float(np.mean(np.argmax(np.asarray(logits_BxK), -1) == np.asarray(label_B)))


def within_class(features_MxF: np.ndarray, label_M: np.ndarray) -> float | None:
    """Variance of features around the means of their classes, summed over features; None if no class has two."""
    _, index, count = np.unique(label_M, return_inverse=True, return_counts=True)
    total = np.zeros((len(count), features_MxF.shape[1]))
    np.add.at(total, index, features_MxF)
    left = features_MxF - (total / count[:, None])[index]
    free = len(label_M) - len(count)  # degrees of freedom
    return float(np.sum(left**2) / free) if free else None
