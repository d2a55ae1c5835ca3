"""What the teachers of all families share: calling the trunk, and guidance as a doubled batch."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method.interfaces import Cond, Params, Trunk, guide
from dd_jax.system.errors import UserError


def class_rows(cond: Cond, classes: int) -> jax.Array:
    """(B,) rows of a class table whose last one, `classes`, stands for none."""
    if cond.label_B is None:
        raise UserError("this model draws classes: give labels, not captions")
    return cond.label_B if cond.drop_B is None else jnp.where(cond.drop_B, classes, cond.label_B)


class Guided:
    """Mixin: the subclass has a `trunk` and the guidance weight of every step, `weight_S`."""

    trunk: Trunk

    @property
    def weight_S(self) -> np.ndarray:
        """(S,) guidance weight of every step; 1 is none."""
        raise NotImplementedError

    def blank(self, batch: int) -> Cond:
        return self.trunk.blank(batch)

    @property
    def _guided(self) -> bool:
        return bool(np.any(self.weight_S != 1))

    def _both(self, cond: Cond) -> Cond:
        """[condition; null condition], or the condition alone without guidance."""
        if not self._guided:
            return cond
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), cond.dropped(False), cond.dropped())

    def _repeat(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([x, x]) if self._guided else x

    def _guide(self, logits: jax.Array, weight: jax.Array | np.ndarray | float) -> jax.Array:
        return guide(logits, weight) if self._guided else logits

    def _apply(self, params: Params, *args: Any, method: str) -> Any:
        return self.trunk.apply({"params": params["trunk"]}, *args, method=method)
