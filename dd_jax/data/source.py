"""Pictures of one's own before they are arrays: which there are, of which class, and how each is opened."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from dd_jax.data import decode, folder
from dd_jax.data.beside import Found
from dd_jax.data.threads import each
from dd_jax.system.errors import UserError

MOST = 2**24  # classes
ROWS = 30  # classes that a table lists all of
SHOWN = 3  # pictures without a caption that are named
WHERE = "docs/own_data.md says where captions are looked for"


@dataclasses.dataclass(frozen=True)
class Source:
    """A data set that is read picture by picture, by number; none is kept open."""

    name: str  # as config.data.name has it
    count: int
    names: tuple[str, ...]  # of the classes
    labels: Callable[[], np.ndarray]  # int32 (N,), which may take reading
    open: Callable[[int], Image.Image]  # Pillow's picture, of which it has read the header; the caller closes it
    called: Callable[[int], str]  # what messages call a picture
    left_out: Sequence[str] = ()
    notes: Sequence[str] = ()
    captions: Sequence[Found] | None = None  # of each picture; none: not asked for

    @functools.cached_property
    def label(self) -> np.ndarray:
        """int32 (N,)."""
        return self.labels()

    @property
    def classes(self) -> int:
        return len(self.names)

    @functools.cached_property
    def channels(self) -> int:
        """3 if one of the pictures is stored in colour."""
        return 3 if any(each(range(self.count), self._in_colour)) else 1

    def only(self, part: np.ndarray, left_out: str) -> "Source":
        """These pictures (n,) alone; why the others are left out."""
        return dataclasses.replace(
            self,
            count=len(part),
            labels=lambda: self.label[part],
            open=lambda number: self.open(int(part[number])),
            called=lambda number: self.called(int(part[number])),
            left_out=[*self.left_out, left_out],
            captions=self.captions and [self.captions[i] for i in part],
        )

    def captioned(self, strict: bool) -> "Source":
        """The pictures that have a caption. UserError if that is none of them, or not all and `strict`."""
        found = self.captions or ()
        has = np.array([bool(some) for some, _ in found], bool)
        lacking = np.flatnonzero(~has)
        why = [f"{self.called(int(i))}{found[i][1] and f' ({found[i][1]})'}" for i in lacking[:SHOWN]]
        listed = ", ".join(why) + (f" and {len(lacking) - SHOWN:,} more" if len(lacking) > SHOWN else "")
        if not has.any():
            raise UserError(f"config.data.name={self.name} has no captions that can be read: {listed}; {WHERE}")
        if lacking.size and strict:
            raise UserError(
                f"config.data.name={self.name}: {len(lacking):,} of {plural(self.count, 'picture')} have no caption: "
                f"{listed}; write them, or leave these pictures out, --config.data.strict=false"
            )
        told = f"{plural(len(lacking), 'picture')} without a caption: {listed}"
        return self.only(np.flatnonzero(has), told) if lacking.size else self

    def readable(self, readers: int = 0) -> "Source":
        """Those that can be decoded: another one that stands in would have another's caption."""

        def opens(number: int) -> bool:
            try:
                with self.open(number) as img:
                    img.load()
            except Exception:  # torn files make Pillow raise nearly anything
                return False
            return True

        torn = ~np.fromiter(each(range(self.count), opens, readers), bool, self.count)
        listed = folder.some([self.called(int(i)) for i in np.flatnonzero(torn)])
        told = f"{plural(int(torn.sum()), 'picture')} that cannot be read: {listed}"
        return self.only(np.flatnonzero(~torn), told) if torn.any() else self

    def _in_colour(self, number: int) -> bool:
        try:
            with self.open(number) as img:
                return decode.in_colour(img)
        except Exception:  # told when all of it is read
            return False

    def table(self, held_out: int) -> str:
        """Classes with their counts, and what is left out: lines."""
        count = np.bincount(self.label, minlength=self.classes)
        lines = [
            f"{self.name}: {plural(self.count, 'picture')}, {plural(self.classes, 'class', 'classes')}; "
            f"{self.count - held_out:,} to train on, {held_out:,} held out"
        ]
        shown = self.classes if self.classes <= ROWS else ROWS // 3
        wide = max(map(len, self.names[:shown]))
        lines += [f"  {i:>3}  {name:<{wide}}  {count[i]:>7,}" for i, name in enumerate(self.names[:shown])]
        if shown < self.classes:
            lines.append(f"  ... and {self.classes - shown:,} more classes, of {count.min():,} to {count.max():,} each")
        lines += [f"  left out: {told}" for told in self.left_out]
        lines += [f"  note: {told}" for told in self.notes]
        return "\n".join(lines)


def by_name(found: Sequence[str]) -> tuple[np.ndarray, tuple[str, ...]]:
    """(labels int32 (N,), names of the classes) of labels as text: whole numbers are themselves, words are sorted.

    ValueError for a number that is none of a class.
    """
    try:
        label = np.array([int(text) for text in found], np.int32)
    except (ValueError, OverflowError):
        names, place = np.unique(found, return_inverse=True)
        return place.astype(np.int32), tuple(map(str, names))
    if label.min() < 0 or label.max() >= MOST:
        raise ValueError(f"labels go from {label.min()} to {label.max()}: they must be classes, from 0 on")
    return label, tuple(str(i) for i in range(int(label.max()) + 1))


def plural(count: int, name: str, several: str = "") -> str:
    """1 picture, 2 pictures."""
    return f"{count:,} {name if count == 1 else several or name + 's'}"
