"""PyTorch's format before 1.6, in which the published Inception of FID may come: pickles in a row, then the numbers.

A magic number, a version, facts of the machine, the tree, the list of storages; then of every storage its length
(eight bytes) and its numbers. There are no checksums; otherwise everything of `torch_file` holds here too.
"""

import io
import struct
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.errors import UserError
from port_weights.torch_file import MAX_PICKLE, Storage, TorchFile, Unpickler

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001
HEAD = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # the magic number as a pickle


def open_torch(path: str | Path) -> TorchFile:
    """A checkpoint in either format."""
    path = Path(path)
    if path.is_file():
        with path.open("rb") as file:
            if file.read(len(HEAD)) == HEAD:
                return LegacyFile(path)
    return TorchFile(path)


class _Recorder(Unpickler):
    """Keeps the storages that a tree refers to."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.storages: dict[str, Storage] = {}

    def persistent_load(self, pid: Any) -> Storage:
        if len(pid) > 5 and pid[5] is not None:
            raise UserError("a view of a storage, which only PyTorch before 0.4 wrote")
        storage = super().persistent_load(pid)
        return self.storages.setdefault(storage.key, storage)


class LegacyFile(TorchFile):
    """An open checkpoint of the old format; used like a `TorchFile`."""

    def __init__(self, path: str | Path):
        self.path = Path(path)
        try:
            self._map = np.memmap(self.path, np.uint8, "r")
            text = io.BytesIO(self._map[:MAX_PICKLE].tobytes())
            magic, version, machine = (Unpickler(text).load() for _ in range(3))
            if (magic, version) != (MAGIC, VERSION) or not machine.get("little_endian"):
                raise UserError(f"version {version} or big-endian numbers: save it again with a newer PyTorch")
            tree = _Recorder(text)
            self.tree, keys = tree.load(), Unpickler(text).load()
            self._checked = self._split(text.tell(), keys, tree.storages)
        except UserError as error:
            raise UserError(f"{self.path}: {error}") from None
        except Exception as error:  # a mutated pickle can raise anything; none of it ran
            raise UserError(f"{self.path} is no readable checkpoint ({type(error).__name__}: {error})"[:300]) from error

    def _split(self, first: int, keys: list[str], storages: dict[str, Storage]) -> dict[str, np.ndarray]:
        """Bytes of every storage."""
        found = {}
        if set(keys) != storages.keys() or len(keys) != len(storages):
            raise UserError("its list of storages is not what its tensors refer to")
        for key in keys:
            (count,) = struct.unpack("<q", self._map[first : first + 8].tobytes())
            size = count * storages[key].dtype.itemsize
            if count < 0 or first + 8 + size > len(self._map):
                raise UserError("the file is cut off: fetch it again")
            found[key] = self._map[first + 8 : first + 8 + size]
            first += 8 + size
        if first != len(self._map):
            raise UserError(f"{len(self._map) - first} bytes behind the last storage: fetch it again")
        return found
