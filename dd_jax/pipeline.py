"""The library: `run` a config, then `dd_jax.load(workdir).sample([3, 7], plan="S0")`."""

import difflib
import functools
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Any, Never

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from numpy.typing import ArrayLike

from dd_jax import factory, settings, validate
from dd_jax.data.conditions import as_array, numbers
from dd_jax.data.sampleset import to_uint8
from dd_jax.encoding import Encoding
from dd_jax.method.fewstep import noise_for, program, run_ops
from dd_jax.method.interfaces import Draft, Params
from dd_jax.method.inversion import slerp
from dd_jax.method.models import Models
from dd_jax.method.plans import Op, parse
from dd_jax.stages import run as stages
from dd_jax.stages.parts import PARTS, System, check_recipes, load_params
from dd_jax.stages.workdir import Workdir
from dd_jax.system import files, rng, spelling, weights
from dd_jax.system.errors import UserError

__all__ = ["Pipeline", "load", "run", "slerp"]
COMPANIONS = ("tokenizer", "text", "teacher", "student")  # parts that `load` takes by name
IDS = 2**31  # there are so many images of a seed
Folder = str | os.PathLike[str]
Companion = Folder | EllipsisType | None  # a folder; none: do without; ...: what the folder itself has or names


def run(config: ConfigDict, workdir: Folder, stage: str = "all", source: Folder | None = None) -> None:
    """One stage of a config in a work directory, or all that are not done: what `python -m dd_jax.main` does.

    `source`: the work directory of a finished run, whose tokenizer, teacher, feature classifier and pairs are taken by
    reference; pairs are drawn anew where their settings differ. It is remembered.
    UserError, in one line, for what cannot be; `stopping.Stopped` after SIGTERM, with everything saved.
    """
    config = settings.spelled(config)
    validate.check(config)
    noted = Workdir(workdir, config.to_dict(), source).noted("pretrain")
    config = factory.listed(factory.shrink(config) if config.smoke else config)
    config = factory.settled(config, noted)
    system = factory.build(config)
    factory.check_names(config, system.layout.steps, stage)
    if stage in ("all", "pretrain", "train"):
        ported = config.weights
        check_recipes(system, config, [part for part in PARTS if not (ported.get(part) or ported.random)])
    stages.run(system, config, workdir, stage, source)


def load(
    folder: Folder,
    *,
    tokenizer: Companion = ...,
    text: Companion = ...,
    teacher: Companion = ...,
    student: Companion = ...,
    trust: Sequence[str] = (),
    **unknown: Never,
) -> "Pipeline":
    """Open a trained work directory as a `Pipeline`: `load(d).sample([3, 7], plan="S0")`.

    Ported weights open the same way: `load("weights/llamagen_l_dd")` finds `weights/vq16` beside it, and the
    teacher that plans with `T` or `J` need. A part elsewhere is given by its folder, `tokenizer=`, `teacher=`;
    one that is not wanted is None: one step needs no teacher. What a run's config names outside the package (see
    docs/extending.md) is imported from modules in `trust` alone. UserError for what is not there.
    """
    return Pipeline.load(folder, trust, tokenizer=tokenizer, text=text, teacher=teacher, student=student, **unknown)


def path_of(folder: Folder) -> Path:
    """An absolute path, `~` expanded. UserError for what is none."""
    try:
        return files.expand(folder)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder!r} is no folder: give its path") from error


