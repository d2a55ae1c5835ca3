"""Distances of the embedding head by name: what `config.train.distance` chooses from.

One of your own is a `Distance` too, given as `package.module:attribute` (see docs/extending.md).
"""

import dataclasses
from collections.abc import Callable

import jax

from dd_jax.method import losses
from dd_jax.system import plugins
from dd_jax.system.errors import UserError

Compare = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Eyes:
    """What a distance may look with, frozen parameters inside; gradients flow through all of it."""

    decode: Callable[[jax.Array], jax.Array]  # token_BxLxC -> img_BxRxRxc, nominally in [-1, 1]
    classifier: Compare | None = None  # (img, img) -> distance_B of the classifier's features
    lpips: Compare | None = None  # (img, img) -> distance_B


@dataclasses.dataclass(frozen=True)
class Distance:
    """(token_BxLxC, target_BxLxC, eyes) -> distance_B >= 0, of each example alone, differentiable in `token`.

    `token` is the student's prediction as it will be decoded, `target` the pair's codebook vectors. `needs` are the
    networks that it looks with, "decoder" for `eyes.decode`: one that is not there is refused before anything runs,
    and whoever needs any is computed `config.train.distance_batch` examples at a time.
    """

    between: Callable[[jax.Array, jax.Array, Eyes], jax.Array]
    needs: tuple[str, ...] = ()  # of "decoder", "classifier", "lpips"

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


DISTANCES: dict[str, Distance | None] = {
    "lpips": Distance(lpips, ("decoder", "lpips")),
    "mse": Distance(mse),
    "perceptual": Distance(perceptual, ("decoder", "classifier")),
    "none": None,
}


def named(name: str) -> Distance | None:
    """The distance of this name; "none" is none. UserError for a name that stands for nothing."""
    return plugins.find(name, DISTANCES, f"config.train.distance is {name!r}: choose", Distance)


def check(name: str, there: dict[str, object]) -> None:
    """UserError if the distance needs a network that is not among those that are `there` (None: it is not)."""
    found = named(name)
    for part in found.needs if found else ():
        if part != "decoder" and there.get(part) is None:
            raise UserError(f"config.train.distance is {name}, which needs a {part}: choose mse")
