"""The third tab: a picture, drawn or brought, that is drawn again from its own noise, and repainted with a brush."""

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dd_jax.explore import files
from dd_jax.explore.controls import SLOW, Controls, label, told
from dd_jax.explore.shown import Shown, enlarged, table
from dd_jax.explore.studio import Studio
from dd_jax.system.errors import UserError

CANVAS = 448  # pixels of a side
COPIES = 4  # of a repaint, side by side
NEAR = 12  # classes at once, drawn from one noise
ABOUT = """Take the first picture of the grid, or bring one, which becomes a square as small as this model draws. What
comes back is never better than what the tokenizer keeps of it."""


def tab(studio: Studio, controls: Controls, source: str) -> None:
    """Everything in it, and what happens when it is touched."""
    gr.Markdown(ABOUT)
    with gr.Row(elem_classes="dd-row"):
        take = gr.Button("Take it from the grid", elem_id="take")
        bring = gr.UploadButton("Bring a picture", file_types=["image"], type="filepath", elem_id="bring")
        size = gr.Radio([("central square", "crop"), ("all of it", "fit")], value="crop", show_label=False)
    held = gr.State(None, time_to_live=3600)
    brush = gr.Brush(default_size=CANVAS // 10, colors=["#e0508a"], default_color="#e0508a", color_mode="fixed")
    editor = gr.ImageEditor(
        label="Paint over what is to be drawn anew",
        type="pil",
        format="png",
        sources=(),
        transforms=(),
        layers=False,
        brush=brush,
        canvas_size=(CANVAS, CANVAS),
        fixed_canvas=True,
        elem_id="canvas",
    )
    out, shown = gr.HTML(elem_id="edited"), gr.State([], time_to_live=3600)
    files.download(shown, source, "picture")

    def show(picture: np.ndarray) -> tuple[np.ndarray, Image.Image, str, list[Shown]]:
        kept = studio.kept(picture)
        return picture, enlarged(picture[0], CANVAS).convert("RGB"), table([kept]), [kept]

    def taken(columns: list[Shown]) -> Any:
        if not columns:
            raise UserError("the grid is empty: draw first")
        return show(columns[0].images[:1])

    def brought(file: str, size: str) -> Any:
        return show(studio.read(file, size))

    outputs = [held, editor, out, shown]
    take.click(told(taken), controls.shown, outputs, api_visibility="private", **SLOW)
    bring.upload(told(brought), [bring, size], outputs, api_name="bring", **SLOW)
    if studio.teacher and studio.presets:
        redraw(studio, controls, held, out, shown)
        repaint(studio, controls, held, editor, out, shown)


def _held(picture: np.ndarray | None) -> np.ndarray:
    if picture is None:
        raise UserError("there is no picture yet: take one from the grid, or bring one")
    return picture


def redraw(studio: Studio, controls: Controls, held: gr.State, out: gr.HTML, shown: gr.State) -> None:
    """The picture from its own noise: as it is, and as others."""
    with gr.Row(elem_classes="dd-row"):
        others = gr.Dropdown(
            studio.choices,
            value=[label for _, label in studio.choices[:NEAR]],
            multiselect=True,
            max_choices=NEAR,
            allow_custom_value=studio.captions,
            label="The same noise as other captions" if studio.captions else "The same noise in other classes",
        )
        invert = gr.Button("Find its noise, and draw", elem_id="invert")

    def inverted(given: dict[Any, Any]) -> tuple[str, list[Shown]]:
        picture, own = _held(given[held]), given[controls.label]
        plans = given[controls.plans] or studio.unasked
        wanted = list(dict.fromkeys([own, *given[others]]))[:NEAR]
        columns = [studio.relabelled(picture, own, wanted, plan) for plan in plans]
        return table(columns, [studio.name(one) for one in wanted]), columns

    given: Any = {held, controls.label, controls.plans, others}
    invert.click(told(inverted), given, [out, shown], api_name="invert", **SLOW)


def repaint(
    studio: Studio, controls: Controls, held: gr.State, editor: gr.ImageEditor, out: gr.HTML, shown: gr.State
) -> None:
    """The picture with a part drawn anew."""
    with gr.Row(elem_classes="dd-row"):
        what = label(studio, "Painted over becomes", min_width=140)
        plan = gr.Dropdown(studio.presets, value=studio.editing, label="Plan", min_width=110)
        candidates = gr.Slider(1, 16, 8, step=1, label="Candidates, of which the best is shown", min_width=160)
        share = gr.Slider(0.05, 1, 0.3, step=0.05, label="Share of tokens that a variation redraws", min_width=160)
        seed = gr.Number(0, label="Seed of the repaint", precision=0, minimum=0, maximum=2**31 - 1, min_width=90)
    with gr.Row(elem_classes="dd-row"):
        paint = gr.Button("Repaint", variant="primary", elem_id="paint")
        vary = gr.Button("Vary all of it", elem_id="vary")

    def call(given: dict[Any, Any]) -> dict[str, Any]:
        if given[what] in (None, ""):
            raise UserError("say what the painted part becomes")
        told = {"plan": given[plan], "candidates": int(given[candidates]), "seed": int(given[seed] or 0)}
        set_ = {name: value for name, value in controls.scene(given).settings.items() if name != "smooth"}
        return {"label": given[what], "count": COPIES, **told, **set_}

    def repainted(given: dict[Any, Any]) -> tuple[str, list[Shown]]:
        picture, hole = _held(given[held]), _painted(given[editor])
        found = studio.repainted(picture, hole, **call(given))
        return table([_before(picture), found]), [found]

    def varied(given: dict[Any, Any]) -> tuple[str, list[Shown]]:
        picture = _held(given[held])
        found = studio.varied(picture, share=float(given[share]), **call(given))
        return table([_before(picture), found]), [found]

    given = {held, editor, what, plan, candidates, share, seed, *controls.all.values()}
    paint.click(told(repainted), given, [out, shown], api_name="repaint", **SLOW)
    vary.click(told(varied), given, [out, shown], api_name="vary", **SLOW)


def _before(picture: np.ndarray) -> Shown:
    return Shown("before", np.repeat(picture, COPIES, 0), "", {})


def _painted(value: dict[str, Any] | None) -> np.ndarray:
    """(rows, columns) bool: where the brush was."""
    layers = [np.asarray(layer.convert("RGBA"))[..., 3] > 0 for layer in (value or {}).get("layers", [])]
    if not layers or not np.any(layers):
        raise UserError("nothing is painted over: take the brush, and paint what is to be drawn anew")
    return np.any(layers, 0)
