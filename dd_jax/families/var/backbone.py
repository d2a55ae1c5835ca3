"""The VAR transformer: AdaLN blocks, l2-normalised attention, level embeddings; teacher and student trunk.

The teacher reads running feature maps, one position per token; the student reads code vectors behind a class
token, and feeds the data/noise embedding to every block.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.families.guided import class_rows
from dd_jax.families.var.quantizer import resize
from dd_jax.method.interfaces import Cond
from dd_jax.nn import dropping, stack
from dd_jax.nn.attention import KV, attend, split_heads
from dd_jax.nn.dropping import Chance
from dd_jax.nn.layers import Dense, Dtype, layer_norm, modulate, unit
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import constrain

Flags = tuple[jax.Array, jax.Array]  # noise or data (B, N, 2), and an embedding of each (2, D)


@dataclasses.dataclass(frozen=True)
class VARConfig:
    """Sizes; `sides` are the scales."""

    width: int
    depth: int
    heads: int
    vocab: int
    sides: tuple[int, ...]
    classes: int = 1000
    code_dim: int = 32
    mlp_ratio: float = 4.0
    l2_norm: bool = True  # attention over unit-length queries and keys with a learnt temperature
    shared_aln: bool = False  # one modulation layer for all blocks plus a table in each (512 px models)
    dtype: Dtype = jnp.float32
    remat: bool = False  # compute blocks again in the backward pass instead of keeping what they computed
    scan: bool = False  # a loop over the blocks where all positions are read at once: compiled once, whatever the depth

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"config.model.width={self.width} must be a multiple of heads, {self.heads}")
        if self.width * self.mlp_ratio < 1:
            raise UserError(f"config.model.mlp_ratio={self.mlp_ratio} leaves the feed-forward layers no width")

    @property
    def tokens(self) -> int:
        return sum(side * side for side in self.sides)

    @property
    def init_std(self) -> float:
        return (1 / (3 * self.width)) ** 0.5


class Attention(nn.Module):
    cfg: VARConfig

    @nn.compact
    def __call__(self, x: jax.Array, mask, cache: KV | None) -> tuple[jax.Array, KV]:
        cfg = self.cfg
        init, zeros = nn.initializers.normal(cfg.init_std), nn.initializers.zeros_init()
        qkv = Dense(3 * cfg.width, False, init, cfg.dtype, name="mat_qkv")(x)
        q_bias = self.param("q_bias", zeros, (cfg.width,), jnp.float32)
        v_bias = self.param("v_bias", zeros, (cfg.width,), jnp.float32)
        qkv = qkv + jnp.concatenate([q_bias, jnp.zeros_like(q_bias), v_bias]).astype(cfg.dtype)
        q, k, v = split_heads(qkv, cfg.heads)
        scale = 0.25 * (cfg.width // cfg.heads) ** -0.5
        if cfg.l2_norm:
            start = nn.initializers.constant(np.log(4.0))
            log_scale_H = self.param("scale_mul", start, (cfg.heads,), jnp.float32)
            q = (unit(q) * jnp.exp(jnp.minimum(log_scale_H, np.log(100.0)))[:, None, None]).astype(cfg.dtype)
            k, scale = unit(k).astype(cfg.dtype), 1.0
        if cache is not None:
            k, v = (jnp.concatenate([old, new], 2) for old, new in zip(cache, (k, v), strict=True))
        y = attend(q, k, v, mask, scale)
        out = nn.initializers.normal(cfg.init_std / (2 * cfg.depth) ** 0.5)
        return Dense(cfg.width, True, out, cfg.dtype, name="proj")(y), (k, v)


class FeedForward(nn.Module):
    cfg: VARConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg = self.cfg
        init = nn.initializers.normal(cfg.init_std)
        hidden = Dense(round(cfg.mlp_ratio * cfg.width), True, init, cfg.dtype, name="fc1")(x)
        out = nn.initializers.normal(cfg.init_std / (2 * cfg.depth) ** 0.5)
        return Dense(cfg.width, True, out, cfg.dtype, name="fc2")(nn.gelu(hidden, approximate=True))


def modulation_init(cfg: VARConfig, gates: int, gate_scale: float) -> nn.initializers.Initializer:
    """Normal weights: the first `gates` x D outputs start near zero, the others at half size."""

    def init(key: jax.Array, shape: tuple[int, ...], dtype: Dtype = jnp.float32) -> jax.Array:
        scale = jnp.where(jnp.arange(shape[1]) < gates * cfg.width, gate_scale, 0.5)
        return jax.random.normal(key, shape, dtype) * cfg.init_std * scale

    return init


def by_kind(kind_BxNx2: jax.Array, rows_2xD: jax.Array) -> jax.Array:
    """(B, N, D): each token's row. A product, whose gradient is one too."""
    return kind_BxNx2.astype(rows_2xD.dtype) @ rows_2xD


