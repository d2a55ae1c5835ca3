"""How metrics use several devices: rows apart, everything else on all of them."""

from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec


def count() -> int:
    """Devices of this process; numbers of rows must be multiples of it."""
    return jax.local_device_count()


def apart(x: np.ndarray, axis: int = 0) -> jax.Array:
    """An array whose rows (along `axis`) are spread over the devices."""
    return jax.device_put(x, NamedSharding(_mesh(), PartitionSpec(*[None] * axis, "rows")))


def everywhere(tree: Any) -> Any:
    """Arrays that every device has."""
    return jax.device_put(tree, NamedSharding(_mesh(), PartitionSpec()))


def padded(x: np.ndarray, size: int) -> np.ndarray:
    """Zeros behind the rows of `x`, up to `size` of them."""
    return np.concatenate([x, np.zeros((size - len(x), *x.shape[1:]), x.dtype)]) if len(x) < size else x


def _mesh() -> jax.sharding.Mesh:
    return jax.make_mesh((count(),), ("rows",), (AxisType.Auto,), devices=jax.local_devices())
