"""Conditional score distillation (Distilled Decoding 2, arXiv 2510.21003): a student of continuous tokens, by scores.

Time runs as there, t = 0 data, t = 1 noise: x_t = (1 - t) q + t eps. A score is written as the data that it predicts,
D(x, t) = E[q_i | x_t, q_<i], from which score -(x - (1 - t) D) / t^2 and velocity (x - D) / t follow. The teacher's D
is known in closed form from its guided, filtered logits and the codebook; the student's is what a second backbone, the
score network, learns; the student follows their difference. All in the codebook's own frame, (c - mean) / rms.

A q is snapped to its nearest code wherever it is read: as prefix, by the teacher and by the score network, which reads
codes as its teacher does and so begins with the teacher's own features; and at the end, by the decoder. Where the
scores agree, each conditional of the codes is the teacher's, and so is their joint distribution.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method import flow
from dd_jax.method.fewstep import noise_for
from dd_jax.method.interfaces import Cond, Params, ScoredStudent
from dd_jax.method.models import Models
from dd_jax.nn.layers import Dense, layer_norm
from dd_jax.nn.stored import restored
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import constrain

LEAST = 0.02  # least t that is drawn: below it the teacher's D is the nearest code
SHORT = 0.05  # least distance of q from D, in units of the codebook's, that a token's loss is divided by
# The fewest steps that train each network in each way.
SHORTEST = {"steps": 6, "csd": {"start_steps": (1, 1), "updates": (1, 1), "align_at": 2, "align": 1, "start_batch": 0}}
HEAD, START, SCORE, GENERATOR = range(4)  # whose turn a step is
Seen = dict[str, jax.Array]
SEEN = ("gts", "regression", "fcs", "csd", "gap", "off_code")  # what is told of them, see `Distiller`


@dataclasses.dataclass(frozen=True)
class Csd:
    """The recipe: who is trained when, and how."""

    start: str = "gts"  # both begin as regressed on the teacher's scores; "residual": the score network as the teacher
    start_steps: tuple[int, int] = (0, 0)  # of the regression, its head alone and then all
    start_batch: int = 0  # pairs of its steps; 0: as many as other steps have fresh noises
    start_lr: float = 2e-4
    score_lr: float = 2e-4
    updates: tuple[int, int] = (5, 2)  # of the score network before each of the student: before and after alignment
    align_at: int = 0  # step behind the start at which the average becomes the student, and then
    align: int = 0  # so many updates of the score network alone; 0: never
    draws: int = 4  # noised copies of a token that the score network learns from
    alpha: float = 1.0  # of the student's loss; 1: the cross term alone

    @classmethod
    def of(cls, train: Mapping[str, Any]) -> "Csd":
        """What a config says of it. UserError for what does not go together."""
        fields: dict[str, Any] = {}
        for key, x in train["csd"].items():
            fields[key] = tuple(x) if isinstance(x, list | tuple) else x
        plan = cls(**fields)
        if tuple(train["timesteps"]) != (0,):
            raise UserError(f"config.train.timesteps={tuple(train['timesteps'])}: csd trains one step: set it to (0,)")
        if train["steps"] <= plan.first:
            told = f"config.train.steps={train['steps']}, and config.train.csd.start_steps take {plan.first}"
            raise UserError(f"{told}: more of them")
        return plan

    @property
    def residual(self) -> bool:
        """Is the score network the teacher's score and a correction that begins as zero?"""
        return self.start == "residual"

    @property
    def first(self) -> int:
        """Steps of the start."""
        return sum(self.start_steps)

    @property
    def turns(self) -> tuple[int, ...]:
        """Those that occur."""
        return (*[turn for turn, steps in zip((HEAD, START), self.start_steps, strict=True) if steps], SCORE, GENERATOR)

    def turn(self, step: Any, np: Any = jnp) -> Any:
        """Whose turn each step is; `step` may be traced."""
        head, (before, after), late = self.start_steps[0], self.updates, step - self.first
        turn = np.where(late % (before + 1) == before, GENERATOR, SCORE)
        if self.align:
            behind = late - self.align_at - self.align
            again = np.where(behind % (after + 1) == after, GENERATOR, SCORE)
            turn = np.where(late < self.align_at, turn, np.where(behind < 0, SCORE, again))
        return np.where(step < head, HEAD, np.where(late < 0, START, turn))

    def counts(self, steps: int) -> tuple[int, int]:
        """Updates of (score network, student) in `steps`, those of the start left out."""
        turn = self.turn(np.arange(steps), np)
        return int(np.sum(turn == SCORE)), int(np.sum(turn == GENERATOR))


def teacher_data(x: jax.Array, t: jax.Array, logits: jax.Array, codebook_VxC: jax.Array) -> jax.Array:
    """Eq. 1: the teacher's D, x (..., C), t (...), logits (..., V) -> (..., C): sum_j w_j c_j with

    w = softmax(log p_j - |x - (1 - t) c_j|^2 / (2 t^2)).
    """

    def one(x_C: jax.Array, t: jax.Array, logits_V: jax.Array) -> jax.Array:
        weight_V = jax.nn.softmax(flow.posterior(x_C, 1 - t, logits_V, codebook_VxC))
        return jnp.dot(weight_V, codebook_VxC, precision=flow.HIGHEST)

    return jnp.vectorize(one, signature="(c),(),(v)->(c)")(x, t, logits)


