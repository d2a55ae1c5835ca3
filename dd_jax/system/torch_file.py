"""Read PyTorch's zip-format checkpoints (since 1.6) without PyTorch, and without running anything that is in them.

Such a file is a zip: `NAME/data.pkl` is a pickle of containers in which every tensor is a reference, and
`NAME/data/KEY` hold the numbers. The pickle is read by `torch_names.Unpickler`, to which every name is data. Numbers
are mapped from the file, never read before they are used; where an archiver compressed them, they are unpacked into a
temporary file first.
"""

import io
import math
import shutil
import struct
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.system import files, foreign, numpy_pickle
from dd_jax.system.errors import UserError
from dd_jax.system.torch_names import Storage, Tensor, Unpickler, reach

MAX_PICKLE = 1 << 26  # bytes of the pickle: it holds names and shapes, no numbers
MAX_EXPANDED = 1 << 28  # elements of a tensor that shows a number more than once
MAX_UNPACKED = 1 << 30  # bytes that compressed numbers may take beyond 20 times the file


class TorchFile:
    """An open checkpoint: `tree` is what was saved, with `Tensor` in place of tensors; `array` gives numbers.

    `notes` are lines that a person should see. Raises UserError for everything that is not a whole, harmless
    zip-format checkpoint.
    """

    def __init__(self, path: str | Path):
        self.path = Path(path)
        self.notes: list[str] = []
        self._checked: dict[str, np.ndarray] = {}  # bytes of the storages that were found whole
        self._unpacked = 0
        self._foreign_order = False  # are its numbers big-endian?
        foreign.check(self.path)
        try:
            self.tree = self._open()
            self._map = np.memmap(self.path, np.uint8, "r")
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        except Exception as error:  # a mutated pickle or zip can raise anything; none of it ran
            raise UserError(f"{self.path} is {foreign.by_error(self.path, error)}") from error

    def _open(self) -> Any:
        """The tree; notes what `_bytes` needs."""
        with zipfile.ZipFile(self.path) as archive:
            self._entries = {info.filename.replace("\\", "/"): info for info in archive.infolist()}
            root = [name.removesuffix("data.pkl") for name in self._entries if f"/{name}".endswith("/data.pkl")]
            if len(root) != 1 or f"{root[0]}constants.pkl" in self._entries:
                raise UserError(f"it is {foreign.archive(list(self._entries))}")
            self._root = root[0]
            self._look_for_checksums()
            text = self._pickle(archive)
            order = self._entries.get(f"{self._root}byteorder")
            self._foreign_order = order is not None and order.file_size < 16 and archive.read(order).strip() == b"big"
        return Unpickler(io.BytesIO(text)).load()

    def _look_for_checksums(self) -> None:
        """PyTorch can leave them out (`compute_crc32 = False`), and then writes zeros."""
        full = [info for info in self._entries.values() if info.file_size]
        if full and not any(info.CRC for info in full):
            self.notes.append(f"{self.path} has no checksums: a damaged number would not be noticed")
            for info in full:
                info.CRC = None  # type: ignore[assignment]  # which zipfile does not check

    def _pickle(self, archive: zipfile.ZipFile) -> bytes:
        info = self._entries[f"{self._root}data.pkl"]
        if info.file_size > MAX_PICKLE:
            raise UserError(f"data.pkl unpacks to {info.file_size:,} bytes: no state dict is that long")
        if info.flag_bits & 1:
            raise UserError("it is encrypted: unpack it with its password and zip it again")
        with archive.open(info) as entry:
            return entry.read(MAX_PICKLE)

    def read(self, tensor: Tensor) -> np.ndarray:
        """The numbers of a tensor, a view of the mapped file. UserError if they are missing, damaged or unreadable."""
        if tensor.fault:
            raise UserError(f"{self.path}: {tensor.fault}")
        flat, count = self._storage(tensor.storage), math.prod(tensor.shape)
        if count == 0:
            return np.zeros(tensor.shape, tensor.dtype)
        if reach(tensor) >= len(flat) or count > max(len(flat), MAX_EXPANDED):
            raise UserError(f"{self.path}: a tensor of shape {tensor.shape} reaches beyond its {len(flat)} numbers")
        strides = [step * flat.itemsize for step in tensor.strides]
        x = np.lib.stride_tricks.as_strided(flat[tensor.offset :], tensor.shape, strides, writeable=False)
        return np.negative(x) if tensor.negative else x

    def array(self, leaf: Any) -> np.ndarray:
        """The numbers of a leaf of the tree that may be a tensor or a NumPy array."""
        if isinstance(leaf, numpy_pickle.Array):
            try:
                return leaf.array
            except UserError as error:
                raise UserError(f"{self.path}: {error}") from None
        if not isinstance(leaf, Tensor):
            raise UserError(f"{self.path} holds {type(leaf).__name__} where an array is expected")
        return self.read(leaf)

    def _storage(self, storage: Storage) -> np.ndarray:
        """The mapped numbers of a storage, checked once."""
        if storage.key not in self._checked:
            self._checked[storage.key] = self._bytes(storage)
        data = self._checked[storage.key]
        if len(data) % storage.dtype.itemsize:
            raise UserError(f"{self.path}: data/{storage.key} is no whole number of {storage.dtype}: fetch it again")
        flat = np.ndarray(len(data) // storage.dtype.itemsize, storage.dtype, data, 0)
        flat = flat[storage.first :][: storage.count]
        return _native(flat) if self._foreign_order else flat

    def _bytes(self, storage: Storage) -> np.ndarray:
        """The mapped bytes of a storage. UserError if they are not there or damaged."""
        info = self._entries.get(f"{self._root}data/{storage.key}")
        if info is None:
            raise UserError(f"{self.path}: the zip has no data/{storage.key}: the file is incomplete")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            return self._unpack(info)
        first = info.header_offset
        header = self._map[first : first + 30].tobytes()
        name, extra = struct.unpack("<HH", header[26:30]) if len(header) == 30 else (0, 0)
        first += 30 + name + extra
        data = self._map[first : first + info.file_size]
        whole = len(data) == info.file_size and (info.CRC is None or zlib.crc32(data.data) == info.CRC)
        files.let_go(data)
        if not whole:
            raise UserError(f"{self.path}: data/{storage.key} is damaged (its checksum differs); fetch the file again")
        return data

    def _unpack(self, info: zipfile.ZipInfo) -> np.ndarray:
        """Compressed bytes, mapped from a temporary file that has no name."""
        self._unpacked += info.file_size
        if self._unpacked > MAX_UNPACKED + 20 * self.path.stat().st_size:
            raise UserError(f"{self.path}: its numbers unpack to more than {self._unpacked:,} bytes: no weights do")
        try:
            with zipfile.ZipFile(self.path) as archive, tempfile.TemporaryFile() as out:
                with archive.open(info) as entry:
                    shutil.copyfileobj(entry, out, 1 << 20)
                out.flush()
                return np.memmap(out, np.uint8, "r") if info.file_size else np.zeros(0, np.uint8)
        except (zipfile.BadZipFile, zlib.error, EOFError) as error:
            raise UserError(f"{self.path}: {info.filename} is damaged ({error}); fetch the file again") from error
        except (NotImplementedError, RuntimeError, OSError, ValueError) as error:
            way = "unpack the archive and zip it again without compression (zip -r -0)"
            raise UserError(f"{self.path}: {info.filename} cannot be unpacked ({error}): {way}") from error


def _native(flat: np.ndarray) -> np.ndarray:
    """Big-endian numbers as this machine's, whatever their type."""
    half = 2 if flat.dtype.kind == "c" else 1  # a complex number is two
    return flat.view(f"u{flat.dtype.itemsize // half}").byteswap().view(flat.dtype)
