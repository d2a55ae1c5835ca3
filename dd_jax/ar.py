"""The one autoregressive driver: Alg. 1 (noise to codes), teacher sampling and the middle of Alg. 4."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax import flow
from dd_jax.filtering import Filter
from dd_jax.interfaces import Cond, Params, Teacher

# (guided logits_BxGxV of step s, s) -> code_BxG
Pick = Callable[[jax.Array, jax.Array | int], jax.Array]


def decode(
    teacher: Teacher, params: Params, cond: Cond, pick: Pick, s0: int, s1: int, code_BxL: jax.Array
) -> jax.Array:
    """Let the teacher emit steps s0..s1-1 behind the codes of steps < s0; -> code_BxL with them filled in.

    Steps of one size are one `fori_loop`, ragged steps unroll: one jit either way.
    """
    layout = teacher.layout

    def step(s, carry):
        code_BxL, state = carry
        logits, state = teacher.logits(params, state, s)
        code_BxG = pick(logits, s)
        return layout.put(code_BxL, s, code_BxG), teacher.append(params, state, s, code_BxG)

    state = teacher.start(params, cond, code_BxL, s0)
    chunk = teacher.chunk or layout.steps  # the cache grows between chunks: early steps read less of it
    for first in range(s0, s1, chunk):
        last = min(first + chunk, s1)
        carry = code_BxL, teacher.reserve(state, last)
        if layout.uniform:
            code_BxL, state = jax.lax.fori_loop(first, last, step, carry)
        else:
            code_BxL, state = functools.reduce(lambda c, s: step(s, c), range(first, last), carry)
    return code_BxL


def by_flow(noise_BxLxC: jax.Array, codebook_VxC: jax.Array, layout, filt: Filter, solver: flow.FlowSolver) -> Pick:
    """Eq. 4: a token is the flow's image of its own noise."""

    def pick(logits_BxGxV: jax.Array, s: jax.Array | int) -> jax.Array:
        noise_BxGxC = layout.take(noise_BxLxC, s)
        return flow.transport(noise_BxGxC, filt(logits_BxGxV), codebook_VxC, solver=solver)

    return pick


def by_chance(key_B: jax.Array, filt: Filter) -> Pick:
    """A categorical draw, from one key an example."""

    def pick(logits_BxGxV: jax.Array, s: jax.Array | int) -> jax.Array:
        keys = jax.vmap(jax.random.fold_in, (0, None))(key_B, s)
        return jax.vmap(jax.random.categorical)(keys, filt(logits_BxGxV)).astype(jnp.int32)

    return pick


def greedy(logits_BxGxV: jax.Array, s: jax.Array | int) -> jax.Array:
    """The most likely code."""
    return jnp.argmax(logits_BxGxV, -1).astype(jnp.int32)
