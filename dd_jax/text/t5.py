"""The encoder of T5 1.1 (arXiv 1910.10683, 2002.05202), which flan-t5-xl and its siblings share.

Pre-norm blocks without any bias; one table of relative position biases serves all blocks; attention logits are not
divided by the root of the head's size.
"""

import dataclasses
import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method.interfaces import Params
from dd_jax.nn.layers import Dense, Dtype, RMSNorm, rematerialised
from dd_jax.system import rng
from dd_jax.system.sharding import constrain

EPS = 1e-6
RULES = (  # how its arrays are cut over several devices
    (r"attention/[qkv]/kernel$", (None, "model")),
    (r"attention/o/kernel$", ("model", None)),
    (r"feed_forward/wi_[01]/kernel$", (None, "model")),
    (r"feed_forward/wo/kernel$", ("model", None)),
    (r"position_bias$", (None, "model")),
    (r"embedding$", (None, "data")),
)


@dataclasses.dataclass(frozen=True)
class T5Config:
    """Sizes; by default those of flan-t5-xl. `heads` x `head_dim` need not be the width."""

    vocab: int = 32128
    width: int = 2048
    depth: int = 24
    heads: int = 32
    head_dim: int = 64
    hidden: int = 5120
    tokens: int = 120  # a caption's tokens, padding included
    buckets: int = 32  # of relative positions, half of them for each direction
    max_distance: int = 128  # from which on all positions share a bucket
    dtype: Dtype = jnp.float32
    remat: bool = False  # compute blocks again in the backward pass

    def sizes(self) -> dict[str, int]:
        """What a folder of weights says of them: all but `dtype` and `remat`."""
        return {key: x for key, x in dataclasses.asdict(self).items() if key not in ("dtype", "remat")}


@functools.lru_cache
def bucket_table(tokens: int, buckets: int = 32, max_distance: int = 128) -> np.ndarray:
    """(P, P) the bucket of every query and key: own positions up to a quarter of the buckets, then ever wider ones."""
    away = np.arange(tokens)[None, :] - np.arange(tokens)[:, None]
    half, exact = buckets // 2, buckets // 4
    far = np.maximum(np.abs(away), exact).astype(np.float64) / exact
    wide = exact + np.floor(np.log(far) / math.log(max_distance / exact) * (half - exact) + 1e-9)
    size = np.where(np.abs(away) < exact, np.abs(away), np.minimum(wide, half - 1))
    return (half * (away > 0) + size).astype(np.int32)


class Attention(nn.Module):
    cfg: T5Config

    @nn.compact
    def __call__(self, x_BxPxD: jax.Array, bias_BxHxPxP: jax.Array) -> jax.Array:
        cfg, (batch, tokens, width) = self.cfg, x_BxPxD.shape
        start = {"q": (width * cfg.head_dim) ** -0.5, "k": width**-0.5, "v": width**-0.5}

        def heads(name: str) -> jax.Array:
            init = nn.initializers.normal(start[name])
            y = Dense(cfg.heads * cfg.head_dim, False, init, cfg.dtype, name=name)(x_BxPxD)
            return y.reshape(batch, tokens, cfg.heads, cfg.head_dim)

        q, k, v = (heads(name) for name in "qkv")
        logits = jnp.einsum("bmhk,bnhk->bhmn", q, k, preferred_element_type=jnp.float32) + bias_BxHxPxP
        weights = jax.nn.softmax(logits, -1).astype(v.dtype)
        y = jnp.einsum("bhmn,bnhk->bmhk", weights, v).reshape(batch, tokens, -1)
        init = nn.initializers.normal((cfg.heads * cfg.head_dim) ** -0.5)
        return Dense(width, False, init, cfg.dtype, name="o")(y)


class FeedForward(nn.Module):
    cfg: T5Config

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        cfg, init = self.cfg, nn.initializers.normal(self.cfg.width**-0.5)
        gate = nn.gelu(Dense(cfg.hidden, False, init, cfg.dtype, name="wi_0")(x), approximate=True)
        value = Dense(cfg.hidden, False, init, cfg.dtype, name="wi_1")(x)
        init = nn.initializers.normal(cfg.hidden**-0.5)
        return Dense(cfg.width, False, init, cfg.dtype, name="wo")(gate * value)


