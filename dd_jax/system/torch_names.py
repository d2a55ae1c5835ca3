"""What the names in a PyTorch checkpoint's pickle stand for: tensors as references, all else as plain or inert values.

What PyTorch wraps numbers in (parameters, buffers, attributes, views that are negated) is undone; what cannot be read
as plain numbers (quantised, sparse, conjugated, spread over machines) stays in the tree with its fault, and is refused
by name only when its numbers are asked for.
"""

import dataclasses
import math
import pickle
import struct
from collections.abc import Callable
from typing import Any, ClassVar

import ml_dtypes
import numpy as np

from dd_jax.system import numpy_pickle, stand_ins
from dd_jax.system.errors import UserError
from dd_jax.system.stand_ins import Inert

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
    "ComplexFloatStorage": np.complex64,
    "ComplexDoubleStorage": np.complex128,
}
QUANTISED = {"QInt8Storage": np.int8, "QUInt8Storage": np.uint8, "QInt32Storage": np.int32,
             "QUInt4x2Storage": np.uint8, "QUInt2x4Storage": np.uint8}  # fmt: skip
FLOAT8 = ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")
DTYPES: dict[str, Any] = {
    **{f"{kind}{size}": f"{kind}{size}" for kind in ("int", "uint") for size in (8, 16, 32, 64)},
    **{f"float{size}": f"float{size}" for size in (16, 32, 64)},
    **{f"complex{size}": f"complex{size}" for size in (64, 128)},
    **{name: getattr(ml_dtypes, name) for name in ("bfloat16", *FLOAT8)},
    **{"bool": "bool", "half": "float16", "float": "float32", "double": "float64"},
}


@dataclasses.dataclass(frozen=True)
class Storage:
    """The numbers behind one or more tensors: `NAME/data/key` of the zip, all of them or `count` from `first` on."""

    key: str
    dtype: np.dtype
    first: int = 0
    count: int | None = None


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A reference to part of a storage; offset and strides in elements. `fault`: why its numbers cannot be read."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    negative: bool = False  # it shows the stored numbers with the other sign
    fault: str = ""

    @property
    def dtype(self) -> np.dtype:
        return self.storage.dtype


@dataclasses.dataclass(frozen=True)
class Dtype:
    """torch.float32 and its like."""

    name: str


@dataclasses.dataclass(frozen=True)
class StorageType:
    """torch.FloatStorage and its like."""

    dtype: np.dtype


NOTHING = Storage("", np.dtype(np.uint8))


def faulty(fault: str, shape: Any = ()) -> Tensor:
    """A tensor without readable numbers."""
    known = isinstance(shape, tuple) and all(type(n) is int for n in shape)
    return Tensor(NOTHING, 0, shape if known else (), (0,) * len(shape) if known else (), fault=fault)


def _rebuild(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any = None, hooks: Any = None, metadata: Any = None
) -> Tensor:
    """What the file calls torch._utils._rebuild_tensor_v2."""
    if not isinstance(storage, Storage):
        raise UserError("a tensor without a storage")
    numbers = (offset, *shape, *strides)
    if len(shape) != len(strides) or len(shape) > MAX_AXES or not all(type(n) is int and n >= 0 for n in numbers):
        raise UserError(f"a tensor of shape {shape}, strides {strides}, offset {offset}"[:200])
    said = {str(key)[:40]: value for key, value in (metadata or {}).items() if value is not False}
    negative, fault = said.pop("neg", False) is True, ""
    if said:
        fault = f"a tensor with the metadata {', '.join(said)}, which are not read: {RESOLVE}"
    return Tensor(storage, offset, tuple(shape), tuple(strides), negative, fault)


RESOLVE = "save plain numbers (tensor.resolve_conj().contiguous()) with PyTorch"


def _rebuild_v3(
    storage: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, dtype: Any, metadata: Any = None
) -> Tensor:
    """The same for the types that have no storage of their own: the storage is bytes."""
    name = dtype.name if isinstance(dtype, Dtype) else "?"
    if name not in DTYPES:
        return faulty(f"a tensor of torch.{name}: save it as float32", shape)
    if isinstance(storage, Storage):
        storage = dataclasses.replace(storage, dtype=np.dtype(DTYPES[name]))
    return _rebuild(storage, offset, shape, strides, grad, hooks, metadata)


def _first(data: Any, *more: Any) -> Any:
    """Parameters, buffers: the tensor inside, whatever else is said of it."""
    return data


def _from_type(rebuild: Any, kind: Any, args: Any, state: Any = None) -> Any:
    """A tensor with attributes, or of a class of its own, whose numbers may mean something else."""
    found = rebuild(*args)
    if isinstance(found, Tensor) and isinstance(kind, type) and issubclass(kind, Inert) and not found.fault:
        return dataclasses.replace(found, fault=f"a tensor of the class {kind.name}: save its plain numbers")
    return found


