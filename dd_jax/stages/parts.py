"""The parts that a run is made of: the objects (`System`), and where the parameters of each come from."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax.data import pairset
from dd_jax.data.conditions import Classes, Conditions
from dd_jax.method.interfaces import Params, Teacher
from dd_jax.method.layout import Layout
from dd_jax.method.models import Models
from dd_jax.method.objectives import Objective
from dd_jax.method.student import Student
from dd_jax.metrics.classifier import Classifier
from dd_jax.metrics.lpips import LPIPS
from dd_jax.nn.stored import stored
from dd_jax.stages import finetune, tokenizing, train
from dd_jax.stages.workdir import located
from dd_jax.system import files, hub, rng, weights
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import Rules
from dd_jax.text.captions import Text
from dd_jax.text.prompts import Prompts
from dd_jax.training.loop import Recipe, TrainState, init_state, load_ema


@dataclasses.dataclass(frozen=True)
class System:
    """Everything that the stages run, without parameters."""

    tokenizer: Any
    teacher: Teacher
    student: Student
    classifier: Classifier | None  # none for photographs: no network of our own looks at them
    lpips: LPIPS | None  # where training compares by it
    text: Text | None  # what reads captions; none: classes are drawn
    models: Models
    objective: Objective
    classes: int
    teacher_init: Callable[[jax.Array, Params], Params]  # (key, tokenizer's) -> trunk
    teacher_params: Callable[[Params, Params], Params]  # (trunk, tokenizer's) -> what the teacher takes
    names: tuple[str, tuple[str, ...]] = ("", ())  # of the data set, and of its classes where they are its own
    rules: Rules = ()  # how its arrays are cut over several devices
    class_table: tuple[str, ...] = ()  # where a trunk keeps a row a class, and behind them one for none
    background: str | None = None  # what transparent pictures are laid on, a colour; none: white

    @property
    def layout(self) -> Layout:
        return self.models.layout

    def conditions(self, params: dict[str, Params], asked: Prompts | None = None) -> Conditions:
        """What there is to draw; `asked`: other captions than the config's. UserError without an encoder for them."""
        if self.text is None:
            return Classes(self.classes, *self.names)
        if "text" not in params:
            raise UserError("captions need their encoder: port flan_t5_xl and name its folder, text=... (weights.text)")
        return self.text.conditions(params["text"], asked)

    def learned_init(self, key: jax.Array, tokenizer_params: Params) -> Params:
        """What is trained as the teacher: its trunk, and an encoder of captions unless a ported one reads them."""
        start = {"trunk": self.teacher_init(key, tokenizer_params)}
        if self.text is not None and not self.text.folder:
            start["text"] = self.text.init(jax.random.fold_in(key, 1))
        return start


PARTS = ("classifier", "tokenizer", "text", "teacher", "student")  # and, for training alone, "lpips"