class Block(nn.Module):
    cfg: T5Config

    @nn.compact
    def __call__(self, x: jax.Array, bias_BxHxPxP: jax.Array) -> jax.Array:
        x = x + Attention(self.cfg, name="attention")(RMSNorm(EPS, name="attention_norm")(x), bias_BxHxPxP)
        return x + FeedForward(self.cfg, name="feed_forward")(RMSNorm(EPS, name="ffn_norm")(x))


class T5(nn.Module):
    """Token numbers and which of them are no padding -> features of every token."""

    cfg: T5Config

    def setup(self) -> None:
        cfg = self.cfg
        self.shared = nn.Embed(cfg.vocab, cfg.width, embedding_init=nn.initializers.normal(1.0))
        self.position_bias = self.param(
            "position_bias", nn.initializers.normal(cfg.width**-0.5), (cfg.buckets, cfg.heads), jnp.float32
        )
        self.block = [Block(cfg) for _ in range(cfg.depth)]
        self.norm = RMSNorm(EPS)

    def __call__(self, token_BxP: jax.Array, valid_BxP: jax.Array) -> jax.Array:
        """feature_BxPxF, F the width; rows of padding are arbitrary numbers. P may be any."""
        return self.run(token_BxP, valid_BxP)[0]

    def run(self, token_BxP: jax.Array, valid_BxP: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
        """(features, the stream before every block and behind the last)."""
        cfg, bias = self.cfg, self._bias(valid_BxP)
        h = constrain(self.shared(token_BxP).astype(cfg.dtype))
        stream = [h]
        for block in self.block:
            h = rematerialised(Block.__call__, block, h, bias) if cfg.remat else block(h, bias)
            h = constrain(h)
            stream.append(h)
        return self.norm(h), stream

    def _bias(self, valid_BxP: jax.Array) -> jax.Array:
        """What attention adds to its logits, in float32: the position's bias, and padding hidden from all queries."""
        cfg = self.cfg
        table_PxP = bucket_table(valid_BxP.shape[1], cfg.buckets, cfg.max_distance)
        bias_HxPxP = jnp.transpose(self.position_bias.astype(jnp.float32)[table_PxP], (2, 0, 1))
        return jnp.where(valid_BxP[:, None, None], bias_HxPxP, -1e30)


def init(cfg: T5Config, key: jax.Array) -> Params:
    """Random parameters."""
    blank = jnp.zeros((1, 1), jnp.int32)
    return rng.fresh(T5(cfg), key, blank, blank == 0)


def encode(cfg: T5Config, params: Params, token_BxP: jax.Array, valid_BxP: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Tokens padded on the right -> (caption_BxPxF, valid_BxP) as backbones take captions: padded on the left."""
    feature_BxPxF: Any = T5(cfg).apply({"params": params}, token_BxP, valid_BxP)
    return left_pad(feature_BxPxF, valid_BxP)


def left_pad(feature_BxPxF: jax.Array, valid_BxP: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Features padded on the right -> (features, valid): valid ones last, in their order, zeros before them."""
    tokens = valid_BxP.shape[1]
    length_B = jnp.sum(valid_BxP.astype(jnp.int32), 1)
    source_BxP = (jnp.arange(tokens) + length_B[:, None]) % tokens
    valid_BxP = jnp.arange(tokens) >= tokens - length_B[:, None]
    moved = jnp.take_along_axis(feature_BxPxF, source_BxP[..., None], 1)
    return jnp.where(valid_BxP[..., None], moved, 0), valid_BxP


def flops(cfg: T5Config, tokens: int) -> int:
    """Of one caption of so many tokens, padding included: 2 a multiply-add."""
    inner = cfg.heads * cfg.head_dim
    weights = 4 * cfg.width * inner + 3 * cfg.width * cfg.hidden
    return cfg.depth * (2 * tokens * weights + 4 * tokens * tokens * inner)