def _from_device(data: Any, dtype: Any = None, *more: Any) -> Any:
    """A tensor that was on a TPU: its numbers as PyTorch or NumPy had them on the host."""
    name = dtype.name if isinstance(dtype, Dtype) else "?"
    if isinstance(data, Tensor | numpy_pickle.Array) and data.dtype != DTYPES.get(name):
        wide = data.dtype == np.float32 and name == "bfloat16"  # NumPy has no bfloat16: exact in float32
        return data if wide else faulty(f"{data.dtype} numbers that mean torch.{name}: save them on a CPU", data.shape)
    return data


def _refusing(what: str, shape_at: int | None = None) -> Callable[..., Tensor]:
    """A stand-in for rebuild functions whose results are no plain numbers."""

    def rebuild(*args: Any) -> Tensor:
        inside = shape_at is not None and len(args) > shape_at
        return faulty(f"a {what} tensor: save its plain numbers with PyTorch", args[shape_at] if inside else ())  # type: ignore[index]

    return rebuild


def _size(items: Any = ()) -> tuple[Any, ...]:
    return tuple(items)


def _parameter(data: Any = None, *more: Any) -> Any:
    return data


ALLOWED: dict[tuple[str, str], Any] = {
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild,
    ("torch._utils", "_rebuild_tensor"): _rebuild,
    ("torch._utils", "_rebuild_tensor_v3"): _rebuild_v3,
    ("torch._utils", "_rebuild_parameter"): _first,
    ("torch._utils", "_rebuild_parameter_with_state"): _first,
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _from_device,
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _from_device,
    ("torch._utils", "_rebuild_xla_tensor"): _from_device,
    ("torch._utils", "_rebuild_qtensor"): _refusing("quantised", 2),
    ("torch._utils", "_rebuild_sparse_tensor"): _refusing("sparse"),
    ("torch._utils", "_rebuild_nested_tensor"): _refusing("nested"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _refusing("'meta' (without numbers)", 1),
    ("torch._utils", "_rebuild_wrapper_subclass"): _refusing("wrapped (of a class of its own)", 2),
    ("torch._tensor", "_rebuild_from_type_v2"): _from_type,
    ("torch._tensor", "_rebuild_from_type"): _from_type,
    ("torch", "Tensor"): _parameter,
    ("torch.nn.parameter", "Parameter"): _parameter,
    ("torch.nn.parameter", "Buffer"): _parameter,
    ("torch", "Size"): _size,
    ("torch.storage", "UntypedStorage"): StorageType(np.dtype(np.uint8)),
    **stand_ins.NAMES,
    **numpy_pickle.NAMES,
    **{("torch", name): Dtype(name) for name in DTYPES},
    **{("torch", name): StorageType(np.dtype(kind)) for name, kind in (STORAGES | QUANTISED).items()},
    **{("torch.cuda", name): StorageType(np.dtype(kind)) for name, kind in STORAGES.items()},
}


BUILT = (Inert, stand_ins.Plain, numpy_pickle.Array, numpy_pickle.Dtype)


class Unpickler(pickle._Unpickler):
    """Python's own unpickler (the C one lets a file ask for a memo of any size), names by allow-list."""

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)

    def load_build(self) -> None:
        """Only stand-ins have a state; a file may not reach into tensors, types or the functions above."""
        if not isinstance(self.stack[-2], BUILT):  # type: ignore[attr-defined]
            raise UserError("it sets the state of something that has none: fetch or save it again")
        super().load_build()  # type: ignore[misc]

    dispatch[pickle.BUILD[0]] = load_build

    def load_bytearray8(self) -> None:
        """Python's makes room for as many bytes as the file claims to have, before it reads any."""
        (count,) = struct.unpack("<Q", self.read(8))  # type: ignore[attr-defined]
        data = self.read(count)  # type: ignore[attr-defined]
        if len(data) < count:
            raise UserError(f"it ends before {count:,} bytes that it announces: fetch it again")
        self.append(bytearray(data))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8

    def find_class(self, module: str, name: str) -> Any:
        key = stand_ins.modern(module, name)
        return ALLOWED[key] if key in ALLOWED else stand_ins.find(*key)

    def persistent_load(self, pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module":  # a class with its source, in old files
            return pid[1]
        kind, dtype, key = pid[:3]
        if kind != "storage" or not isinstance(dtype, StorageType) or not isinstance(key, str):
            raise UserError(f"an unknown kind of reference {pid!r}"[:200])
        return Storage(key, dtype.dtype)


def reach(tensor: Tensor) -> int:
    """The last element of its storage that a tensor shows, -1 for an empty one."""
    if math.prod(tensor.shape) == 0:
        return -1
    return tensor.offset + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.strides, strict=True))
