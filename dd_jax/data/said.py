"""What pictures are said to show: their different captions, which have numbers, and which one a training reads when."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from dd_jax.data.beside import Found
from dd_jax.data.examples import Examples

CHOICES = ("none", "first", "any")  # no captions; the first one of each picture; any, drawn anew in every epoch
STREAM = 1  # draws that are not those of a picture's window


@dataclasses.dataclass(frozen=True, eq=False)
class Said:
    """The captions of N pictures."""

    texts: tuple[str, ...]  # each once, sorted
    number: np.ndarray  # of every picture's captions, picture by picture
    first: np.ndarray  # (N + 1,) where each picture's begin
    seed: int

    @classmethod
    def of(cls, captions: Sequence[Found], choice: str, seed: int) -> "Said":
        """Of pictures that have at least one each; `choice`: one of `CHOICES`."""
        kept = [said[:1] if choice == "first" else said for said, _ in captions]
        texts = sorted({text for said in kept for text in said})
        place = {text: i for i, text in enumerate(texts)}
        number = np.array([place[text] for said in kept for text in said], np.int32)
        return cls(tuple(texts), number, np.cumsum([0, *map(len, kept)]), seed)

    def __str__(self) -> str:
        """In words."""
        several = len(self.number) > len(self.first) - 1
        told = ", one of a picture's drawn in every epoch" if several else ""
        return f"captions: {len(self.number):,}, {len(self.texts):,} of them different{told}"

    def numbers(self, part: np.ndarray, count: int) -> np.ndarray | Examples:
        """(count,) whose caption each row has, where rows are the pictures of `part` again and again.

        Where one of them has several it is drawn by (seed, epoch, picture) alone, and rows count on through epochs.
        """
        first, many = self.first[part], np.diff(self.first)[part]
        if (many == 1).all():
            return np.resize(self.number[first], count)

        def read(at: np.ndarray) -> np.ndarray:
            epoch, row = np.divmod(at, len(part))
            draws = [
                np.random.default_rng([self.seed, int(e), int(i), STREAM]).integers(many[i])
                for e, i in zip(epoch, row, strict=True)
            ]
            return self.number[first[row] + np.array(draws, np.int64)]

        return Examples(read, count, (), endless=True)

    def shown(self, order: np.ndarray) -> np.ndarray:
        """For each caption (texts,) the first picture in `order` that has it; -1: none has."""
        found = np.full(len(self.texts), -1)
        for picture in order[::-1]:
            found[self.number[self.first[picture] : self.first[picture + 1]]] = picture
        return found
