"""The first tab: plans side by side on the same noises, and noise that is locked token by token."""

import html
from typing import Any

import gradio as gr
import numpy as np

from dd_jax.explore import files
from dd_jax.explore.controls import LIVE, Controls, told
from dd_jax.explore.scene import Locks
from dd_jax.explore.shown import DRAWING, Shown, data, table
from dd_jax.explore.studio import Studio
from dd_jax.method import plans
from dd_jax.report.picture import png
from dd_jax.system.errors import UserError

SOON, LATER = 0.02, 0.5  # seconds until the page asks for what it lacks: pictures, programs
# A property, not a listener more: however often gradio runs this, a touch is one.
TOUCH = """element.onclick = event => {
  const token = event.target.dataset && event.target.dataset.token
  if (token !== undefined) trigger('click', {token: Number(token)})
}"""
LOCKS = """Squares that you lock keep their noise when the seed changes, in every picture; others get new noise. What
a locked noise becomes depends on what is drawn before it: in a raster model, on all that stands above."""


def tab(page: gr.Blocks, studio: Studio, controls: Controls, source: str) -> None:
    """Everything in it, and what happens when it is touched."""
    with gr.Row(elem_classes="dd-row"):
        own = gr.Textbox("", label="A plan of your own", placeholder="S0 J2", max_lines=1, min_width=160)
        verdict = gr.Markdown("", elem_id="verdict")
    again = gr.Button("New noise", variant="primary", elem_id="again")
    drawn = gr.HTML(elem_id="grid")
    shown, locks = controls.shown, gr.State(None, time_to_live=3600)
    files.download(shown, source, "drawn")
    board, free = _locking()
    timer = gr.Timer(LATER)
    inputs = {*controls.all.values(), controls.plans, own, locks}

    def draw(given: dict[Any, Any]) -> dict[Any, Any]:
        scene = controls.scene(given, given[locks])
        names = dict.fromkeys([*given[controls.plans], *_own(studio, given[own])[0]])
        columns = studio.columns(scene, [*names])
        done = [one for one in columns if isinstance(one, Shown)]
        ready = any(one.note == DRAWING for one in columns)
        first = done[0].images[0] if done else None
        return {
            drawn: table(columns),
            shown: done,
            board: _board(first, studio.pipe.system.layout.maps[-1], given[locks]),
            timer: gr.Timer(SOON if ready else LATER, active=len(done) < len(columns)),
        }

    def touch(given: dict[Any, Any], event: gr.EventData) -> Locks:
        return _touched(studio, controls, int(given[controls.seed] or 0), given[locks], int(event.token))

    live: dict[str, Any] = {"outputs": [drawn, shown, board, timer], "trigger_mode": "always_last", **LIVE}
    hidden: dict[str, Any] = {"api_visibility": "private"}
    parts = [*controls.all.values(), controls.plans]
    changes = [page.load, timer.tick, own.submit, *(part.change for part in parts)]
    answers = [gr.on(changes, told(draw), inputs, api_name="draw", **live)]
    own.change(lambda text: html.escape(_own(studio, text)[1]), own, verdict, api_name="check", show_progress="hidden")
    again.click(None, controls.seed, controls.seed, js="seed => (seed || 0) + 1", show_progress="hidden", **hidden)
    for locked in (
        board.click(told(touch), inputs, locks, **hidden, **LIVE),
        free.click(lambda: None, None, locks, **hidden, **LIVE),
    ):
        answers.append(locked.success(told(draw), inputs, **hidden, **live))
    for answer in answers:  # a fault is told once, not at every tick
        answer.failure(lambda: gr.Timer(active=False), None, timer, **hidden, **LIVE)


def _locking() -> tuple[gr.HTML, gr.Button]:
    """What to touch, and the button that undoes it."""
    with gr.Accordion("Lock noise, token by token", open=False):
        gr.Markdown(LOCKS)
        return gr.HTML(elem_id="board", js_on_load=TOUCH), gr.Button("Free all", size="sm")


def _touched(studio: Studio, controls: Controls, seed: int, locks: Locks | None, token: int) -> Locks:
    """The locks, of as many pictures as there may be, with one square locked or free again."""
    whole = np.asarray(studio.pipe.noise(int(controls.count.maximum), seed))
    layout = studio.pipe.system.layout
    return (locks or Locks.none(whole)).toggled(whole, layout, *divmod(token, layout.maps[-1]))


def _own(studio: Studio, text: str | None) -> tuple[list[str], str]:
    """A plan that somebody has typed, if it is one, and what is to be said of it."""
    if not (text or "").strip():
        return [], ""
    try:
        plan = plans.spelled(str(text))
        return [plan], f"{studio.told(plan)}: press Enter"
    except UserError as error:
        return [], str(error)


def _board(image: np.ndarray | None, side: int, locks: Locks | None) -> str:
    """The first picture under squares to touch, one a token of the finest map."""
    if image is None:
        return ""
    held = np.zeros(side * side, bool) if locks is None else locks.held_L[-side * side :]
    cells = [
        f'<rect data-token="{i}" class="{"held" * bool(held[i])}" x="{i % side}" y="{i // side}" width="1" height="1"/>'
        for i in range(side * side)
    ]
    shown = f'<image href="{data(png(image), "png")}" width="{side}" height="{side}"/>'
    return f'<svg class="dd" viewBox="0 0 {side} {side}">{shown}{"".join(cells)}</svg>'
