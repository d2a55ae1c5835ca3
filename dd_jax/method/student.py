"""The few-step student: a family's trunk, a data/noise embedding, and two heads (paper App. C)."""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.method.interfaces import Cond, Inherit, Params, Trunk
from dd_jax.method.layout import Layout
from dd_jax.nn.layers import Dense, layer_norm, modulate
from dd_jax.system import rng
from dd_jax.system.runtime import jit_once


class EmbeddingHead(nn.Module):
    """Regresses code vectors: LayerNorm, shift and scale from a table plus the condition, one dense layer."""

    code_dim: int

    @nn.compact
    def __call__(self, h_BxNxD: jax.Array, cond_BxD: jax.Array) -> jax.Array:
        width = h_BxNxD.shape[-1]
        init = nn.initializers.normal(width**-0.5)
        table_2xD = self.param("scale_shift_table", init, (2, width), jnp.float32)
        h, cond_BxD = h_BxNxD.astype(jnp.float32), cond_BxD.astype(jnp.float32)
        h = modulate(layer_norm(h), table_2xD[1] + cond_BxD, table_2xD[0] + cond_BxD)
        return Dense(self.code_dim, name="linear")(h)


class StudentNet(nn.Module):
    """[condition; x_1..x_L] through the trunk; output i predicts token i from its noise and earlier steps."""

    trunk: Trunk
    layout: Layout
    code_dim: int
    width: int
    same_step: bool = False  # the paper's mask for tokens of one step; released models: False

    def setup(self) -> None:
        # Row 1 marks data (the condition included), row 0 noise.
        self.n_d_embed = nn.Embed(2, self.width, embedding_init=nn.initializers.normal(0.02))
        self.embedding_head = EmbeddingHead(self.code_dim)

    def __call__(self, cond: Cond, x_BxLxC: jax.Array, t_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        kind_BxNx2 = jax.nn.one_hot(self.layout.is_data(t_B).astype(jnp.int32), 2)
        mask = self.layout.student_mask(self.same_step)
        h, cond_BxD = self.trunk.encode(cond, x_BxLxC, kind_BxNx2, self.n_d_embed(jnp.arange(2)), mask)
        h = h[:, self.layout.cond :]
        return self.trunk.logits(h, cond_BxD), self.embedding_head(h, cond_BxD)


@dataclasses.dataclass(frozen=True)
class Student:
    """The `Student` protocol over a `StudentNet`."""

    net: StudentNet
    inherit: Inherit  # the family's rule

    @property
    def layout(self) -> Layout:
        return self.net.layout

    def __call__(self, params: Params, cond: Cond, x_BxLxC: jax.Array, t_B: jax.Array) -> tuple[jax.Array, jax.Array]:
        out: Any = self.net.apply({"params": params}, cond, x_BxLxC, t_B)
        return out

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        x = jnp.zeros((1, self.layout.tokens, self.net.code_dim))
        return rng.fresh(self.net, key, self.net.trunk.blank(1), x, jnp.zeros((1,), jnp.int32))

    def init_from_teacher(self, key: jax.Array, teacher_trunk: Params) -> Params:
        """App. C: what the teacher has is inherited, what it lacks is drawn afresh."""

        def make(key: jax.Array, trunk: Params) -> Params:  # in one program: nothing is drawn that is then replaced
            fresh = self.init(key)
            return {**fresh, "trunk": self.inherit(fresh["trunk"], trunk)}

        return jit_once(make)(key, teacher_trunk)
