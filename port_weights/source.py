"""Any published weights file as a lazy state dict: PyTorch's formats or safetensors, in whatever container."""

import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from dd_jax.system.errors import UserError
from dd_jax.system.torch_file import Tensor
from dd_jax.system.torch_old import open_torch

# Where trainers keep the weights, in the order in which to look; "" is the file itself.
CONTAINERS = ("model", "module", "state_dict", "")
KINDS: dict[str, Any] = {  # safetensors' names; integers are read to be refused by name
    **{f"F{8 * size}": f"<f{size}" for size in (2, 4, 8)},
    **{f"{kind.upper()}{8 * size}": f"<{kind}{size}" for kind in "iu" for size in (1, 2, 4, 8)},
    "BF16": ml_dtypes.bfloat16,
    "BOOL": np.bool_,
}


@dataclasses.dataclass(frozen=True)
class StateDict(Mapping[str, np.ndarray]):
    """Key -> array, read when asked for."""

    names: tuple[str, ...]
    get_array: Callable[[str], np.ndarray]

    def __getitem__(self, key: str) -> np.ndarray:
        if key not in self.names:
            raise KeyError(key)
        return self.get_array(key)

    def __contains__(self, key: object) -> bool:
        return key in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def open_weights(path: str | Path, containers: Sequence[str] = CONTAINERS) -> StateDict:
    """The state dict in `path`. Containers are dotted paths, e.g. "trainer.ema_parameters"; the first found counts.

    Raises UserError for a file that is missing, damaged, of another format or without any of the containers.
    """
    path = Path(path)
    if path.suffix == ".safetensors":
        return _safetensors(path)
    file = open_torch(path)
    found = _container(file.tree, containers)
    if found is None:
        keys = list(file.tree)[:8] if isinstance(file.tree, Mapping) else type(file.tree).__name__
        asked = ", ".join(name or "the file itself" for name in containers)
        raise UserError(f"{path} holds {keys}: no weights in {asked}; name another with --container")
    return StateDict(tuple(found), lambda key: file.read(found[key]))


def merge(parts: Sequence[StateDict]) -> StateDict:
    """Several files as one. UserError for a key that two of them have."""
    home: dict[str, StateDict] = {}
    for part in parts:
        if twice := [key for key in part if key in home]:
            raise UserError(f"two of the files have {', '.join(twice[:8])}: is one named twice?")
        home |= dict.fromkeys(part, part)
    return StateDict(tuple(home), lambda key: home[key][key])


def _container(tree: Any, containers: Sequence[str]) -> Mapping[str, Tensor] | None:
    """The first of `containers` that is a mapping from names to tensors."""
    for name in containers:
        found = tree
        for part in filter(None, name.split(".")):
            found = found.get(part) if isinstance(found, Mapping) else None
        if isinstance(found, Mapping) and found and all(isinstance(x, Tensor) for x in found.values()):
            return found
    return None


def _safetensors(path: Path) -> StateDict:
    """Its arrays as views of the mapped file, read when they are used; the library checks that the file is whole."""
    try:
        with safe_open(path, framework="numpy") as file:
            names = tuple(file.keys())
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no readable safetensors file: {error}") from error
    data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    header = json.loads(data[8:start].tobytes())

    def array(key: str) -> np.ndarray:
        about = header[key]
        if about["dtype"] not in KINDS:
            raise UserError(f"{path}: {key} is {about['dtype']}: weights are float32, float16 or bfloat16")
        first, last = (start + at for at in about["data_offsets"])
        return data[first:last].view(KINDS[about["dtype"]]).reshape(about["shape"])

    return StateDict(names, array)
