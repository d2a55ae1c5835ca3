"""Pictures, or what is said of them, by number: what is too large to be kept is made batch by batch, when asked for."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

KEPT = 1 << 28  # bytes of float32 pictures that are kept rather than made each time
AT_ONCE, SIDE = 512, 64  # pictures that are encoded at once, up to that side; of larger ones fewer


@dataclasses.dataclass(frozen=True)
class Examples:
    """`count` pictures, float32 (R, R, c) in [-1, 1]; `some[3:7]` and `some[[4, 1]]` make theirs.

    Of an `endless` set, `some[[count + 4]]` is picture 4 as the next epoch sees it.
    """

    read: Callable[[np.ndarray], np.ndarray]  # numbers -> (n, R, R, c)
    count: int
    shape_RxRxc: tuple[int, ...]
    endless: bool = False

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, at: slice | np.ndarray) -> np.ndarray:
        return self.read(np.arange(*at.indices(self.count)) if isinstance(at, slice) else np.asarray(at))

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        return self[:] if dtype is None else self[:].astype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """As an array's."""
        return (self.count, *self.shape_RxRxc)

    @property
    def nbytes(self) -> int:
        """Of all of them."""
        return int(4 * np.prod(self.shape))


Pixels = np.ndarray | Examples


def streamed(data: Mapping[str, Pixels]) -> bool:
    """Is a part of it made while it is asked for?"""
    return any(isinstance(part, Examples) for part in data.values())


def at_once(img: Pixels, devices: int = 1) -> int:
    """How many of them to encode at once: as many a device as have the pixels of 512 of 64 px, one to 512 in all."""
    return max(1, min(AT_ONCE, AT_ONCE * SIDE**2 * devices // (img.shape[1] * img.shape[2])))


def kept(examples: Examples) -> Pixels:
    """An array of them, unless that is large."""
    return examples[:] if examples.nbytes <= KEPT else examples


def floats(squares: np.ndarray) -> np.ndarray:
    """uint8 -> [-1, 1]."""
    img = squares.astype(np.float32)
    img /= 127.5
    img -= 1
    return img
