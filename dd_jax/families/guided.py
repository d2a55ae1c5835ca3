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


def paired(a_B: jax.Array, b_B: jax.Array) -> jax.Array:
    """(2B, ...) a's and b's rows in turns: what belongs together stays on one device, however a mesh cuts examples."""
    return jnp.stack([a_B, b_B], 1).reshape(2 * len(a_B), *a_B.shape[1:])


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
        """Each condition and behind it the null condition, or the condition alone without guidance."""
        return jax.tree.map(paired, cond.dropped(False), cond.dropped()) if self._doubled(cond.guidance_B) else cond

    def _repeat(self, x: jax.Array, guidance_B: jax.Array | None) -> jax.Array:
        return paired(x, x) if self._doubled(guidance_B) else x

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
