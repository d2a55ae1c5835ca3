"""Any published weights file as a lazy state dict: PyTorch's formats or safetensors, in whatever container.

What a file is shows in its content, never in its name.
"""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from dd_jax.system import foreign
from dd_jax.system.errors import UserError
from dd_jax.system.numpy_pickle import Array
from dd_jax.system.torch_file import TorchFile
from dd_jax.system.torch_names import Tensor
from dd_jax.system.torch_old import open_torch
from port_weights import containers as inside

# Where trainers keep the weights, in the order in which to look; "" is the file itself.
CONTAINERS = ("model", "module", "state_dict", "")
FLOATS = ("float32", "float16", "bfloat16")
KINDS: dict[str, Any] = {  # safetensors' names; integers are read to be refused by name
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class StateDict(Mapping[str, np.ndarray]):
    """Key -> array, read when asked for. `kinds`: type of the numbers by key; `notes`: lines for a person."""

    names: tuple[str, ...]
    get_array: Callable[[str], np.ndarray]
    kinds: Mapping[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self.kinds:
            raise KeyError(key)
        x = self.get_array(key)
        return x.astype(np.float32) if x.dtype == np.float64 else x  # which no network here is wider than

    def __contains__(self, key: object) -> bool:
        return key in self.kinds

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def renamed(self, names: Mapping[str, str], notes: Sequence[str] = ()) -> "StateDict":
        """Some of its arrays, under other names: new -> old."""
        kinds = {new: self.kinds[old] for new, old in names.items()}
        return StateDict(tuple(names), lambda key: self.get_array(names[key]), kinds, (*self.notes, *notes))


def open_weights(path: str | Path, containers: Sequence[str] = CONTAINERS) -> StateDict:
    """The state dict in `path`. Containers are dotted paths, e.g. "trainer.ema_parameters"; the first found counts.

    What lies beside the tensors is left aside and noted. Raises UserError for a file that is missing, damaged, of
    another format or without any of the containers.
    """
    path = Path(path)
    foreign.check(path)
    if foreign.is_safetensors(path) or (path.suffix == ".safetensors" and not foreign.is_zip(path)):
        return _by_prefix(path, _safetensors(path), containers)
    file = open_torch(path)
    found = inside.find(file.tree, containers)
    if found is None:
        asked, others = inside.asked(containers), inside.others(file.tree)
        raise UserError(f"{path} holds {inside.said(file.tree)}: no weights in {asked}; {others}")
    return _state_dict(file, found)


def _state_dict(file: TorchFile, found: Mapping[str, Any]) -> StateDict:
    tensors = {key: x for key, x in found.items() if isinstance(key, str) and isinstance(x, Tensor | Array)}
    notes = list(file.notes)
    if aside := [str(key) for key in found if key not in tensors]:
        notes.append(f"left aside, since it is no tensor: {inside.listed(aside)}")
    kinds = {key: "unreadable" if getattr(x, "fault", "") else str(x.dtype) for key, x in tensors.items()}

    def array(key: str) -> np.ndarray:
        if fault := getattr(tensors[key], "fault", ""):
            raise UserError(f"{file.path}: {key} is {fault}")
        return file.array(tensors[key])

    return StateDict(tuple(tensors), array, kinds, tuple(notes))


def merge(parts: Sequence[StateDict]) -> StateDict:
    """Several files as one. UserError for a key that two of them have."""
    home: dict[str, StateDict] = {}
    for part in parts:
        if twice := [key for key in part if key in home]:
            raise UserError(f"two of the files have {', '.join(twice[:8])}: is one named twice?")
        home |= dict.fromkeys(part, part)
    kinds = {key: part.kinds[key] for key, part in home.items()}
    return StateDict(
        tuple(home), lambda key: home[key][key], kinds, tuple(note for part in parts for note in part.notes)
    )


def _by_prefix(path: Path, found: StateDict, containers: Sequence[str]) -> StateDict:
    """Of a file without containers, the keys that begin with one that was asked for by name, if any do."""
    if len(containers) == 1 and containers[0]:
        start = f"{containers[0]}."
        names = {key[len(start) :]: key for key in found if key.startswith(start)}
        if not names:
            raise UserError(f"{path} has no keys that begin with {start}: leave --container out")
        return found.renamed(names)
    return found


def _safetensors(path: Path) -> StateDict:
    """Its arrays as views of the mapped file, read when they are used; the library checks that the file is whole."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = tuple(file.keys())
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no readable safetensors file ({error}): was the download cut off?") from error
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())

    def array(key: str) -> np.ndarray:
        about = header[key]
        if about["dtype"] not in KINDS:
            raise UserError(f"{path}: {key} is {about['dtype']}: weights are float32, float16 or bfloat16")
        first, last = (start + at for at in about["data_offsets"])
        return data[first:last].view(KINDS[about["dtype"]]).reshape(about["shape"])

    kinds = {key: str(np.dtype(KINDS.get(kind := header[key]["dtype"], "V1"))).replace("|V1", kind) for key in names}
    return StateDict(names, array, kinds)
