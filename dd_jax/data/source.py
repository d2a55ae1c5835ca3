"""Pictures of one's own before they are arrays: where each is, of which class, and what reading them told."""

import dataclasses
import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dd_jax.data import decode, folder
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress

READERS = 8  # threads that decode
CHUNK = 128  # pictures that they are given at a time
SQUARES = 1 << 30  # bytes of uint8 squares that are kept; of more, each is decoded whenever it is needed
ROWS = 30  # classes that a table lists all of
SAMPLE = 5  # unreadable pictures that an error names; the table names all


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set that is read picture by picture; none is kept open."""

    name: str
    items: Sequence[Any]  # files, or pictures
    label: np.ndarray  # int32 (N,)
    names: tuple[str, ...]  # of the classes
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()

    @classmethod
    def folder(cls, path: Path) -> "Source":
        """Of files, one subfolder a class. UserError if there are none."""
        found = folder.find(path)
        label = np.repeat(np.arange(len(found.classes), dtype=np.int32), [len(x) for x in found.classes.values()])
        return cls(f"folder:{path}", found.files, label, tuple(found.classes), found.left_out, found.notes)

    @classmethod
    def stored(cls, name: str, pictures: Sequence[tuple[Image.Image, int]]) -> "Source":
        """Of pictures that something else has opened."""
        if not pictures:
            raise UserError(f"config.data.name={name} has no pictures")
        label = np.array([label for _, label in pictures], np.int32)
        names = tuple(str(i) for i in range(int(label.max()) + 1))
        return cls(name, [picture for picture, _ in pictures], label, names)

    @property
    def classes(self) -> int:
        return len(self.names)

    @functools.cached_property
    def channels(self) -> int:
        """3 if one of the pictures is stored in colour."""
        return 3 if any(_each(self.items, _in_colour)) else 1

    def of(self, number: int) -> str:
        """What a picture is called."""
        item = self.items[number]
        return str(item) if isinstance(item, Path) else f"picture {number}"

    def table(self, converted: Counter[str], unreadable: dict[int, str], held_out: int) -> str:
        """Classes with their counts, what is left out, and what was converted: lines."""
        count = np.bincount(self.label, minlength=self.classes)
        total = len(self.label)
        lines = [
            f"{self.name}: {_plural(total, 'picture')}, {_plural(self.classes, 'class', 'classes')}; "
            f"{total - held_out:,} to train on, {held_out:,} held out"
        ]
        shown = self.classes if self.classes <= ROWS else ROWS // 3
        wide = max(map(len, self.names[:shown]))
        lines += [f"  {i:>3}  {name:<{wide}}  {count[i]:>7,}" for i, name in enumerate(self.names[:shown])]
        if shown < self.classes:
            lines.append(f"  ... and {self.classes - shown:,} more classes, of {count.min():,} to {count.max():,} each")
        lines += [f"  left out: {told}" for told in self.left_out]
        lines += [f"  note: {told}" for told in self.notes]
        lines += [f"  converted: {_plural(n, 'picture')}: {told}" for told, n in converted.most_common()]
        lines += [f"  cannot be read: {self.of(i)}: {told}" for i, told in unreadable.items()]
        return "\n".join(lines)


class Squares:
    """uint8 (N, side, side, 1 or 3) of a source by number, all read once: kept if they are small enough."""

    def __init__(self, source: Source, side: int, mode: str, background: tuple[int, ...]) -> None:
        self._source = source
        self._one = functools.partial(_square, side=side, mode=mode, background=background)
        shape = (len(source.items), side, side, len(mode))
        self._kept = np.zeros(shape, np.uint8) if np.prod(shape) <= SQUARES else None
        self.converted: Counter[str] = Counter()
        self.unreadable: dict[int, str] = {}
        with Progress(len(source.items), "pictures", "pictures") as progress:
            for i, (square, told) in enumerate(_each(source.items, self._one)):
                if square is None:
                    self.unreadable[i] = told[0]
                else:
                    self.converted.update(told)
                    if self._kept is not None:
                        self._kept[i] = square
                progress.update()

    def check(self) -> None:
        """UserError if some could not be read."""
        if not self.unreadable:
            return
        (first, why), *others = self.unreadable.items()
        more = folder.some([self._source.of(i) for i, _ in others], SAMPLE)
        raise UserError(
            f"{self._source.of(first)} is not a picture that can be read ({why})"
            + (f", and {len(others):,} more are not: {more}" if others else "")
            + "; remove them, or fetch them again"
        )

    def __getitem__(self, at: np.ndarray) -> np.ndarray:
        if self._kept is not None:
            return self._kept[at]
        found = list(_each([self._source.items[i] for i in at], self._one))
        for i, (square, told) in zip(at, found, strict=True):
            if square is None:
                raise UserError(f"{self._source.of(i)} could be read before, and now cannot ({told[0]})")
        return np.stack([square for square, _ in found])


def _each(items: Sequence[Any], one: Callable[[Any], Any]) -> Iterator[Any]:
    """`one` of each, by several threads, in order."""
    with ThreadPoolExecutor(READERS) as pool:
        for first in range(0, len(items), CHUNK):
            yield from pool.map(one, items[first : first + CHUNK])


def _square(
    item: Path | Image.Image, side: int, mode: str, background: tuple[int, ...]
) -> tuple[np.ndarray | None, list[str]]:
    """The square and what was converted, or none and why not."""
    try:
        if isinstance(item, Path):
            return decode.opened(item, side, mode, background)
        return decode.prepared(item, side, mode, background)
    except Exception as error:  # torn files make Pillow raise nearly anything
        return None, [decode.reason(error)]


def _in_colour(item: Path | Image.Image) -> bool:
    if isinstance(item, Image.Image):
        return decode.in_colour(item)
    try:
        with Image.open(item) as img:
            return decode.in_colour(img)
    except Exception:  # told when all of it is read
        return False


def _plural(count: int, name: str, several: str = "") -> str:
    return f"{count:,} {name if count == 1 else several or name + 's'}"