def score_of(x: jax.Array, t: jax.Array, data: jax.Array) -> jax.Array:
    """The score, gradient of log p_t(x), of what predicts `data`."""
    return -(x - (1 - t[..., None]) * data) / t[..., None] ** 2


def noised(key_B: jax.Array, q_BxLxC: jax.Array, draws: int) -> tuple[jax.Array, jax.Array]:
    """x_t (B, draws, L, C) and t (B, draws, L), uniform and each token's own.

    Examples come first, as everywhere: behind draws, a mesh could not keep them apart in a product's rows.
    """

    def one(key: jax.Array, q_LxC: jax.Array) -> tuple[jax.Array, jax.Array]:
        for_t, for_eps = jax.random.split(key)
        t = jax.random.uniform(for_t, (draws, len(q_LxC)), minval=LEAST)
        eps = jax.random.normal(for_eps, (draws, *q_LxC.shape))
        return (1 - t[..., None]) * q_LxC + t[..., None] * eps, t

    return jax.vmap(one)(key_B, q_BxLxC)


class VelocityHead(nn.Module):
    """MAR's light head: x_t and t of one token, and what its backbone says of it -> a vector, at first zero."""

    code_dim: int
    blocks: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, t: jax.Array, h_BxLxD: jax.Array, cond_BxD: jax.Array) -> jax.Array:
        """x (B, ..., L, any), t (B, ..., L) -> (B, ..., L, C), float32; blocks compute as the backbone does."""
        width, dtype, init = h_BxLxD.shape[-1], h_BxLxD.dtype, nn.initializers.lecun_normal()

        def dense(features: int, name: str) -> Dense:
            return Dense(features, kernel_init=init, dtype=dtype, name=name)

        wave = 1000.0 * t[..., None] * jnp.exp(-np.log(1e4) * jnp.arange(32) / 32)
        given = dense(width, "time")(jnp.concatenate([jnp.cos(wave), jnp.sin(wave)], -1))
        draws = range(1, x.ndim - 2)
        given = given + jnp.expand_dims(dense(width, "stream")(layer_norm(h_BxLxD)), draws)
        given = given + jnp.expand_dims(dense(width, "label")(cond_BxD), (*draws, x.ndim - 2))
        given, y = constrain(nn.silu(given)), constrain(dense(width, "input")(x))
        for i in range(self.blocks):
            scale, shift, gate = jnp.split(dense(3 * width, f"modulation_{i}")(given), 3, -1)
            z = dense(width, f"first_{i}")(layer_norm(y) * (1 + scale) + shift)
            y = constrain(y + gate * dense(width, f"second_{i}")(nn.silu(z)))
        scale, shift = jnp.split(dense(2 * width, "modulation")(given), 2, -1)
        y = (layer_norm(y) * (1 + scale) + shift).astype(jnp.float32)
        return Dense(self.code_dim, kernel_init=nn.initializers.zeros_init(), name="last")(y)


