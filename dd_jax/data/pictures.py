"""The pictures that tokenizer, teacher and classifier are trained on: bundled ones, a folder, or a tfds data set.

`config.data.name`: mnist, digits, emoji; `folder:PATH` with one subfolder a class (see `folder`); `tfds:NAME` with
`image` and `label`. The last two are made squares of 8 bits (see `decode`), and a twentieth of each class (1,000 at
most) is held out.
"""

import functools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dd_jax.data import bundled, decode, examples, tfds
from dd_jax.data.examples import Examples, Pixels
from dd_jax.data.source import Source, Squares
from dd_jax.system.errors import UserError

WARPED = 8  # copies of every picture that a classifier of captions learns from
FIELDS = ("channels", "classes")  # what pictures say of themselves
MODES = {1: "L", 3: "RGB"}


def known(name: str) -> bool:
    """Can tokenizer and teacher be trained on it here?"""
    return name in bundled.BUNDLED or name.startswith(("folder:", "tfds:"))


def facts(name: str, fields: Sequence[str] = FIELDS) -> dict[str, int]:
    """The channels and classes of a set, or one of them. UserError where nobody knows.

    A set that is not here, whose models are ported, is taken to be in colour.
    """
    if name in bundled.FACTS:
        return {field: bundled.FACTS[name][field] for field in fields}
    if not known(name):
        if "classes" not in fields:
            return {"channels": 3}
        raise UserError(
            f"config.data.name={name} is none of {', '.join(bundled.BUNDLED)}, folder:PATH and tfds:NAME: choose one, "
            "or say how many classes its weights draw, --config.data.classes=..."
        )
    source = _source(name)
    return {field: getattr(source, field) for field in fields}


