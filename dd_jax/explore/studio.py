"""Draws what a page asks for. Knows a `Pipeline`, and no browser: every answer says which call made it (`Shown`)."""

import collections
import dataclasses
import functools
import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import jax
import numpy as np

from dd_jax.data import labels
from dd_jax.data.conditions import Classes
from dd_jax.explore import uploads
from dd_jax.explore.scene import Scene
from dd_jax.explore.shown import DRAWING, Coming, Shown
from dd_jax.method import plans
from dd_jax.method.fewstep import program
from dd_jax.method.inversion import slerp
from dd_jax.pipeline import Pipeline
from dd_jax.system.errors import UserError

MOST = 8  # pictures of a scene
FRAMES = 32  # of a walk
KEPT = 64  # calls whose answers are remembered
LARGE = 50_000_000  # parameters from which on nothing but one picture in one step is drawn unasked
PATIENCE = 0.06  # seconds that pictures wait for those of the next plan
LISTED = 200  # captions to choose from
Answer = TypeVar("Answer")


class Studio:
    """A `Pipeline` to play with. Programs are compiled beside; what was drawn last is remembered."""

    def __init__(self, pipe: Pipeline):
        self.pipe = pipe
        self.captions = pipe.system.text is not None
        self.student, self.teacher = ("student" in pipe.params), ("teacher" in pipe.params)
        self._jobs: dict[tuple, tuple[str, Future]] = {}
        self._threads = ThreadPoolExecutor(2)
        self._one = threading.Lock()  # at a time: two would share the same cores
        self._answers: collections.OrderedDict[str, Any] = collections.OrderedDict()

    @functools.cached_property
    def choices(self) -> list[tuple[str, int | str]]:
        """(name, label) of every class, or some captions, those never trained on first."""
        conditions: Any = self.pipe.conditions
        if isinstance(conditions, Classes):
            names = labels.short(conditions.data, conditions.count, conditions.own)
            return [(name, i) for i, name in enumerate(names)]
        texts = conditions.prompts.captions
        return [(texts[i], texts[i]) for i in [*conditions.held_out, *conditions.pool][:LISTED]]

    def name(self, label: int | str) -> str:
        """What people call it."""
        return label if isinstance(label, str) else self.choices[label][0]

    @functools.cached_property
    def presets(self) -> list[str]:
        """Plans to begin with: one step, two, refined, the teacher."""
        steps, trained = self.pipe.system.layout.steps, sorted(self.pipe.system.objective.timesteps)
        found = ["S0", *(f"S0 S{t}" for t in trained[-1:] if t), *["S0 J4"] * self.teacher] * self.student
        return found + [f"T0:{steps}"] * self.teacher

    @property
    def editing(self) -> str:
        """The plan that repaints unless another is chosen."""
        return "S0 J4" if "S0 J4" in self.presets else self.presets[-1]

    @functools.cached_property
    def large(self) -> bool:
        """Does a picture take its time?"""
        sizes = [leaf.size for part in ("student", "teacher") for leaf in jax.tree.leaves(self.pipe.params.get(part))]
        return sum(sizes) >= LARGE

    @property
    def unasked(self) -> list[str]:
        """Those plans that a page draws at once."""
        return self.presets[:1] if self.large else self.presets

    @property
    def flows(self) -> bool:
        """Has the student a head that draws through the flow, which has a temperature?"""
        return self.student and self.pipe.system.student.head == "flow"

    def told(self, plan: str) -> str:
        """What a plan takes, in words. UserError for one that this model cannot draw."""
        system = self.pipe.system
        for op in plans.parse(plan, system.layout.steps, system.objective.timesteps, strict=True):
            network = "student" if op.kind == "S" else "teacher"
            if network not in self.pipe.params:
                raise UserError(f"plan {plan!r} needs a {network}, which is not loaded")
        passes = plans.cost(plan, system.layout.steps)
        return "as many passes as it takes" if passes is None else f"{passes} pass{'es' * (passes != 1)}"

    def ready(self, scene: Scene, plan: str) -> bool:
        """Is its program compiled? If not, that begins now, beside. UserError for what cannot be drawn."""
        self.told(plan)
        key = self._program(scene, plan)
        if key not in self._jobs:
            self.pipe.conditions.of(scene.labels[:1])
            self._jobs[key] = plan, self._threads.submit(self.pipe.sample, **scene.arguments(plan))
        return self._jobs[key][1].done()

    @property
    def compiling(self) -> list[str]:
        """Plans whose programs are being made, in words."""
        return [plan for plan, job in list(self._jobs.values()) if not job.done()]

    def draw(self, scene: Scene, plan: str) -> Shown:
        """One call of `Pipeline.sample`, once its program is there. UserError for what cannot be drawn."""
        self.ready(scene, plan)
        key = self._program(scene, plan)
        try:
            self._jobs[key][1].result()
        except BaseException:
            self._jobs.pop(key, None)  # the next one tries again
            raise
        return self._shown(plan, "sample", scene.arguments(plan), plan)

    def drawn(self, scene: Scene, plan: str) -> bool:
        """Is the answer remembered?"""
        return _key("sample", scene.arguments(plan)) in self._answers

    def columns(self, scene: Scene, names: Sequence[str]) -> list[Shown | Coming]:
        """What one answer shows of these plans: as many as are drawn without a wait, and at least one more than before.

        UserError for what cannot be drawn.
        """
        begun, columns = time.perf_counter(), list[Shown | Coming]()
        for plan in names:
            if not self.ready(scene, plan):
                columns.append(Coming(plan))
            elif time.perf_counter() - begun < PATIENCE or self.drawn(scene, plan):
                columns.append(self.draw(scene, plan))
            else:
                columns.append(Coming(plan, DRAWING))
        return columns

    def walk(self, scene: Scene, plan: str, to: int, frames: int) -> Shown:
        """From picture 0 of the scene's seed to that of another: noises on great circles, token by token."""
        if not 2 <= frames <= FRAMES:
            raise UserError(f"a walk has 2 to {FRAMES} frames, not {frames}")
        ends = self.pipe.noise(1, scene.seed)[0], self.pipe.noise(1, to)[0]
        noise = np.asarray(slerp(*ends, np.linspace(0, 1, frames)))
        return self.draw(dataclasses.replace(scene, labels=scene.labels[:1] * frames, noise=noise), plan)

    def read(self, file: str, size: str) -> np.ndarray:
        """A picture that somebody brings, (1, R, R, c). UserError for what is none (see `uploads.read`)."""
        side, _, channels = self.pipe.image_shape
        return uploads.read(file, side, channels, size, self.pipe.system.background)

    def kept(self, picture: np.ndarray) -> Shown:
        """What the tokenizer makes of a picture (1, R, R, c)."""
        return self._shown("tokenizer", "reconstruct", {"images": picture})

    def relabelled(self, picture: np.ndarray, label: int | str, others: Sequence[int | str], plan: str) -> Shown:
        """A picture (1, R, R, c) of `label`, drawn again from its own noise under each of `others`."""
        noise = self._answer("invert", {"images": picture, "labels": [label]}, self.pipe.invert)
        return self.draw(Scene(tuple(others), noise=np.repeat(noise, len(others), 0)), plan)

    def repainted(self, picture: np.ndarray, hole: np.ndarray, label: int | str, count: int, **told: Any) -> Shown:
        """`Pipeline.edit` of a picture (1, R, R, c) behind a mask (rows, columns) bool, `count` times."""
        images, mask = np.repeat(picture, count, 0), np.where(hole, np.uint8(255), np.uint8(0))[..., None]
        arguments = {"images": images, "mask": mask, "labels": [label] * count, **told}
        return self._shown("repainted", "edit", arguments, told["plan"])

    def varied(self, picture: np.ndarray, label: int | str, count: int, **told: Any) -> Shown:
        """`Pipeline.vary` of a picture (1, R, R, c), `count` times."""
        arguments = {"images": np.repeat(picture, count, 0), "labels": [label] * count, **told}
        return self._shown("varied", "vary", arguments, told["plan"])

    def _program(self, scene: Scene, plan: str) -> tuple:
        """What tells programs apart: the plan but for its numbers of sweeps, the pictures up to a power of two."""
        kinds, _ = program(plan, self.pipe.system.layout.steps)
        structure = tuple(scene.settings.get(name, False) is not False for name in ("guidance", "smooth"))
        return kinds, 1 << (len(scene.labels) - 1).bit_length(), structure

    def _shown(self, title: str, call: str, arguments: Mapping[str, Any], plan: str = "") -> Shown:
        def run(**arguments: Any) -> Shown:
            begun = time.perf_counter()
            images = getattr(self.pipe, call)(**arguments)
            ms = (time.perf_counter() - begun) * 1000
            passes = plans.cost(plan, self.pipe.system.layout.steps) if plan and call == "sample" else None
            return Shown(title, images, call, arguments, passes, ms)

        return self._answer(call, arguments, run)

    def _answer(self, call: str, arguments: Mapping[str, Any], run: Callable[..., Answer]) -> Answer:
        """`run(**arguments)`, or what it answered before."""
        key = _key(call, arguments)
        with self._one:
            if key not in self._answers:
                self._answers[key] = run(**arguments)
                if len(self._answers) > KEPT:
                    self._answers.popitem(last=False)
            self._answers.move_to_end(key)
            return self._answers[key]


def _key(call: str, arguments: Mapping[str, Any]) -> str:
    """What tells calls apart."""
    parts = [x.tobytes() if isinstance(x, np.ndarray) else repr(x).encode() for x in arguments.values()]
    return hashlib.sha256(b"\0".join([call.encode(), *map(str.encode, arguments), *parts])).hexdigest()
