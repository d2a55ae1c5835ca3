"""The flow run backwards: from a code to a noise that maps to it, and the way between two noises.

With u near 1, x = (1 - u) z + u c, z ~ N(0, I), is where the flow to code c stands at time u. Followed back to u = 0
it is a draw from all noises that the flow maps to c: over codes drawn from p, such noises are standard Gaussian.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dd_jax.method import flow, solvers
from dd_jax.method.interfaces import Cond, Params
from dd_jax.method.models import Models
from dd_jax.system.errors import UserError

PARTS = 16  # of a batch's tokens, inverted one after another: a few that are drawn again cost one part
LEAST = 64  # tokens of a part, if there are so many


class Inverted(NamedTuple):
    """What `invert` returns."""

    noise: Any  # an array (..., C) float32
    exact: Any  # (...) bool: `flow.transport` maps this noise to the code that was given


@dataclasses.dataclass(frozen=True)
class Backwards:
    """How a code becomes a noise: Heun's steps on the data prediction (DPM-Solver-2 backwards), and redraws.

    `steps` lie evenly in (-log(1 - u))^(1 / bend) from u = `end` to 0: the data prediction changes most where a code
    is decided, which no grid knows beforehand. Of tokens that do not come back under `transport`, which has errors of
    its own, another noise is drawn, `redraws` times at most.

    Share of codes that come back at once, without redraws, 16 evaluations forwards: V 64, C 4, MNIST's teacher: .999;
    V 4096, C 32: .999; V 16384, C 8, unit norm: .998, and of peaked p (likeliest code .3) .991, in 47 steps .994, in
    62 .996. Of flat p (2,000 tokens) .993 at V 64 and .995 at V 16384; in 62 steps, with 32 evaluations forwards, .996
    and .999: there the transport's own errors count. Plain Heun steps of x have noise of deviation .98 to .99 at C 32.
    """

    steps: int = 31
    end: float = 0.995
    bend: float = 1.5
    redraws: int = 15

    @functools.cached_property
    def nodes(self) -> np.ndarray:
        """(steps + 1,) flow times, float64, falling to 0."""
        return -np.expm1(np.log1p(-self.end) * np.linspace(1, 0, self.steps + 1) ** self.bend)

    @functools.cached_property
    def table(self) -> np.ndarray:
        """(steps, 4) float64: x at the next node is w0 x + w1 D, and redone with its own D' w0 x + w2 D' + w3 D."""
        rows = []
        for u, v in zip(self.nodes, self.nodes[1:], strict=False):
            first = solvers.adams_weights(np.array([u]), u, v)
            both = solvers.adams_weights(np.array([v, u]), u, v)
            rows.append([(1 - v) / (1 - u), *((1 - v) * np.concatenate([first, both]))])
        return np.array(rows)


def invert(
    code: jax.Array,
    logits: jax.Array,
    codebook_VxC: jax.Array,
    key: jax.Array,
    solver: flow.FlowSolver = flow.FlowSolver(),
    backwards: Backwards = Backwards(),
) -> Inverted:
    """Eq. 4 backwards: code (...) int, logits (..., V) -> noise (..., C) that `flow.transport` maps to it, at random.

    `key`: one, or one a token, (...). Pure and jit-able, `solver` (that of the transport) and `backwards` static. No
    noise maps to a code of probability 0 (logit -inf): its token gets one that maps elsewhere, and is not `exact`. Nor
    is one that no redraw brings back. UserError for shapes that do not fit.
    """
    if code.shape != logits.shape[:-1] or len(codebook_VxC) != logits.shape[-1] or key.shape not in ((), code.shape):
        raise UserError(
            f"code {code.shape}, logits {logits.shape}, codebook {codebook_VxC.shape} and key {key.shape} do not fit; "
            "expected (...), (..., V), (V, C), and () or (...)"
        )
    key_N = key.reshape(-1) if key.shape else jax.random.split(key, code.size)
    logits_NxV = logits.reshape(-1, logits.shape[-1]).astype(jnp.float32)
    noise_NxC, exact_N = _drawn(
        key_N, code.reshape(-1), logits_NxV, codebook_VxC.astype(jnp.float32), solver, backwards
    )
    return Inverted(noise_NxC.reshape(*code.shape, -1), exact_N.reshape(code.shape))


def _drawn(
    key_N: jax.Array,
    code_N: jax.Array,
    logits_NxV: jax.Array,
    codebook_VxC: jax.Array,
    solver: flow.FlowSolver,
    backwards: Backwards,
) -> tuple[jax.Array, jax.Array]:
    """`invert` on flat arrays: a part of the tokens at a time, among them those that did not come back before.

    A token's draws follow from its key and their number, so they do not depend on what else is in the batch.
    """
    total = len(code_N)
    part = min(total, max(total // PARTS, LEAST))
    possible_N = jnp.isfinite(jnp.take_along_axis(logits_NxV, code_N[:, None], -1)[:, 0])
    allowed_N = jnp.where(possible_N, 1 + backwards.redraws, 1)

    def due(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        _, exact_N, tries_N = state
        return ~exact_N & (tries_N < allowed_N)

    def draw(state: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array, jax.Array]:
        noise_NxC, exact_N, tries_N = state
        (at,) = jnp.nonzero(due(state), size=part, fill_value=total)  # past the end: written nowhere
        some = jnp.minimum(at, total - 1)
        logits, code = logits_NxV[some], code_N[some]
        keys = jax.vmap(jax.random.fold_in)(key_N[some], tries_N[some])
        eps = jax.vmap(lambda key: jax.random.normal(key, codebook_VxC.shape[1:], jnp.float32))(keys)
        noise = _back(eps, code, logits, codebook_VxC, solver.normalise, backwards)
        exact = flow.transport(noise, logits, codebook_VxC, solver) == code
        return noise_NxC.at[at].set(noise), exact_N.at[at].set(exact), tries_N.at[at].add(1)

    none = jnp.zeros(total, jnp.int32)
    start = jnp.zeros((total, codebook_VxC.shape[1])), none > 0, none
    noise_NxC, exact_N, _ = jax.lax.while_loop(lambda state: jnp.any(due(state)), draw, start)
    return noise_NxC, exact_N


def _back(
    eps_NxC: jax.Array,
    code_N: jax.Array,
    logits_NxV: jax.Array,
    codebook_VxC: jax.Array,
    normalise: bool,
    backwards: Backwards,
) -> jax.Array:
    """(N, C): x at u = 0, from x at u near 1, in the tokens' own frames, where the map is the same."""
    frame_VxC, mean_NxC, scale_N = flow._frame(logits_NxV, codebook_VxC, normalise)
    token_NxC = (frame_VxC[code_N] - mean_NxC) / scale_N[:, None]

    def data(x_NxC: jax.Array, u: jax.Array) -> jax.Array:
        """E[c | x]."""
        return x_NxC + (1 - u) * flow._velocity_B(x_NxC, u, logits_NxV, frame_VxC, mean_NxC, scale_N)

    def step(x_NxC: jax.Array, row: tuple[jax.Array, jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        u, v, weight = row
        here = data(x_NxC, u)
        there = data(weight[0] * x_NxC + weight[1] * here, v)
        return weight[0] * x_NxC + weight[2] * there + weight[3] * here, None

    node, table = (jnp.asarray(x, jnp.float32) for x in (backwards.nodes, backwards.table))
    x_NxC = (1 - node[0]) * eps_NxC + node[0] * token_NxC
    return jax.lax.scan(step, x_NxC, (node[:-1], node[1:], table))[0]


def noise_of(models: Models, params: dict[str, Params], cond: Cond, code_BxL: jax.Array, key_B: jax.Array) -> Inverted:
    """The noise from which the teacher draws these codes: (B, L, C), all positions at once.

    The teacher reads the picture's own codes. Where its filter (top-k, top-p) drops a code, no noise draws it: that
    token's noise is the one of the teacher's unfiltered distribution, and not `exact`.
    """
    logits_BxLxV = models.teacher.parallel(params["teacher"], cond, code_BxL)
    kept_BxLxV = models.filter(logits_BxLxV)
    dropped_BxL = jnp.take_along_axis(kept_BxLxV, code_BxL[..., None], -1)[..., 0] == -jnp.inf
    used_BxLxV = jnp.where(dropped_BxL[..., None], logits_BxLxV, kept_BxLxV)
    keys = jax.vmap(lambda key: jax.random.split(key, code_BxL.shape[1]))(key_B)
    codebook_VxC = models.tokenizer.codebook(params["tokenizer"])
    noise_BxLxC, exact_BxL = invert(code_BxL, used_BxLxV, codebook_VxC, keys, models.solver)
    return Inverted(noise_BxLxC, exact_BxL & ~dropped_BxL)


def slerp(noise_a: ArrayLike, noise_b: ArrayLike, weight: ArrayLike) -> jax.Array:
    """From one noise, (..., C), to another: each token's vector on its great circle, its length in even steps.

    `weight`: 0 gives a, 1 gives b; K weights give (K, ..., C). Lengths and directions stay a Gaussian's, nearly, where
    a straight line would pass too near to zero. UserError for noises of two shapes, or without numbers.
    """
    a, b, share = (jnp.asarray(x, jnp.float32) for x in (noise_a, noise_b, weight))
    if a.shape != b.shape or not a.ndim or share.ndim > 1:
        raise UserError(
            f"slerp of noises {a.shape} and {b.shape}, weight {share.shape}: give two of one shape (..., C), and a "
            "number or a list of them"
        )
    share = share.reshape(*share.shape, *[1] * a.ndim)
    length_a, length_b = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (a, b))
    unit_a, unit_b = a / jnp.maximum(length_a, 1e-12), b / jnp.maximum(length_b, 1e-12)
    apart, along = (jnp.linalg.norm(x, axis=-1, keepdims=True) for x in (unit_a - unit_b, unit_a + unit_b))
    angle = 2 * jnp.arctan2(apart, along)
    sine = jnp.sin(angle)
    on_circle = (jnp.sin((1 - share) * angle) * unit_a + jnp.sin(share * angle) * unit_b) / jnp.maximum(sine, 1e-6)
    straight = (1 - share) * unit_a + share * unit_b
    return ((1 - share) * length_a + share * length_b) * jnp.where(sine > 1e-4, on_circle, straight)
