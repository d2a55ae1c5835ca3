"""Tokens that stay while the others are drawn around them: repainting, with any plan. Not in the paper.

A kept token has its code, whatever a teacher or a student says; a student reads the noise that it would have been drawn
from (`inversion`), so that what it is fed is what it was trained on. What certifies steps is as without: it is the
teacher's own pinned sequence, in which step s is drawn given what was drawn, or kept, before it.
"""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method.ar import Choice, Pick
from dd_jax.method.interfaces import Cond, Params, Teacher
from dd_jax.method.layout import Layout


@flax.struct.dataclass
class Pinned:
    """Codes (B, L) int32 that every word of a plan leaves as they are, and where: (B, L) bool."""

    code_BxL: Any
    keep_BxL: Any

    def codes(self, code_BxL: jax.Array) -> jax.Array:
        """With the kept ones in their places."""
        return jnp.where(self.keep_BxL, self.code_BxL, code_BxL)

    def tokens(self, x_BxLxC: jax.Array, codebook_VxC: jax.Array) -> jax.Array:
        """The same of vectors."""
        return jnp.where(self.keep_BxL[..., None], codebook_VxC[self.code_BxL], x_BxLxC)

    def pick(self, pick: Pick, layout: Layout, codebook_VxC: jax.Array) -> Pick:
        """`pick` where tokens are drawn anew."""

        def pinned(logits_BxGxV: jax.Array, s: jax.Array | int) -> Choice:
            step = Pinned(layout.take(self.code_BxL, s), layout.take(self.keep_BxL, s))
            choice = pick(logits_BxGxV, s)
            if isinstance(choice, tuple):
                return step.codes(choice[0]), step.tokens(choice[1], codebook_VxC)
            return step.codes(choice)

        return pinned


def footprints(mask_BxRxR: np.ndarray, layout: Layout) -> np.ndarray:
    """(B, L) bool: the tokens whose square of the picture the mask touches, at whatever scale they are."""
    return np.concatenate([shrunk(mask_BxRxR, side).reshape(len(mask_BxRxR), -1) for side in layout.maps], 1)


def shrunk(mask: np.ndarray, side: int) -> np.ndarray:
    """Bool (B, rows, columns) -> (B, side, side), in either direction: true where any of what lies there is."""
    for axis in (1, 2):
        count, at = mask.shape[axis], np.arange(side)
        ends = np.stack([at * count // side, -(-(at + 1) * count // side)], 1).reshape(-1)
        padded = np.concatenate([mask, np.zeros_like(np.take(mask, [0], axis))], axis)  # an end may be the very last
        mask = np.take(np.logical_or.reduceat(padded, ends, axis), 2 * at, axis)
    return mask


def behind(keep_BxL: np.ndarray, layout: Layout) -> np.ndarray:
    """(B, L) bool: the kept tokens of steps after the first that is drawn anew, which had no say in it."""
    first_B = np.where(keep_BxL, layout.steps, layout.step_L).min(-1)
    return keep_BxL & (layout.step_L > first_B[:, None])


def log_prob(teacher: Teacher, params: Params, cond: Cond, code_BxL: jax.Array) -> jax.Array:
    """(B, L) log p of each code given those of earlier steps, by the guided, unfiltered teacher: one pass."""
    logits_BxLxV = teacher.parallel(params, cond, code_BxL).astype(jnp.float32)
    return jnp.take_along_axis(jax.nn.log_softmax(logits_BxLxV), code_BxL[..., None], -1)[..., 0]
