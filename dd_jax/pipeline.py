"""The library: `run` a config, then `dd_jax.load(workdir).sample([3, 7], plan="S0")`."""

import difflib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import EllipsisType
from typing import Never

from ml_collections import ConfigDict

from dd_jax import factory, settings, validate
from dd_jax.configs import kinds
from dd_jax.editing import Editing
from dd_jax.method.interfaces import Params
from dd_jax.method.inversion import slerp
from dd_jax.stages import run as stages
from dd_jax.stages.parts import PARTS, System, check_recipes, load_params
from dd_jax.stages.workdir import Workdir
from dd_jax.system import files, hub, runtime, spelling, weights
from dd_jax.system.errors import UserError

__all__ = ["Pipeline", "load", "run", "slerp"]
COMPANIONS = ("tokenizer", "text", "teacher", "student")  # parts that `load` takes by name
Folder = str | os.PathLike[str]
# A folder, or a name on the Hub; none: do without; ...: what the folder itself has or names.
Companion = Folder | EllipsisType | None


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
    system = factory.build(config, files.expand(source or workdir))
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
    dtype: str | None = None,
    parts: Sequence[str] | None = None,
    **unknown: Never,
) -> "Pipeline":
    """Open a trained work directory as a `Pipeline`: `load(d).sample([3, 7], plan="S0")`.

    A model on the Hub has a name in place of a folder, `load("hf://owner/name")`, and is fetched once (docs/hub.md).
    Ported weights open the same way: `load("weights/llamagen_l_dd")` finds `weights/vq16` beside it, and the
    teacher that plans with `T` or `J` need. A part elsewhere is given by its folder, `tokenizer=`, `teacher=`;
    one that is not wanted is None: one step needs no teacher. What a run's config names outside the package (see
    docs/extending.md) is imported from modules in `trust` alone. `dtype`: what teacher and student compute in, float32
    or bfloat16; int8: the teacher's weights alone, with a scale a column; None: as configured. `parts`: of "teacher"
    and "student", those wanted; the tokenizer, and an encoder of captions, always come along. Compiled programs are
    kept in the user's cache folder, unless JAX has one already. UserError for what is not there.
    """
    runtime.cache_compilations()
    found = {"tokenizer": tokenizer, "text": text, "teacher": teacher, "student": student} | unknown
    if unwanted := {*(parts or ())} - {*COMPANIONS}:
        raise UserError(f"parts has {min(unwanted)!r}: choose from {', '.join(COMPANIONS)}")
    for part in ("teacher", "student"):
        if parts is not None and part not in parts:
            found[part] = None
    return Pipeline.load(folder, trust, dtype, **found)


def path_of(folder: Folder) -> Folder:
    """An absolute path, `~` expanded, or a name on the Hub. UserError for what is neither."""
    try:
        if hub.named(folder):
            return str(hub.Address.of(folder))
        return files.expand(folder)
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(f"{folder!r} is no folder: give its path") from error


class Pipeline(Editing):
    """Models and parameters of one run: `Drawing` is what it draws, the other two what it does to pictures."""

    def __init__(self, system: System, params: dict[str, Params]):
        self.system, self.params = system, params

    @classmethod
    def load(
        cls, folder: Folder, trust: Sequence[str] = (), dtype: str | None = None, **companions: Companion
    ) -> "Pipeline":
        """Open a finished work directory, or ported weights (see `dd_jax.load`). UserError if there are none."""
        given, where = _companions(companions), weights.drawing(path_of(folder))
        if hub.named(where) or (Path(where) / weights.WEIGHTS).exists():
            return cls._ported(where, given, trust, dtype)
        path = Path(where)
        if not (path / "config.json").exists():
            raise UserError(f"{path} has no config.json: train one with python -m dd_jax.main --workdir={path}")
        file, again = path / "config.json", "delete it, and run --stage=report with the settings of this run"
        found = files.read_json(file, again, {})
        validate.check(ConfigDict(spelling.newer(found)), f"{file}: config", whole=False)
        config = factory.frozen(found, trust)
        _computing_in(config, dtype)
        try:
            config.weights.update({part: str(where) for part, where in given.items() if where})
            system = factory.build(config, path)
        except (AttributeError, KeyError) as error:  # a setting that is not there
            raise UserError(f"{file} is damaged, or of another version (no {error}): {again}") from error
        return cls(system, load_params(system, config, path, [part for part in PARTS if given.get(part, path)]))

    @classmethod
    def _ported(
        cls, path: Folder, companions: Mapping[str, Folder | None], trust: Sequence[str], dtype: str | None
    ) -> "Pipeline":
        """A ported model with the others that it needs: given by part, or looked for beside it."""
        file = f"{path}/{weights.CONFIG}"
        about = weights.describe(path)
        if not all(isinstance(about.get(key), kind) for key, kind in {"part": str, "id": str, "config": dict}.items()):
            raise UserError(f"{file} is damaged (it does not say what it is): {weights.AGAIN}")
        if about["part"] not in ("tokenizer", "teacher", "student"):
            uses = {part: f"--config.weights.{part}" for part in ("lpips", "text", "classifier")}
            use = uses.get(about["part"], "python -m dd_jax.metrics.score")
            raise UserError(f"{path} holds {about['id']}, which draws no images: it is for {use}")
        if about["part"] in companions:
            raise UserError(f"{path} is the {about['part']} itself: leave {about['part']}= out")
        validate.check(ConfigDict(spelling.newer(about["config"])), f"{file}: config", whole=False)
        config = factory.frozen(about["config"], trust)
        _computing_in(config, dtype)
        config.weights[about["part"]] = str(path)
        named = {part: name for part, name in (about.get("companions") or {}).items() if part not in companions}
        beside = {part: weights.beside(path, name) for part, name in named.items()}
        found = {part: where for part, where in beside.items() if weights.present(where)}
        for part, where in {**found, **companions}.items():
            config.weights[part] = str(where) if where else None
        parts = [part for part in PARTS if config.weights.get(part)]
        if "tokenizer" not in parts:
            name = (about.get("companions") or {}).get("tokenizer", "tokenizer")
            out = f'weights, then tokenizer="weights/{name}"' if hub.named(path) else Path(path).parent
            raise UserError(f"{path} needs its tokenizer {name}: python -m port_weights {name} --out {out}")
        system = factory.build(config)
        return cls(system, load_params(system, config, weights.place(path), parts))


def _computing_in(config: ConfigDict, dtype: str | None) -> None:
    """Set what teacher and student compute in. UserError for a type that they do not."""
    if dtype is not None and dtype not in kinds.STORED:
        raise UserError(f"dtype={dtype!r}: choose from {', '.join(kinds.STORED)}")
    if dtype:
        config.dtype.update({"teacher": dtype} | ({"student": dtype} if dtype in kinds.DTYPES else {}))


def _companions(given: Mapping[str, Companion]) -> dict[str, Folder | None]:
    """Folders by part, None for those that are not wanted. UserError for parts that there are not."""
    for name in given:
        if name not in COMPANIONS:
            near = difflib.get_close_matches(name, COMPANIONS, 1)
            told = f"did you mean {near[0]}=?" if near else f"it takes {', '.join(f'{part}=' for part in COMPANIONS)}"
            raise UserError(f"dd_jax.load has no {name}=: {told}")
    return {part: path_of(where) if where is not None else None for part, where in given.items() if where is not ...}
