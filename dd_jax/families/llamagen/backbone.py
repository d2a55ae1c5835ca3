"""The LlamaGen GPT: RMSNorm, SwiGLU, 2-D RoPE, one condition prefix; as teacher and as student trunk.

Submodule names are the released ones (`layers_3/attention/wqkv`), so that weight tables stay one line a kind.
"""

import dataclasses
import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.families.guided import class_rows
from dd_jax.families.llamagen.caption import CaptionEmbed, hide_padding, pool
from dd_jax.method.interfaces import Cond
from dd_jax.nn import dropping, stack
from dd_jax.nn.attention import KV, attend, split_heads, update_cache
from dd_jax.nn.dropping import Chance
from dd_jax.nn.layers import Dense, Dtype, RMSNorm
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import constrain


@dataclasses.dataclass(frozen=True)
class GPTConfig:
    """Sizes. `hidden` is the SwiGLU width: 2/3 of 4 x width, rounded up to `multiple_of` by default."""

    width: int
    depth: int
    heads: int
    vocab: int
    side: int  # tokens are a side x side grid
    classes: int = 1000
    code_dim: int = 8
    cond: int = 1  # condition tokens: one class, or the tokens of a caption
    caption_dim: int = 0  # features of a caption's token; 0: class labels
    multiple_of: int = 256
    # Off in released weights; small models on small data draw their classes more clearly with both:
    positions: bool = False  # a learnt vector a position beside RoPE
    loud_cond: bool = False  # condition tokens with queries and keys of their own (see `rope_table`)
    dtype: Dtype = jnp.float32
    remat: bool = False  # compute blocks again in the backward pass instead of keeping what they computed
    scan: bool = False  # a loop over the blocks where all positions are read at once: compiled once, whatever the depth

    def __post_init__(self) -> None:
        if self.width % (4 * self.heads):  # RoPE turns pairs by row and by column
            raise UserError(f"config.model.width={self.width} must be a multiple of 4 x heads, 4 x {self.heads}")

    @property
    def hidden(self) -> int:
        return -(-(8 * self.width // 3) // self.multiple_of) * self.multiple_of

    @property
    def head_dim(self) -> int:
        return self.width // self.heads

    @property
    def rope(self) -> np.ndarray:
        """(P + L, K/2, 2) the rotary table of all positions."""
        return rope_table(self.side, self.head_dim, self.cond, self.loud_cond)


@functools.lru_cache
def rope_table(side: int, head_dim: int, cond: int, loud: bool = False) -> np.ndarray:
    """(cond + side^2, K/2, 2) cosines and sines: half of the pairs turns with the row, half with the column.

    Rows of condition tokens are all zero, not the identity: their queries and keys vanish, so that every
    query scores them 0. The released weights were trained that way; `loud` makes them the identity.
    """
    quarter = head_dim // 4
    freq = 10000.0 ** (-2.0 * np.arange(quarter) / (head_dim // 2))
    row, col = np.divmod(np.arange(side * side), side)
    angle = np.concatenate([row[:, None] * freq, col[:, None] * freq], -1)
    table = np.stack([np.cos(angle), np.sin(angle)], -1)
    first = np.zeros((cond, head_dim // 2, 2))
    first[..., 0] = loud
    return np.concatenate([first, table]).astype(np.float32)


def rotate(x_BxHxMxK: jax.Array, rope: jax.Array | np.ndarray) -> jax.Array:
    """Turn interleaved channel pairs; `rope` is (M, K/2, 2), or (B, M, K/2, 2) for positions of one's own."""
    pair = x_BxHxMxK.astype(jnp.float32).reshape(*x_BxHxMxK.shape[:-1], -1, 2)
    rope = jnp.asarray(rope if rope.ndim == 3 else rope[:, None])
    one = functools.partial(jax.lax.platform_dependent, cuda=_turned_in_place, default=_turned)
    turned = (one if x_BxHxMxK.shape[2] == 1 else _turned)(pair, rope)
    return turned.reshape(x_BxHxMxK.shape).astype(x_BxHxMxK.dtype)


def _turned(pair: jax.Array, rope: jax.Array) -> jax.Array:
    cos, sin = rope[..., 0], rope[..., 1]
    a, b = pair[..., 0], pair[..., 1]
    return jnp.stack([a * cos - b * sin, b * cos + a * sin], -1)


def _turned_in_place(pair: jax.Array, rope: jax.Array) -> jax.Array:
    """The same without a concatenation, which would be a kernel of its own in every block of a step."""
    return pair * rope[..., :1] + pair[..., ::-1] * rope[..., 1:] * jnp.array([-1.0, 1.0])


class Attention(nn.Module):
    cfg: GPTConfig

    @nn.compact
    def __call__(self, x, rope, mask, cache: KV | None, first) -> tuple[jax.Array, KV | None]:
        cfg = self.cfg
        qkv = Dense(3 * cfg.width, False, dtype=cfg.dtype, name="wqkv")(x)
        q, k, v = split_heads(qkv, cfg.heads)
        q, k = rotate(q, rope), rotate(k, rope)
        if cache is not None:
            cache = update_cache(cache, k, v, first)
            k, v = cache
        y = attend(q, k, v, mask, cfg.head_dim**-0.5)
        return Dense(cfg.width, False, dtype=cfg.dtype, name="wo")(y), cache


class FeedForward(nn.Module):
    cfg: GPTConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg = self.cfg
        gate = nn.silu(Dense(cfg.hidden, False, dtype=cfg.dtype, name="w1")(x))
        value = Dense(cfg.hidden, False, dtype=cfg.dtype, name="w3")(x)
        return Dense(cfg.width, False, dtype=cfg.dtype, name="w2")(gate * value)


class Block(nn.Module):
    cfg: GPTConfig

    @nn.compact
    def __call__(self, x, rope, mask, cache: KV | None = None, first=None, chance: Chance | None = None):
        y, cache = Attention(self.cfg, name="attention")(RMSNorm(name="attention_norm")(x), rope, mask, cache, first)
        x = x + dropping.branch(chance, y, 0)
        y = FeedForward(self.cfg, name="feed_forward")(RMSNorm(name="ffn_norm")(x))
        return x + dropping.branch(chance, y, 1), cache


class GPT(nn.Module):
    """`distilled=True` is the student's trunk: code vectors instead of codes come in."""

    cfg: GPTConfig
    distilled: bool = False

    def setup(self) -> None:
        cfg = self.cfg
        normal = nn.initializers.normal(0.02)
        self.cls_embedding: nn.Module = (
            CaptionEmbed(cfg.width, cfg.cond, cfg.caption_dim, cfg.dtype, null=not self.distilled)
            if cfg.caption_dim
            else nn.Embed(cfg.classes + 1, cfg.width, embedding_init=normal)
        )
        table = nn.Embed(cfg.vocab, cfg.width, embedding_init=normal)
        self.tok_embeddings = Dense(cfg.width, dtype=cfg.dtype) if self.distilled else table
        if cfg.positions:
            self.pos = self.param("pos_embedding", normal, (cfg.cond + cfg.side**2, cfg.width), jnp.float32)
        self.layers = [Block(cfg) for _ in range(cfg.depth)]
        self.norm = RMSNorm()
        # The release starts its output layer at zero.
        self.output = Dense(cfg.vocab, False, nn.initializers.zeros_init(), dtype=cfg.dtype)

    def embed_cond(self, cond: Cond) -> jax.Array:
        """(B, P, D) condition tokens."""
        embed: Any = self.cls_embedding
        if self.cfg.caption_dim:
            return embed(cond)
        return embed(class_rows(cond, self.cfg.classes))[:, None].astype(self.cfg.dtype)

    def blank(self, batch: int) -> Cond:
        """A condition of the right structure."""
        cfg = self.cfg
        if not cfg.caption_dim:
            return Cond(jnp.zeros(batch, jnp.int32))
        features = jnp.zeros((batch, cfg.cond, cfg.caption_dim))
        return Cond(caption_BxPxF=features, valid_BxP=jnp.ones((batch, cfg.cond), bool))

    def embed(self, x: jax.Array) -> jax.Array:
        """Codes (teacher) or code vectors (student) -> (..., D)."""
        return self.tok_embeddings(x).astype(self.cfg.dtype)

    def place(self, h_BxMxD: jax.Array, first: jax.Array | int = 0) -> jax.Array:
        """Add the learnt positions first.., where there are any."""
        if not self.cfg.positions:
            return h_BxMxD
        return h_BxMxD + jax.lax.dynamic_slice_in_dim(self.pos, first, h_BxMxD.shape[1], 0).astype(self.cfg.dtype)

    def stream(self, h_BxNxD: jax.Array, mask, chance: Chance | None = None) -> jax.Array:
        """The residual stream (B, N, D) of positions 0..N-1 behind all blocks."""
        cfg, rope = self.cfg, self.cfg.rope[: h_BxNxD.shape[1]]

        def call(block: nn.Module, h: jax.Array, chance: Chance | None) -> jax.Array:
            return block(h, rope, mask, chance=chance)[0]

        own = dropping.layers(chance, cfg.depth)
        return stack.halves(self, self.layers, h_BxNxD, call, own, cfg.remat, cfg.scan)

    def run(self, h_BxMxD, rope, mask, caches: list[KV], first) -> tuple[jax.Array, list[KV]]:
        """The same of M positions from `first` on, and the caches grown by them."""
        out, h_BxMxD = [], constrain(h_BxMxD)
        for layer, cache in zip(self.layers, caches, strict=True):
            h_BxMxD, cache = layer(h_BxMxD, rope, mask, cache, first)
            h_BxMxD = constrain(h_BxMxD)
            out.append(cache)
        return h_BxMxD, out

    def logits(self, h: jax.Array, cond_BxD: jax.Array | None = None) -> jax.Array:
        """Residual stream -> float32 logits over the codebook."""
        return self.output(self.norm(h)).astype(jnp.float32)

    def before(self, x_BxLxC: jax.Array) -> jax.Array:
        """What the positions that predict tokens 1.. hold: the token before."""
        return x_BxLxC[:, :-1]

    def encode(self, cond: Cond, x_BxLxC, kind_BxNx2, nd_2xD, mask_NxN) -> tuple[jax.Array, jax.Array]:
        """Student's trunk: (B, N, D) stream that both heads read, and the (B, D) condition vector.

        `kind` says noise or data, one-hot: a product with the two rows of `nd`, whose gradient is one too.
        """
        cond_BxPxD = self.embed_cond(cond)
        nd_BxNxD = (kind_BxNx2 @ nd_2xD).astype(self.cfg.dtype)
        h = self.place(jnp.concatenate([cond_BxPxD, self.embed(x_BxLxC)], 1) + nd_BxNxD)
        h = self.stream(h, hide_padding(mask_NxN, 0, cond.valid_BxP))
        return h, pool(cond_BxPxD, cond.valid_BxP)

    def read(self, cond: Cond, code_BxL, mask_MxM, chance: Chance | None = None) -> tuple[jax.Array, jax.Array]:
        """Teacher forcing: the stream (B, L, D) behind which every token is predicted, and the condition (B, D)."""
        cond_BxPxD = self.embed_cond(cond)
        h = dropping.values(chance, self.place(jnp.concatenate([cond_BxPxD, self.embed(code_BxL[:, :-1])], 1)))
        h = self.stream(h, hide_padding(mask_MxM, 0, cond.valid_BxP), chance)
        return h[:, cond_BxPxD.shape[1] - 1 :], pool(cond_BxPxD, cond.valid_BxP)

    def teach(self, cond: Cond, code_BxL: jax.Array, mask_MxM, chance: Chance | None = None) -> jax.Array:
        """Teacher forcing: logits (B, L, V) of every token given those before it."""
        return self.logits(*self.read(cond, code_BxL, mask_MxM, chance))


def inherit(fresh: dict, teacher: dict) -> dict:
    """The student trunk's start: classes, layers, final norm and output from the teacher, the rest fresh.

    From another student, all of it.
    """
    taken = {k: v for k, v in teacher.items() if k != "tok_embeddings" or v.keys() == fresh[k].keys()}
    taken["cls_embedding"] = {k: v for k, v in teacher["cls_embedding"].items() if k != "uncond_embedding"}
    return {**fresh, **taken}
