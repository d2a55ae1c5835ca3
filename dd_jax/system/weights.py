"""Weights of one model as a self-describing folder: config.json says what they are, weights.safetensors holds them.

A folder may be on the Hub, hf://owner/name/folder: whatever takes a folder of weights takes such a name (`place`).
"""

import functools
import hashlib
import json
import mmap
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import ml_dtypes
import numpy as np
from flax import traverse_util
from safetensors import SafetensorError, safe_open

from dd_jax.system import files, hub
from dd_jax.system.errors import UserError

Params = Any  # a plain nested dict of arrays

FORMAT = 1
NAMES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
BUFFERS = NAMES | {"int64": "I64"}
KINDS = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16, "F64": np.float64}
ALIGNED = 64  # bytes: arrays that begin at a multiple are used where they lie in the file, on a CPU
AGAIN = "port the weights again, or delete the folder and run the stage that made it"
CONFIG, WEIGHTS = "config.json", "weights.safetensors"
BESIDE = ("spiece.model",)  # files without weights that may come along
Folder = hub.Folder


class AbsentError(UserError):
    """A folder on the Hub that holds no weights."""


def save(folder: str | Path, params: Params, about: Mapping[str, Any], dtype: str = "") -> Path:
    """Write `params` and what they are; a folder without config.json is not finished. Returns the folder.

    Arrays are written one after another, as `dtype` if it is given, so that views of a mapped file never fill the
    memory.
    UserError for numbers that are no weights (NaN, infinity, integers) or a disk that is full.
    """
    folder = Path(folder)
    flat = traverse_util.flatten_dict(params, sep="/")
    write_safetensors(folder / WEIGHTS, flat, dtype)
    about = {"format": FORMAT, **about, "parameters": int(sum(x.size for x in flat.values()))}
    about["sha256"] = sha256(folder / WEIGHTS)
    files.replace(folder / CONFIG, json.dumps(about, indent=1).encode())
    return folder


def place(folder: Folder) -> Path:
    """Where a folder is on this machine; one on the Hub is fetched first. UserError if that has no weights."""
    return _fetched(str(folder)) if hub.named(folder) else Path(folder)


@functools.cache  # parts of one model come from one commit, and the Hub is asked once
def _fetched(name: str) -> Path:
    address = hub.Address.of(name)
    path, fresh = hub.fetch(address, (CONFIG, WEIGHTS, *BESIDE))
    if not (path / CONFIG).exists() or not (path / WEIGHTS).exists():
        raise AbsentError(f"{address} holds no {CONFIG} and {WEIGHTS}: name a folder that does, hf://owner/name/FOLDER")
    file = path / WEIGHTS
    if WEIGHTS in fresh and sha256(file) != describe(path).get("sha256"):
        file.resolve().unlink()  # what the client keeps: another try fetches it again
        file.unlink(missing_ok=True)
        raise UserError(f"{address}/{WEIGHTS} has another checksum than its {CONFIG} says: try again, or publish again")
    return path


def present(folder: Folder) -> bool:
    """Does a folder hold finished weights? One on the Hub that does is fetched. UserError where that cannot be told."""
    if not hub.named(folder):
        return (Path(folder) / CONFIG).exists()
    try:
        place(folder)
    except AbsentError:
        return False
    return True


def beside(folder: Folder, name: str) -> Folder:
    """The folder of a companion, where it lies beside this one; what is named on the Hub is there."""
    if hub.named(name):
        return name
    return str(hub.Address.of(folder).beside(name)) if hub.named(folder) else Path(folder).parent / name


def drawing(folder: Folder) -> Folder:
    """The folder itself, or the student in it, else the teacher: what a repository, or a run's `weights/`, draws by."""
    return within(folder, "", "student", "teacher")


def within(folder: Folder, *names: str) -> Folder:
    """The first of these folders in a folder ("": itself) that holds weights; without any the folder itself."""
    inside: list[Folder] = []
    for name in names:
        inside.append(str(hub.Address.of(folder).inner(name)) if hub.named(folder) else Path(folder) / name)
    return next((one for one in inside if present(one) and (place(one) / WEIGHTS).exists()), folder)


def describe(folder: Folder) -> dict[str, Any]:
    """config.json. UserError if the folder holds no finished weights."""
    path = place(folder) / CONFIG
    try:
        about: dict[str, Any] | None = files.read_json(path, AGAIN)
    except NotADirectoryError:
        about = None
    if about is None:
        raise UserError(f"no weights in {folder}: make them with python -m port_weights (see `list`)")
    if about.get("format") != FORMAT:
        raise UserError(f"{path} has format {about.get('format')!r}, this version reads {FORMAT}: {AGAIN}")
    return about


