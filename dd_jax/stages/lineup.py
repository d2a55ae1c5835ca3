"""What stage `evaluate` scores: the teacher, every plan, other students, refinement to the end, baselines."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import jax
from ml_collections import ConfigDict

from dd_jax.method import baselines
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Generator
from dd_jax.method.models import Knobs, Models
from dd_jax.method.plans import cost
from dd_jax.method.student import split_of
from dd_jax.report.rows import OTHER
from dd_jax.stages import finetune
from dd_jax.stages.parts import System, named, placed
from dd_jax.stages.workdir import located
from dd_jax.system import rng, weights
from dd_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Row:
    """One line of the table to come."""

    name: str
    plan: str
    steps: int | None
    generate: Generator
    count: int
    tau: float | None = None  # of the flow head's draws, where it is not the models' own


def samplers(config: ConfigDict) -> list[str]:
    """Those rows that are no plans: baselines, and samplers from outside the package."""
    given = config.baselines
    names = [f"skip-{n}" for n in given.skip] + [f"skip-{n} dropped" for n in given.skip_drop]
    names += ["onestep*"] * given.onestep + [plan for plan in config.evaluate.plans if baselines.known(plan)]
    return list(dict.fromkeys(names))


def rows(system: System, config: ConfigDict, workdir: Path = Path()) -> Iterator[Row]:
    """Teacher, plans, other students, refinement to the fixed point, baselines. UserError as `other_student`."""
    steps, count = system.layout.steps, config.evaluate.count
    teacher = f"T0:{steps}"
    by_flow = dataclasses.replace(system.models, categorical=False)  # agreement is about the same noise
    yield Row("teacher", teacher, steps, generator(teacher, by_flow), count)
    for plan in config.evaluate.plans:
        if not baselines.known(plan):
            yield Row("student", plan, cost(plan, steps), generator(plan, system.models), count)
    for name in config.evaluate.get("beside", ()):
        yield Row(OTHER + called(name), "S0", 1, _beside(system, config, name, workdir), count)
    for tau in config.evaluate.get("taus", ()):
        hot = generator("S0", system.models, Knobs(tau))
        yield Row("student", "S0", 1, hot, count, tau)
    if config.evaluate.check:
        plan, fewer = config.evaluate.check, min(config.evaluate.check_count, count)
        yield Row("student", plan, None, generator(plan, system.models), fewer)
    for name in samplers(config):
        passes = baselines.cost(name, steps)
        drawn = {"onestep*": "marginals"}.get(name, f"T0:{passes}" if name.startswith("skip-") else "")
        yield Row(name, drawn, passes, baselines.named(name, system.models), count)


def called(name: str) -> str:
    """What a table calls a run, or a folder of weights: its last part that is a name."""
    parts = [part for part in PurePosixPath(name).parts if part not in ("student", "weights")]
    return parts[-1] if parts else name


def other_student(system: System, config: ConfigDict, name: str, workdir: Path) -> tuple[Path, Models]:
    """(folder, models) of another run's student, which draws by its own head and split. Descriptions alone are read.

    UserError as `finetune.Start.of`, and for other classes.
    """
    setting, folder = "config.evaluate.beside", placed(name, workdir, "student")
    own = located(workdir, "tokenizer").parent / "weights" / "tokenizer"  # which this run has trained
    tokenizer = named(config, "tokenizer", workdir) or (own if weights.present(own) else None)
    if not finetune.Start.of(setting, folder, "student", config, tokenizer).whole:
        raise UserError(f"{setting}={name} draws other classes: name a student of this run's")
    about = weights.describe(folder)["config"].get("student", {})
    head = about.get("head", "both")
    student = system.student.with_head(head, about.get("same_step", config.student.same_step))
    split = split_of(head, about.get("split"), system.layout.steps)
    return folder, dataclasses.replace(system.models, student=student, split=split)


def _beside(system: System, config: ConfigDict, name: str, workdir: Path) -> Generator:
    """One step of another student, on the same noises."""
    folder, models = other_student(system, config, name, workdir)
    student: Any = models.student
    own = weights.on_device(weights.load(folder, jax.eval_shape(student.init, rng.key(0)), dtype=None))
    draw = generator("S0", models)
    return lambda params, cond, key_B: draw({**params, "student": own}, cond, key_B)
