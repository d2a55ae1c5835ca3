"""Distances of the embedding head by name: what `config.train.distance` chooses from.

One of your own is a `Distance` too, given as `package.module:attribute` (see docs/extending.md).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.method import drift, losses
from dd_jax.system import plugins
from dd_jax.system.errors import UserError

Compare = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Eyes:
    """What a distance may look with, frozen parameters inside; gradients flow through all of it."""

    decode: Callable[[jax.Array], jax.Array]  # token_BxLxC -> img_BxRxRxc, nominally in [-1, 1]
    classifier: Compare | None = None  # (img, img) -> distance_B of the classifier's features
    lpips: Compare | None = None  # (img, img) -> distance_B
    features: Callable[[jax.Array], list[jax.Array]] | None = None  # of the classifier: img -> each layer's (B, F)
    same_BxB: jax.Array | None = None  # which examples of the batch share a class


@dataclasses.dataclass(frozen=True)
class Distance:
    """(token_BxLxC, target_BxLxC, eyes) -> distance_B >= 0, of each example alone, differentiable in `token`.

    `token` is the student's prediction as it will be decoded, `target` the pair's codebook vectors. `needs` are the
    networks that it looks with, "decoder" for `eyes.decode`: one that is not there is refused before anything runs,
    and whoever needs any is computed `config.train.distance_batch` examples at a time. `joint`: it compares the
    examples of a batch with each other, has `eyes.same_BxB`, which captions do not give, and is computed at once.
    """

    between: Callable[[jax.Array, jax.Array, Eyes], jax.Array]
    needs: tuple[str, ...] = ()  # of "decoder", "classifier", "lpips"
    joint: bool = False

    def __post_init__(self) -> None:
        if not {*self.needs} <= {"decoder", "classifier", "lpips"}:
            raise UserError(f"a distance needs {self.needs}: choose from decoder, classifier and lpips")


def mse(token_BxLxC: jax.Array, target_BxLxC: jax.Array, eyes: Eyes) -> jax.Array:
    """See `losses.mse`."""
    return losses.mse(token_BxLxC, target_BxLxC)


def lpips(token_BxLxC: jax.Array, target_BxLxC: jax.Array, eyes: Eyes) -> jax.Array:
    """LPIPS of the decoded images: the paper's."""
    assert eyes.lpips
    return losses.perceptual(eyes.decode, eyes.lpips)(token_BxLxC, target_BxLxC)


def perceptual(token_BxLxC: jax.Array, target_BxLxC: jax.Array, eyes: Eyes) -> jax.Array:
    """The same by the features of a run's own small classifier."""
    assert eyes.classifier
    return losses.perceptual(eyes.decode, eyes.classifier)(token_BxLxC, target_BxLxC)


def drifting(token_BxLxC: jax.Array, target_BxLxC: jax.Array, eyes: Eyes) -> jax.Array:
    """`drift.loss` of the decoded pictures among the pairs' of their class, in each layer of the classifier."""
    assert eyes.features
    assert eyes.same_BxB is not None
    mine, theirs = (eyes.features(eyes.decode(x)) for x in (token_BxLxC, jax.lax.stop_gradient(target_BxLxC)))
    layers = [drift.loss(x, y, eyes.same_BxB) for x, y in zip(mine, theirs, strict=True)]
    return jnp.mean(jnp.stack(layers), 0)


DISTANCES: dict[str, Distance | None] = {
    "lpips": Distance(lpips, ("decoder", "lpips")),
    "mse": Distance(mse),
    "perceptual": Distance(perceptual, ("decoder", "classifier")),
    "drift": Distance(drifting, ("decoder", "classifier"), joint=True),
    "none": None,
}


def named(name: str) -> Distance | None:
    """The distance of this name; "none" is none. UserError for a name that stands for nothing."""
    return plugins.find(name, DISTANCES, f"config.train.distance is {name!r}: choose", Distance)


def check(name: str, there: dict[str, object], classes: bool = True) -> None:
    """UserError if the distance needs a network that is not among those that are `there` (None: it is not).

    Or `classes`, where there are captions.
    """
    found = named(name)
    if found and found.joint and not classes:
        raise UserError(f"config.train.distance={name} compares pictures of one class, and captions have none")
    for part in found.needs if found else ():
        if part != "decoder" and there.get(part) is None:
            raise UserError(f"config.train.distance is {name}, which needs a {part}: choose mse")
