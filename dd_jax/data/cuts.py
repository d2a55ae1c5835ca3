"""What of a picture a training sees: its central square, or a random window of it, mirrored or not.

Which window follows from (seed, epoch, the picture's number) alone, whatever batch, process or thread asks.
"""

import dataclasses
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dd_jax.data import decode
from dd_jax.data.squares import Decode
from dd_jax.system.errors import UserError

CROPS = ("centre", "random")


@dataclasses.dataclass(frozen=True)
class Cut:
    """`share`: of the picture's shorter side, (least, most), what a random window shows; none: the central square.

    VAR trains on windows of 8/9 (a resize to 1.125 of the side, then a crop), LlamaGen on 4/5 to all, and mirrors.
    """

    side: int
    share: tuple[float, float] | None
    flip: bool
    seed: int

    @classmethod
    def of(cls, data: ConfigDict, seed: int) -> "Cut":
        """Of `config.data`."""
        share = tuple(data.get("crop_share", (1.0, 1.0))) if data.get("crop", "centre") == "random" else None
        return cls(data.resolution, share, bool(data.get("flip", False)), seed)

    @property
    def random(self) -> bool:
        """Is a picture seen otherwise in every epoch?"""
        return self.share is not None or self.flip

    def __str__(self) -> str:
        """In words."""
        told = f"the central square, {self.side} px"
        if self.share:
            least, most = (f"{share:.3g}" for share in self.share)
            told = f"random windows of {least if least == most else f'{least} to {most}'} of the shorter side"
            told += f", {self.side} px"
        return told + (", half of them mirrored" if self.flip else "")

    @property
    def shorter(self) -> int:
        """px of the shorter side that a picture is decoded to: the smallest window then is `side`."""
        return round(self.side / self.share[0]) if self.share else self.side

    def decoder(self, mode: str, background: tuple[int, ...]) -> Decode:
        """To what windows are cut from; of a JPEG of four times that size or more only a half or less is unpacked."""
        how, twice = decode.resized if self.share else decode.prepared, (2 * self.shorter, 2 * self.shorter)

        def decoded(img: Image.Image) -> tuple[np.ndarray, list[str]]:
            img.draft(None, twice)  # of no other format; what it gives is no smaller than this
            return how(img, self.shorter, mode, background)

        return decoded

    def __call__(self, pixels: np.ndarray, epoch: int, number: int) -> np.ndarray:
        """uint8 (rows, columns, c), as the decoder makes them -> (side, side, c)."""
        if not self.random:
            return pixels
        draw = np.random.default_rng([self.seed, epoch, number])
        mirrored = self.flip and draw.random() < 0.5
        if self.share:
            pixels = self._window(pixels, draw)
        return pixels[:, ::-1] if mirrored else pixels

    def _window(self, pixels: np.ndarray, draw: np.random.Generator) -> np.ndarray:
        assert self.share
        most = max(round(self.shorter * self.share[1]), self.side)
        edge = int(draw.integers(self.side, most + 1))
        top, left = (int(draw.integers(0, size - edge + 1)) for size in pixels.shape[:2])
        window = pixels[top : top + edge, left : left + edge]
        if edge == self.side:
            return window
        img = Image.fromarray(window[..., 0] if window.shape[2] == 1 else window)
        resized = img.resize((self.side, self.side), Image.Resampling.BICUBIC)
        return np.asarray(resized).reshape(self.side, self.side, -1)


def check_views(views: int, data: Any) -> None:
    """UserError for several views of pictures that look the same each time."""
    if views and not Cut.of(data, 0).random:
        raise UserError(
            f"config.pretrain.teacher.views={views} encodes windows of each picture, and they are not cut at random: "
            "--config.data.crop=random or --config.data.flip=true, or 0 views for the central square"
        )


def check(data: Any, bundled: bool) -> None:
    """UserError for settings of `config.data` that contradict each other, or ask for cuts of what comes cut."""
    least, most = data.get("crop_share", (1.0, 1.0))
    if least > most:
        raise UserError(f"config.data.crop_share={(least, most)}: the least share comes first")
    for field, plain in (("crop", "centre"), ("flip", False)):
        if data.get(field, plain) != plain and bundled:
            raise UserError(
                f"config.data.{field}={data[field]}: {data['name']} is bundled, and is not cut anew; "
                f"--config.data.{field}={plain}, or name pictures of your own"
            )
