"""Write what `torch_file` and `torch_old` read: checkpoints as PyTorch saves them, without PyTorch."""

import dataclasses
import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.system import files
from dd_jax.system.torch_names import STORAGES
from dd_jax.system.torch_old import MAGIC

KINDS = {str(np.dtype(kind)): name for name, kind in STORAGES.items()}


@dataclasses.dataclass(frozen=True, eq=False)
class Lazy:
    """An array that is made when its numbers are asked for: a shard is written without being held."""

    shape: tuple[int, ...]
    dtype: np.dtype
    make: Callable[[], np.ndarray]

    @property
    def size(self) -> int:
        return int(np.prod(self.shape))

    def __array__(self, dtype: Any = None, copy: Any = None) -> np.ndarray:
        return self.make().astype(dtype or self.dtype, copy=False)


class _Global:
    """A name that the reader has to look up."""

    def __init__(self, module: str, name: str):
        self.text = f"c{module}\n{name}\n".encode()


class _Pickler(pickle._Pickler):
    """Writes arrays as PyTorch writes tensors: a call of _rebuild_tensor_v2 on a reference to a storage."""

    def __init__(self, file: io.BytesIO, arrays: list[np.ndarray], *more: Any):
        super().__init__(file, protocol=2)
        self.arrays, self.more = arrays, more

    def persistent_id(self, obj: Any) -> Any:
        return (*obj.pid, *self.more) if isinstance(obj, _Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, _Global):
            return self.write(obj.text)  # type: ignore[attr-defined]
        if isinstance(obj, np.ndarray | Lazy):
            return self._tensor(obj)
        return super().save(obj, save_persistent_id)  # type: ignore[misc]

    def _tensor(self, x: Any) -> None:
        found = [i for i, other in enumerate(self.arrays) if other is x]  # two names of one tensor share its storage
        if not found:
            self.arrays.append(x)
        storage = _Storage(str(found[0] if found else len(self.arrays) - 1), x)
        strides = tuple(step // x.dtype.itemsize for step in np.empty(x.shape, x.dtype).strides)
        self.save(_Global("torch._utils", "_rebuild_tensor_v2"))
        self.save((storage, 0, x.shape, strides, False, OrderedDict()))
        self.write(pickle.REDUCE)  # type: ignore[attr-defined]


class _Storage:
    def __init__(self, key: str, x: Any):
        self.pid = ("storage", _Global("torch", KINDS[str(x.dtype)]), key, "cpu", x.size)


def write_torch(path: str | Path, tree: Any) -> Path:
    """Save nested containers of arrays as `torch.save` does."""
    buffer, arrays = io.BytesIO(), list[np.ndarray]()
    _Pickler(buffer, arrays).dump(tree)
    with files.writing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/byteorder", "little")
        for i, x in enumerate(arrays):
            with archive.open(f"archive/data/{i}", "w", force_zip64=True) as entry:
                entry.write(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
        archive.writestr("archive/version", "3\n")
    return Path(path)


def write_old_torch(path: str | Path, tree: Any) -> Path:
    """The same in PyTorch's format before 1.6."""
    buffer, arrays = io.BytesIO(), list[np.ndarray]()
    for head in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(head, buffer, protocol=2)
    _Pickler(buffer, arrays, None).dump(tree)  # None: no view of another storage
    pickle.dump([str(i) for i in range(len(arrays))], buffer, protocol=2)
    for x in arrays:
        buffer.write(struct.pack("<q", x.size) + np.ascontiguousarray(x).tobytes())
    return files.replace(path, buffer.getvalue())
