"""Config -> objects. The only place that knows which family is meant; below it are dataclasses and arrays."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
from ml_collections import ConfigDict

from dd_jax.errors import UserError
from dd_jax.families.llamagen import build as llamagen
from dd_jax.families.var import build as var
from dd_jax.fewstep import Models
from dd_jax.filtering import Filter
from dd_jax.flow import FlowSolver
from dd_jax.interfaces import Params, Teacher
from dd_jax.layout import Layout
from dd_jax.loop import Recipe
from dd_jax.losses import Weights
from dd_jax.metrics.judge import Judge
from dd_jax.student import Student
from dd_jax.train import Objective

FAMILIES = {"llamagen": llamagen.build, "var": var.build}


@dataclasses.dataclass(frozen=True)
class System:
    """Everything that the stages run, without parameters."""

    tokenizer: Any
    teacher: Teacher
    student: Student
    judge: Judge
    models: Models
    objective: Objective
    classes: int
    teacher_init: Callable[[jax.Array, Params], Params]  # (key, tokenizer's) -> trunk
    teacher_params: Callable[[Params, Params], Params]  # (trunk, tokenizer's) -> what the teacher takes

    @property
    def layout(self) -> Layout:
        return self.models.layout


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
    models = Models(
        teacher=family.teacher,
        student=family.student,
        tokenizer=family.tokenizer,
        filter=Filter(**config.filter),
        solver=FlowSolver(**config.flow),
        split=split,
        categorical=config.sample.categorical,
    )
    objective = Objective(
        timesteps=tuple(config.train.timesteps),
        split=split,
        weights=Weights(config.train.ce, config.train.embedding),
        distance=config.train.distance,
    )
    data = config.data
    judge = Judge(data.resolution, data.channels, data.classes, **config.judge)
    return System(
        tokenizer=family.tokenizer,
        teacher=family.teacher,
        student=family.student,
        judge=judge,
        models=models,
        objective=objective,
        classes=data.classes,
        teacher_init=family.teacher_init,
        teacher_params=family.teacher_params,
    )


def recipe(section: ConfigDict) -> Recipe:
    """A training recipe; unknown fields are the config's own extras."""
    names = {field.name for field in dataclasses.fields(Recipe)}
    return Recipe(**{key: value for key, value in section.items() if key in names})