class Block(nn.Module):
    cfg: VARConfig
    gate_init: float

    @nn.compact
    def __call__(
        self,
        x,
        cond_BxD,
        shared_Bx6xD,
        flags: Flags | None,
        mask,
        cache: KV | None = None,
        chance: Chance | None = None,
    ):
        cfg = self.cfg
        if cfg.shared_aln:
            ada = self.param("ada_gss", nn.initializers.normal(cfg.width**-0.5), (6, cfg.width), jnp.float32)
            ada_Bx6xD = ada.astype(cfg.dtype) + shared_Bx6xD
        else:
            init = modulation_init(cfg, 2, self.gate_init)
            ada = Dense(6 * cfg.width, True, init, cfg.dtype, name="ada_lin")(nn.silu(cond_BxD))
            ada_Bx6xD = ada.reshape(-1, 6, cfg.width)
        gamma1, gamma2, scale1, scale2, shift1, shift2 = (ada_Bx6xD[:, i] for i in range(6))
        y, cache = Attention(cfg, name="attn")(modulate(layer_norm(x), scale1, shift1), mask, cache)
        x = x + dropping.branch(chance, gamma1[:, None] * y, 0)
        if flags is not None:
            x = x + by_kind(*flags)
        y = FeedForward(cfg, name="ffn")(modulate(layer_norm(x), scale2, shift2))
        return x + dropping.branch(chance, gamma2[:, None] * y, 1), cache


