"""The two programs behind every set of samples: numbers to tokens, by a plan, and tokens to pictures."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.method import baselines
from dd_jax.method.fewstep import noise_for, run_plan
from dd_jax.method.interfaces import Cond, Params
from dd_jax.metrics.resize import resize, torch_bicubic
from dd_jax.stages.parts import System
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.system.programs import compile_together
from dd_jax.system.sharding import ALONE, Placement

ROUNDING = {"nearest": 128.0, "floor": 127.5}  # 127.5 x + this, then truncated


@dataclasses.dataclass(frozen=True)
class Finish:
    """Decoded images, nominally in [-1, 1] -> uint8."""

    resolution: int | None = None  # bicubic to so many pixels before rounding, as a published script does with 384
    rounding: str = "nearest"

    def __post_init__(self) -> None:
        if self.rounding not in ROUNDING:
            raise UserError(f"config.sample.rounding is {self.rounding!r}: choose one of {', '.join(ROUNDING)}")

    def __call__(self, img_BxRxRxc: jax.Array) -> jax.Array:
        if self.resolution and self.resolution != img_BxRxRxc.shape[1]:
            img_BxRxRxc = resize(img_BxRxRxc, self.resolution, torch_bicubic)
        return jnp.clip(127.5 * img_BxRxRxc + ROUNDING[self.rounding], 0, 255).astype(jnp.uint8)


@functools.lru_cache
def sampler(system: System, plan: str, placement: Placement = ALONE) -> Callable[..., jax.Array]:
    """((params, root key), id_B, cond) -> token_BxLxC: one program, each device with its own rows.

    An image follows from its id, as in `Pipeline.sample`. A baseline's name may stand for the plan.
    """
    tokens, code_dim = system.layout.tokens, system.tokenizer.code_dim
    baseline = baselines.named(plan, system.models) if baselines.known(plan) else None

    def draw(given: tuple[dict[str, Params], jax.Array], id_B: jax.Array, cond: Cond) -> jax.Array:
        params, root = given
        keys = rng.example_keys(root, id_B)
        if baseline:
            return baseline(params, cond, keys).token_BxLxC
        draws = rng.example_keys(jax.random.fold_in(root, 1 << 20), id_B)
        return run_plan(plan, system.models, params, cond, noise_for(keys, tokens, code_dim), draws).token_BxLxC

    return jax.jit(placement.each(draw))


@functools.lru_cache
def decoder(system: System, finish: Finish, placement: Placement = ALONE) -> Callable[..., jax.Array]:
    """(tokenizer's parameters, token_BxLxC) -> uint8 images: one program for all plans."""
    decode = system.tokenizer.decode
    return jax.jit(placement.each(lambda params, token_BxLxC: finish(decode(params, token_BxLxC))))


def compile_both(draw: Any, show: Any, given: tuple[Any, ...], shape_BxLxC: tuple[int, ...]) -> None:
    """Compile a `sampler` and a `decoder` side by side for a `sampler`'s arguments."""
    (params, _), *_ = given
    compile_together((show, (params["tokenizer"], jax.ShapeDtypeStruct(shape_BxLxC, jnp.float32))), (draw, given))