def load(folder: Folder, expected: Params | None, verify: bool = False, dtype: Any = np.float32) -> Params:
    """Parameters shaped like `expected` (None: as they are), anything with shapes: NumPy's, as `dtype` (None: stored).

    What is of that type in the file is a view of it, mapped: nothing is read before it is used (see `on_device`).
    `verify` reads the file once more for its checksum. UserError for a damaged file or another model's weights.
    """
    about, path = describe(folder), place(folder) / WEIGHTS
    if verify and sha256(path) != about["sha256"]:
        raise UserError(f"{path} is damaged (its checksum differs from {CONFIG}): {AGAIN}")
    found = mapped(path)
    expected = traverse_util.unflatten_dict(found, sep="/") if expected is None else expected
    wanted = {path: leaf.shape for path, leaf in traverse_util.flatten_dict(expected, sep="/").items()}
    if wanted != {key: x.shape for key, x in found.items()}:
        odd = sorted(key for key in {*wanted, *found} if wanted.get(key) != getattr(found.get(key), "shape", None))
        told = ", ".join(odd[:6]) + (f" and {len(odd) - 6} more" if len(odd) > 6 else "")
        raise UserError(f"{folder} holds {about.get('id')}, which is not the configured model; they differ in {told}")
    for key in wanted if dtype else ():  # one after another, not all in both types at once
        found[key] = found[key].astype(dtype, copy=False)
    return traverse_util.unflatten_dict(found, sep="/")


def mapped(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a safetensors file as views of it; writing to one does not reach the file.

    UserError for a file that is damaged.
    """
    try:
        with safe_open(path, framework="numpy") as file:  # checks the header against the file
            names = list(file.keys())
        with open(path, "rb") as file:
            first = 8 + struct.unpack("<Q", file.read(8))[0]
            header = json.loads(file.read(first - 8))
            whole = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        values = np.frombuffer(whole, np.uint8)
        found = {}
        for name in names:
            begin, end = header[name]["data_offsets"]
            if (kind := header[name]["dtype"]) not in KINDS:
                raise UserError(f"{path} holds {kind} in {name}: weights are {', '.join(NAMES)}")
            found[name] = values[first + begin : first + end].view(KINDS[kind]).reshape(header[name]["shape"])
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): {AGAIN}") from error
    if hasattr(mmap, "MADV_WILLNEED"):
        whole.madvise(mmap.MADV_WILLNEED)  # read on while programs are compiled
    return found


def on_device(params: Params, dtype: Any = np.float32) -> Params:
    """Arrays of `load` as JAX's: on a CPU those that are aligned stay in the mapped file, others are moved in turn."""

    def one(x: np.ndarray) -> jax.Array:
        given = x.astype(dtype, copy=False)
        found = jax.device_put(given, may_alias=True)
        if given is not x or x.ctypes.data % ALIGNED or jax.default_backend() != "cpu":
            found.block_until_ready()
            files.let_go(x)
        return found

    return jax.tree.map(one, params)


def write_safetensors(
    path: Path, arrays: Mapping[str, np.ndarray], dtype: str = "", buffers: Mapping[str, np.ndarray] | None = None
) -> Path:
    """A safetensors file, written array by array; `dtype`: of all of them, if it is given.

    What is `ALIGNED` in size comes first, so that it also begins so.
    `buffers` make it a file for PyTorch: they may be integers or infinite, and readers there want "pt" in the header.
    """
    header: dict[str, Any] = {} if buffers is None else {"__metadata__": {"format": "pt"}}
    first, buffers = 0, buffers or {}
    width = {key: np.dtype((key not in buffers and dtype) or x.dtype).itemsize for key, x in arrays.items()}
    odd = {key: x.size * width.get(key, 1) % ALIGNED != 0 for key, x in {**arrays, **buffers}.items()}
    written = {key: {**arrays, **buffers}[key] for key in sorted(odd, key=odd.__getitem__)}
    for key, x in written.items():
        kind = (key not in buffers and dtype) or str(x.dtype)
        known = NAMES if key not in buffers else BUFFERS
        if str(x.dtype) not in known or kind not in known:
            raise UserError(f"{key} is {kind if str(x.dtype) in known else x.dtype}: weights are {', '.join(NAMES)}")
        last = first + x.size * np.dtype(kind).itemsize
        header[key] = {"dtype": known[kind], "shape": list(x.shape), "data_offsets": [first, last]}
        first = last
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-(8 + len(text)) % ALIGNED)
    with files.writing(path) as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for key, array in written.items():
            x = np.asarray(array)
            if key not in buffers and not np.isfinite(x).all():
                raise UserError(f"{key} holds numbers that are not finite: fetch the file again")
            file.write(
                np.ascontiguousarray(x, None if key in buffers else dtype or None).reshape(-1).view(np.uint8).data
            )
            files.let_go(x)
    return path


def sha256(path: str | Path) -> str:
    """Checksum of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
