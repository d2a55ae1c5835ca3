"""NumPy arrays inside a checkpoint's pickle: stand-ins for the few names that they need, which build nothing else."""

import math
import re
from typing import Any

import numpy as np

from dd_jax.system.errors import UserError
from dd_jax.system.stand_ins import Inert

KINDS = re.compile(r"f[248]|[iu][1248]|b1|c8|c16|[US][1-9]\d{0,4}")


class Dtype:
    """Where the file says numpy.dtype; `dtype` is None for kinds that are no numbers (objects, dates, records)."""

    name = ""
    dtype: np.dtype | None = None

    def __init__(self, kind: Any = "", *flags: Any):
        self.name = str(kind)[:40]
        self.dtype = np.dtype(kind) if isinstance(kind, str) and KINDS.fullmatch(kind) else None

    def __setstate__(self, state: Any) -> None:
        if self.dtype is not None and state[1] == ">":
            self.dtype = self.dtype.newbyteorder(">")


class Array:
    """Where the file says numpy.ndarray; `array` is read-only. UserError for one without numbers, when it is read."""

    _array, fault = np.zeros(0), ""

    def __setstate__(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        self.fill(data, kind, shape, "F" if fortran else "C")

    def fill(self, data: Any, kind: Any, shape: Any, order: Any) -> None:
        """Its numbers, from bytes. UserError for what NumPy does not write."""
        if isinstance(kind, Dtype) and kind.dtype is None:
            self.fault = f"an array of {kind.name!r}, which are no numbers"
            return
        numbers = [n for n in shape if type(n) is int and n >= 0]
        if (
            not isinstance(kind, Dtype)
            or kind.dtype is None
            or not isinstance(data, bytes | bytearray)
            or len(numbers) != len(shape)
        ):
            raise UserError("an array that is none")
        if math.prod(shape) * kind.dtype.itemsize != len(data):
            raise UserError(f"an array of shape {shape} in {len(data)} bytes"[:200])
        found = np.frombuffer(bytes(data), kind.dtype).reshape(shape, order="F" if order == "F" else "C")
        self._array = found.astype(kind.dtype.newbyteorder("="), copy=False)

    @property
    def array(self) -> np.ndarray:
        if self.fault:
            raise UserError(self.fault)
        return self._array

    @property
    def shape(self) -> tuple[int, ...]:
        return self._array.shape

    @property
    def dtype(self) -> np.dtype:
        return self._array.dtype


def reconstruct(kind: Any, *more: Any) -> Any:
    """Where the file says numpy.core.multiarray._reconstruct: an empty array, to be filled by its state."""
    return Array() if kind is Array else Inert()


def from_buffer(data: Any, kind: Any, shape: Any, order: Any, axes: Any = None) -> Array:
    """Where the file says numpy.core.numeric._frombuffer, which is how protocol 5 writes arrays."""
    found = Array()
    found.fill(data, kind, shape, order)
    if axes is not None:
        found.fault = "an array whose axes are in an order of their own"
    return found


def scalar(kind: Any, data: Any = b"") -> Any:
    """Where the file says numpy.core.multiarray.scalar."""
    if not isinstance(kind, Dtype) or kind.dtype is None or not isinstance(data, bytes):
        return Inert()
    return np.frombuffer(data, kind.dtype, 1)[0].item()


def encode(text: Any, encoding: Any = "latin1") -> bytes:
    """Where the file says _codecs.encode, which is how bytes are written by protocol 2."""
    if not isinstance(text, str) or encoding != "latin1":
        raise UserError("bytes in an unknown encoding")
    return text.encode("latin1")


NAMES: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): Array,
    ("numpy", "dtype"): Dtype,
    ("_codecs", "encode"): encode,
}
for _core in ("numpy.core", "numpy._core"):
    NAMES |= {
        (f"{_core}.multiarray", "_reconstruct"): reconstruct,
        (f"{_core}.multiarray", "scalar"): scalar,
        (f"{_core}.numeric", "_frombuffer"): from_buffer,
    }
