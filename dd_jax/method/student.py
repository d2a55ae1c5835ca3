"""The few-step student: a family's trunk, a data/noise embedding, and the heads that read it (paper App. C).

`logits`: token i is the likeliest code, read where its own noise is. `embedding`: its vector is regressed there.
`both`: as released, logits before `config.student.split` and regressed vectors from it on. `flow` (not in the paper):
logits are read where the noises of earlier steps alone are, so that p_i is the student's distribution of token i given
those; its own noise, which is independent of them, then draws the code by the exact flow, all tokens at once.
`velocity` (Distilled Decoding 2): the same stream and a token's own noise go through a small network that answers with
a continuous token, in the codebook's frame (see `flow.framed`); its nearest code is drawn.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.method.csd import VelocityHead
from dd_jax.method.interfaces import Cond, Inherit, Params
from dd_jax.method.layout import Layout
from dd_jax.nn.layers import Dense, layer_norm, modulate
from dd_jax.nn.stack import MIDDLE
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.system.runtime import jit_once

HEADS = ("logits", "embedding", "both", "flow", "velocity")
AHEAD = ("flow", "velocity")  # those whose stream holds the noises of earlier steps alone


def split_of(head: str, split: int | None, steps: int) -> int:
    """The AR step from which on vectors are drawn, as a head's settings say it; none: from no step on."""
    return 0 if head == "embedding" else steps if split is None else split


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
    """[condition; x_1..x_L] through the trunk; output i predicts token i from its noise and earlier steps.

    Behind a head that reads ahead, from earlier steps alone: see `Layout.ahead` and `interfaces.AheadTrunk`.
    """

    trunk: Any  # a `Trunk`, and for a head that reads ahead an `AheadTrunk`
    layout: Layout
    code_dim: int
    width: int
    same_step: bool = False  # the paper's mask for tokens of one step; released models: False
    head: str = "both"  # one of HEADS

    def setup(self) -> None:
        # Row 1 marks data (the condition included), row 0 noise.
        self.n_d_embed = nn.Embed(2, self.width, embedding_init=nn.initializers.normal(0.02))
        if self.regresses:
            self.embedding_head = EmbeddingHead(self.code_dim)
        if self.head == "velocity":
            self.velocity_head = VelocityHead(self.code_dim)

    @property
    def regresses(self) -> bool:
        """Is there a head that regresses code vectors?"""
        return self.head in ("embedding", "both")

    def __call__(self, cond: Cond, x_BxLxC: jax.Array, t_B: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        layout, ahead = self.layout, self.head in AHEAD
        kind_BxNx2 = jax.nn.one_hot(layout.is_data(t_B, ahead).astype(jnp.int32), 2)
        mask = layout.teacher_mask(layout.ahead) if ahead else layout.student_mask(self.same_step)
        held = self.trunk.before(x_BxLxC) if ahead else x_BxLxC
        h, cond_BxD = self.trunk.encode(cond, held, kind_BxNx2, self.n_d_embed(jnp.arange(2)), mask)
        if self.is_mutable_collection(MIDDLE) and not self.is_initializing():
            (middle,) = self.trunk.get_variable(MIDDLE, "stream")
            self.sow(MIDDLE, "logits", self.trunk.logits(middle[:, -layout.tokens :], cond_BxD))
        h = h[:, -layout.tokens :]
        if self.head == "velocity":  # q = eps - v; no logits
            token = x_BxLxC - self.velocity_head(x_BxLxC, jnp.ones(x_BxLxC.shape[:2]), h, cond_BxD)
            return jnp.zeros((*token.shape[:2], 0)), token
        return self.trunk.logits(h, cond_BxD), self.embedding_head(h, cond_BxD) if self.regresses else None


@dataclasses.dataclass(frozen=True)
class Student:
    """The `Student` protocol over a `StudentNet`."""

    net: StudentNet
    inherit: Inherit  # the family's rule

    @property
    def layout(self) -> Layout:
        return self.net.layout

    @property
    def head(self) -> str:
        return self.net.head

    def __call__(
        self, params: Params, cond: Cond, x_BxLxC: jax.Array, t_B: jax.Array
    ) -> tuple[jax.Array, jax.Array | None]:
        out: Any = self.net.apply({"params": params}, cond, x_BxLxC, t_B)
        return out

    def deeply(
        self, params: Params, cond: Cond, x_BxLxC: jax.Array, t_B: jax.Array
    ) -> tuple[jax.Array, jax.Array | None, jax.Array]:
        """The same, and the logits (B, L, V) that the same norm and output layer read behind half of the blocks."""
        (logits, token), seen = self.net.apply({"params": params}, cond, x_BxLxC, t_B, mutable=[MIDDLE])
        return logits, token, seen[MIDDLE]["logits"][0]

    def with_head(self, head: str, same_step: bool) -> "Student":
        """The same trunk behind another of `HEADS`, under its mask."""
        ahead = {"ahead": head in AHEAD} if hasattr(self.net.trunk, "ahead") else {}
        net = self.net.clone(head=head, same_step=same_step, trunk=self.net.trunk.clone(**ahead))
        return dataclasses.replace(self, net=net)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        x = jnp.zeros((1, self.layout.tokens, self.net.code_dim))
        return rng.fresh(self.net, key, self.net.trunk.blank(1), x, jnp.zeros((1,), jnp.int32))

    def init_from_student(self, key: jax.Array, other: Params) -> Params:
        """Another student's parameters, whatever its head; what it lacks is drawn afresh.

        UserError where the two differ in more than their heads.
        """
        fresh = self.init(key)
        taken = {name: other[name] for name in fresh if name in other}
        start = {**fresh, **taken, "trunk": self._trunk(fresh, other["trunk"])}
        if jax.tree.map(jnp.shape, start) != jax.tree.map(jnp.shape, fresh):
            raise UserError("config.weights.start is a student of other sizes than config.model says")
        return start

    def init_from_teacher(self, key: jax.Array, teacher_trunk: Params) -> Params:
        """App. C: what the teacher has is inherited, what it lacks is drawn afresh."""

        def make(key: jax.Array, trunk: Params) -> Params:  # in one program: nothing is drawn that is then replaced
            fresh = self.init(key)
            return {**fresh, "trunk": self._trunk(fresh, trunk)}

        return jit_once(make)(key, teacher_trunk)

    def _trunk(self, fresh: Params, other: Params) -> Params:
        """What the family inherits of another trunk, as far as this student's head reads it."""
        found = self.inherit(fresh["trunk"], other)
        return {name: found[name] for name in fresh["trunk"]}

    def backbone(self, teacher: Any) -> Any:
        """The teacher's network, computing as this student does (precision, rematerialisation): what CSD trains."""
        return dataclasses.replace(teacher, trunk=teacher.trunk.clone(cfg=self.net.trunk.cfg))

    def init_from_score(self, params: Params, score: Params) -> Params:
        """`params` begun again as a score network (CSD): its blocks and its head."""
        return {**params, "trunk": self._trunk(params, score["trunk"]), "velocity_head": score["head"]}
