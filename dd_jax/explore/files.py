"""A button that hands what is shown over as one file."""

import tempfile
from pathlib import Path
from typing import Any

import gradio as gr

from dd_jax.explore.controls import LIVE, told
from dd_jax.explore.shown import Shown, archive
from dd_jax.system.errors import UserError


def download(shown: gr.State, source: str, name: str) -> None:
    """`shown`: a list of `Shown`. The file is made when it is asked for."""
    button = gr.Button("Download pictures, and the calls that draw them", size="sm", elem_id=f"download-{name}")
    # What the browser downloads must be an address, which there is once the file is there.
    hidden = gr.DownloadButton("file", elem_id=f"file-{name}", elem_classes="dd-hidden")

    def write(columns: list[Shown] | None) -> str:
        if not columns:
            raise UserError("there is nothing yet to download: draw first")
        path = Path(tempfile.mkdtemp(prefix="dd_jax_")) / f"{name}.zip"
        path.write_bytes(archive(columns, source))
        return str(path)

    press = f"() => document.querySelector('#file-{name} a, a#file-{name}, #file-{name}').click()"
    made: Any = button.click(told(write), shown, hidden, api_name=f"download_{name}", **LIVE)
    made.success(None, js=press)