def load_params(
    system: System,
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
    key = rng.key(config.seed)
    recipes = {**config.get("pretrain", {}), "student": config.train}
    params: dict[str, Params] = {}
    for name in parts:
        if name in ("classifier", "lpips", "text") and getattr(system, name) is None:
            continue
        if name in loaded:
            params[name] = loaded[name]
            continue
        init = functools.partial(_init(system, name), key, *([params["tokenizer"]] if name == "teacher" else []))
        folder = named(config, name, workdir)
        if folder:
            _check_classes(folder, config)
            kind = jnp.dtype(config.text.dtype if name == "text" else "float32")
            params[name] = weights.on_device(weights.load(folder, jax.eval_shape(init), dtype=None), kind)
            if name == "student":
                _check_student(folder, config)
        elif name in random and not located(workdir, trained_in(name)).exists():
            params[name] = _drawn(system, name, config.seed)
        elif trained_in(name) not in recipes:
            raise UserError(missing(config, [name]))
        elif trained_in(name) == "teacher":
            learned = functools.partial(system.learned_init, key, params["tokenizer"])
            found = _trained(system, config, workdir, "teacher", Recipe.of(recipes["teacher"]), learned)
            params[name] = found["trunk" if name == "teacher" else name]
        else:
            params[name] = _trained(system, config, workdir, name, Recipe.of(recipes[name]), init)
    if "teacher" in params:
        trunk = stored(params["teacher"], dtype or config.dtype.teacher)
        params["teacher"] = system.teacher_params(trunk, params["tokenizer"])
    return params


def _trained(
    system: System, config: ConfigDict, workdir: Path, name: str, recipe: Recipe, init: Callable[[], Params]
) -> Params:
    """What the run has trained as `name`, from `init()` on."""
    begin: Callable[[Params], TrainState] | None = None  # its state at step 0, where it is not `init_state`'s
    if name == "tokenizer":
        begin = tokenizer_trainer(system, config).begin
    elif name == "teacher":
        begin = functools.partial(init_state, tx=pace(system, config).optimizer(recipe))
    elif name == "student":
        begin = functools.partial(_begun, system, recipe)
        if (located(workdir, "pairs") / pairset.MANIFEST).exists():
            pairset.check_noise(located(workdir, "pairs"))  # it maps that noise, and no other
    return load_ema(located(workdir, name), recipe, init, begin)


def tokenizer_trainer(system: System, config: ConfigDict) -> tokenizing.Trainer:
    """By `config.pretrain.tokenizer`. UserError for a distance without its network, or too small pictures."""
    section = config.pretrain.tokenizer
    name = section.get("perceptual", "none")
    network = getattr(system, name) if name != "none" else None
    if network is None and name != "none":
        raise UserError(f"config.pretrain.tokenizer.perceptual={name}: this config has no {name}; choose none")
    eyes = (lambda frozen, a, b: network.perceptual(frozen[name], a, b)) if network else None
    trainer = tokenizing.Trainer.of(system.tokenizer, section, config.seed, eyes, system.layout.tokens)
    trainer.aims.check(config.data.resolution)
    return trainer


def _begun(system: System, recipe: Recipe, student: Params) -> TrainState:
    """A student's training at its start, for its structure: other parts at random."""
    key = rng.key(0)
    tokenizer = system.tokenizer.init(key)
    teacher = system.teacher_params(system.teacher_init(key, tokenizer), tokenizer)
    params = {"tokenizer": tokenizer, "teacher": teacher}
    return train.begin(recipe, system.objective, system.models, student, params, 0)


def named(config: ConfigDict, part: str, workdir: Path) -> Path | None:
    """The folder of ported weights that a config names for a part; one on the Hub is fetched.

    A relative path counts from the current folder, else from the work directory or one that holds it: a run that was
    made elsewhere still finds what lies beside it.
    """
    given = config.weights.get(part)
    if not given:
        return None
    return placed(given, workdir, "student" if part == "start" else part)


def placed(given: str, workdir: Path, part: str) -> Path:
    """The folder itself, or that of the part in it where it is a run, or its weights/."""
    inside = ("", part, f"weights/{part}")
    if hub.named(given):
        return weights.place(weights.within(given, *inside))
    path = files.local(given)
    places = [path, *(parent / path for parent in (workdir, *workdir.parents))]
    return Path(weights.within(next((place for place in places if (place / weights.CONFIG).exists()), path), *inside))


def check_recipes(system: System, config: ConfigDict, parts: Sequence[str]) -> None:
    """UserError, before anything is trained, for a name in a recipe of `parts` that none of its parameters has."""
    recipes = {**config.get("pretrain", {}), "student": config.train}
    for part in parts:
        recipe = Recipe.of(recipes[part]) if part in recipes else None
        if recipe is None or not recipe.no_decay or getattr(system, part) is None:
            continue
        given = [jax.eval_shape(system.tokenizer.init, rng.key(0))] if part == "teacher" else []
        init = system.learned_init if part == "teacher" else getattr(system, part).init
        try:
            recipe.check(jax.eval_shape(init, rng.key(0), *given))
        except UserError as error:
            raise UserError(f"config.{'train' if part == 'student' else f'pretrain.{part}'}.{error}") from None


def trained_in(part: str) -> str:
    """The folder of the training that a part comes from: an encoder of captions is trained with the teacher."""
    return "teacher" if part == "text" else part


def missing(config: ConfigDict, parts: Sequence[str]) -> str:
    """How to get parts that this config cannot train: all of them in one command."""
    known = config.get("ported") or {}
    ids = [str(known.get(part) or "") for part in parts]
    told = f"no {' and no '.join(parts)} for this config: "
    if "lpips" in parts:
        told += "training compares by LPIPS (or by --config.train.distance=mse, which needs none): "
    if all(ids):
        named = " ".join(f"--config.weights.{part}=weights/{id}" for part, id in zip(parts, ids, strict=True))
        return f"{told}python -m port_weights {' '.join(ids)} --out weights, then add {named}"
    named = " ".join(f"--config.weights.{part}=FOLDER" for part in parts)
    return f"{told}port published ones (python -m port_weights list), then add {named}; or try --config.smoke=true"


def _check_classes(folder: Path, config: ConfigDict) -> None:
    """UserError where a ported teacher or student was trained on another number of classes than the config says."""
    about = weights.describe(folder)
    theirs = about["config"].get("data", {}).get("classes") if about.get("part") in ("teacher", "student") else None
    if theirs not in (None, config.data.classes) and not config.get("text"):
        raise UserError(
            f"{folder} has {theirs} classes and config.data.classes is {config.data.classes}: "
            f"set --config.data.classes={theirs}"
        )


def _check_student(folder: Path, config: ConfigDict) -> None:
    """UserError where a ported student's own attention mask, or its head, is not the configured one."""
    theirs = weights.describe(folder)["config"].get("student", {})
    if theirs.get("same_step", config.student.same_step) != config.student.same_step:
        see = "see" if theirs["same_step"] else "do not see"
        raise UserError(
            f"in {folder} tokens of one step {see} each other, and the config says otherwise: "
            f"set --config.student.same_step={str(theirs['same_step']).lower()}"
        )
    head, mine = theirs.get("head", "both"), config.student.get("head", "both")
    if head != mine:
        raise UserError(f"{folder} was trained with head={head}, the config says {mine}: --config.student.head={head}")


def start(system: System, config: ConfigDict, workdir: Path, teacher: Params) -> Params:
    """What the student's training begins with: what the teacher has (App. C), or the student of `weights.start`.

    Classes that are new to that student begin with the teacher's rows: a student's table began as its teacher's.
    """
    key, begin = rng.stream(config.seed, "init"), going_on(config, "student", workdir)
    if begin is None:
        return system.student.init_from_teacher(key, teacher["trunk"])
    print(begin.told, flush=True)
    other = weights.on_device(weights.load(begin.folder, None, dtype=None))
    trunk = begin.fit(other["trunk"], system.class_table, teacher["trunk"])
    return system.student.init_from_student(key, {**other, "trunk": trunk})


def going_on(config: ConfigDict, part: str, workdir: Path) -> finetune.Start | None:
    """What the training of teacher or student begins with, where it is another model. UserError as `Start.of`."""
    section = config.weights if part == "student" else config.get("pretrain", {}).get("teacher", {})
    setting = "config.weights.start" if part == "student" else "config.pretrain.teacher.from"
    if not (given := section.get(setting.rpartition(".")[2])):
        return None
    tokenizer = named(config, "tokenizer", workdir)
    if part == "teacher" and tokenizer is None:
        raise UserError(f"{setting}={given} knows one tokenizer's codes: name it, --config.weights.tokenizer=FOLDER")
    return finetune.Start.of(setting, placed(given, workdir, part), part, config, tokenizer)


def pace(system: System, config: ConfigDict) -> finetune.Pace:
    """How fast the teacher's trunk learns beside its class table. UserError where that makes no sense."""
    section = config.pretrain.teacher
    share, given = section.get("trunk_lr", 1.0), section.get("from")
    if share != 1 and not (given and system.class_table):
        why = "there is no class table beside the trunk" if given else "nothing is gone on from (see .from)"
        raise UserError(f"config.pretrain.teacher.trunk_lr={share}, and {why}: set it to 1")
    return finetune.Pace(share, ("trunk", *system.class_table))


@functools.lru_cache(maxsize=len(PARTS) + 1)
def _drawn(system: System, part: str, seed: int) -> Params:
    """A part's random parameters: the same for all stages, as their names say."""
    key = rng.key(seed)
    if part != "teacher":
        return jax.jit(_init(system, part))(key)
    return jax.jit(system.teacher_init)(key, _drawn(system, "tokenizer", seed))


def _init(system: System, part: str) -> Any:
    return system.teacher_init if part == "teacher" else getattr(system, part).init
