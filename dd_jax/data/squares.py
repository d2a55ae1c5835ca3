"""Pictures of a source as 8-bit arrays, decoded when they are asked for; as many as there is room for are kept."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from PIL import Image

from dd_jax.data import decode, folder
from dd_jax.data.source import Source, plural
from dd_jax.data.threads import each
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress

SAMPLE = 5  # unreadable pictures that an error names; the table names all
Decode = Callable[[Image.Image], tuple[np.ndarray, list[str]]]  # -> uint8 (rows, columns, 1 or 3), what was converted


class Squares:
    """uint8 (rows, columns, 1 or 3) of a source by number.

    `room`: bytes that are kept; what is over is decoded each time, which changes the speed and nothing else.
    A picture that cannot be read is refused if `strict`; else the next one with the same `kin` (N,), its class and its
    part of the set, stands in for it, whoever asks and whenever. `readers`: threads that decode (see `threads.each`).
    """

    def __init__(
        self, source: Source, decode: Decode, room: int, kin: np.ndarray, strict: bool, readers: int = 0
    ) -> None:
        self._source, self._decode, self._kin, self._strict = source, decode, kin, strict
        self._readers = readers
        self._kept: dict[int, np.ndarray] = {}
        self._left, self._lock = room, threading.Lock()
        self._sizes: Counter[tuple[int, int]] = Counter()
        self._converted: Counter[str] = Counter()
        self.unreadable: dict[int, str] = {}

    def look(self, whole: bool) -> None:
        """Read all pictures once, or without `whole` only their headers, so that `lines` can tell of them."""
        look = self._read if whole else self._header
        with Progress(self._source.count, "pictures", "pictures") as progress:
            for found in each(range(self._source.count), look, self._readers):
                if found is not None:
                    self._sizes[found[1]] += 1
                    self._converted.update(found[2])
                progress.update()

    def lines(self) -> list[str]:
        """What `look` has found: sizes, what was converted, and what cannot be read."""
        found = []
        if self._sizes:
            least, most = (pick(self._sizes, key=np.prod) for pick in (min, max))
            told = [f"{width} x {height}" for width, height in dict.fromkeys((least, most))]
            found = [f"sizes: {' to '.join(told)} px"]
        found += [f"converted: {plural(n, 'picture')}: {told}" for told, n in self._converted.most_common()]
        torn = sorted(self.unreadable.items())
        return found + [f"cannot be read: {self._source.called(i)}: {told}" for i, told in torn]

    def check(self) -> None:
        """UserError if some could not be read and that is not allowed."""
        if not self.unreadable or not self._strict:
            return
        (first, why), *others = sorted(self.unreadable.items())
        more = folder.some([self._source.called(i) for i, _ in others], SAMPLE)
        raise UserError(
            f"{self._source.called(first)} is not a picture that can be read ({why})"
            + (f", and {len(others):,} more are not: {more}" if others else "")
            + "; remove them, fetch them again, or do without them: --config.data.strict=false"
        )

    def __getitem__(self, at: np.ndarray | Sequence[int]) -> list[np.ndarray]:
        numbers = [int(number) for number in at]
        if all(number in self._kept for number in numbers):
            return [self._kept[number] for number in numbers]
        return list(each(numbers, self._one, self._readers))

    def _one(self, number: int) -> np.ndarray:
        """A picture, or what stands in for it."""
        for other in self._in_turn(number):
            found = None if other in self.unreadable else self._read(other)
            if found is not None:
                return found[0]
            if self._strict:
                raise UserError(
                    f"{self._source.called(number)} cannot be read ({self.unreadable[number]}): fetch it again, or "
                    "let others stand in, --config.data.strict=false"
                )
        raise UserError(f"{self._source.called(number)} cannot be read, nor any other of its class: fetch them again")

    def _in_turn(self, number: int) -> Iterator[int]:
        """It, and then all others that may stand in, from the next one on."""
        yield number
        kin = np.flatnonzero(self._kin == self._kin[number])
        place = int(np.searchsorted(kin, number))
        yield from (int(other) for other in (*kin[place + 1 :], *kin[:place]))

    def _read(self, number: int) -> tuple[np.ndarray, tuple[int, int], list[str]] | None:
        """(pixels, size of the picture, what was converted), or none, and `unreadable` knows why."""
        if number in self._kept:
            return self._kept[number], (0, 0), []
        try:
            with self._source.open(number) as img:
                size = img.size
                pixels, told = self._decode(img)
        except Exception as error:  # torn files make Pillow raise nearly anything
            self.unreadable[number] = decode.reason(error)
            return None
        with self._lock:
            if self._left >= pixels.nbytes and number not in self._kept:
                self._kept[number], self._left = pixels, self._left - pixels.nbytes
        return pixels, size, told

    def _header(self, number: int) -> tuple[None, tuple[int, int], list[str]] | None:
        try:
            with self._source.open(number) as img:
                return None, img.size, []
        except Exception as error:
            self.unreadable[number] = decode.reason(error)
            return None
