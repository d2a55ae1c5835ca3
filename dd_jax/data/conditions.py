"""What images are drawn of: numbers, of classes or of captions in a list -> `Cond`.

Numbers travel (pair shards store them); what a model reads is looked up on the host, batch by batch, so that
millions of captions need no table on a device.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, Protocol

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dd_jax.data import labels
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


def as_array(given: Any, what: str) -> np.ndarray:
    """`given` as NumPy reads it. UserError for lists of unequal lengths and the like."""
    try:
        return np.asarray(given)
    except (TypeError, ValueError) as error:
        raise UserError(f"{what} are no array ({' '.join(str(error).split())[:120]}): give one list") from error


def numbers(given: Any, count: int, what: str) -> np.ndarray:
    """(B,) int32, from anything that holds whole numbers in 0..count-1, one or many. UserError for what does not."""
    found = as_array(given, what).reshape(-1)
    if not found.size:
        return np.zeros(0, np.int32)
    whole = found.dtype.kind in "iu" or (found.dtype.kind == "f" and bool(np.all(found == np.floor(found))))
    if not whole or not (found.min() >= 0 and found.max() < count):
        told = str(found.tolist()[:20])[:200]
        raise UserError(f"{what} must lie in 0..{count - 1}, whole numbers, got {told}")
    return found.astype(np.int32)


def assign(pool: np.ndarray, id_B: np.ndarray, scheme: str, seed: int) -> np.ndarray:
    """(B,) what the examples of these ids show: "balanced" walks through the pool, "uniform" draws from it."""
    return np.asarray(pool)[rng.labels(id_B, len(pool), scheme, seed)]


@dataclasses.dataclass(frozen=True)
class Classes:
    """Class labels 0..count-1, of a data set whose classes may have names (see `labels.find`)."""

    count: int
    data: str = ""
    own: tuple[str, ...] = ()

    @functools.cached_property
    def pool(self) -> np.ndarray:
        return np.arange(self.count, dtype=np.int32)

    @property
    def held_out(self) -> np.ndarray:
        return self.pool[:0]

    def __call__(self, number_B: np.ndarray) -> Cond:
        return Cond(jnp.asarray(number_B, jnp.int32))

    def of(self, wanted: ArrayLike | Sequence[str]) -> Cond:
        given = as_array(wanted, "labels")
        if given.dtype.kind in "US":
            found = [labels.find(str(word), self.data, self.count, self.own) for word in given.reshape(-1)]
            return self(np.concatenate(found).astype(np.int32))
        return self(numbers(wanted, self.count, "labels"))