class VAR(nn.Module):
    """`distilled=True` is the student's trunk: one more position and level, flags in each block.

    `ahead=True`: it reads ahead, from positions and levels that are the teacher's.
    """

    cfg: VARConfig
    distilled: bool = False
    ahead: bool = False
    gate_init: float = 1e-5  # the release starts residual gates near zero; small models learn faster with 1

    def setup(self) -> None:
        cfg, extra = self.cfg, len(self.sides) - len(self.cfg.sides)
        init = nn.initializers.normal(cfg.init_std)
        self.word_embed = Dense(cfg.width, True, init, cfg.dtype)
        self.class_emb = nn.Embed(cfg.classes + 1, cfg.width, embedding_init=init)
        self.lvl_embed = nn.Embed(len(cfg.sides) + extra, cfg.width, embedding_init=init)
        self.pos_start = self.param("pos_start", init, (cfg.width,), jnp.float32)
        self.pos = self.param("pos_1LC", init, (cfg.tokens + extra, cfg.width), jnp.float32)
        if cfg.shared_aln:
            gates = modulation_init(cfg, 2, self.gate_init)
            self.shared_ada_lin = Dense(6 * cfg.width, True, gates, cfg.dtype)
        self.blocks = [Block(cfg, self.gate_init) for _ in range(cfg.depth)]
        self.head_nm = Dense(2 * cfg.width, True, modulation_init(cfg, 0, 1.0), cfg.dtype)
        self.head = Dense(cfg.vocab, True, nn.initializers.normal(0.02 * cfg.init_std))
        if self.distilled:
            self.layerwise_n_d_embed = [Dense(cfg.width, True, init, cfg.dtype) for _ in range(cfg.depth + 1)]

    @property
    def sides(self) -> tuple[int, ...]:
        """Of all levels: a student that reads its own noise has the class token's before the first scale."""
        return (1, *self.cfg.sides) if self.distilled and not self.ahead else self.cfg.sides

    def embed_cond(self, cond: Cond) -> jax.Array:
        """(B, D): the start token and the AdaLN condition are the same raw class vector."""
        return self.class_emb(class_rows(cond, self.cfg.classes))

    def blank(self, batch: int) -> Cond:
        """A condition of the right structure."""
        return Cond(jnp.zeros(batch, jnp.int32))

    def place(self, h_BxMxD: jax.Array, first: int) -> jax.Array:
        """Add position and level embeddings to rows first..first+M-1 (static)."""
        level = np.repeat(np.arange(len(self.sides)), [side * side for side in self.sides])
        rows = slice(first, first + h_BxMxD.shape[1])
        return (h_BxMxD + self.pos[rows] + self.lvl_embed(level[rows])).astype(self.cfg.dtype)

    def embed(self, x_BxMxC: jax.Array, first: int) -> jax.Array:
        """Feature-map vectors at positions first.. -> (B, M, D)."""
        return self.place(self.word_embed(x_BxMxC), first)

    def start_token(self, cond_BxD: jax.Array) -> jax.Array:
        """(B, 1, D) class token."""
        return self.place((cond_BxD + self.pos_start)[:, None], 0)

    def shared(self, cond_BxD: jax.Array) -> jax.Array | None:
        """(B, 6, D) the modulation that all blocks have in common, where they do."""
        if not self.cfg.shared_aln:
            return None
        return self.shared_ada_lin(nn.silu(cond_BxD)).reshape(-1, 6, self.cfg.width)

    def stream(self, h_BxNxD, cond_BxD, mask, flags: Flags | None = None, chance: Chance | None = None) -> jax.Array:
        """The residual stream (B, N, D) of all positions behind all blocks."""
        cfg, shared = self.cfg, self.shared(cond_BxD)
        rows = [flags and self.flag(flags, i)[1] for i in range(cfg.depth)]
        own = list(zip(rows, dropping.layers(chance, cfg.depth), strict=True))

        def call(block: nn.Module, h: jax.Array, own: tuple[jax.Array | None, Chance | None]) -> jax.Array:
            return block(h, cond_BxD, shared, flags and (flags[0], own[0]), mask, chance=own[1])[0]

        return stack.halves(self, self.blocks, h_BxNxD, call, own, cfg.remat, cfg.scan)

    def run(self, h_BxMxD, cond_BxD, mask, caches: list[KV] | None = None) -> tuple[jax.Array, list[KV]]:
        """The same of the M positions that come next, and the caches grown by them; no caches: the first M."""
        out, shared, h_BxMxD = [], self.shared(cond_BxD), constrain(h_BxMxD)
        for i, block in enumerate(self.blocks):
            h_BxMxD, cache = block(h_BxMxD, cond_BxD, shared, None, mask, caches[i] if caches else None)
            h_BxMxD = constrain(h_BxMxD)
            out.append(cache)
        return h_BxMxD, out

    def logits(self, h: jax.Array, cond_BxD: jax.Array) -> jax.Array:
        """Residual stream -> AdaLN -> float32 logits over the codebook."""
        scale, shift = jnp.split(self.head_nm(nn.silu(cond_BxD)), 2, -1)
        return self.head(modulate(layer_norm(h), scale, shift).astype(jnp.float32))

    def flag(self, flags: Flags, layer: int) -> Flags:
        """Data/noise embedding of one layer: the dense layer sees its two rows, not every token."""
        return flags[0], self.layerwise_n_d_embed[layer](flags[1])

    def before(self, x_BxLxC: jax.Array) -> jax.Array:
        """What the positions that predict scales 1.. hold: the scale before, resized, as the teacher is fed codes."""
        sides, start = self.cfg.sides, np.cumsum([0, *(side * side for side in self.cfg.sides)])
        scales = [
            resize("up", x_BxLxC[:, start[s] : start[s + 1]], side, sides[s + 1]) for s, side in enumerate(sides[:-1])
        ]
        return jnp.concatenate([x_BxLxC[:, :0], *scales], 1)

    def encode(self, cond: Cond, x_BxLxC, kind_BxNx2, nd_2xD, mask_NxN) -> tuple[jax.Array, jax.Array]:
        """Student's trunk: (B, N, D) stream that both heads read, and the (B, D) condition vector.

        `kind` says noise or data, one-hot: a product with the two rows of `nd`, whose gradient is one too.
        """
        cond_BxD = self.embed_cond(cond)
        h = jnp.concatenate([self.start_token(cond_BxD), self.embed(x_BxLxC, 1)], 1)
        h = self.stream(h + (kind_BxNx2 @ nd_2xD).astype(h.dtype), cond_BxD, mask_NxN, (kind_BxNx2, nd_2xD))
        return h + by_kind(*self.flag((kind_BxNx2, nd_2xD), -1)), cond_BxD

    def read(self, cond: Cond, x_BxMxC, mask_LxL, chance: Chance | None = None) -> tuple[jax.Array, jax.Array]:
        """Teacher forcing: x are the feature maps of scales 1.. (B, L - 1, C) -> stream (B, L, D), condition (B, D)."""
        cond_BxD = self.embed_cond(cond)
        h = dropping.values(chance, jnp.concatenate([self.start_token(cond_BxD), self.embed(x_BxMxC, 1)], 1))
        return self.stream(h, cond_BxD, mask_LxL, chance=chance), cond_BxD

    def teach(self, cond: Cond, x_BxMxC: jax.Array, mask_LxL, chance: Chance | None = None) -> jax.Array:
        """The same -> logits (B, L, V)."""
        return self.logits(*self.read(cond, x_BxMxC, mask_LxL, chance))


def inherit(fresh: dict, teacher: dict) -> dict:
    """The student trunk's start (App. C): all of the teacher, and a new position and level.

    Row 0 (the teacher's first scale) becomes the class token's, rows 2.. are the teacher's 1.., row 1 is new. A student
    that reads ahead has the teacher's positions, and takes all; from another student, row 1 is left out.
    """

    def insert(table: jax.Array, new: jax.Array) -> jax.Array:
        if len(table) == len(new):
            return table
        middle = new[1:2] if len(table) < len(new) else table[:0]
        return jnp.concatenate([table[:1], middle, table[1 if len(table) < len(new) else 2 :]])

    taken = {k: v for k, v in teacher.items() if k not in ("lvl_embed", "pos_1LC")}
    level = insert(teacher["lvl_embed"]["embedding"], fresh["lvl_embed"]["embedding"])
    position = insert(teacher["pos_1LC"], fresh["pos_1LC"])
    return {**fresh, **taken, "lvl_embed": {"embedding": level}, "pos_1LC": position}
