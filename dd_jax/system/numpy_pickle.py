"""NumPy arrays inside a checkpoint's pickle: stand-ins for the few names that they need, which build nothing else."""

import math
from typing import Any

import numpy as np

from dd_jax.system.errors import UserError

KINDS = ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "b1")


class Dtype:
    """Where the file says numpy.dtype."""

    def __init__(self, kind: Any = "", *flags: Any):
        if kind not in KINDS:
            raise UserError(f"an array of {kind!r}"[:200])
        self.dtype = np.dtype(kind)

    def __setstate__(self, state: Any) -> None:
        if state[1] == ">":
            raise UserError("an array of big-endian numbers: save it again on a little-endian machine")


class Array:
    """Where the file says numpy.ndarray; `array` is read-only."""

    def __init__(self) -> None:
        self.array = np.zeros(0)

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        numbers = [n for n in shape if type(n) is int and n >= 0]
        if not isinstance(kind, Dtype) or not isinstance(data, bytes) or len(numbers) != len(shape):
            raise UserError("an array that is none")
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise UserError(f"an array of shape {shape} in {len(data)} bytes"[:200])
        self.array = np.frombuffer(data, kind.dtype).reshape(shape, order="F" if fortran else "C")


def reconstruct(kind: Any, *more: Any) -> Array:
    """Where the file says numpy.core.multiarray._reconstruct: an empty array, to be filled by its state."""
    if kind is not Array:
        raise UserError("an array of an unknown class")
    return Array()


def encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Where the file says _codecs.encode, which is how bytes are written by protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UserError("bytes in an unknown encoding")
    return text.encode("latin1")


NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("numpy.core.multiarray", "_reconstruct"): reconstruct,
    ("numpy._core.multiarray", "_reconstruct"): reconstruct,
    ("_codecs", "encode"): encode,
}
