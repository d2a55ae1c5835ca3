"""Scaled dot-product attention and the static key/value cache."""

import jax
import jax.numpy as jnp
import numpy as np

KV = tuple[jax.Array, jax.Array]


def attend(
    q_BxMxHxK: jax.Array,
    k_BxNxHxK: jax.Array,
    v_BxNxHxK: jax.Array,
    mask: jax.Array | np.ndarray | None,
    scale: float,
) -> jax.Array:
    """softmax(scale q k^T) v -> (B, M, H*K). `mask` (M, N) or (B, M, N): True = attend; float32 softmax."""
    logits_BxHxMxN = jnp.einsum("bmhk,bnhk->bhmn", q_BxMxHxK, k_BxNxHxK).astype(jnp.float32) * scale
    if mask is not None:
        visible = jnp.asarray(mask)
        visible = visible[:, None] if visible.ndim == 3 else visible[None, None]
        logits_BxHxMxN = logits_BxHxMxN + jnp.where(visible, 0.0, -1e30).astype(jnp.float32)
    weights = jax.nn.softmax(logits_BxHxMxN, -1).astype(v_BxNxHxK.dtype)
    out = jnp.einsum("bhmn,bnhk->bmhk", weights, v_BxNxHxK)
    return out.reshape(*out.shape[:2], -1)


def update_cache(cache: KV, k_BxMxHxK: jax.Array, v_BxMxHxK: jax.Array, first: jax.Array | int) -> KV:
    """Write M new keys and values at position `first`: one for all examples, or (B,) one for each."""

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        if jnp.ndim(first) == 0:
            return jax.lax.dynamic_update_slice_in_dim(old, new, first, 1)
        return jax.vmap(lambda o, n, f: jax.lax.dynamic_update_slice_in_dim(o, n, f, 0))(old, new, first)

    return write(cache[0], k_BxMxHxK), write(cache[1], v_BxMxHxK)
