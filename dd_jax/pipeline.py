"""A trained work directory as a library object: `dd_jax.load(workdir).sample([3, 7], plan="S0")`."""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from dd_jax import factory, rng
from dd_jax.errors import UserError
from dd_jax.fewstep import noise_for, run_plan
from dd_jax.interfaces import Cond, Draft, Params
from dd_jax.loop import load_ema
from dd_jax.plans import parse


def to_uint8(img: jax.Array) -> np.ndarray:
    """Images in [-1, 1] -> uint8, truncating clamp(127.5 x + 128, 0, 255)."""
    return np.asarray(jnp.clip(127.5 * img + 128.0, 0, 255).astype(jnp.uint8))


def load_params(system: factory.System, config: ConfigDict, workdir: Path, student: bool = True) -> dict[str, Params]:
    """What pretrain and train have left in a work directory: judge, tokenizer, teacher and student."""
    key = jax.random.key(0)

    def load(name: str, recipe: ConfigDict, init: Callable[..., Params], *args: Params) -> Params:
        return load_ema(workdir / name, factory.recipe(recipe), lambda: init(key, *args))

    recipes = config.pretrain
    judge = load("judge", recipes.judge, system.judge.init)
    tokenizer = load("tokenizer", recipes.tokenizer, system.tokenizer.init)
    trunk = load("teacher", recipes.teacher, system.teacher_init, tokenizer)
    params = {"judge": judge, "tokenizer": tokenizer, "teacher": system.teacher_params(trunk, tokenizer)}
    if student:
        params["student"] = load("student", config.train, system.student.init)
    return params


class Pipeline:
    """Models and parameters of one run; one compilation for each plan and batch size."""

    def __init__(self, system: factory.System, params: dict[str, Params]):
        self.system, self.params = system, params
        self._compiled: dict[str, Any] = {}

    @classmethod
    def load(cls, workdir: str | Path) -> "Pipeline":
        """Open a finished work directory. UserError if there is none."""
        path = Path(workdir).absolute()
        if not (path / "config.json").exists():
            raise UserError(f"{path} has no config.json: train one with python -m dd_jax.main --workdir={path}")
        config = ConfigDict(json.loads((path / "config.json").read_text()))
        system = factory.build(config)
        return cls(system, load_params(system, config, path))

    def _run(self, plan: str) -> Any:
        if plan not in self._compiled:
            self._compiled[plan] = jax.jit(functools.partial(run_plan, plan, self.system.models))
        return self._compiled[plan]

    def noise(self, count: int, seed: int = 0) -> jax.Array:
        """(B, L, C) noise of images 0..count-1 of a seed: image i does not depend on `count`."""
        layout = self.system.layout
        dim = self.system.tokenizer.codebook(self.params["tokenizer"]).shape[-1]
        return noise_for(rng.example_keys(rng.stream(seed, "sample"), jnp.arange(count)), layout.tokens, dim)

    def tokens(self, labels: ArrayLike, plan: str = "S0", seed: int = 0, noise: jax.Array | None = None) -> Draft:
        """Latents and codes of one image a label (see `interfaces.Draft`)."""
        label = np.asarray(labels, np.int32).reshape(-1)
        if label.size and not (label.min() >= 0 and label.max() < self.system.classes):
            raise UserError(f"labels must lie in 0..{self.system.classes - 1}, got {label.tolist()}")
        parse(plan, self.system.layout.steps, self.system.objective.timesteps)
        wanted = self.noise(0, seed).shape[1:]
        if noise is None:
            noise = self.noise(len(label), seed)
        elif noise.shape != (len(label), *wanted):
            raise UserError(f"noise must be {(len(label), *wanted)}, one row a label, got {noise.shape}")
        keys = rng.example_keys(jax.random.fold_in(rng.stream(seed, "sample"), 1 << 20), jnp.arange(len(label)))
        return self._run(plan)(self.params, Cond(jnp.asarray(label)), jnp.asarray(noise), keys)

    def sample(self, labels: ArrayLike, plan: str = "S0", seed: int = 0, noise: jax.Array | None = None) -> np.ndarray:
        """uint8 images (B, R, R, channels), one a label; `noise=` fixes the noise instead of `seed`."""
        draft = self.tokens(labels, plan, seed, noise)
        return to_uint8(self._decode(self.params["tokenizer"], draft.token_BxLxC))

    @functools.cached_property
    def _decode(self) -> Any:
        return jax.jit(self.system.tokenizer.decode)
