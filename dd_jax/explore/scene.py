"""What a person has set: a condition, how many pictures, their noise, settings. As arguments of `Pipeline.sample`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from dd_jax.method import pinning
from dd_jax.method.layout import Layout

TEACHERS = ("guidance", "temperature", "top_k", "top_p", "smooth")  # settings of `T` and `J`; the others are of `S`


@dataclasses.dataclass(frozen=True)
class Scene:
    """One picture a label (a class's number, or a caption): numbers 0, 1, ... of a seed, or of `noise`, (B, L, C)."""

    labels: tuple[int | str, ...]
    seed: int = 0
    noise: np.ndarray | None = None
    settings: Mapping[str, float | bool] = dataclasses.field(default_factory=dict)

    def arguments(self, plan: str) -> dict[str, Any]:
        """`pipe.sample(**arguments)` draws it. Settings that change nothing in this plan are left out."""
        told: dict[str, Any] = {"labels": list(self.labels), "plan": plan, "seed": self.seed}
        words = {word[0] for word in plan.split()}
        for name, value in self.settings.items():
            if words & ({"T", "J"} if name in TEACHERS else {"S"}):
                told[name] = value
        if self.noise is not None:
            told["noise"] = np.asarray(self.noise, np.float32)
        return told


@dataclasses.dataclass(frozen=True)
class Locks:
    """Tokens whose noise stays, whatever the seed: `held` (L,) bool, and their noise in every picture (B, L, C)."""

    held_L: np.ndarray
    noise_BxLxC: np.ndarray

    @classmethod
    def none(cls, noise_BxLxC: np.ndarray) -> "Locks":
        """Of pictures whose noise this is."""
        return cls(np.zeros(noise_BxLxC.shape[1], bool), noise_BxLxC)

    def over(self, noise_BxLxC: np.ndarray) -> np.ndarray:
        """Another seed's noise, but where tokens are locked."""
        held = self.noise_BxLxC[: len(noise_BxLxC)]
        return np.where(self.held_L[:, None], held, noise_BxLxC)

    def toggled(self, noise_BxLxC: np.ndarray, layout: Layout, row: int, column: int) -> "Locks":
        """With the square at this row and column of the finest map locked to what its noise is, or free again.

        In next-scale order the tokens of coarser maps go along when all of their square is locked.
        """
        side, now = layout.maps[-1], self.over(noise_BxLxC)
        finest = self.held_L[-side * side :].reshape(side, side).copy()
        finest[row, column] = not finest[row, column]
        return Locks(~pinning.footprints(~finest[None], layout)[0], now)

    @property
    def any(self) -> bool:
        return bool(self.held_L.any())
