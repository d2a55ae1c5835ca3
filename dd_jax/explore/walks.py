"""The second tab: a walk from one noise to another, played as frames."""

from typing import Any

import gradio as gr

from dd_jax.explore import files
from dd_jax.explore.controls import SLOW, Controls, told
from dd_jax.explore.shown import Shown, film, picture
from dd_jax.explore.studio import FRAMES, Studio

ABOUT = """From the first picture's noise to that of another seed, every token on a great circle. Every noise between is
as likely as any; codes flip one after another, so expect small jumps, not a film."""


def tab(studio: Studio, controls: Controls, source: str) -> None:
    """Everything in it, and what happens when it is touched."""
    gr.Markdown(ABOUT)
    with gr.Row(elem_classes="dd-row"):
        to = gr.Number(1, label="To seed", precision=0, minimum=0, maximum=2**31 - 1, min_width=90)
        frames = gr.Slider(2, FRAMES, 12, step=1, label="Frames", min_width=130)
        plan = gr.Dropdown(studio.presets, value=studio.presets[0], label="Plan", min_width=110)
    go = gr.Button("Walk", variant="primary", elem_id="walk")
    out, shown = gr.HTML(elem_id="walked"), gr.State([], time_to_live=3600)
    files.download(shown, source, "walk")

    def walk(given: dict[Any, Any]) -> tuple[str, list[Shown]]:
        found = studio.walk(controls.scene(given), given[plan], int(given[to] or 0), int(given[frames]))
        strip = "".join(picture(image, f"frame {i}") for i, image in enumerate(found.images))
        about = f"from seed {given[controls.seed]} to {given[to]}"
        return f'{film(found.images, about)}<p>{found.note}</p><div class="dd-strip">{strip}</div>', [found]

    go.click(told(walk), {*controls.all.values(), to, frames, plan}, [out, shown], api_name="walk", **SLOW)
