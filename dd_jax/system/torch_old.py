"""PyTorch's format before 1.6, which older published files (torchvision's VGG16, LPIPS's heads) are still in.

Five pickles one after another: a magic number, a version, facts of the machine, the tree, the names of the
storages; then each storage as a count and its numbers. Read as `torch_file` reads the newer one, by the same
allow-list. There are no checksums: a cut file is noticed, a flipped bit is not.
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.system.errors import UserError
from dd_jax.system.torch_file import MAX_PICKLE, Storage, TorchFile, Unpickler

MAGIC = 0x1950A86A20F9469CFC6C
HEAD = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number as a pickle has it, behind the mark of its protocol


def open_torch(path: str | Path) -> TorchFile:
    """A checkpoint of either format. UserError for everything that is not a whole, harmless one."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            if HEAD in file.read(len(HEAD) + 2):
                return OldTorchFile(path)
    return TorchFile(path)


class OldTorchFile(TorchFile):
    """An open checkpoint of the old format."""

    def _open(self) -> Any:
        with self.path.open("rb") as file:
            text = io.BytesIO(file.read(MAX_PICKLE))
        magic, _, machine = (Unpickler(text).load() for _ in range(3))
        if magic != MAGIC or not machine["little_endian"]:
            raise UserError("its numbers are big-endian: save it again on a little-endian machine")
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


class _Unpickler(Unpickler):
    """Notes the type of every storage, without which the next one cannot be found."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.types: dict[str, np.dtype] = {}

    def persistent_load(self, pid: Any) -> Storage:
        storage = super().persistent_load(pid)
        if len(pid) > 5 and pid[5] is not None:
            raise UserError(f"storage {storage.key} is a view of another: load and save it with a newer PyTorch")
        if self.types.setdefault(storage.key, storage.dtype) != storage.dtype:
            raise UserError(f"storage {storage.key} has two types")
        return storage
