"""Few-step sampling: Algorithms 3 and 4 and parallel refinement, driven by a plan (`plans`)."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from dd_jax.method import ar, flow
from dd_jax.method.filtering import Filter
from dd_jax.method.interfaces import Cond, Draft, Generator, Params, State, Student, Teacher, Tokenizer
from dd_jax.method.layout import Layout
from dd_jax.method.plans import Op, parse
from dd_jax.system.errors import UserError

Sweep = Callable[[jax.Array, jax.Array, State], tuple[jax.Array, jax.Array, State]]


@dataclasses.dataclass(frozen=True)
class Models:
    """What a plan may call, and how: all static, parameters come with each call."""

    teacher: Teacher
    student: Student
    tokenizer: Tokenizer
    filter: Filter  # of the teacher's logits on their way through the flow
    solver: flow.FlowSolver
    split: int  # logits head before this step, embedding head from it on
    categorical: bool = False  # `T` draws categorically (as released) instead of through the flow
    smooth: bool = False  # and mixes the codes that it draws
    draw: Filter = dataclasses.field(default_factory=Filter)  # of the teacher's logits where it draws categorically
    special: tuple[tuple[str, "Special"], ...] = ()  # plans with settings of their own

    @property
    def layout(self) -> Layout:
        return self.teacher.layout

    def of(self, plan: str) -> "Models":
        """As `plan` wants them."""
        special = dict(self.special).get(plan)
        return dataclasses.replace(self, special=(), **(vars(special) if special else {}))


@dataclasses.dataclass(frozen=True)
class Special:
    """What the release sets plan by plan."""

    split: int
    draw: Filter


def run_plan(
    plan: str, models: Models, params: dict[str, Params], cond: Cond, noise_BxLxC: jax.Array, key_B: jax.Array
) -> Draft:
    """Algorithms 3 and 4: run `plan` from the noise. `key_B` feeds categorical draws only. Pure."""
    models = models.of(plan)
    none = jnp.zeros(noise_BxLxC.shape[:2], jnp.int32)
    draft = Draft(noise_BxLxC, none, none[:, 0], none[:, 0])
    for op in parse(plan, models.layout.steps):
        network = "student" if op.kind == "S" else "teacher"
        used = {name: params[name] for name in (network, "tokenizer")}
        sweeps = models.layout.steps if op.sweeps is None else op.sweeps
        op = dataclasses.replace(op, sweeps=None)  # traced: `J4` and `J8` are one program
        draft = advance(op, models, used, cond, noise_BxLxC, key_B, draft, sweeps)
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
) -> Draft:
    """One word of a plan. Compiled once for all plans that share it, or inside the caller's jit."""
    layout, (x, code, exact, before) = models.layout, draft
    codebook = models.tokenizer.codebook(params["tokenizer"])
    if op.kind == "S":  # Alg. 3: X <- Concat(X[:t], noise[t:]); X <- F(X, t)
        x = student_step(models, params, cond, layout.mix(op.a, x, noise_BxLxC), op.a, codebook)
        return Draft(x, flow.nearest(x, codebook), jnp.minimum(exact, op.a), before)
    if op.kind == "J":
        code, exact, ran = refine(models, params, cond, code, noise_BxLxC, exact, sweeps, op.window)
        return Draft(codebook[code], code, exact, before + ran)
    # Alg. 4: q_t ~ p(. | X[:t])
    decode = functools.partial(ar.decode, models.teacher, params["teacher"], cond)
    if models.smooth:
        pick = ar.by_mixture(key_B, codebook, layout, models.draw)
        code, x = decode(pick, op.a, op.b, (code, codebook[code]))
        return Draft(x, code, jnp.minimum(exact, op.a), before)
    if models.categorical:
        code = decode(ar.by_chance(key_B, models.draw), op.a, op.b, code)
        return Draft(codebook[code], code, jnp.minimum(exact, op.a), before)
    code = decode(ar.by_flow(noise_BxLxC, codebook, layout, models.filter, models.solver), op.a, op.b, code)
    certain = jnp.where(exact >= op.a, jnp.maximum(exact, op.b), exact)
    return Draft(codebook[code], code, certain, before)


def student_step(
    models: Models, params: dict[str, Params], cond: Cond, x_BxLxC: jax.Array, t: int, codebook_VxC: jax.Array
) -> jax.Array:
    """Eq. 6: known tokens stay; the others are the likeliest code before the split, regressed from it on."""
    layout = models.layout
    logits, token = models.student(params["student"], cond, x_BxLxC, jnp.full(len(x_BxLxC), t))
    known = layout.known(t)
    code = jnp.where(known, flow.nearest(x_BxLxC, codebook_VxC), jnp.argmax(logits, -1))
    token = jnp.where(known[..., None], x_BxLxC, token)
    return jnp.where(layout.known(models.split)[..., None], codebook_VxC[code], token)


def refine(
    models: Models,
    params: dict[str, Params],
    cond: Cond,
    draft_BxL: jax.Array,
    noise_BxLxC: jax.Array,
    exact_B: jax.Array,
    sweeps: jax.Array | int | None = None,
    window: int | None = None,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Refine in parallel: code_i <- FM(noise_i, p(. | draft_<i)) everywhere, `sweeps` times or to the end.

    -> (code_BxL, certified leading steps (B,), sweeps run (B,)). A sweep that reproduces the first m steps of
    its input makes steps <= m the teacher's own, since they depended on exact ones only: k sweeps make k
    steps exact from any draft, and the fixed point is the teacher's sample for this noise.
    """
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


@functools.partial(jax.jit, static_argnums=(1, 2))
def noise_for(key_B: jax.Array, tokens: int, code_dim: int) -> jax.Array:
    """(B, L, C) standard Gaussian noise, a pure function of each example's key."""
    return jax.vmap(lambda key: jax.random.normal(key, (tokens, code_dim)))(key_B)


def generator(plan: str, models: Models) -> Generator:
    """`plan` as a `Generator`: noise and draws follow from one key an example, so plans share noise."""

    def generate(params: dict[str, Params], cond: Cond, key_B: jax.Array) -> Draft:
        codebook = models.tokenizer.codebook(params["tokenizer"])
        noise = noise_for(key_B, models.layout.tokens, codebook.shape[-1])
        draws = jax.vmap(jax.random.fold_in, (0, None))(key_B, 1)
        return run_plan(plan, models, params, cond, noise, draws)

    return generate
