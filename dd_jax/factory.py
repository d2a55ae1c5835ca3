"""Config -> objects. The only place that knows which family is meant; below it are dataclasses and arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax import emoji
from dd_jax.conditions import Classes, Conditions
from dd_jax.errors import UserError
from dd_jax.families.llamagen import build as llamagen
from dd_jax.families.var import build as var
from dd_jax.fewstep import Models, Special
from dd_jax.filtering import Filter
from dd_jax.flow import FlowSolver
from dd_jax.interfaces import Params, Teacher
from dd_jax.layout import Layout
from dd_jax.loop import Recipe
from dd_jax.losses import Weights
from dd_jax.metrics.judge import Judge
from dd_jax.metrics.lpips import LPIPS
from dd_jax.plans import parse
from dd_jax.sharding import Rules
from dd_jax.student import Student
from dd_jax.text.captions import EXAMPLES, Text
from dd_jax.text.prompts import Prompts
from dd_jax.text.t5 import T5Config
from dd_jax.train import Objective

FAMILIES = {"llamagen": llamagen.build, "var": var.build}


@dataclasses.dataclass(frozen=True)
class System:
    """Everything that the stages run, without parameters."""

    tokenizer: Any
    teacher: Teacher
    student: Student
    judge: Judge | None  # none for photographs: no network of our own looks at them
    lpips: LPIPS | None  # where training compares by it
    text: Text | None  # what reads captions; none: classes are drawn
    models: Models
    objective: Objective
    classes: int
    teacher_init: Callable[[jax.Array, Params], Params]  # (key, tokenizer's) -> trunk
    teacher_params: Callable[[Params, Params], Params]  # (trunk, tokenizer's) -> what the teacher takes
    rules: Rules = ()  # how its arrays are cut over several devices

    @property
    def layout(self) -> Layout:
        return self.models.layout

    def conditions(self, params: dict[str, Params], asked: Prompts | None = None) -> Conditions:
        """What there is to draw; `asked`: other captions than the config's. UserError without an encoder for them."""
        if self.text is None:
            return Classes(self.classes)
        if "text" not in params:
            raise UserError("captions need their encoder: port flan_t5_xl and name its folder, text=... (weights.text)")
        return self.text.conditions(params["text"], asked)

    def learned_init(self, key: jax.Array, tokenizer_params: Params) -> Params:
        """What is trained as the teacher: its trunk, and an encoder of captions unless a ported one reads them."""
        start = {"trunk": self.teacher_init(key, tokenizer_params)}
        if self.text is not None and not self.text.folder:
            start["text"] = self.text.init(jax.random.fold_in(key, 1))
        return start


def build(config: ConfigDict) -> System:
    """All objects of a config. UserError for an unknown family or a value that cannot be."""
    if config.family not in FAMILIES:
        raise UserError(f"config.family is {config.family!r}: choose one of {', '.join(sorted(FAMILIES))}")
    family = FAMILIES[config.family](config)
    steps = family.teacher.layout.steps
    split = steps if config.student.split is None else config.student.split
    for t in config.train.timesteps:
        if not 0 <= t < steps:
            raise UserError(f"config.train.timesteps has {t}: the steps are 0..{steps - 1}")
    _check_sample(config.sample, family.teacher.layout)
    models = Models(
        teacher=family.teacher,
        student=family.student,
        tokenizer=family.tokenizer,
        filter=Filter(**config.filter),
        solver=FlowSolver(**config.flow),
        split=split,
        categorical=config.sample.categorical,
        smooth=config.sample.smooth,
        draw=Filter(**config.sample.filter),
        special=tuple(_special(plan, own, config, steps, split) for plan, own in config.sample.by_plan.items()),
    )
    objective = Objective(
        timesteps=tuple(config.train.timesteps),
        split=split,
        weights=Weights(config.train.ce, config.train.embedding),
        distance=config.train.distance,
        distance_batch=config.train.get("distance_batch", 0),
    )
    data = config.data
    judge = Judge(data.resolution, data.channels, data.classes, **config.judge) if config.judge is not None else None
    return System(
        tokenizer=family.tokenizer,
        teacher=family.teacher,
        student=family.student,
        judge=judge,
        lpips=LPIPS() if objective.distance == "lpips" and objective.weights.embedding else None,
        text=_text(config),
        models=models,
        objective=objective,
        classes=data.classes,
        teacher_init=family.teacher_init,
        teacher_params=family.teacher_params,
        rules=family.rules,
    )


def _text(config: ConfigDict) -> Text | None:
    if "text" not in config:
        return None
    fields, data = config.text, config.data.name
    bundled = emoji.captions() if data == "emoji" else EXAMPLES
    return Text(
        sizes=T5Config(**fields.sizes, dtype=jnp.dtype(fields.dtype)),
        source=fields.prompts or bundled,
        folder=config.weights.text or "",
        unseen=tuple(emoji.held_out().tolist()) if data == "emoji" and not fields.prompts else (),
        batch=fields.batch,
        store=fields.store or "",
        words=fields.words,
    )


def _check_sample(settings: ConfigDict, layout: Layout) -> None:
    if layout.uniform and (settings.smooth or settings.unmasked_prefix):
        raise UserError("config.sample.smooth and .unmasked_prefix are for next-scale models: set both to false")
    if settings.smooth and not settings.categorical:
        raise UserError("config.sample.smooth mixes categorical draws: set config.sample.categorical=true too")


def _special(plan: str, own: ConfigDict, config: ConfigDict, steps: int, split: int) -> tuple[str, Special]:
    """What `config.sample.by_plan` says of one plan; what it leaves out is as everywhere. Checks the plan."""
    parse(plan, steps)
    fields = {**config.sample.filter, **{key: value for key, value in own.items() if key != "split"}}
    return plan, Special(own.get("split", split), Filter(**fields))


def shrink(config: ConfigDict) -> ConfigDict:
    """`config.smoke`: the same path at full width, one layer deep, with random weights and a handful of everything."""
    config.weights.update(
        {"tokenizer": None, "teacher": None, "student": None, "text": None, "lpips": None, "random": True}
    )
    config.model.depth = 1
    if "text" in config:  # nobody's captions, by a vocabulary of their own words
        config.text.update({"prompts": None, "words": True})
        config.text.sizes.depth = 1
    config.mesh = (1, 1)  # so little does not spread
    config.pairs.update({"count": 8, "shard": 4, "batch": 4})
    config.train.update({"steps": 4, "batch": 4, "checkpoint_every": 2})
    if config.train.get("distance_batch"):
        config.train.distance_batch = 0  # CPUs are slow at convolutions inside loops
    config.sample.update({"count": 4, "few": 4, "batch": 4})
    config.evaluate.update({"count": 4, "batch": 4})
    config.speed.update({"batches": (1,), "repeats": 2})
    return config


def recipe(section: ConfigDict) -> Recipe:
    """A training recipe; unknown fields are the config's own extras."""
    names = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(**{key: value for key, value in section.items() if key in names})
