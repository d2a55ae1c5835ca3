"""Pickles that are no zip: PyTorch's format before 1.6, and plain ones of NumPy arrays.

The former, which older published files (torchvision's VGG16, LPIPS's heads) are still in, is
five pickles one after another: a magic number, a version, facts of the machine, the tree, the names of the
storages; then each storage as a count and its numbers, little-endian whatever machine wrote them. Read as `torch_file`
reads the newer one, by the same allow-list. There are no checksums: a cut file is noticed, a flipped bit is not.
"""

import io
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.system import foreign
from dd_jax.system.errors import UserError
from dd_jax.system.numpy_pickle import Array
from dd_jax.system.torch_file import MAX_PICKLE, TorchFile
from dd_jax.system.torch_names import Storage, Unpickler

MAX_PLAIN = 1 << 30  # bytes of a pickle that holds its numbers
MAX_DEPTH = 16  # of dicts in dicts
MAGIC = 0x1950A86A20F9469CFC6C


def open_torch(path: str | Path) -> TorchFile:
    """A checkpoint of any format. UserError for everything that is not a whole, harmless one."""
    path = Path(path)
    foreign.check(path)
    with path.open("rb") as file:
        start = file.read(32)
    if foreign.OLD_TORCH in start:  # protocols from 4 on frame what they write
        return OldTorchFile(path)
    return PlainFile(path) if start.startswith(foreign.PICKLE) else TorchFile(path)


class OldTorchFile(TorchFile):
    """An open checkpoint of the old format."""

    def _open(self) -> Any:
        with self.path.open("rb") as file:
            text = io.BytesIO(file.read(MAX_PICKLE))
        magic, _, _ = (Unpickler(text).load() for _ in range(3))
        if magic != MAGIC:
            raise UserError("it begins like a checkpoint and goes on otherwise: fetch it again")
        reader = _Unpickler(text)
        tree, names = reader.load(), Unpickler(text).load()
        self._places = self._find(text.tell(), {name: reader.types[name] for name in names})
        return tree

    def _find(self, at: int, types: dict[str, np.dtype]) -> dict[str, tuple[int, int]]:
        """First and last byte of every storage, which lie in the order of `types`."""
        places, size = {}, self.path.stat().st_size
        with self.path.open("rb") as file:
            for name, dtype in types.items():
                file.seek(at)
                (count,) = struct.unpack("<q", file.read(8))
                places[name] = (at + 8, at + 8 + count * dtype.itemsize)
                at = places[name][1]
                if count < 0 or at > size:
                    raise UserError(f"it ends within storage {name}: was the download cut off?")
        if at != size:
            raise UserError(f"{size - at} bytes behind the last storage: fetch it again")
        return places

    def _bytes(self, storage: Storage) -> np.ndarray:
        if storage.key not in self._places:
            raise UserError(f"{self.path}: it has no storage {storage.key}: the file is incomplete")
        first, last = self._places[storage.key]
        return self._map[first:last]


class PlainFile(TorchFile):
    """A pickle of nested dicts of NumPy arrays, as parameters of Flax are kept: `tree` has their paths, by slashes."""

    def _open(self) -> Any:
        with self.path.open("rb") as file:
            tree = Unpickler(io.BytesIO(file.read(MAX_PLAIN))).load()
        found = dict(_leaves(tree))
        if not found:
            raise ValueError("no arrays")  # it is named for what it is
        return found


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Array]]:
    """Arrays of nested dicts by path."""
    if isinstance(tree, Array):
        yield path, tree
    for key, inside in tree.items() if isinstance(tree, Mapping) else ():
        if isinstance(key, str) and path.count("/") < MAX_DEPTH:
            yield from _leaves(inside, f"{path}/{key}".lstrip("/"))


class _Unpickler(Unpickler):
    """Notes the type of every storage, without which the next one cannot be found."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.types: dict[str, np.dtype] = {}

    def persistent_load(self, pid: Any) -> Any:
        storage = super().persistent_load(pid)
        if not isinstance(storage, Storage):
            return storage
        if self.types.setdefault(storage.key, storage.dtype) != storage.dtype:
            raise UserError(f"storage {storage.key} has two types")
        return storage if len(pid) < 6 or pid[5] is None else _part(storage, pid[5])


def _part(storage: Storage, view: Any) -> Storage:
    """A storage that shows a part of another, as PyTorch before 0.4 wrote it: (name, first, count)."""
    if not isinstance(view, tuple) or len(view) != 3 or not all(type(n) is int and n >= 0 for n in view[1:]):
        raise UserError(f"storage {storage.key} is a view of another: load and save it with a newer PyTorch")
    return Storage(storage.key, storage.dtype, view[1], view[2])