class Pipeline(Encoding):
    """Models and parameters of one run; one compilation for each kind of plan and batch size."""

    def __init__(self, system: System, params: dict[str, Params]):
        self.system, self.params = system, params
        self._compiled: dict[tuple[tuple[Op, ...], Models], Any] = {}

    @classmethod
    def load(cls, folder: Folder, trust: Sequence[str] = (), **companions: Companion) -> "Pipeline":
        """Open a finished work directory, or ported weights (see `dd_jax.load`). UserError if there are none."""
        path, given = path_of(folder), _companions(companions)
        if (path / weights.WEIGHTS).exists():
            return cls._ported(path, given, trust)
        if not (path / "config.json").exists():
            raise UserError(f"{path} has no config.json: train one with python -m dd_jax.main --workdir={path}")
        file, again = path / "config.json", "delete it, and run --stage=report with the settings of this run"
        found = files.read_json(file, again, {})
        validate.check(ConfigDict(spelling.newer(found)), f"{file}: config", whole=False)
        config = factory.frozen(found, trust)
        try:
            config.weights.update({part: str(where) for part, where in given.items() if where})
            system = factory.build(config)
        except (AttributeError, KeyError) as error:  # a setting that is not there
            raise UserError(f"{file} is damaged, or of another version (no {error}): {again}") from error
        return cls(system, load_params(system, config, path, [part for part in PARTS if given.get(part, path)]))

    @classmethod
    def _ported(cls, path: Path, companions: Mapping[str, Path | None], trust: Sequence[str]) -> "Pipeline":
        """A ported model with the others that it needs: given by part, or looked for beside it."""
        about = weights.describe(path)
        if not all(isinstance(about.get(key), kind) for key, kind in {"part": str, "id": str, "config": dict}.items()):
            raise UserError(f"{path / weights.CONFIG} is damaged (it does not say what it is): {weights.AGAIN}")
        if about["part"] not in ("tokenizer", "teacher", "student"):
            uses = {part: f"--config.weights.{part}" for part in ("lpips", "text", "classifier")}
            use = uses.get(about["part"], "python -m dd_jax.metrics.score")
            raise UserError(f"{path} holds {about['id']}, which draws no images: it is for {use}")
        if about["part"] in companions:
            raise UserError(f"{path} is the {about['part']} itself: leave {about['part']}= out")
        validate.check(ConfigDict(spelling.newer(about["config"])), f"{path / weights.CONFIG}: config", whole=False)
        config = factory.frozen(about["config"], trust)
        config.weights[about["part"]] = str(path)
        beside = {part: path.parent / name for part, name in (about.get("companions") or {}).items()}
        found = {part: where for part, where in beside.items() if (where / weights.CONFIG).exists()}
        for part, where in {**found, **companions}.items():
            config.weights[part] = str(where) if where else None
        parts = [part for part in PARTS if config.weights.get(part)]
        if "tokenizer" not in parts:
            name = (about.get("companions") or {}).get("tokenizer", "tokenizer")
            raise UserError(f"{path} needs its tokenizer {name}: python -m port_weights {name} --out {path.parent}")
        system = factory.build(config)
        return cls(system, load_params(system, config, path, parts))

    def _run(self, plan: str) -> Any:
        """(parameters, condition, noise, keys, sweeps) -> Draft: one program for plans that differ in sweeps alone."""
        ops, _ = program(plan, self.system.layout.steps)
        kind = ops, self.system.models.of(plan)
        if kind not in self._compiled:
            self._compiled[kind] = jax.jit(functools.partial(run_ops, *kind))
        return self._compiled[kind]

    def noise(self, ids: int | ArrayLike, seed: int = 0) -> jax.Array:
        """(B, L, C) noise of these images of a seed, or of the first so many: image i is the same in any batch."""
        if np.ndim(as_array(ids, "ids")) == 0:
            ids = np.arange(numbers(ids, IDS, "a number of images")[0])
        keys = rng.example_keys(rng.stream(seed, "sample"), jnp.asarray(numbers(ids, IDS, "ids")))
        return noise_for(keys, *self._shape)

    def tokens(
        self,
        labels: ArrayLike | Sequence[str],
        plan: str = "S0",
        seed: int = 0,
        noise: ArrayLike | None = None,
        ids: ArrayLike | None = None,
    ) -> Draft:
        """Latents and codes of one image a label (see `interfaces.Draft`).

        The images are those numbered `ids` of a seed, by default 0, 1, ...; `noise=` fixes the noise instead.
        UserError for labels, a plan, noise or ids that cannot be.
        """
        for op in parse(plan, self.system.layout.steps, self.system.objective.timesteps):
            network = "student" if op.kind == "S" else "teacher"
            if network not in self.params:
                raise UserError(f"plan {plan!r} needs a {network}: dd_jax.load(folder, {network}=FOLDER)")
        cond = self.conditions.of(labels) if as_array(labels, "labels").size else None
        count = 0 if cond is None else len(jax.tree.leaves(cond)[0])
        id_B = numbers(np.arange(count) if ids is None else ids, IDS, "ids")
        if len(id_B) != count:
            raise UserError(f"there are {len(id_B)} ids for {count} labels: give one a label")
        noise_BxLxC = self.noise(id_B, seed) if noise is None else _given_noise(noise, (count, *self._shape))
        if cond is None:
            none = jnp.zeros((0, self._shape[0]), jnp.int32)
            return Draft(noise_BxLxC, none, none[:, 0], none[:, 0])
        keys = rng.example_keys(jax.random.fold_in(rng.stream(seed, "sample"), 1 << 20), jnp.asarray(id_B))
        _, sweeps = program(plan, self.system.layout.steps)
        return self._run(plan)(self.params, cond, noise_BxLxC, keys, sweeps)

    def sample(
        self,
        labels: ArrayLike | Sequence[str],
        plan: str = "S0",
        seed: int = 0,
        noise: ArrayLike | None = None,
        ids: ArrayLike | None = None,
    ) -> np.ndarray:
        """uint8 images (B, R, R, channels), one a label (see `tokens`)."""
        token_BxLxC = self.tokens(labels, plan, seed, noise, ids).token_BxLxC
        if not len(token_BxLxC):
            return np.zeros((0, *self._image_shape), np.uint8)
        return to_uint8(self._decode(self.params["tokenizer"], token_BxLxC))


def _companions(given: Mapping[str, Companion]) -> dict[str, Path | None]:
    """Folders by part, None for those that are not wanted. UserError for parts that there are not."""
    for name in given:
        if name not in COMPANIONS:
            near = difflib.get_close_matches(name, COMPANIONS, 1)
            told = f"did you mean {near[0]}=?" if near else f"it takes {', '.join(f'{part}=' for part in COMPANIONS)}"
            raise UserError(f"dd_jax.load has no {name}=: {told}")
    return {part: path_of(where) if where is not None else None for part, where in given.items() if where is not ...}


def _given_noise(given: ArrayLike, wanted: tuple[int, ...]) -> jax.Array:
    """Noise that a user brings, float32. UserError for another shape, or numbers that are none."""
    noise = given if isinstance(given, jax.Array) else as_array(given, "noise")
    if noise.shape != wanted:
        raise UserError(f"noise must be {wanted}, one row a label, got {noise.shape}")
    if not (jnp.issubdtype(noise.dtype, jnp.floating) or jnp.issubdtype(noise.dtype, jnp.integer)):
        raise UserError(f"noise must be real numbers, got {noise.dtype}")
    noise = jnp.asarray(noise, jnp.float32)
    if not jnp.isfinite(noise).all():
        raise UserError("noise has numbers that are not finite: it must be standard Gaussian")
    return noise
