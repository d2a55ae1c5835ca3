"""Any published weights file as a lazy state dict: PyTorch's formats or safetensors, in whatever container."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from dd_jax.errors import UserError
from port_weights.legacy_file import open_torch
from port_weights.torch_file import Tensor

# Where trainers keep the weights, in the order in which to look; "" is the file itself.
CONTAINERS = ("model", "module", "state_dict", "")


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
    try:
        file = safe_open(path, framework="numpy")
        return StateDict(tuple(file.keys()), file.get_tensor)
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no readable safetensors file: {error}") from error
