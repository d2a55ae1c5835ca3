"""Settings of a call: checked, then arrays that a compiled program takes, so that another value compiles nothing."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dd_jax.data.conditions import as_array
from dd_jax.method.filtering import AnyFilter, TracedFilter
from dd_jax.method.interfaces import Cond, Teacher
from dd_jax.method.models import Knobs, Models
from dd_jax.system.errors import UserError

# What a call may set, for all images or for each: what it must be, and its type.
SETTINGS: dict[str, tuple[Callable[[np.ndarray], np.ndarray], str, Any]] = {
    "guidance": (np.isfinite, "finite", np.float32),
    "temperature": (lambda x: x > 0, "above 0 (top_k=1 gives the most likely code)", np.float32),
    "top_k": (lambda x: x >= 0, "0, which keeps every code, or more", np.int32),
    "top_p": (lambda x: (x > 0) & (x <= 1), "in (0, 1]; 1.0 keeps every code", np.float32),
    "tau": (lambda x: x > 0, "above 0", np.float32),
}
FILTER = ("temperature", "top_k", "top_p")
TEACHER = ("guidance", *FILTER)  # those of a teacher
Setting = ArrayLike | None
Checked = Mapping[str, np.ndarray | None]


def checked(given: Mapping[str, Setting], count: int, known: Sequence[str] = tuple(SETTINGS)) -> Checked:
    """All settings by name, of `count` images: numbers, one or (count,); None: as configured. UserError for others."""
    if unknown := min({*given} - {*known}, default=None):
        raise UserError(f"there is no setting {unknown}=: choose from {', '.join(known)}")
    return {name: _checked(name, given.get(name), count) for name in SETTINGS}


def guided(teacher: Teacher, cond: Cond, guidance: np.ndarray | None, count: int) -> Cond:
    """With a guidance of each image, unless the teacher has none and none is asked for. UserError if it takes none."""
    own = getattr(teacher, "guidance", None)
    if guidance is None and (own is None or not getattr(teacher, "guided", False)):
        return cond
    if own is None:
        raise UserError("this model's teacher takes no guidance: leave guidance= out")
    return dataclasses.replace(cond, guidance_B=_rows(guidance, own, count, np.float32))


def knobs(models: Models, settings: Checked, count: int) -> Knobs:
    """Arrays (B,) of what a call sets, and of what it leaves as the models have it."""

    def traced(own: AnyFilter) -> TracedFilter:
        return TracedFilter(*(_rows(settings[name], getattr(own, name), count, SETTINGS[name][2]) for name in FILTER))

    tau_B = _rows(settings["tau"], models.knobs.tau, count, np.float32)
    return Knobs(tau_B, traced(models.filter), traced(models.draw))


def _rows(given: np.ndarray | None, own: Any, count: int, dtype: Any) -> Any:
    return np.full(count, own, dtype) if given is None else np.broadcast_to(given, count).astype(dtype)


def _checked(name: str, given: Setting, count: int) -> np.ndarray | None:
    if given is None:
        return None
    fits, told, dtype = SETTINGS[name]
    found = as_array(given, name)
    kinds = "iu" if dtype is np.int32 else "iuf"
    if found.dtype.kind not in kinds or found.shape not in ((), (count,)) or not np.all(fits(found)):
        shown = given if np.ndim(found) == 0 else f"{found.dtype} {found.shape}"
        one = f"one number or {count}" if count != 1 else "one number"
        raise UserError(f"{name}={shown}: give {one}, {told}")
    return found
