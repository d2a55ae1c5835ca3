"""A trained work directory as a library object: `dd_jax.load(workdir).sample([3, 7], plan="S0")`."""

import functools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from dd_jax import factory, rng, weights
from dd_jax.conditions import Conditions
from dd_jax.errors import UserError
from dd_jax.fewstep import noise_for, run_plan
from dd_jax.interfaces import Draft, Params
from dd_jax.loop import load_ema
from dd_jax.plans import parse


def to_uint8(img: jax.Array) -> np.ndarray:
    """Images in [-1, 1] -> uint8, truncating clamp(127.5 x + 128, 0, 255)."""
    return np.asarray(jnp.clip(127.5 * img + 128.0, 0, 255).astype(jnp.uint8))


def frozen(settings: Mapping[str, Any]) -> ConfigDict:
    """A config as JSON kept it, with tuples for its lists: models are static arguments of jit, so they must hash."""

    def freeze(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: freeze(item) for key, item in value.items()}
        return tuple(map(freeze, value)) if isinstance(value, list) else value

    return ConfigDict(freeze(settings))


PARTS = ("judge", "tokenizer", "text", "teacher", "student")  # and, for training alone, "lpips"


def load_params(
    system: factory.System,
    config: ConfigDict,
    workdir: Path,
    parts: Sequence[str] = PARTS,
    random: Sequence[str] = (),
    dtype: str | None = None,
    loaded: Mapping[str, Params] = MappingProxyType({}),
) -> dict[str, Params]:
    """Parameters of these parts; the teacher's are in `dtype`, by default the precision that it runs in.

    Ported ones where `config.weights` names a folder, else what the run has trained; parts in `random` that are
    neither are drawn at random, those in `loaded` are there already. The tokenizer comes before the teacher. UserError
    for a part that is nowhere.
    """
    key = jax.random.key(config.seed)
    recipes = {**config.get("pretrain", {}), "student": config.train}
    params: dict[str, Params] = {}
    for name in parts:
        if name in ("judge", "lpips", "text") and getattr(system, name) is None:
            continue
        if name in loaded:
            params[name] = loaded[name]
            continue
        init = functools.partial(_init(system, name), key, *([params["tokenizer"]] if name == "teacher" else []))
        folder = config.weights.get(name)
        if folder:
            kind = jnp.dtype(config.text.dtype if name == "text" else "float32")
            params[name] = jax.tree.map(jnp.asarray, weights.load(folder, jax.eval_shape(init), dtype=kind))
            if name == "student":
                _check_mask(folder, config)
        elif name in random and not (workdir / trained_in(name)).exists():
            params[name] = _drawn(system, name, config.seed)
        elif trained_in(name) not in recipes:
            raise UserError(missing(name))
        elif trained_in(name) == "teacher":
            learned = functools.partial(system.learned_init, key, params["tokenizer"])
            found = load_ema(workdir / "teacher", factory.recipe(recipes["teacher"]), learned)
            params[name] = found["trunk" if name == "teacher" else name]
        else:
            params[name] = load_ema(workdir / name, factory.recipe(recipes[name]), init)
    if "teacher" in params:
        trunk = jax.tree.map(lambda x: x.astype(dtype or config.dtype.teacher), params["teacher"])
        params["teacher"] = system.teacher_params(trunk, params["tokenizer"])
    return params


def trained_in(part: str) -> str:
    """The folder of the training that a part comes from: an encoder of captions is trained with the teacher."""
    return "teacher" if part == "text" else part


def missing(part: str) -> str:
    """What to do about a part that is neither ported nor trained."""
    if part == "lpips":
        return (
            "config.train.distance is lpips and its weights are not named: python -m port_weights lpips_vgg --out "
            "weights, then add --config.weights.lpips=weights/lpips_vgg; or compare by --config.train.distance=mse"
        )
    return f"no {part} for this config: port a published one and name its folder, --config.weights.{part}=..."


def _check_mask(folder: str, config: ConfigDict) -> None:
    """UserError where a ported student's own attention mask is not the configured one."""
    theirs = weights.describe(folder)["config"].get("student", {}).get("same_step", config.student.same_step)
    if theirs != config.student.same_step:
        see = "see" if theirs else "do not see"
        raise UserError(
            f"in {folder} tokens of one step {see} each other, and the config says otherwise: "
            f"set --config.student.same_step={str(theirs).lower()}"
        )


@functools.lru_cache(maxsize=len(PARTS) + 1)
def _drawn(system: factory.System, part: str, seed: int) -> Params:
    """A part's random parameters: the same for all stages, as their names say."""
    key = jax.random.key(seed)
    if part != "teacher":
        return jax.jit(_init(system, part))(key)
    return jax.jit(system.teacher_init)(key, _drawn(system, "tokenizer", seed))