def settled(data: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """`channels` and `classes` of `config.data`, where 0 means those of the pictures, and of a folder `class_names`.

    `earlier`: what a run noted of the same pictures, flat ({"data.classes": 2}), which need not be there any more.
    """
    noted = earlier if earlier.get("data.name") == data["name"] else {}
    said = {field: data[field] or noted.get(f"data.{field}") or 0 for field in FIELDS}
    open = [field for field, value in said.items() if not value]
    said |= facts(data["name"], open) if open else {}
    own = tuple(data.get("class_names") or noted.get("data.class_names") or _folders(data["name"]))
    if own and len(own) != said["classes"] and data.get("class_names"):
        raise UserError(f"config.data.class_names has {len(own)} names, and there are {said['classes']} classes")
    return said | ({"class_names": own} if len(own) == said["classes"] else {})


def _folders(name: str) -> tuple[str, ...]:
    """The names of a folder's classes; none where it is not there any more, or no folder is meant."""
    if not name.startswith("folder:"):
        return ()
    try:
        return _source(name).names
    except UserError:  # told when its pictures are read
        return ()


class Pictures:
    """Those of `config.data`, read once."""

    def __init__(self, settings: ConfigDict, seed: int) -> None:
        self._settings, self._seed = settings, seed

    @functools.cached_property
    def split(self) -> tuple[Pixels, np.ndarray, Pixels, np.ndarray]:
        """Images (N, R, R, c) in [-1, 1] and labels, and the same held out.

        What was found and what was done to it is printed first. UserError for pictures that contradict the settings,
        or cannot be read.
        """
        name = self._settings.name
        if name in bundled.BUNDLED or not known(name):
            found = bundled.load(name)
            self._check({"resolution": found[0].shape[1], **bundled.FACTS[name]})
            return found
        mode = MODES.get(self._settings.channels)
        if mode is None:
            raise UserError(f"config.data.channels={self._settings.channels}: 1 is grey, 3 is colour")
        background = decode.ground(self._settings.get("background"))
        source = _source(name)
        label, side = source.label, self._settings.resolution
        squares = Squares(source, side, mode, background)
        train, label, held, held_label = bundled.split(np.arange(len(label)), label, _held_out(len(label)))
        print(source.table(squares.converted, squares.unreadable, len(held)), flush=True)
        self._check({"classes": source.classes})
        squares.check()
        shape = (side, side, self._settings.channels)

        def of(part: np.ndarray) -> Pixels:
            return examples.kept(Examples(lambda at: examples.floats(squares[part[at]]), len(part), shape))

        return of(train), label, of(held), held_label

    def _check(self, found: Mapping[str, int]) -> None:
        """UserError where the settings say something else than the pictures."""
        for field, value in found.items():
            said = self._settings[field]
            if said != value:
                several = f"{value} {field}" if field == "classes" and value != 1 else f"{field} {value}"
                zero = "" if field == "resolution" else ", or to 0, which takes what there is"
                raise UserError(
                    f"config.data.name={self._settings.name} has {several}: set --config.data.{field}={value}{zero}; "
                    f"now it is {said}"
                )

    def training(self) -> tuple[Pixels, np.ndarray]:
        """Augmented training pictures and their labels."""
        img, label, _, _ = self.split
        return self._augmented(img, self._settings.copies, 0), np.tile(label, self._settings.copies)

    def held_out(self) -> tuple[Pixels, np.ndarray]:
        """Augmented pictures that no model was trained on, and their labels."""
        _, _, img, label = self.split
        return self._augmented(img, self._settings.heldout_copies, 1), np.tile(label, self._settings.heldout_copies)

    def for_classifier(self, captioned: bool) -> tuple[Pixels, np.ndarray]:
        """What a classifier learns from: as `training`; of captions also those held out from the others, warped.

        A caption has one picture, soon known by heart: place, size and noise are what its classifier has to overlook.
        """
        if not captioned:
            return self.training()
        img, label = (np.concatenate(x) for x in zip(self.training(), self.held_out(), strict=True))
        warped = -bundled.augment(-img, WARPED, 0.05, 0.08, 0.05, 1.5, seed=2 * self._seed)  # what enters is white
        noise = np.random.default_rng(self._seed).normal(0, 0.1, warped.shape).astype(np.float32)
        return np.clip(warped + noise, -1, 1), np.tile(label, WARPED)

    def _augmented(self, img: Pixels, copies: int, part: int) -> Pixels:
        d, count, large = self._settings, len(img), copies * img.nbytes > examples.KEPT
        if not (d.rotate or d.scale or d.shear or d.shift):
            if not large:
                return np.tile(img, (copies, 1, 1, 1))
            return Examples(lambda at: img[at % count], copies * count, img.shape[1:])
        warp, seed = (d.rotate, d.scale, d.shear, d.shift), 2 * self._seed + part
        if not large:
            return bundled.augment(np.asarray(img), copies, *warp, seed=seed)
        warps = bundled.Warps.draw(copies * count, *warp, seed=seed)
        return Examples(lambda at: warps(img[at % count], at), copies * count, img.shape[1:])


def squared(img: Image.Image, side: int, mode: str, background: str | None = None) -> np.ndarray:
    """The central square, side x side: uint8 (side, side, 1 or 3) (see `decode.prepared`)."""
    return decode.prepared(img, side, mode, decode.ground(background))[0]


def _held_out(count: int) -> int:
    """A twentieth, but two at least: scores compare covariances."""
    return min(max(count // 20, 2), 1000, count)


def _source(name: str) -> Source:
    kind, _, where = name.partition(":")
    return Source.folder(Path(where)) if kind == "folder" else Source.stored(name, list(_tfds(where)))


def _tfds(name: str) -> Iterator[tuple[Image.Image, int]]:
    """(picture, class) of a prepared tfds data set, of its `train` split unless the name says another."""
    source = tfds.open_source(name)
    for i in range(len(source)):
        row = source[i]
        image, label = (tfds.field(name, row, wanted) for wanted in ("image", "label"))
        yield Image.fromarray(np.asarray(image).squeeze()), int(label)
