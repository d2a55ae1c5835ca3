"""Parallel refinement of a draft, certified: not in the paper."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.method import flow
from dd_jax.method.interfaces import Cond, Params, State
from dd_jax.method.models import Models
from dd_jax.method.pinning import Pinned
from dd_jax.system.errors import UserError

Sweep = Callable[[jax.Array, jax.Array, State], tuple[jax.Array, jax.Array, State]]


def refine(
    models: Models,
    params: dict[str, Params],
    cond: Cond,
    draft_BxL: jax.Array,
    noise_BxLxC: jax.Array,
    exact_B: jax.Array,
    sweeps: jax.Array | int | None = None,
    window: int | None = None,
    pinned: Pinned | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Refine in parallel: code_i <- FM(noise_i, p(. | draft_<i)) everywhere, `sweeps` times or to the end.

    -> (code_BxL, certified leading steps (B,), sweeps run (B,)). A sweep that reproduces the first m steps of
    its input makes steps <= m the teacher's own, since they depended on exact ones only: k sweeps make k
    steps exact from any draft, and the fixed point is the teacher's sample for this noise. `pinned` codes are the
    draft's and the fixed point's alike: no sweep changes them.
    """
    draft_BxL = draft_BxL if pinned is None else pinned.codes(draft_BxL)
    layout, steps = models.layout, models.layout.steps
    if window:
        exact_B = jnp.zeros_like(exact_B)  # keys and values are kept from the first sweep on
        sweep, state = _windowed(models, params, cond, noise_BxLxC, draft_BxL, window)
    else:
        sweep, state = _whole(models, params, cond, noise_BxLxC), None

    def unfinished(carry: tuple) -> jax.Array:
        _, exact, _, k, _ = carry
        return (k < (steps if sweeps is None else sweeps)) & jnp.any(exact < steps)

    def body(carry: tuple) -> tuple:
        code, exact, ran, k, state = carry
        new, seen, state = sweep(code, exact, state)
        new = jnp.where(layout.step_L < exact[:, None], code, new)  # certain steps are frozen
        new = new if pinned is None else pinned.codes(new)
        agree = jnp.min(jnp.where(code == new, steps, layout.step_L), -1)  # leading steps that did not change
        return new, jnp.minimum(agree + 1, seen), ran + (exact < steps), k + 1, state

    carry = (draft_BxL, exact_B, jnp.zeros_like(exact_B), jnp.int32(0), state)
    code, exact, ran, _, _ = jax.lax.while_loop(unfinished, body, carry)
    return code, exact, ran


def _whole(models: Models, params: dict[str, Params], cond: Cond, noise_BxLxC: jax.Array) -> Sweep:
    """A sweep over all positions: (code, exact, state) -> (new code, steps seen, state)."""
    codebook = models.tokenizer.codebook(params["tokenizer"])

    def sweep(code: jax.Array, exact: jax.Array, state: State) -> tuple[jax.Array, jax.Array, State]:
        logits = models.filter(models.teacher.parallel(params["teacher"], cond, code))
        new = flow.transport(noise_BxLxC, logits, codebook, solver=models.solver)
        return new, jnp.full_like(exact, models.layout.steps), state

    return sweep


def _windowed(
    models: Models,
    params: dict[str, Params],
    cond: Cond,
    noise_BxLxC: jax.Array,
    draft_BxL: jax.Array,
    width: int,
) -> tuple[Sweep, State]:
    """The same over the `width` steps behind the certified prefix, whose keys and values are cached."""
    teacher, layout = models.teacher, models.layout
    if not layout.uniform or not hasattr(teacher, "window"):
        raise UserError(f"a refinement window needs one token a step: leave '/{width}' out for this layout")
    codebook = models.tokenizer.codebook(params["tokenizer"])
    cut = jax.vmap(lambda x, first: jax.lax.dynamic_slice_in_dim(x, first, width, 0))
    paste = jax.vmap(lambda x, new, first: jax.lax.dynamic_update_slice_in_dim(x, new, first, 0))

    def sweep(code: jax.Array, exact: jax.Array, state: State) -> tuple[jax.Array, jax.Array, State]:
        first = jnp.minimum(exact, layout.tokens - width)
        logits, state = teacher.window(params["teacher"], state, cond, code, first, width)
        new = flow.transport(cut(noise_BxLxC, first), models.filter(logits), codebook, solver=models.solver)
        return paste(code, new, first), first + width, state

    state = teacher.start(params["teacher"], cond, draft_BxL, 0)
    return sweep, teacher.reserve(state, layout.steps)
