"""What distillation has to beat: marginals of each position, for all steps (onestep*) or the last (skip-n).

By name, where a plan may stand as well: `onestep*`, `skip-106`, and `skip-106 dropped`, which leaves those tokens out;
or a `Sampler` from outside the package, `package.module:attribute` (see docs/extending.md).
"""

import dataclasses
import functools
import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method.fewstep import advance, noise_for
from dd_jax.method.interfaces import Cond, Draft, Generator, Params
from dd_jax.method.models import Models
from dd_jax.method.plans import Op
from dd_jax.system import plugins
from dd_jax.system.errors import UserError

NAME = re.compile(r"onestep\*|skip-(?P<n>\d+)(?P<drop> dropped)?")


@dataclasses.dataclass(frozen=True)
class Sampler:
    """A way to draw that is no plan: `make(models)` is its `Generator`.

    `needs`: whose parameters it reads besides the tokenizer's, of "teacher", "student", "marginals" (see `marginals`).
    `passes`: network passes in sequence, as the paper counts them, for a teacher of so many steps.
    """

    make: Callable[[Models], Generator]
    needs: tuple[str, ...] = ("student",)
    passes: Callable[[int], int] = lambda steps: 1

    def __post_init__(self) -> None:
        if not {*self.needs} <= {"teacher", "student", "marginals"}:
            raise UserError(f"a sampler needs {self.needs}: choose from teacher, student and marginals")


def known(name: str) -> bool:
    """Is it a sampler's name, not a plan?"""
    return NAME.fullmatch(name) is not None or plugins.outside(name)


def sampler(name: str) -> Sampler:
    """The sampler of this name. UserError if one from outside cannot be had."""
    match = NAME.fullmatch(name)
    if match is None:
        return plugins.find(name, {"onestep*": ONESTEP}, f"no sampler {name!r}; choose", Sampler)
    if match["n"] is None:
        return ONESTEP
    n, drop = int(match["n"]), bool(match["drop"])
    return Sampler(functools.partial(skip, n=n, drop=drop), ("teacher", "marginals"), lambda steps: steps - n)


def cost(name: str, steps: int) -> int:
    """Network passes in sequence, as the paper counts them. UserError for more skipped steps than there are."""
    passes = sampler(name).passes(steps)
    if passes < 1:
        if plugins.outside(name):
            raise UserError(f"{name} takes {passes} passes for {steps} steps, says its `passes`: it must be 1 or more")
        raise UserError(f"{name!r} skips steps that there are not: n must be less than {steps}")
    return passes


def networks(name: str) -> list[str]:
    """The parameters that it needs besides the tokenizer's."""
    return list(sampler(name).needs)


def named(name: str, models: Models) -> Generator:
    """The `Generator` of this name. UserError as in `cost`."""
    cost(name, models.layout.steps)
    return sampler(name).make(models)


def marginals(code_MxL: np.ndarray, label_M: np.ndarray, pool: np.ndarray) -> dict[str, jax.Array]:
    """Prop. 3.1's optimum: how often a class's teacher samples have each code at each position.

    Kept as the samples themselves, class by class: a token is drawn from the marginals by taking the one of a
    random sample. A table of frequencies would take classes x L x V numbers, 16 GB for ImageNet.
    `pool`: the classes (or captions) that are drawn. UserError for one without a sample.
    """
    count = np.bincount(label_M, minlength=int(max(pool)) + 1)
    if not count[pool].all():
        missing = int(pool[count[pool].argmin()])
        raise UserError(f"no teacher sample of class {missing}: raise config.pairs.count")
    order = np.argsort(label_M, kind="stable")
    start = np.concatenate([[0], np.cumsum(count)]).astype(np.int32)
    return {"code": jnp.asarray(code_MxL[order]), "start": jnp.asarray(start)}


def _draw(params: dict[str, Params], cond: Cond, key_B: jax.Array) -> jax.Array:
    """Every token on its own from `params["marginals"]`."""
    if cond.label_B is None:
        raise UserError("onestep* and skip-n draw from marginals of classes: captions have none")
    code_MxL, start = params["marginals"]["code"], params["marginals"]["start"]
    position = jnp.arange(code_MxL.shape[1])

    def one(key: jax.Array, label: jax.Array) -> jax.Array:
        key, first, end = jax.random.fold_in(key, 2), start[label], start[label + 1]
        row_L = jax.random.randint(key, position.shape, first, end, jnp.int32)
        return code_MxL[row_L, position]

    return jax.vmap(one)(key_B, cond.label_B).astype(jnp.int32)


def _draft(token: jax.Array, code: jax.Array) -> Draft:
    zero = jnp.zeros(len(code), jnp.int32)
    return Draft(token, code, zero, zero)


def onestep(models: Models) -> Generator:
    """onestep*: the optimum of predicting all tokens at once (Prop. 3.1), sampled."""

    def generate(params: dict[str, Params], cond: Cond, key_B: jax.Array) -> Draft:
        code = _draw(params, cond, key_B)
        return _draft(models.tokenizer.codebook(params["tokenizer"])[code], code)

    return generate


def skip(models: Models, n: int, drop: bool = False) -> Generator:
    """skip-n: the teacher without its last n steps, whose tokens come from the marginals.

    `drop=True` leaves those tokens' vectors zero instead: at a residual pyramid they then add nothing.
    """
    layout = models.layout
    kept, by_flow = layout.steps - n, dataclasses.replace(models, categorical=False)

    def generate(params: dict[str, Params], cond: Cond, key_B: jax.Array) -> Draft:
        codebook = models.tokenizer.codebook(params["tokenizer"])
        noise = noise_for(key_B, layout.tokens, codebook.shape[-1])
        code = _draw(params, cond, key_B)
        if kept:
            used = {name: params[name] for name in ("teacher", "tokenizer")}
            begun = _draft(noise, code)
            code = advance(Op("T", 0, kept), by_flow, used, cond, noise, key_B, begun, 0, by_flow.knobs).code_BxL
        token = codebook[code]
        if drop:
            token = jnp.where(layout.known(kept)[..., None], token, 0.0)
        return _draft(token, code)

    return generate


ONESTEP = Sampler(onestep, ("marginals",))
