"""Scaled dot-product attention and the key/value cache, heads in front: a cached step then copies nothing."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np

KV = tuple[jax.Array, jax.Array]
LEAST = 64  # rows of a piece: below that, cutting costs more than it saves


def split_heads(qkv_BxMx3D: jax.Array, heads: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Fused projections, head-major within q | k | v -> three (B, H, M, K): heads in front, as products like them."""
    batch, rows, width = qkv_BxMx3D.shape
    split = qkv_BxMx3D.reshape(batch, rows, 3, heads, width // (3 * heads)).transpose(2, 0, 3, 1, 4)
    return split[0], split[1], split[2]


@dataclasses.dataclass(frozen=True)
class Piece:
    """The queries `rows`, which see none but the first `keys` keys and, where `own`, each itself behind them."""

    rows: slice
    keys: int
    own: bool = False
    masked: bool = False  # they differ in what they see of those keys

    @property
    def pairs(self) -> int:
        """How many products of a query and a key it takes."""
        return (self.rows.stop - self.rows.start) * (self.keys + self.own)


def pieces(mask_NxN: np.ndarray, least: int = 1) -> list[Piece]:
    """Cut a mask so that keys which no query of a piece sees are never multiplied.

    Consecutive queries that see the same, but for themselves, stay together; so do pieces of < `least` rows.
    """
    count, row = len(mask_NxN), np.arange(len(mask_NxN) - 1)
    change = mask_NxN[1:] ^ mask_NxN[:-1]
    change[row, row] = change[row, row + 1] = False
    cuts = [0]
    for cut in np.flatnonzero(change.any(1)) + 1:
        if cut - cuts[-1] >= least:
            cuts.append(int(cut))
    return [_piece(mask_NxN, first, last) for first, last in itertools.pairwise([*cuts, count])]


def _piece(mask_NxN: np.ndarray, first: int, last: int) -> Piece:
    block, rows = mask_NxN[first:last], slice(first, last)
    before = int(block[0, :first].sum())
    alone = np.arange(len(mask_NxN)) == np.arange(first, last)[:, None]
    if before and np.array_equal(block, alone | (np.arange(len(mask_NxN)) < before)):
        return Piece(rows, before, own=True)
    keys = int(np.flatnonzero(block.any(0))[-1]) + 1
    return Piece(rows, keys, masked=not block[:, :keys].all())


def work(mask_NxN: np.ndarray) -> dict[str, int]:
    """Products of a query and a key (4 FLOPs a channel and layer): what the mask needs, what `attend` does, all."""
    done = sum(piece.pairs for piece in pieces(mask_NxN, LEAST))
    return {"needed": int(mask_NxN.sum()), "computed": done, "unmasked": mask_NxN.size}


def attend(
    q_BxHxMxK: jax.Array,
    k_BxHxNxK: jax.Array,
    v_BxHxNxK: jax.Array,
    mask: jax.Array | np.ndarray | None,
    scale: float,
) -> jax.Array:
    """softmax(scale q k^T) v -> (B, M, H*K). `mask` (M, N) or (B, M, N): True = attend; float32 softmax.

    A NumPy mask (N, N) is known to the compiler: what it hides is not computed, as far as `pieces` goes.
    """
    if isinstance(mask, np.ndarray) and mask.shape[0] == mask.shape[-1] > 1:
        out = [_attend_piece(q_BxHxMxK, k_BxHxNxK, v_BxHxNxK, mask, piece, scale) for piece in pieces(mask, LEAST)]
        return _merge_heads(jnp.concatenate(out, 2))
    logits_BxHxMxN = _scores(q_BxHxMxK, k_BxHxNxK, scale)
    if mask is not None:
        visible = jnp.asarray(mask)
        logits_BxHxMxN = _hide(logits_BxHxMxN, visible[:, None] if visible.ndim == 3 else visible)
    weights = jax.nn.softmax(logits_BxHxMxN, -1).astype(v_BxHxNxK.dtype)
    return _merge_heads(jnp.einsum("bhmn,bhnk->bhmk", weights, v_BxHxNxK))


def _attend_piece(q, k, v, mask: np.ndarray, piece: Piece, scale: float) -> jax.Array:
    """Rows of one piece: (B, H, rows, K)."""
    rows, keys = piece.rows, piece.keys
    q, own_k, own_v = q[:, :, rows], k[:, :, rows], v[:, :, rows]
    logits = _scores(q, k[:, :, :keys], scale)
    if piece.masked:
        logits = _hide(logits, mask[rows, :keys])
    if not piece.own:
        return jnp.einsum("bhmn,bhnk->bhmk", jax.nn.softmax(logits, -1).astype(v.dtype), v[:, :, :keys])
    itself = jnp.sum(q * own_k, -1, keepdims=True, dtype=jnp.float32) * scale
    weights = jax.nn.softmax(jnp.concatenate([logits, itself], -1), -1).astype(v.dtype)
    return jnp.einsum("bhmn,bhnk->bhmk", weights[..., :-1], v[:, :, :keys]) + weights[..., -1:] * own_v


def _scores(q_BxHxMxK: jax.Array, k_BxHxNxK: jax.Array, scale: float) -> jax.Array:
    return jnp.einsum("bhmk,bhnk->bhmn", q_BxHxMxK, k_BxHxNxK).astype(jnp.float32) * scale


def _hide(logits: jax.Array, visible: jax.Array | np.ndarray) -> jax.Array:
    return jnp.where(visible, logits, -1e30)


def _merge_heads(x_BxHxMxK: jax.Array) -> jax.Array:
    return x_BxHxMxK.transpose(0, 2, 1, 3).reshape(x_BxHxMxK.shape[0], x_BxHxMxK.shape[2], -1)


def update_cache(cache: KV, k_BxHxMxK: jax.Array, v_BxHxMxK: jax.Array, first: jax.Array | int) -> KV:
    """Write M new keys and values at position `first`: one for all examples, or (B,) one for each."""

    def write(old: jax.Array, new: jax.Array) -> jax.Array:
        if jnp.ndim(first) == 0:
            return jax.lax.dynamic_update_slice_in_dim(old, new, first, 2)
        return jax.vmap(lambda o, n, f: jax.lax.dynamic_update_slice_in_dim(o, n, f, 1))(old, new, first)

    return write(cache[0], k_BxHxMxK), write(cache[1], v_BxHxMxK)
