"""What a plan may call, and how."""

import dataclasses

import flax.struct
import jax

from dd_jax.method import flow
from dd_jax.method.filtering import AnyFilter, Filter, TracedFilter
from dd_jax.method.interfaces import Student, Teacher, Tokenizer
from dd_jax.method.layout import Layout
from dd_jax.method.pinning import Pinned
from dd_jax.method.plans import spelled


@flax.struct.dataclass
class Knobs:
    """What may differ from call to call without another compilation: numbers, traced."""

    tau: jax.Array | float = 1.0  # the flow head's temperature: its logits are divided by it
    # Of the teacher's logits, through the flow and in categorical draws; None: the models' own.
    filter: TracedFilter | None = None
    draw: TracedFilter | None = None
    pinned: Pinned | None = None  # tokens that stay as they are; None: no plan heeds any


@dataclasses.dataclass(frozen=True)
class Models:
    """What a plan may call, and how: all static, parameters come with each call."""

    teacher: Teacher
    student: Student
    tokenizer: Tokenizer
    filter: AnyFilter  # of the teacher's logits on their way through the flow
    solver: flow.FlowSolver
    split: int  # logits head before this step, embedding head from it on
    categorical: bool = False  # `T` draws categorically (as released) instead of through the flow
    smooth: bool = False  # and mixes the codes that it draws
    draw: AnyFilter = dataclasses.field(default_factory=Filter)  # of the teacher's logits where it draws categorically
    knobs: Knobs = dataclasses.field(default_factory=Knobs)  # where a call gives none
    special: tuple[tuple[str, "Special"], ...] = ()  # plans with settings of their own

    @property
    def layout(self) -> Layout:
        return self.teacher.layout

    def turned(self, knobs: Knobs) -> "Models":
        """With these filters instead, inside a traced function."""
        return dataclasses.replace(self, filter=knobs.filter or self.filter, draw=knobs.draw or self.draw)

    def of(self, plan: str) -> "Models":
        """As `plan` wants them."""
        special = dict(self.special).get(spelled(plan))
        return dataclasses.replace(self, special=(), **(vars(special) if special else {}))


@dataclasses.dataclass(frozen=True)
class Special:
    """What the release sets plan by plan."""

    split: int
    draw: Filter
