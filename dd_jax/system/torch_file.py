"""Read PyTorch's zip-format checkpoints (since 1.6) without PyTorch, and without running anything that is in them.

Such a file is a zip: `NAME/data.pkl` is a pickle of containers in which every tensor is a reference, and
`NAME/data/KEY` hold the numbers, stored uncompressed. The pickle is read by an unpickler that knows only the
few names below; any other name is an error. Numbers are mapped from the file, never read before they are used.
"""

import collections
import dataclasses
import io
import math
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from dd_jax.system import files, numpy_pickle
from dd_jax.system.errors import UserError

MAX_PICKLE = 1 << 26  # bytes of the pickle: it holds names and shapes, no numbers
MAX_AXES = 8
STORAGES = {
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """The numbers behind one or more tensors: `NAME/data/key` of the zip."""

    key: str
    dtype: np.dtype


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A reference to part of a storage; offset and strides in elements."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> np.dtype:
        return self.storage.dtype


class Inert:
    """Stands where a file keeps something that is no weight (arguments of the training script)."""

    def __init__(self, *args: Any, **kwargs: Any):
        pass

    def __setstate__(self, state: Any) -> None:
        pass


def _rebuild(storage: Any, offset: Any, shape: Any, strides: Any, *more: Any) -> Tensor:
    """What the file calls torch._utils._rebuild_tensor_v2."""
    if not isinstance(storage, Storage):
        raise UserError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in numbers):
        raise UserError(f"a tensor of shape {shape}, strides {strides}, offset {offset}"[:200])
    return Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(data: Any, *more: Any) -> Any:
    return data


def _size(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    ("torch", "Size"): _size,
    ("argparse", "Namespace"): Inert,
    **numpy_pickle.NAMES,
    **{("torch", name): np.dtype(kind) for name, kind in STORAGES.items()},
}


class Unpickler(pickle._Unpickler):
    """Python's own unpickler (the C one lets a file ask for a memo of any size), names by allow-list."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return ALLOWED[module, name]
        except KeyError:
            raise UserError(
                f"it asks for {module}.{name}, which no weights need: nothing was executed; do not trust this file"
            ) from None

    def persistent_load(self, pid: Any) -> Storage:
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, np.dtype) or not isinstance(key, str):
            raise UserError(f"an unknown kind of reference {pid!r}"[:200])
        return Storage(key, dtype)


class TorchFile:
    """An open checkpoint: `tree` is what was saved, with `Tensor` in place of tensors; `read` gives numbers.

    Raises UserError for everything that is not a whole, harmless zip-format checkpoint.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self._checked: dict[str, np.ndarray] = {}  # bytes of the storages that were found whole
        try:
            self.tree = self._open()
            self._map = np.memmap(self.path, np.uint8, "r")
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        except FileNotFoundError:
            raise UserError(f"{self.path} does not exist") from None
        except Exception as error:  # a mutated pickle or zip can raise anything; none of it ran
            raise UserError(f"{self.path} is {_not_a_checkpoint(error)}") from error

    def _open(self) -> Any:
        """The tree; notes what `_bytes` needs."""
        with zipfile.ZipFile(self.path) as archive:
            self._entries = {info.filename: info for info in archive.infolist()}
            root = [name.removesuffix("data.pkl") for name in self._entries if name.endswith("/data.pkl")]
            if len(root) != 1:
                raise UserError(f"{len(root)} entries named data.pkl in the zip, one expected")
            self._root = root[0]
            text = self._pickle(archive)
            self._check_byteorder(archive)
        return Unpickler(io.BytesIO(text)).load()

    def _pickle(self, archive: zipfile.ZipFile) -> bytes:
        info = self._entries[f"{self._root}data.pkl"]
        if info.file_size > MAX_PICKLE:
            raise UserError(f"data.pkl unpacks to {info.file_size:,} bytes: no state dict is that long")
        with archive.open(info) as entry:
            return entry.read(MAX_PICKLE)

    def _check_byteorder(self, archive: zipfile.ZipFile) -> None:
        name = f"{self._root}byteorder"
        if name in self._entries and self._entries[name].file_size < 16 and archive.read(name).strip() != b"little":
            raise UserError("its numbers are big-endian: save it again on a little-endian machine")

    def read(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor, a view of the mapped file. UserError if they are not there or damaged."""
        flat = self._storage(tensor.storage)
        last = tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
        if math.prod(tensor.shape) == 0:
            return np.zeros(tensor.shape, tensor.dtype)
        if last >= len(flat) or math.prod(tensor.shape) > len(flat):
            raise UserError(f"{self.path}: a tensor of shape {tensor.shape} reaches beyond its {len(flat)} numbers")
        strides = [step * flat.itemsize for step in tensor.strides]
        return np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)

    def array(self, leaf: Any) -> np.ndarray:
        """The numbers of a leaf of the tree that may be a tensor or a NumPy array."""
        if isinstance(leaf, numpy_pickle.Array):
            return leaf.array
        if not isinstance(leaf, Tensor):
            raise UserError(f"{self.path} holds {type(leaf).__name__} where an array is expected")
        return self.read(leaf)

    def _storage(self, storage: Storage) -> np.ndarray:
        """The mapped numbers of a storage, checked once."""
        if storage.key not in self._checked:
            self._checked[storage.key] = self._bytes(storage)
        data = self._checked[storage.key]
        return np.ndarray(len(data) // storage.dtype.itemsize, storage.dtype, data, 0)

    def _bytes(self, storage: Storage) -> np.ndarray:
        """The mapped bytes of a storage. UserError if they are not there or damaged."""
        info = self._entries.get(f"{self._root}data/{storage.key}")
        if info is None:
            raise UserError(f"{self.path}: the zip has no data/{storage.key}: the file is incomplete")
        if info.compress_type != zipfile.ZIP_STORED or info.file_size % storage.dtype.itemsize:
            raise UserError(f"{self.path}: data/{storage.key} is not stored as plain {storage.dtype} numbers")
        first = info.header_offset
        header = self._map[first : first + 30].tobytes()
        name, extra = struct.unpack("<HH", header[26:30]) if len(header) == 30 else (0, 0)
        first += 30 + name + extra
        data = self._map[first : first + info.file_size]
        whole = len(data) == info.file_size and zlib.crc32(data.data) == info.CRC
        files.let_go(data)
        if not whole:
            raise UserError(f"{self.path}: data/{storage.key} is damaged (its checksum differs); fetch the file again")
        return data


def _not_a_checkpoint(error: Exception) -> str:
    """What a person can do about a file that is none."""
    if isinstance(error, zipfile.BadZipFile):
        return f"no zip file ({error}): was the download cut off?"
    return f"no readable checkpoint ({type(error).__name__}: {error})"[:300]
