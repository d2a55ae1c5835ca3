"""Few-step sampling: Algorithms 3 and 4, driven by a plan (`plans`); its `J` is `refine`."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.method import ar, flow
from dd_jax.method.interfaces import Cond, Draft, Generator, Params
from dd_jax.method.models import Knobs, Models
from dd_jax.method.plans import Op, parse
from dd_jax.method.refine import refine


def run_plan(
    plan: str,
    models: Models,
    params: dict[str, Params],
    cond: Cond,
    noise_BxLxC: jax.Array,
    key_B: jax.Array,
    knobs: Knobs | None = None,
) -> Draft:
    """Algorithms 3 and 4: run `plan` from the noise. `key_B` feeds categorical draws only. Pure."""
    ops, sweeps = program(plan, models.layout.steps)
    return run_ops(ops, models.of(plan), params, cond, noise_BxLxC, key_B, sweeps, knobs)


def program(plan: str, steps: int) -> tuple[tuple[Op, ...], tuple[int, ...]]:
    """A plan's words without their numbers of sweeps, and these: `J4`, `J8` and `J*` are one program.

    After `steps` sweeps nothing changes: more of them are as many.
    """
    ops = parse(plan, steps)
    sweeps = tuple(steps if op.sweeps is None else min(op.sweeps, steps) for op in ops)
    return tuple(dataclasses.replace(op, sweeps=None) for op in ops), sweeps


def run_ops(
    ops: tuple[Op, ...],
    models: Models,
    params: dict[str, Params],
    cond: Cond,
    noise_BxLxC: jax.Array,
    key_B: jax.Array,
    sweeps: Sequence[jax.Array | int],
    knobs: Knobs | None = None,
) -> Draft:
    """What `program` gives, run from the noise by models that are the plan's own (`Models.of`)."""
    knobs = models.knobs if knobs is None else knobs
    none = jnp.zeros(noise_BxLxC.shape[:2], jnp.int32)
    draft = Draft(noise_BxLxC, none, none[:, 0], none[:, 0])
    for op, count in zip(ops, sweeps, strict=True):
        network = "student" if op.kind == "S" else "teacher"
        used = {name: params[name] for name in (network, "tokenizer")}
        draft = advance(op, models, used, cond, noise_BxLxC, key_B, draft, count, knobs)
    return draft


@functools.partial(jax.jit, static_argnums=(0, 1))
def advance(
    op: Op,
    models: Models,
    params: dict[str, Params],
    cond: Cond,
    noise_BxLxC: jax.Array,
    key_B: jax.Array,
    draft: Draft,
    sweeps: jax.Array | int,
    knobs: Knobs,
) -> Draft:
    """One word of a plan. Compiled once for all plans that share it, or inside the caller's jit."""
    models = models.turned(knobs)
    layout, (x, code, exact, before), pinned = models.layout, draft, knobs.pinned
    codebook = models.tokenizer.codebook(params["tokenizer"])
    if op.kind == "S":  # Alg. 3: X <- Concat(X[:t], noise[t:]); X <- F(X, t)
        x = student_step(models, params, cond, layout.mix(op.a, x, noise_BxLxC), op.a, codebook, knobs)
        code = flow.nearest(x, codebook)
        if pinned is not None:
            x, code = pinned.tokens(x, codebook), pinned.codes(code)
        return Draft(x, code, jnp.minimum(exact, op.a), before)
    if op.kind == "J":
        code, exact, ran = refine(models, params, cond, code, noise_BxLxC, exact, sweeps, op.window, pinned)
        return Draft(codebook[code], code, exact, before + ran)

    def decode(pick: ar.Pick, draft: Any) -> Any:  # Alg. 4: q_t ~ p(. | X[:t])
        pick = pick if pinned is None else pinned.pick(pick, layout, codebook)
        return ar.decode(models.teacher, params["teacher"], cond, pick, op.a, op.b, draft)

    if models.smooth:
        pick = ar.by_mixture(key_B, codebook, layout, models.draw)
        code, x = decode(pick, (code, codebook[code]))
        return Draft(x, code, jnp.minimum(exact, op.a), before)
    if models.categorical:
        code = decode(ar.by_chance(key_B, models.draw), code)
        return Draft(codebook[code], code, jnp.minimum(exact, op.a), before)
    code = decode(ar.by_flow(noise_BxLxC, codebook, layout, models.filter, models.solver), code)
    certain = jnp.where(exact >= op.a, jnp.maximum(exact, op.b), exact)
    return Draft(codebook[code], code, certain, before)


def student_step(
    models: Models,
    params: dict[str, Params],
    cond: Cond,
    x_BxLxC: jax.Array,
    t: int,
    codebook_VxC: jax.Array,
    knobs: Knobs = Knobs(),
) -> jax.Array:
    """Eq. 6: known tokens stay; the others are the likeliest code before the split, regressed from it on.

    The flow head's are the codes that their own noise, which X_t holds, draws from its logits / tau; the velocity
    head's those nearest to what it answers in the codebook's frame.
    """
    layout = models.layout
    logits, token = models.student(params["student"], cond, x_BxLxC, jnp.full(len(x_BxLxC), t))
    known = layout.known(t)
    if models.student.head == "flow":
        code = flow.transport(x_BxLxC, logits / jnp.reshape(knobs.tau, (-1, 1, 1)), codebook_VxC, models.solver)
    elif models.student.head == "velocity" and token is not None:
        code, token = flow.nearest(token, flow.framed(codebook_VxC)), None
    else:
        code = jnp.argmax(logits, -1)
    code = jnp.where(known, flow.nearest(x_BxLxC, codebook_VxC), code)
    if token is None:
        return codebook_VxC[code]
    token = jnp.where(known[..., None], x_BxLxC, token)
    return jnp.where(layout.known(models.split)[..., None], codebook_VxC[code], token)


@functools.partial(jax.jit, static_argnums=(1, 2))
def noise_for(key_B: jax.Array, tokens: int, code_dim: int) -> jax.Array:
    """(B, L, C) standard Gaussian noise, a pure function of each example's key."""
    return jax.vmap(lambda key: jax.random.normal(key, (tokens, code_dim), jnp.float32))(key_B)


def generator(plan: str, models: Models, knobs: Knobs | None = None) -> Generator:
    """`plan` as a `Generator`: noise and draws follow from one key an example, so plans share noise."""

    def generate(params: dict[str, Params], cond: Cond, key_B: jax.Array) -> Draft:
        codebook = models.tokenizer.codebook(params["tokenizer"])
        noise = noise_for(key_B, models.layout.tokens, codebook.shape[-1])
        draws = jax.vmap(jax.random.fold_in, (0, None))(key_B, 1)
        return run_plan(plan, models, params, cond, noise, draws, knobs)

    return generate
