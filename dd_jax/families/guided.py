"""What the teachers of all families share: calling the trunk, and guidance as a doubled batch."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.interfaces import Cond, Params, guide


class Guided:
    """Mixin: the subclass has a `trunk` and the guidance weight of every step, `weight_S`."""

    trunk: nn.Module

    @property
    def weight_S(self) -> np.ndarray:
        """(S,) guidance weight of every step; 1 is none."""
        raise NotImplementedError

    @property
    def _guided(self) -> bool:
        return bool(np.any(self.weight_S != 1))

    def null(self, cond: Cond) -> Cond:
        return Cond(jnp.full_like(cond.label_B, self.trunk.cfg.classes))

    def _both(self, cond: Cond) -> Cond:
        """[condition; null condition], or the condition alone without guidance."""
        if not self._guided:
            return cond
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), cond, self.null(cond))

    def _repeat(self, x: jax.Array) -> jax.Array:
        return jnp.concatenate([x, x]) if self._guided else x

    def _guide(self, logits: jax.Array, weight: jax.Array | np.ndarray | float) -> jax.Array:
        return guide(logits, weight) if self._guided else logits

    def _apply(self, params: Params, *args: Any, method: str) -> Any:
        return self.trunk.apply({"params": params["trunk"]}, *args, method=method)
