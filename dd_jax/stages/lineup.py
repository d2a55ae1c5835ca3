"""What stage `evaluate` scores: the teacher, every plan, other students, refinement to the end, baselines."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

from ml_collections import ConfigDict

from dd_jax.method import baselines
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Generator
from dd_jax.method.models import Knobs
from dd_jax.method.plans import cost
from dd_jax.stages.parts import System, other_student
from dd_jax.system import files


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


def rows(system: System, config: ConfigDict) -> Iterator[Row]:
    """Teacher, plans, refinement to the fixed point, baselines."""
    steps, count = system.layout.steps, config.evaluate.count
    teacher = f"T0:{steps}"
    by_flow = dataclasses.replace(system.models, categorical=False)  # agreement is about the same noise
    yield Row("teacher", teacher, steps, generator(teacher, by_flow), count)
    for plan in config.evaluate.plans:
        if not baselines.known(plan):
            yield Row("student", plan, cost(plan, steps), generator(plan, system.models), count)
    for name in config.evaluate.get("beside", ()):
        yield Row(f"student of {name}", "S0", 1, _beside(system, config, files.local(name)), count)
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


def _beside(system: System, config: ConfigDict, folder: Path) -> Generator:
    """One step of another student, on the same noises."""
    student, own = other_student(system, config, folder)
    draw = generator("S0", dataclasses.replace(system.models, student=student))
    return lambda params, cond, key_B: draw({**params, "student": own}, cond, key_B)
