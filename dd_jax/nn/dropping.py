"""What chance leaves out while a transformer is trained: values, and whole branches of its blocks."""

import dataclasses

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np


@flax.struct.dataclass
class Chance:
    """A key an example, which neither devices, micro-batches nor loops change, and what they draw; none: nothing is."""

    key_B: jax.Array
    path: jax.Array | np.ndarray | None = None  # share of examples without a branch (stochastic depth, 1603.09382)
    dropout: float = flax.struct.field(pytree_node=False, default=0.0)  # share of values that become 0


def layers(chance: Chance | None, depth: int) -> list[Chance | None]:
    """That of each block: `path` grows linearly from nothing in the first one."""
    if chance is None:
        return [None] * depth
    paths = [None] * depth if chance.path is None else chance.path * np.linspace(0, 1, depth, dtype=np.float32)
    return [dataclasses.replace(chance, key_B=_keys(chance, 1 + i), path=path) for i, path in enumerate(paths)]


def values(chance: Chance | None, x_BxNxD: jax.Array, place: int = 0) -> jax.Array:
    """Dropout: 0 at a share of values, the others larger, so that the mean stays. `place`: which draw it is."""
    if chance is None or not chance.dropout:
        return x_BxNxD
    share = 1 - chance.dropout
    kept = jax.vmap(lambda key: jax.random.uniform(key, x_BxNxD.shape[1:], jnp.float32) < share)(_keys(chance, place))
    return jnp.where(kept, x_BxNxD / share, 0)


def branch(chance: Chance | None, y_BxNxD: jax.Array, place: int) -> jax.Array:
    """What a block adds to the stream: dropout, and nothing at all for a share of examples; `place`: 0, 1, ..."""
    y_BxNxD = values(chance, y_BxNxD, 2 * place)
    if chance is None or chance.path is None:
        return y_BxNxD
    share = 1 - chance.path
    kept_B = jax.vmap(lambda key: jax.random.uniform(key, (), jnp.float32) < share)(_keys(chance, 2 * place + 1))
    return y_BxNxD * (kept_B / share).astype(y_BxNxD.dtype)[:, None, None]


def _keys(chance: Chance, number: int) -> jax.Array:
    return jax.vmap(jax.random.fold_in, (0, None))(chance.key_B, number)