def _init(system: factory.System, part: str) -> Any:
    return system.teacher_init if part == "teacher" else getattr(system, part).init


class Pipeline:
    """Models and parameters of one run; one compilation for each plan and batch size."""

    def __init__(self, system: factory.System, params: dict[str, Params]):
        self.system, self.params = system, params
        self._compiled: dict[str, Any] = {}

    @classmethod
    def load(cls, folder: str | Path, **companions: str | Path) -> "Pipeline":
        """Open a finished work directory, or ported weights (see `dd_jax.load`). UserError if there are none."""
        path = Path(folder).absolute()
        if (path / weights.WEIGHTS).exists():
            return cls._ported(path, companions)
        if not (path / "config.json").exists():
            raise UserError(f"{path} has no config.json: train one with python -m dd_jax.main --workdir={path}")
        config = frozen(json.loads((path / "config.json").read_text()))
        system = factory.build(config)
        return cls(system, load_params(system, config, path))

    @classmethod
    def _ported(cls, path: Path, companions: Mapping[str, str | Path]) -> "Pipeline":
        """A ported model with the others that it needs: given by part, or looked for beside it."""
        about = weights.describe(path)
        if about["part"] not in ("tokenizer", "teacher", "student"):
            uses = {part: f"--config.weights.{part}" for part in ("lpips", "text")}
            use = uses.get(about["part"], "python -m dd_jax.metrics.score")
            raise UserError(f"{path} holds {about['id']}, which draws no images: it is for {use}")
        config = frozen(about["config"])
        config.weights[about["part"]] = str(path)
        for part, name in about["companions"].items():
            folder = Path(companions.get(part, path.parent / name))
            if part in companions or (folder / weights.CONFIG).exists():
                config.weights[part] = str(folder)
        parts = [part for part in PARTS if config.weights.get(part)]
        if "tokenizer" not in parts:
            name = about["companions"].get("tokenizer", "tokenizer")
            raise UserError(f"{path} needs its tokenizer {name}: python -m port_weights {name} --out {path.parent}")
        system = factory.build(config)
        return cls(system, load_params(system, config, path, parts))

    @functools.cached_property
    def conditions(self) -> Conditions:
        """What may be drawn."""
        return self.system.conditions(self.params)

    def _run(self, plan: str) -> Any:
        if plan not in self._compiled:
            self._compiled[plan] = jax.jit(functools.partial(run_plan, plan, self.system.models))
        return self._compiled[plan]

    def noise(self, ids: int | np.ndarray, seed: int = 0) -> jax.Array:
        """(B, L, C) noise of these images of a seed, or of the first so many: image i is the same in any batch."""
        keys = rng.example_keys(
            rng.stream(seed, "sample"), jnp.arange(ids) if isinstance(ids, int) else jnp.asarray(ids)
        )
        return noise_for(keys, self.system.layout.tokens, self.system.tokenizer.code_dim)

    def tokens(
        self,
        labels: ArrayLike,
        plan: str = "S0",
        seed: int = 0,
        noise: jax.Array | None = None,
        ids: np.ndarray | None = None,
    ) -> Draft:
        """Latents and codes of one image a label (see `interfaces.Draft`).

        The images are those numbered `ids` of a seed, by default 0, 1, ...; `noise=` fixes the noise instead.
        """
        cond = self.conditions.of(labels)
        count = len(jax.tree.leaves(cond)[0])
        for op in parse(plan, self.system.layout.steps, self.system.objective.timesteps):
            network = "student" if op.kind == "S" else "teacher"
            if network not in self.params:
                raise UserError(f"plan {plan!r} needs a {network}: dd_jax.load(folder, {network}=FOLDER)")
        ids = np.arange(count) if ids is None else ids
        wanted = (count, self.system.layout.tokens, self.system.tokenizer.code_dim)
        if noise is None:
            noise = self.noise(ids, seed)
        elif noise.shape != wanted:
            raise UserError(f"noise must be {wanted}, one row a label, got {noise.shape}")
        keys = rng.example_keys(jax.random.fold_in(rng.stream(seed, "sample"), 1 << 20), jnp.asarray(ids))
        return self._run(plan)(self.params, cond, jnp.asarray(noise), keys)

    def sample(
        self,
        labels: ArrayLike,
        plan: str = "S0",
        seed: int = 0,
        noise: jax.Array | None = None,
        ids: np.ndarray | None = None,
    ) -> np.ndarray:
        """uint8 images (B, R, R, channels), one a label (see `tokens`)."""
        draft = self.tokens(labels, plan, seed, noise, ids)
        return to_uint8(self._decode(self.params["tokenizer"], draft.token_BxLxC))

    @functools.cached_property
    def _decode(self) -> Any:
        return jax.jit(self.system.tokenizer.decode)
