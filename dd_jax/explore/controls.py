"""What a person may set, as gradio's components, and the `Scene` that it makes."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import gradio as gr
import numpy as np

from dd_jax.explore.scene import Locks, Scene
from dd_jax.explore.studio import MOST, Studio
from dd_jax.system.errors import UserError

# What answers at once goes around gradio's queue, which takes two more requests; the rest comes one at a time.
LIVE: dict[str, Any] = {"queue": False, "show_progress": "hidden"}
SLOW: dict[str, Any] = {"concurrency_id": "studio", "concurrency_limit": 1, "show_progress": "minimal"}


class Controls:
    """The components, by what `Scene` calls what they set."""

    def __init__(self, studio: Studio):
        self.studio = studio
        with gr.Row(elem_classes="dd-row"):
            self.label = label(studio, "Caption" if studio.captions else "Class")
            self.seed = gr.Number(0, label="Seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=90)
            self.count = gr.Slider(1, MOST, 1 if studio.large else 4, step=1, label="Pictures", min_width=130)
        self.plans = gr.CheckboxGroup(studio.presets, value=studio.unasked, label="Plans: a column each")
        self.settings, self.own = settings(studio)
        self.shown = gr.State([], time_to_live=3600)  # what the grid holds

    @property
    def all(self) -> dict[str, Any]:
        """Everything that makes a scene."""
        return {"label": self.label, "seed": self.seed, "count": self.count, **self.settings}

    def scene(self, given: Mapping[Any, Any], locks: Locks | None = None) -> Scene:
        """What gradio's values mean. UserError for a condition or a number that cannot be."""
        chosen, count, seed = given[self.label], given[self.count], given[self.seed]
        if chosen in (None, ""):
            raise UserError("there is nothing to draw: give a caption" if self.studio.captions else "choose a class")
        if count is None or seed is None:
            raise UserError("give a seed, and how many pictures")
        told = {name: given[part] for name, part in self.settings.items()}
        told = {name: value for name, value in told.items() if value is not None and value != self.own[name]}
        scene = Scene((chosen,) * int(count), int(seed), settings=told)
        if locks is None or not locks.any:
            return scene
        noise = np.asarray(self.studio.pipe.noise(len(scene.labels), scene.seed))
        return dataclasses.replace(scene, noise=locks.over(noise))


def label(studio: Studio, title: str, **more: Any) -> gr.Dropdown:
    """A class, or a caption, which may be anyone's own."""
    first = studio.choices[0][1] if studio.choices else ""
    return gr.Dropdown(studio.choices, value=first, label=title, allow_custom_value=studio.captions, **more)


def settings(studio: Studio) -> tuple[dict[str, Any], dict[str, Any]]:
    """Sliders of what needs no compiling, and the model's own values, which a call leaves out."""
    system = studio.pipe.system
    filter, own, found = system.models.filter, dict[str, Any](), dict[str, Any]()

    def slider(name: str, value: Any, low: float, high: float, step: float, label: str) -> None:
        own[name] = value
        found[name] = gr.Slider(low, max(high, value), value, step=step, label=label, min_width=160)

    if studio.teacher:
        with gr.Row(elem_classes="dd-row"):
            if hasattr(system.teacher, "guidance"):
                slider("guidance", system.teacher.guidance, 0, 10, 0.1, "Guidance (T, J)")
            slider("temperature", filter.temperature, 0.05, 2, 0.05, "Temperature (T, J)")
        with gr.Accordion("More settings of the teacher", open=False), gr.Row(elem_classes="dd-row"):
            slider("top_k", filter.top_k, 0, studio.pipe.vocab, 1, "Top-k (0: all codes)")
            slider("top_p", filter.top_p, 0.05, 1, 0.05, "Top-p (1: all codes)")
            if not system.layout.uniform:
                own["smooth"] = system.models.smooth
                found["smooth"] = gr.Checkbox(own["smooth"], label="Mix codes (T)")
    if studio.flows:
        slider("tau", system.models.knobs.tau, 0.05, 2, 0.05, "Temperature of the student (S)")
    return found, own


def told(handler: Callable[..., Any]) -> Callable[..., Any]:
    """A handler whose UserError is one line on the page."""

    @functools.wraps(handler)
    def answer(*given: Any) -> Any:
        try:
            return handler(*given)
        except UserError as error:
            raise gr.Error(str(error), duration=30, print_exception=False, title="") from None

    return answer
