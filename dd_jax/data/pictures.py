"""The pictures that tokenizer, teacher and classifier are trained on: bundled ones, or those of one's own (`sources`).

`config.data.name`: mnist, digits, emoji; `folder:PATH` with one subfolder a class (see `folder`); `tar:PATTERN`,
`parquet:PATTERN`, `array_record:PATTERN`, `npz:FILE`; `tfds:NAME` with `image` and `label`. All but the first three are
made squares of 8 bits (see `decode`), may have captions (see `beside`), and a twentieth of each class (1,000 at most)
is held out.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dd_jax.data import bundled, cuts, decode, emoji, examples, sources
from dd_jax.data.examples import Examples, Pixels
from dd_jax.data.own import Own
from dd_jax.data.said import Said
from dd_jax.data.source import Source
from dd_jax.system.errors import UserError

WARPED = 8  # copies of every picture that a classifier of captions learns from
FIELDS = ("channels", "classes")  # what pictures say of themselves


def known(name: str) -> bool:
    """Can tokenizer and teacher be trained on it here?"""
    return name in bundled.BUNDLED or bool(sources.kind(name))


def captioned(data: Mapping[str, Any]) -> bool:
    """Do the pictures of `config.data` have captions, which a model may read?"""
    return data["name"] == "emoji" or data.get("captions", "none") != "none"


def captions(data: Mapping[str, Any]) -> list[str]:
    """All of them, as often as pictures have them. UserError as `sources.open_source`."""
    if data["name"] == "emoji":
        return list(emoji.captions())
    return [text for said, _ in _opened(data).captions or () for text in said]


def check_captions(data: Mapping[str, Any], reads: bool) -> None:
    """UserError where captions are asked for that a set does not have, or that its model does not read."""
    said = f"config.data.captions={data.get('captions', 'none')}"
    if said.endswith("=none"):
        return
    if not sources.kind(data["name"]):
        raise UserError(f"{said} is for pictures of one's own, and config.data.name={data['name']} names none")
    if not reads:
        raise UserError(f"{said}: the model of this config reads classes, no captions; that of own_t2i.py does")


def _opened(data: Mapping[str, Any]) -> Source:
    own_captions = data.get("captions", "none") != "none"
    return sources.open_source(data["name"], own_captions, data.get("strict", True))


def settled(data: Mapping[str, Any], earlier: Mapping[str, Any]) -> dict[str, Any]:
    """`channels` and `classes` of `config.data`, where 0 means those of the pictures, and `class_names` of a folder's.

    `earlier`: what a run noted of the same pictures, flat ({"data.classes": 2}), which need not be there any more.
    UserError where nobody knows.
    """
    name = data["name"]
    cuts.check(data, name in bundled.BUNDLED)
    noted = earlier if earlier.get("data.name") == name else {}
    said = {field: data[field] or noted.get(f"data.{field}") or 0 for field in FIELDS}
    open = [field for field, value in said.items() if not value]
    opened = functools.cache(lambda: _opened(data))
    said |= _facts(name, open, opened) if open else {}
    own = tuple(data.get("class_names") or noted.get("data.class_names") or _names(name, opened, "classes" in open))
    if own and len(own) != said["classes"] and data.get("class_names"):
        raise UserError(f"config.data.class_names has {len(own)} names, and there are {said['classes']} classes")
    return said | ({"class_names": own} if len(own) == said["classes"] else {})


def _facts(name: str, fields: Sequence[str], opened: Callable[[], Source]) -> dict[str, int]:
    """The channels and classes of a set, or one of them. UserError where nobody knows.

    A set that is not here, whose models are ported, is taken to be in colour.
    """
    if name in bundled.FACTS:
        return {field: bundled.FACTS[name][field] for field in fields}
    if known(name):
        return {field: getattr(opened(), field) for field in fields}
    if "classes" not in fields:
        return {"channels": 3}
    *most, last = (*bundled.BUNDLED, *sources.told())
    raise UserError(
        f"config.data.name={name} is none of {', '.join(most)} and {last}: choose one, "
        "or say how many classes its weights draw, --config.data.classes=..."
    )


def _names(name: str, opened: Callable[[], Source], anew: bool) -> tuple[str, ...]:
    """The names of one's own classes; none where they are not there any more, or have none but numbers.

    Of a data set of tfds, which takes seconds to open, only when its classes are counted `anew`.
    """
    if not sources.kind(name) or (sources.kind(name) == "tfds" and not anew):
        return ()
    try:
        found = opened().names
    except UserError:  # told when its pictures are read
        return ()
    return () if all(one.isdecimal() for one in found) and not name.startswith("folder:") else found


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
        own, label = self._own, self._own.source.label
        self._check({"classes": own.source.classes})
        own.seen.check()
        return own.squares(own.train), label[own.train], own.squares(own.held), label[own.held]

    @functools.cached_property
    def _own(self) -> Own:
        return Own.of(_opened(self._settings), self._settings, self._seed)

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
        """Augmented training pictures and their labels; where they are cut at random, anew in every epoch."""
        img, label, _, _ = self.split
        if sources.kind(self._settings.name) and self._own.cut.random:
            img = self._own.windows()
        return self._augmented(img, self._settings.copies, 0), np.tile(label, self._settings.copies)

    def still(self) -> tuple[Pixels, np.ndarray]:
        """The same without random cuts, to be encoded."""
        img, label, _, _ = self.split
        return self._augmented(img, self._settings.copies, 0), np.tile(label, self._settings.copies)

    def encoded(self, views: int) -> tuple[Pixels, Pixels]:
        """What a teacher's codes are made of: `still`, or all of `training` so many times, cut otherwise each time.

        And what they show: labels, or numbers of captions, which may be others in every epoch.
        """
        seen, label = self.training() if views else self.still()
        img = Examples(lambda at: seen[at], views * len(seen), seen.shape[1:]) if views else seen
        shown = self._said.numbers(self._own.train, len(img)) if self._said else np.tile(label, max(views, 1))
        return img, shown

    @property
    def own(self) -> bool:
        """Are they somebody's own?"""
        return bool(sources.kind(self._settings.name))

    @property
    def _said(self) -> Said | None:
        return self._own.said if sources.kind(self._settings.name) else None

    @property
    def captions(self) -> tuple[str, ...]:
        """The different captions by number; none where there are none."""
        if self._settings.name == "emoji":
            return emoji.captions()
        return self._said.texts if self._said else ()

    @property
    def unseen(self) -> np.ndarray:
        """Which of these no training picture has."""
        if self._settings.name == "emoji":
            return emoji.held_out()
        return np.isin(self._own.shown, self._own.held)

    def references(self) -> tuple[Pixels, Pixels]:
        """Pictures that drawn ones are compared with, of captions that were trained on, and of others."""
        held = self.held_out()[0]
        return (held if self._said else self.still()[0]), held

    def example(self, number: np.ndarray) -> np.ndarray:
        """A picture of each of these captions."""
        if self._said:
            return examples.floats(np.stack(self._own.plain[self._own.shown[number]]))
        (img, label), (more, held) = self.still(), self.held_out()
        _, first = np.unique(np.concatenate([label, held]), return_index=True)
        return np.concatenate([img, more])[first[number]]

    def classes_of(self, number: np.ndarray) -> np.ndarray:
        """The classes of these captions, as the classifier counts them: of `example`'s pictures."""
        return self._own.source.label[self._own.shown[number]] if self._said else number

    def told(self) -> dict[str, Any]:
        """What there is, of pictures of one's own (see `Own.told`); {} for a bundled set."""
        return self._own.told() if sources.kind(self._settings.name) else {}

    def called(self, number: int) -> str:
        """What messages call picture `number` of `training` or `still`, copies and epochs counted on: its file."""
        return self._own.called(number) if sources.kind(self._settings.name) else str(number)

    def skipped(self) -> str:
        """What could not be read so far, one line; nothing if there is none."""
        return self._own.skipped() if sources.kind(self._settings.name) else ""

    def held_out(self) -> tuple[Pixels, np.ndarray]:
        """Augmented pictures that no model was trained on, and their labels."""
        _, _, img, label = self.split
        return self._augmented(img, self._settings.heldout_copies, 1), np.tile(label, self._settings.heldout_copies)

    def for_classifier(self, captioned: bool) -> tuple[Pixels, np.ndarray]:
        """What a classifier learns from: as `training`; where captions are its classes also those held out, warped.

        A caption has one picture, soon known by heart: place, size and noise are what its classifier has to overlook.
        """
        if not captioned:
            return self.training()
        img, label = (np.concatenate(x) for x in zip(self.still(), self.held_out(), strict=True))
        warped = -bundled.augment(-img, WARPED, 0.05, 0.08, 0.05, 1.5, seed=2 * self._seed)  # what enters is white
        noise = np.random.default_rng(self._seed).normal(0, 0.1, warped.shape).astype(np.float32)
        return np.clip(warped + noise, -1, 1), np.tile(label, WARPED)

    def _augmented(self, img: Pixels, copies: int, part: int) -> Pixels:
        d, count = self._settings, len(img)
        endless = isinstance(img, Examples) and img.endless
        large, total = endless or copies * img.nbytes > examples.KEPT, copies * count

        def copy(at: np.ndarray) -> np.ndarray:
            return img[at if endless else at % count]

        if not (d.rotate or d.scale or d.shear or d.shift):
            if not large:
                return np.tile(img, (copies, 1, 1, 1))
            return Examples(copy, total, img.shape[1:], endless)
        warp, seed = (d.rotate, d.scale, d.shear, d.shift), 2 * self._seed + part
        if not large:
            return bundled.augment(np.asarray(img), copies, *warp, seed=seed)
        warps = bundled.Warps.draw(total, *warp, seed=seed)
        return Examples(lambda at: warps(copy(at), at % total), total, img.shape[1:], endless)


def squared(img: Image.Image, side: int, mode: str, background: str | None = None) -> np.ndarray:
    """The central square, side x side: uint8 (side, side, 1 or 3) (see `decode.prepared`)."""
    return decode.prepared(img, side, mode, decode.ground(background))[0]
