"""Captions as LlamaGen's condition: features of a text encoder, padded in front, through a small projection."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method.interfaces import Cond
from dd_jax.nn.layers import Dense, Dtype
from dd_jax.system.errors import UserError


class CaptionEmbed(nn.Module):
    """(B, P, F) features -> (B, P, D) condition tokens.

    A dropped caption becomes the null features before the projection: never trained, they come with the weights. A
    student, which needs no guidance, has none (`null=False`).
    """

    width: int
    tokens: int
    features: int
    dtype: Dtype = jnp.float32
    null: bool = True

    @nn.compact
    def __call__(self, cond: Cond) -> jax.Array:
        shape = self.tokens, self.features
        x = cond.caption_BxPxF
        if x is None or x.shape[1:] != shape:
            found = None if x is None else x.shape
            raise UserError(f"this model takes caption features {('batch', *shape)}, got {found}")
        if self.null:
            init = nn.initializers.normal(self.features**-0.5)
            null_PxF = self.param("uncond_embedding", init, shape, jnp.float32)
        if cond.drop_B is not None:
            assert self.null, "a student draws what it is asked for"
            x = jnp.where(cond.drop_B[:, None, None], null_PxF, x)
        hidden = nn.gelu(Dense(self.width, False, dtype=self.dtype, name="fc1")(x), approximate=True)
        return Dense(self.width, False, dtype=self.dtype, name="fc2")(hidden)


def hide_padding(mask: jax.Array | np.ndarray, first: jax.Array | int, valid_BxP: jax.Array | None) -> jax.Array:
    """Padded caption tokens are seen by nobody but themselves: (M, N) or (B, M, N) -> (B, M, N).

    Row 0 of the mask is position `first`: one for all examples, or (B,). Without captions the mask stays as it is.
    """
    if valid_BxP is None:
        return jnp.asarray(mask)
    rows, columns = mask.shape[-2:]
    own = jnp.arange(columns) == jnp.asarray(first)[..., None, None] + jnp.arange(rows)[:, None]
    seen_BxN = jnp.pad(valid_BxP, ((0, 0), (0, columns - valid_BxP.shape[1])), constant_values=True)
    return (jnp.asarray(mask) & seen_BxN[:, None]) | own


def pool(cond_BxPxD: jax.Array, valid_BxP: jax.Array | None) -> jax.Array:
    """(B, D): the mean condition token, padding left out."""
    if valid_BxP is None:
        return cond_BxPxD.mean(1)
    weight_BxPx1 = valid_BxP[..., None].astype(cond_BxPxD.dtype)
    return jnp.sum(cond_BxPxD * weight_BxPx1, 1) / jnp.maximum(jnp.sum(weight_BxPx1, 1), 1)
