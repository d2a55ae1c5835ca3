"""Pictures of one's own before they are arrays: which there are, of which class, and how each is opened."""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import numpy as np
from PIL import Image

from dd_jax.data import decode
from dd_jax.data.threads import each

MOST = 2**24  # classes
ROWS = 30  # classes that a table lists all of


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
