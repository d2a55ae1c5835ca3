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

    def weights(self, guidance_B: jax.Array) -> jax.Array:
        """(B, S) the same for a guidance of each image."""
        raise NotImplementedError

    def blank(self, batch: int) -> Cond:
        return self.trunk.blank(batch)

    @property
    def guided(self) -> bool:
        """Does any step run the null condition too?"""
        return bool(np.any(self.weight_S != 1))

    def _doubled(self, guidance_B: jax.Array | None) -> bool:
        """Is the null condition run beside each condition?"""
        return self.guided or guidance_B is not None

    def _both(self, cond: Cond) -> Cond:
        """[condition; null condition], or the condition alone without guidance."""
        if not self._doubled(cond.guidance_B):
            return cond
        return jax.tree.map(lambda *rows: jnp.concatenate(rows), cond.dropped(False), cond.dropped())

    def _repeat(self, x: jax.Array, guidance_B: jax.Array | None) -> jax.Array:
        return jnp.concatenate([x, x]) if self._doubled(guidance_B) else x

    def _guide(self, logits: jax.Array, guidance_B: jax.Array | None, step: Any) -> jax.Array:
        """Logits (B, M, V) from those of both conditions. `step`: (M,) or (B, M) the step of each; or one, of all."""
        if not self._doubled(guidance_B):
            return logits
        if guidance_B is None:
            weight = jnp.asarray(self.weight_S)[step]
        else:
            weight_BxS = self.weights(guidance_B)
            shape = len(guidance_B), (np.shape(step) or (1,))[-1]
            rows = jnp.broadcast_to(jnp.asarray(step), shape)
            weight = jnp.take_along_axis(weight_BxS, rows, 1)
        return guide(logits, weight[..., None] if weight.ndim else weight)

    def _apply(self, params: Params, *args: Any, method: str) -> Any:
        return self.trunk.apply({"params": params["trunk"]}, *args, method=method)
