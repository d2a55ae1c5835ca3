"""Scaled dot-product attention and the key/value cache, heads in front: a cached step then copies nothing."""

import jax
import jax.numpy as jnp
import numpy as np

KV = tuple[jax.Array, jax.Array]


def split_heads(qkv_BxMx3D: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fused projections, head-major within q | k | v -> three (B, H, M, K): heads in front, as products like them."""
    batch, rows, width = qkv_BxMx3D.shape
    split = qkv_BxMx3D.reshape(batch, rows, 3, heads, width // (3 * heads)).transpose(2, 0, 3, 1, 4)
    return split[0], split[1], split[2]


def attend(
    q_BxHxMxK: jax.Array,
    k_BxHxNxK: jax.Array,
    v_BxHxNxK: jax.Array,
    mask: jax.Array | np.ndarray | None,
    scale: float,
) -> jax.Array:
    """softmax(scale q k^T) v -> (B, M, H*K). `mask` (M, N) or (B, M, N): True = attend; float32 softmax."""
    logits_BxHxMxN = jnp.einsum("bhmk,bhnk->bhmn", q_BxHxMxK, k_BxHxNxK).astype(jnp.float32) * scale
    if mask is not None:
        visible = jnp.asarray(mask)
        visible = visible[:, None] if visible.ndim == 3 else visible[None, None]
        logits_BxHxMxN = logits_BxHxMxN + jnp.where(visible, 0.0, -1e30).astype(jnp.float32)
    weights = jax.nn.softmax(logits_BxHxMxN, -1).astype(v_BxHxNxK.dtype)
    out = jnp.einsum("bhmn,bhnk->bhmk", weights, v_BxHxNxK).transpose(0, 2, 1, 3)
    return out.reshape(*out.shape[:2], -1)


def update_cache(cache: KV, k_BxHxMxK: jax.Array, v_BxHxMxK: jax.Array, first: jax.Array | int) -> KV:
    """Write M new keys and values at position `first`: one for all examples, or (B,) one for each."""

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        if jnp.ndim(first) == 0:
            return jax.lax.dynamic_update_slice_in_dim(old, new, first, 2)
        return jax.vmap(lambda o, n, f: jax.lax.dynamic_update_slice_in_dim(o, n, f, 1))(old, new, first)

    return write(cache[0], k_BxHxMxK), write(cache[1], v_BxHxMxK)
