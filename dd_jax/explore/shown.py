"""What was drawn, as a table of a page, frames of a film, and files that draw it again."""

import base64
import dataclasses
import html
import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from dd_jax.data.sampleset import slug
from dd_jax.report.picture import pillow, png

DRAWING = "drawing ..."  # what is said of a column whose program is there, and whose pictures are not
SMOOTH = 96  # pixels of a side from which on a browser may smooth what it enlarges
READ = """Every folder holds pictures, and the arguments of the call that draws them again, to the byte on a machine of
the same kind. From inside the folder:

    import dd_jax, json
    pipe = dd_jax.load("{source}")
    images = pipe.{call}(**json.load(open("{call}.json")))
"""


@dataclasses.dataclass(frozen=True)
class Shown:
    """Pictures (B, R, R, c) uint8 of one call, `Pipeline.<call>(**arguments)`, and what it took."""

    title: str
    images: np.ndarray
    call: str
    arguments: Mapping[str, Any]
    passes: int | None = None  # network passes in sequence; none: decided by the pictures, or nothing was drawn
    ms: float | None = None  # of all pictures together

    @property
    def note(self) -> str:
        """`2 passes, 13 ms`."""
        told = [] if self.passes is None else [f"{self.passes} pass{'es' * (self.passes != 1)}"]
        if self.ms is not None:
            told.append(f"{self.ms:.3g} ms" if self.ms < 1000 else f"{self.ms / 1000:.1f} s")
        return ", ".join(told)


@dataclasses.dataclass(frozen=True)
class Coming:
    """A column that is not there yet."""

    title: str
    note: str = "compiling ..."


def table(columns: Sequence[Shown | Coming], rows: Sequence[str] = ()) -> str:
    """A column a call, a row a noise (with a heading, if `rows` has any)."""
    count = max((len(one.images) for one in columns if isinstance(one, Shown)), default=0)
    heads = [f"<th>{html.escape(one.title)}<small>{html.escape(one.note)}</small></th>" for one in columns]
    lines = ["".join(heads)]
    for i in range(count):
        drawn = [one for one in columns if isinstance(one, Coming) or i < len(one.images)]
        cells = ["" if isinstance(one, Coming) else picture(one.images[i], one.title) for one in drawn]
        lines.append("".join(f"<td>{cell}</td>" for cell in cells))
    named = ["", *rows] if rows else []
    lines = [f"<th>{html.escape(name)}</th>{line}" for name, line in zip(named, lines, strict=False)] or lines
    return f'<table class="dd">{"".join(f"<tr>{line}</tr>" for line in lines)}</table>'


def picture(image: np.ndarray, about: str) -> str:
    """One picture as HTML."""
    kind = "" if len(image) >= SMOOTH else ' class="pixels"'
    return f'<img{kind} alt="{html.escape(about)}" src="{data(png(image), "png")}">'


def film(frames: np.ndarray, about: str, ms: int = 160) -> str:
    """Frames (K, R, R, c) there and back, for ever, as HTML."""
    there = [enlarged(frame, 256) for frame in frames]
    file = io.BytesIO()
    there[0].save(file, "PNG", save_all=True, append_images=there[1:] + there[-2:0:-1], duration=ms, loop=0)
    return f'<img class="film" alt="{html.escape(about)}" src="{data(file.getvalue(), "png")}">'


def data(content: bytes, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def enlarged(image: np.ndarray, least: int) -> Image.Image:
    """A whole number of times, to `least` pixels a side or more."""
    times = -(-least // len(image))
    return pillow(np.repeat(np.repeat(image, times, 0), times, 1))


def archive(columns: Sequence[Shown], source: str) -> bytes:
    """A .zip: a folder a call, with its pictures, its arguments as JSON, and the pictures that these name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("README.txt", READ.format(source=source, call=columns[0].call if columns else "sample"))
        for number, one in enumerate(columns):
            folder = f"{number}_{slug(one.title)}"
            arguments, pictures = portable(one.arguments)
            pictures |= {f"{i:02d}.png": image for i, image in enumerate(one.images)}
            made.writestr(f"{folder}/{one.call}.json", json.dumps(arguments))
            for name, image in pictures.items():
                made.writestr(f"{folder}/{name}", png(image))
    return file.getvalue()


def portable(arguments: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Arguments as JSON has them, and pictures by the file names that stand for them there.

    Floats of 32 bits are written as Python's, which JSON keeps to the last bit.
    """
    told: dict[str, Any] = dict(arguments)
    pictures: dict[str, np.ndarray] = {}
    for name, value in arguments.items():
        if isinstance(value, np.ndarray) and value.dtype == np.uint8:
            several = value if value.ndim == 4 else value[None]
            files = [f"{name}_{i:02d}.png" for i in range(len(several))]
            pictures |= dict(zip(files, several, strict=True))
            told[name] = files if value.ndim == 4 else files[0]
        elif isinstance(value, np.ndarray):
            told[name] = value.tolist()
    return told, pictures
