"""Grids of sample pictures: inside the report, and as one PNG with headings."""

import base64
import dataclasses
import html
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont


@dataclasses.dataclass(frozen=True)
class Grid:
    """Pictures that share noise along a row: one column a method.

    `images` is uint8 (rows, columns, R, R, c), c = 1 or 3. Every `noises` consecutive rows are one labelled
    row (a class, say), shown side by side. A heading may have a second, smaller line after a newline.
    """

    images: np.ndarray
    columns: Sequence[str]
    rows: Sequence[str] = ()
    noises: int = 1
    title: str = ""
    note: str = ""

    @property
    def scale(self) -> int:
        """Screen pixels a picture's pixel, so that a picture is about a thumb wide."""
        return -(-46 // self.images.shape[2])

    def __post_init__(self) -> None:
        images = self.images
        if images.ndim != 5 or images.dtype != np.uint8 or images.shape[-1] not in (1, 3):
            raise ValueError(f"a grid takes uint8 (rows, columns, R, R, 1 or 3), not {images.dtype} {images.shape}")
        if images.shape[0] % self.noises or images.shape[1] != len(self.columns):
            raise ValueError(f"{images.shape[:2]} pictures, {len(self.columns)} headings, {self.noises} noises")
        if self.rows and len(self.rows) != images.shape[0] // self.noises:
            raise ValueError(f"{images.shape[0] // self.noises} labelled rows, but {len(self.rows)} labels")


def column_strips(images: np.ndarray, noises: int, gap: int) -> np.ndarray:
    """(rows, columns, R, R, c) -> (columns, height, width, c + 1): a method's pictures, clear gaps."""
    rows, cols, side, _, channels = images.shape
    alpha = np.full((*images.shape[:-1], 1), 255, np.uint8)
    cells = np.concatenate([images, alpha], -1)
    cells = np.pad(cells, ((0, 0), (0, 0), (0, gap), (0, gap), (0, 0)))
    cells = cells.reshape(rows // noises, noises, cols, side + gap, side + gap, channels + 1)
    strip = cells.transpose(2, 0, 3, 1, 4, 5).reshape(cols, rows // noises * (side + gap), -1, channels + 1)
    return strip[:, :-gap, :-gap] if gap else strip


def grid_html(grid: Grid) -> str:
    """The grid as one figure: a native-size PNG a method, enlarged by the browser without smoothing."""
    scale = grid.scale
    cell = (grid.images.shape[2] + 1) * scale
    labels = "".join(f'<div style="height:{cell}px">{html.escape(label)}</div>' for label in grid.rows)
    parts = [f'<div class="rowlabels"><div class="head"></div>{labels}</div>'] if grid.rows else []
    for name, strip in zip(grid.columns, column_strips(grid.images, grid.noises, 1), strict=True):
        height, width = strip.shape[:2]
        source = base64.b64encode(png(strip)).decode()
        parts.append(
            f'<div class="method"><div class="head">{_heading(name)}</div><img alt="{html.escape(name)}" '
            f'width="{width * scale}" height="{height * scale}" src="data:image/png;base64,{source}"></div>'
        )
    title = f"<h3>{html.escape(grid.title)}</h3>" if grid.title else ""
    note = f'<p class="note">{html.escape(grid.note)}</p>' if grid.note else ""
    return f'{title}<div class="grid">{"".join(parts)}</div>{note}'


def grid_png(
    images: np.ndarray,
    scale: int = 2,
    columns: Sequence[str] = (),
    rows: Sequence[str] = (),
    noises: int = 1,
) -> bytes:
    """One PNG of the whole grid on white, pixels `scale` x `scale`, with headings and row labels drawn."""
    grid = Grid(images, columns or [""] * images.shape[1], rows, noises)
    strips = [_enlarge(strip, scale) for strip in column_strips(images, noises, 1)]
    font, small = ImageFont.load_default(15), ImageFont.load_default(12)
    cell = (images.shape[2] + 1) * scale
    label_font = ImageFont.load_default(max(15, cell // 10))
    left = max((int(label_font.getlength(row)) for row in rows), default=-8) + 12
    top = 44 if any(columns) else 4
    height, width = strips[0].shape[:2]
    step = max(width, *(int(_heading_width(name, font, small)) for name in grid.columns)) + 12
    canvas = Image.new("RGB", (left + step * len(strips) - 12 + 4, top + height + 4), "white")
    draw = ImageDraw.Draw(canvas)
    for index, (name, strip) in enumerate(zip(grid.columns, strips, strict=True)):
        x = left + index * step
        picture = pillow(strip).convert("RGBA")
        canvas.paste(picture, (x + (step - 12 - width) // 2, top), picture)
        first, _, second = name.partition("\n")
        centre = x + (step - 12) // 2
        draw.text((centre, 16 if second else 28), first, "#1b1f24", font, anchor="mm")
        draw.text((centre, 33), second, "#6a737d", small, anchor="mm")
    for index, label in enumerate(rows):
        draw.text((left - 10, top + index * cell + cell // 2), label, "#6a737d", label_font, anchor="rm")
    return _encode(canvas)


def png(pixels: np.ndarray) -> bytes:
    """uint8 (H, W, 1 to 4 channels) as PNG."""
    return _encode(pillow(pixels))


def pillow(pixels: np.ndarray) -> Image.Image:
    """uint8 (H, W, 1 to 4 channels) as Pillow has them."""
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels))


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _enlarge(pixels: np.ndarray, scale: int) -> np.ndarray:
    return pixels.repeat(scale, 0).repeat(scale, 1)


def _heading_width(name: str, font: Font, small: Font) -> float:
    first, _, second = name.partition("\n")
    return max(font.getlength(first), small.getlength(second))


def _heading(name: str) -> str:
    first, _, second = name.partition("\n")
    return f"<b>{html.escape(first)}</b><span>{html.escape(second)}</span>"