@dataclasses.dataclass(frozen=True)
class Distiller:
    """Student, score network and their losses. `frozen`: codebook, and the teacher's parameters."""

    models: Models
    plan: Csd
    seed: int = 0

    def init(self, key: jax.Array, teacher: Params, codebook_VxC: jax.Array) -> Params:
        """The score network's start: the teacher's trunk, and a head whose last layer is zero."""
        if not hasattr(self.models.teacher, "features"):
            raise UserError("config.train.objective=csd reads a teacher's `features`, which this family's has not")
        cond, shape = self.models.teacher.blank(1), (1, self.models.layout.tokens)
        read = self.student.backbone(self.models.teacher).features
        trunk = restored(teacher["trunk"])
        seen = jax.eval_shape(read, {**teacher, "trunk": trunk}, cond, jnp.zeros(shape, jnp.int32))
        x = jnp.zeros((*shape, codebook_VxC.shape[1] * (1 + self.plan.residual)))
        given = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), seen)
        return {"trunk": trunk, "head": rng.fresh(self._head(codebook_VxC), key, x, jnp.zeros(shape), *given)}

    @property
    def student(self) -> ScoredStudent:
        student: Any = self.models.student
        return student

    def _head(self, codebook_VxC: jax.Array) -> VelocityHead:
        return VelocityHead(codebook_VxC.shape[1])

    def features(self, score: Params, frozen: Params, cond: Cond, code_BxL: jax.Array) -> Any:
        """What the score network's backbone says of every token given the codes before it, and of the condition."""
        read = self.student.backbone(self.models.teacher).features
        return read({**frozen["teacher"], "trunk": score["trunk"]}, cond, code_BxL)

    def gap(self, score: Params, frozen: Params, seen: Any, x: jax.Array, t: jax.Array, data: Any) -> jax.Array:
        """The score network's D minus the teacher's, `data`. By construction zero at first where it is a residual."""
        head = self._head(frozen["codebook"])
        if self.plan.residual:
            correction: Any = head.apply({"params": score["head"]}, jnp.concatenate([x, data], -1), t, *seen)
            return correction
        velocity: Any = head.apply({"params": score["head"]}, x, t, *seen)
        return x - t[..., None] * velocity - data

    def rows(self, rows: dict[str, Any], step: Any) -> dict[str, Any]:
        """A batch's examples, pairs or fresh, with the keys of their noise and, new in every step, of x_t.

        One of each an example, so that nothing depends on how a batch is cut.
        """
        key_B = rng.example_keys(rng.stream(self.seed, "pairs" if "code" in rows else "csd"), rows["id"])
        return {**rows, "noise": key_B, "key": jax.vmap(jax.random.fold_in, (0, None))(key_B, step)}

    def generate(self, student: Params, rows: dict[str, Any], codebook_VxC: jax.Array) -> jax.Array:
        """q (B, L, C) = G(noise), in the codebook's frame."""
        noise = noise_for(rows["noise"], self.models.layout.tokens, codebook_VxC.shape[1])
        _, q = self.models.student(student, rows["cond"], noise, jnp.zeros(len(noise), jnp.int32))
        assert q is not None
        return q

    def judged(self, frozen: Params, cond: Cond, code_BxL: jax.Array) -> jax.Array:
        """The teacher's guided, filtered logits (B, 1, L, V) behind these codes, for any number of draws."""
        models = self.models
        logits = models.filter(models.teacher.parallel(frozen["teacher"], cond, code_BxL))
        return jax.lax.stop_gradient(logits)[:, None]

    def gts(self, score: Params, rows: Any, frozen: Params, still: bool = False) -> tuple[jax.Array, Seen]:
        """Eq. 6 on the pairs' codes, which are the teacher's samples; `still`: the head alone learns."""
        codebook, code = flow.framed(frozen["codebook"]), rows["code"]
        x, t = noised(rows["key"], codebook[code], self.plan.draws)
        data = teacher_data(x, t, self.judged(frozen, rows["cond"], code), codebook)
        seen = self.features(score, frozen, rows["cond"], code)
        seen = jax.lax.stop_gradient(seen) if still else seen
        loss = jnp.mean((self.gap(score, frozen, seen, x, t, data) / t[..., None]) ** 2)
        return loss, {"gts": loss}

    def regression(self, student: Params, rows: Any, frozen: Params) -> tuple[jax.Array, Seen]:
        """The pairs' codes from the pairs' noises: where a student begins that no score network is there to give."""
        codebook = flow.framed(frozen["codebook"])
        loss = jnp.mean((self.generate(student, rows, codebook) - codebook[rows["code"]]) ** 2)
        return loss, {"regression": loss}

    def fcs(self, score: Params, rows: Any, frozen: Params, student: Params) -> tuple[jax.Array, Seen]:
        """Eq. 5 as a regression of velocities: D - q = t (v - (eps - q)), on the student's own q.

        A residual's is weighted by t^2: the velocity of its start is off by the distance to the codes over t.
        """
        codebook = flow.framed(frozen["codebook"])
        q = jax.lax.stop_gradient(self.generate(student, rows, codebook))
        code = flow.nearest(q, codebook)
        x, t = noised(rows["key"], q, self.plan.draws)
        data: Any = 0.0
        if self.plan.residual:
            data = teacher_data(x, t, self.judged(frozen, rows["cond"], code), codebook)
        gap = self.gap(score, frozen, self.features(score, frozen, rows["cond"], code), x, t, data)
        loss = jnp.mean(((data + gap - q[:, None]) / (1.0 if self.plan.residual else t[..., None])) ** 2)
        return loss, {"fcs": loss}

    def csd(self, student: Params, rows: Any, frozen: Params, score: Params) -> tuple[jax.Array, Seen]:
        """Eq. 4 in SiD's form: (1 - alpha) |D_T - D_S|^2 + (D_T - D_S)(D_S - q), over the mean |q - D_T| of a token.

        The gradient enters through q, in x_t and by itself; prefixes are constants.
        """
        codebook = flow.framed(frozen["codebook"])
        q = self.generate(student, rows, codebook)
        code = flow.nearest(jax.lax.stop_gradient(q), codebook)
        x, t = noised(rows["key"], q, 1)
        data = teacher_data(x, t, self.judged(frozen, rows["cond"], code), codebook)
        seen = jax.lax.stop_gradient(self.features(score, frozen, rows["cond"], code))
        gap = self.gap(score, frozen, seen, x, t, data)
        far = jnp.mean(jnp.abs(jax.lax.stop_gradient(q[:, None] - data)), -1, keepdims=True)
        each = (1 - self.plan.alpha) * gap**2 - gap * (data + gap - q[:, None])
        loss = jnp.mean(each / jnp.maximum(far, SHORT))
        off = jnp.sqrt(jnp.mean((q - codebook[code]) ** 2))
        return loss, {"csd": loss, "gap": jnp.sqrt(jnp.mean(gap**2)), "off_code": off}
