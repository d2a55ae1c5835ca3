"""The pictures that tokenizer, teacher and classifier are trained on: bundled ones, a folder, or a tfds data set.

`config.data.name`: mnist, digits, emoji; `folder:PATH` with one subfolder a class; `tfds:NAME` with `image` and
`label`. The last two are cut to their central square, and a twentieth of each class (1,000 at most) is held out.
"""

import functools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, UnidentifiedImageError

from dd_jax.data import bundled, tfds
from dd_jax.system.errors import UserError

WARPED = 8  # copies of every picture that a classifier of captions learns from
KINDS = (".png", ".jpg", ".jpeg", ".webp", ".bmp")


def known(name: str) -> bool:
    """Can tokenizer and teacher be trained on it here?"""
    return name in bundled.BUNDLED or name.startswith(("folder:", "tfds:"))


class Pictures:
    """Those of `config.data`, read once."""

    def __init__(self, settings: ConfigDict, seed: int) -> None:
        self._settings, self._seed = settings, seed

    @functools.cached_property
    def split(self) -> bundled.Split:
        """Images (N, R, R, c) in [-1, 1] and labels, and the same held out."""
        kind, _, where = self._settings.name.partition(":")
        if kind not in ("folder", "tfds"):
            return bundled.load(self._settings.name)
        found = list(_folder(Path(where)) if kind == "folder" else _tfds(where))
        if not found:
            raise UserError(f"config.data.name={self._settings.name} has no pictures")
        side, mode = self._settings.resolution, {1: "L", 3: "RGB"}[self._settings.channels]
        label = np.array([label for _, label in found], np.int32)
        if np.max(label) >= self._settings.classes:
            raise UserError(
                f"config.data.name={self._settings.name} has {np.max(label) + 1} classes: set --config.data.classes"
            )
        images = np.stack([squared(img, side, mode) for img, _ in found]).astype(np.float32) / 127.5 - 1
        return bundled.split(images, label, min(len(label) // 20, 1000))

    def training(self) -> tuple[np.ndarray, np.ndarray]:
        """Augmented training pictures and their labels."""
        img, label, _, _ = self.split
        return self._augmented(img, self._settings.copies, 0), np.tile(label, self._settings.copies)

    def held_out(self) -> tuple[np.ndarray, np.ndarray]:
        """Augmented pictures that no model was trained on, and their labels."""
        _, _, img, label = self.split
        return self._augmented(img, self._settings.heldout_copies, 1), np.tile(label, self._settings.heldout_copies)

    def for_classifier(self, captioned: bool) -> tuple[np.ndarray, np.ndarray]:
        """What a classifier learns from: as `training`; of captions also those held out from the others, warped.

        A caption has one picture, soon known by heart: place, size and noise are what its classifier has to overlook.
        """
        if not captioned:
            return self.training()
        img, label = (np.concatenate(x) for x in zip(self.training(), self.held_out(), strict=True))
        warped = -bundled.augment(-img, WARPED, 0.05, 0.08, 0.05, 1.5, seed=2 * self._seed)  # what enters is white
        noise = np.random.default_rng(self._seed).normal(0, 0.1, warped.shape).astype(np.float32)
        return np.clip(warped + noise, -1, 1), np.tile(label, WARPED)

    def _augmented(self, img: np.ndarray, copies: int, part: int) -> np.ndarray:
        d = self._settings
        if not (d.rotate or d.scale or d.shear or d.shift):
            return np.tile(img, (copies, 1, 1, 1))
        return bundled.augment(img, copies, d.rotate, d.scale, d.shear, d.shift, seed=2 * self._seed + part)


def squared(img: Image.Image, side: int, mode: str) -> np.ndarray:
    """The central square, side x side: uint8 (side, side, 1 or 3)."""
    edge = min(img.size)
    left, top = (img.width - edge) // 2, (img.height - edge) // 2
    img = img.convert(mode).crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(img).reshape(side, side, -1)


def _folder(path: Path) -> Iterator[tuple[Image.Image, int]]:
    """(picture, class) of every picture; classes are the subfolders in alphabetical order, if there are any."""
    if not path.is_dir():
        raise UserError(f"config.data.name: there is no folder {path}")
    classes = sorted(entry for entry in path.iterdir() if entry.is_dir()) or [path]
    for label, folder in enumerate(classes):
        for file in sorted(folder.rglob("*")):
            if file.suffix.lower() in KINDS:
                try:
                    yield Image.open(file), label
                except UnidentifiedImageError as error:
                    raise UserError(f"{file} is not a picture that can be read: remove it") from error


def _tfds(name: str) -> Iterator[tuple[Image.Image, int]]:
    """(picture, class) of a prepared tfds data set, of its `train` split unless the name says another."""
    source = tfds.open_source(name)
    for i in range(len(source)):
        row = source[i]
        image, label = (tfds.field(name, row, wanted) for wanted in ("image", "label"))
        yield Image.fromarray(np.asarray(image).squeeze()), int(label)
