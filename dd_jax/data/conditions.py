"""What images are drawn of: numbers, of classes or of captions in a list -> `Cond`.

Numbers travel (pair shards store them); what a model reads is looked up on the host, batch by batch, so that
millions of captions need no table on a device.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Protocol

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dd_jax.method.interfaces import Cond
from dd_jax.system import rng
from dd_jax.system.errors import UserError


class Conditions(Protocol):
    """Everything that one run may draw."""

    @property
    def pool(self) -> np.ndarray:
        """The numbers that pairs are made for and scores are taken over."""
        ...

    @property
    def held_out(self) -> np.ndarray:
        """Numbers that nothing was trained on; often none."""
        ...

    def __call__(self, number_B: np.ndarray) -> Cond:
        """The condition of a batch."""
        ...

    def of(self, wanted: ArrayLike | Sequence[str]) -> Cond:
        """The condition of what a user asks for: numbers, or captions. UserError for what there is not."""
        ...


def assign(pool: np.ndarray, id_B: np.ndarray, scheme: str, seed: int) -> np.ndarray:
    """(B,) what the examples of these ids show: "balanced" walks through the pool, "uniform" draws from it."""
    return np.asarray(pool)[rng.labels(id_B, len(pool), scheme, seed)]


@dataclasses.dataclass(frozen=True)
class Classes:
    """Class labels 0..count-1."""

    count: int

    @functools.cached_property
    def pool(self) -> np.ndarray:
        return np.arange(self.count, dtype=np.int32)

    @property
    def held_out(self) -> np.ndarray:
        return self.pool[:0]

    def __call__(self, number_B: np.ndarray) -> Cond:
        return Cond(jnp.asarray(number_B, jnp.int32))

    def of(self, wanted: ArrayLike | Sequence[str]) -> Cond:
        label = np.asarray(wanted)
        if label.dtype.kind in "US":
            raise UserError("this model draws classes, not captions: give their numbers, or names by --labels")
        label = label.astype(np.int32).reshape(-1)
        if label.size and not (np.min(label) >= 0 and np.max(label) < self.count):
            raise UserError(f"labels must lie in 0..{self.count - 1}, got {label.tolist()}")
        return self(label)
