"""Randomness by identity: every example has its own key, so results never depend on batches, hosts or restarts."""

import jax
import jax.numpy as jnp
import numpy as np

STREAMS = {"pairs": 0, "sample": 1, "evaluate": 2, "reference": 3, "train": 4, "init": 5}


def stream(seed: int, name: str) -> jax.Array:
    """The root key of one use of randomness."""
    return jax.random.fold_in(jax.random.key(seed), STREAMS[name])


def example_keys(root: jax.Array, id_B: jax.Array) -> jax.Array:
    """One key an example, from its id alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(root, id_B)


def labels(id_B: np.ndarray, classes: int, scheme: str, seed: int) -> np.ndarray:
    """Labels of examples by id: "balanced" walks through the classes, "uniform" draws them."""
    if scheme == "balanced":
        return (np.asarray(id_B) % classes).astype(np.int32)
    root = jax.random.fold_in(jax.random.key(seed), 1 << 20)
    keys = example_keys(root, jnp.asarray(id_B))
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, classes))
    return np.asarray(draw(keys), np.int32)
