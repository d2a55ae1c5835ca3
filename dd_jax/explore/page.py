"""The explorer's page: plans side by side, a walk, a picture of one's own. Laid out here; a `Studio` does the work."""

from typing import Any

import gradio as gr

from dd_jax.explore import canvas, grid, walks
from dd_jax.explore.controls import Controls
from dd_jax.explore.studio import Studio
from dd_jax.explore.uploads import BYTES
from dd_jax.pipeline import Pipeline

STALE = 3600  # seconds after which a file that a browser was given is deleted
# Fonts that every machine has: the page asks for nothing from elsewhere.
FONT, MONO = ("system-ui", "sans-serif"), ("ui-monospace", "monospace")
CSS = """
.gradio-container { max-width: 1280px !important; margin: auto; }
table.dd { border: 0 !important; border-collapse: separate !important; border-spacing: 6px; }
table.dd { display: table !important; table-layout: fixed !important; width: 100% !important; }
table.dd :is(th, td, tr) { border: 0 !important; padding: 0 !important; text-align: center; vertical-align: bottom; }
table.dd th { font-weight: 600; overflow-wrap: anywhere; }
table.dd th small { display: block; font-weight: 400; opacity: .7; min-height: 1.3em; overflow-wrap: normal; }
table.dd img { width: 100%; max-width: 256px; display: block; margin: auto; border-radius: 3px; }
img.pixels, svg.dd image, img.film { image-rendering: pixelated; }
img.film, svg.dd { width: 100%; max-width: 320px; display: block; }
svg.dd rect { fill: transparent; stroke: #8886; stroke-width: .02; cursor: pointer; }
svg.dd rect.held { fill: #e0508a66; stroke: #e0508a; stroke-width: .06; }
.dd-strip { display: flex; flex-wrap: wrap; gap: 4px; }
.dd-strip img { width: 56px; }
.dd-row { flex-wrap: wrap; }
.dd-hidden { position: absolute !important; width: 1px; height: 1px; overflow: hidden; opacity: 0; }
@media (max-width: 480px) {
  .gradio-container { padding: 8px !important; }
  table.dd { border-spacing: 3px; font-size: 12px; }
  table.dd th small { font-size: 10px; }
}
"""
INTRO = """## {title}
Every row is one noise, every column a way to draw it: `S0` is the student in one pass, `T` the teacher step by step,
`J` sweeps of refinement. Change anything: a column that is new is compiled beside, and says so."""


def build(pipe: Pipeline, title: str = "dd_jax", source: str = "FOLDER") -> gr.Blocks:
    """The page of a model. `source`: what `dd_jax.load` was given, for the files that a person takes along."""
    studio = Studio(pipe)
    with gr.Blocks(title=f"{title}: explorer", delete_cache=(STALE, STALE), analytics_enabled=False) as page:
        gr.Markdown(INTRO.format(title=title))
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                controls = Controls(studio)
            with gr.Column(scale=2, min_width=300):
                with gr.Tab("Draw"):
                    grid.tab(page, studio, controls, source)
                if studio.presets:
                    with gr.Tab("Walk"):
                        walks.tab(studio, controls, source)
                with gr.Tab("A picture of yours"):
                    canvas.tab(studio, controls, source)
    return page


def launch(page: gr.Blocks, host: str, port: int | None = None, share: bool = False) -> str:
    """Serve the page, beside -> its address. OSError where that cannot be."""
    theme = gr.themes.Default(font=FONT, font_mono=MONO)
    options: dict[str, Any] = {"server_name": host, "server_port": port, "share": share, "max_file_size": BYTES}
    options |= {"quiet": True, "prevent_thread_lock": True, "show_error": True, "ssr_mode": False}
    # Or the browser keeps the last hundred events with all their pictures, and writes them all anew at each.
    options |= {"run_history": False}
    page.queue(max_size=64)
    _, address, public = page.launch(**options, theme=theme, css=CSS)
    return public or address
