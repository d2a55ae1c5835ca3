"""The one autoregressive driver: Alg. 1 (noise to codes), teacher sampling and the middle of Alg. 4."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.method import flow
from dd_jax.method.filtering import AnyFilter
from dd_jax.method.interfaces import Cond, Params, Teacher
from dd_jax.method.layout import Layout

# code_BxG, or where codes are mixed also the vectors that stand for them: (code_BxG, token_BxGxC)
Choice = jax.Array | tuple[jax.Array, jax.Array]
# (guided logits_BxGxV of step s, s) -> choice
Pick = Callable[[jax.Array, jax.Array | int], Any]

GUMBEL = "low"  # of two resolutions, JAX's own choice unless a setting says otherwise: draws follow from keys alone


def decode(teacher: Teacher, params: Params, cond: Cond, pick: Pick, s0: int, s1: int, draft: Any) -> Any:
    """Let the teacher emit steps s0..s1-1 behind the codes of steps < s0; -> the draft with them filled in.

    `draft` is what `pick` returns, for all tokens: code_BxL, or (code_BxL, token_BxLxC).
    Steps of one size are one `fori_loop`, ragged steps unroll: one jit either way.
    """
    layout = teacher.layout

    def step(s, carry):
        draft, state = carry
        logits, state = teacher.logits(params, state, s)
        choice = pick(logits, s)
        draft = jax.tree.map(lambda all, new: layout.put(all, s, new), draft, choice)
        return draft, teacher.append(params, state, s, choice)

    code_BxL = draft[0] if isinstance(draft, tuple) else draft
    state = teacher.start(params, cond, code_BxL, s0)
    chunk = teacher.chunk or layout.steps  # the cache grows between chunks: early steps read less of it
    for first in range(s0, s1, chunk):
        last = min(first + chunk, s1)
        carry = draft, teacher.reserve(state, last)
        if layout.uniform:
            draft, state = jax.lax.fori_loop(first, last, step, carry)
        else:
            draft, state = functools.reduce(lambda c, s: step(s, c), range(first, last), carry)
    return draft


def by_flow(
    noise_BxLxC: jax.Array,
    codebook_VxC: jax.Array,
    layout: Layout,
    filt: AnyFilter,
    solver: flow.FlowSolver,
) -> Pick:
    """Eq. 4: a token is the flow's image of its own noise."""
    frame_VxC = flow.framed(codebook_VxC)

    def pick(logits_BxGxV: jax.Array, s: jax.Array | int) -> jax.Array:
        noise_BxGxC = layout.take(noise_BxLxC, s)
        return flow.transport(noise_BxGxC, filt(logits_BxGxV), codebook_VxC, solver, frame_VxC)

    return pick


def by_chance(key_B: jax.Array, filt: AnyFilter) -> Pick:
    """A categorical draw, from one key an example."""

    def pick(logits_BxGxV: jax.Array, s: jax.Array | int) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (0, None))(key_B, s)
        draw = jax.vmap(functools.partial(jax.random.categorical, mode=GUMBEL))
        return draw(keys, filt(logits_BxGxV)).astype(jnp.int32)

    return pick


def by_mixture(key_B: jax.Array, codebook_VxC: jax.Array, layout: Layout, filt: AnyFilter) -> Pick:
    """VAR's "more smooth" draws: Gumbel-softmax mixtures of codes, ever sharper from scale to scale.

    Prettier pictures, but not samples of the teacher's distribution.
    """

    def pick(logits_BxGxV: jax.Array, s: jax.Array | int) -> Choice:
        keys, ratio = jax.vmap(jax.random.fold_in, (0, None))(key_B, s), s / max(layout.steps - 1, 1)
        gumbel = jax.vmap(lambda key: jax.random.gumbel(key, logits_BxGxV.shape[1:], jnp.float32, GUMBEL))(keys)
        score = filt(logits_BxGxV) * (1 + ratio) + gumbel
        weight = jax.nn.softmax(score / max(0.27 * (1 - 0.95 * ratio), 0.005), -1)
        token = jnp.einsum("bgv,vc->bgc", weight, codebook_VxC, precision=flow.HIGHEST)
        return jnp.argmax(score, -1).astype(jnp.int32), token

    return pick


def greedy(logits_BxGxV: jax.Array, s: jax.Array | int) -> jax.Array:
    """The most likely code."""
    return jnp.argmax(logits_BxGxV, -1).astype(jnp.int32)
