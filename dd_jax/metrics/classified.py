"""What the classifier says of pictures: distances, accuracy, precision, recall, and whether it finds captions."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from dd_jax.data.examples import Pixels
from dd_jax.method.interfaces import Params
from dd_jax.metrics import neighbours, scores
from dd_jax.metrics.classifier import Classifier

CLASSIFIED = ("fd", "fd_teacher", "class_accuracy", "precision", "recall")
AMONG = 51  # captions, one of which is the right one


def look(classifier: Classifier, params: Params, img: Pixels, batch: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Features (M, F) and logits (M, K) of any number of images."""
    run = jax.jit(lambda params, img: (classifier.features(params, img), classifier.logits(params, img)))

    def padded(part: np.ndarray) -> np.ndarray:
        return np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), np.float32)])

    parts = [run(params, padded(img[i : i + batch])) for i in range(0, len(img), batch)]
    features, seen = (np.concatenate([np.asarray(x) for x in column]) for column in zip(*parts, strict=True))
    return features[: len(img)], seen[: len(img)]


@dataclasses.dataclass(frozen=True)
class Captions:
    """What samples show where captions are no classes of the classifier: features of a real picture of each."""

    real: np.ndarray  # (K, F)
    which: np.ndarray  # (M,) the caption of each sample

    def found(self, features: np.ndarray) -> float:
        """Share of samples (n, F) that are nearer to the picture of their caption than to those of 50 others."""
        near = features @ self.real.T - np.sum(self.real**2, 1) / 2  # falls as the squared distance rises
        return caption_found(near, self.which[: len(features)])


@dataclasses.dataclass(frozen=True)
class References:
    """The classifier's features that samples are compared with."""

    real: np.ndarray  # (M, F) of held-out pictures
    teacher: np.ndarray  # (M, F) of the teacher's samples of other noises
    captions: Captions | None = None

    @functools.cached_property
    def statistics(self) -> tuple[Any, Any]:
        """Mean and covariance of both."""
        return scores.statistics(self.real), scores.statistics(self.teacher)


def classified(
    features: np.ndarray, seen: np.ndarray, label: np.ndarray, references: References | None
) -> dict[str, float | None]:
    """What the classifier makes of samples by their features and logits; nothing where there is none."""
    if references is None:
        return dict.fromkeys(CLASSIFIED)
    own, (real, teacher) = scores.statistics(features), references.statistics
    some, precision, recall = references.real[: len(label)], None, None
    if min(len(some), len(features)) > neighbours.K:  # of fewer held-out pictures there is nothing to say
        precision, recall = scores.precision_recall(some, features)
    label = label[: len(seen)]
    accuracy = float(np.mean(seen.argmax(-1) == label))
    numbers = scores.frechet(*own, *real), scores.frechet(*own, *teacher), accuracy, precision, recall
    result: dict[str, float | None] = dict(zip(CLASSIFIED, numbers, strict=True))
    result |= {"held_out": len(references.real), "feature_dim": references.real.shape[1]}
    if references.captions is not None:
        if len(references.captions.real) >= AMONG:
            result["caption_found"] = references.captions.found(features)
    elif seen.shape[1] >= AMONG:
        result["caption_found"] = caption_found(seen, label)
    return result


def caption_found(logits_MxK: np.ndarray, label_M: np.ndarray, among: int = AMONG) -> float:
    """Share of pictures whose caption the classifier prefers to among - 1 others, drawn at random."""
    draw, hits = np.random.default_rng(0), 0
    for logits, label in zip(logits_MxK, label_M, strict=True):
        others = draw.choice(len(logits) - 1, among - 1, replace=False)
        hits += bool(logits[label] > logits[others + (others >= label)].max())
    return hits / len(label_M)
