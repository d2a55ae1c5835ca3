"""Randomness by identity: every example has its own key, so results never depend on batches, hosts or restarts.

Keys made here draw the same numbers whatever the environment says. JAX has settings that change them
(`jax_default_prng_impl`, `jax_threefry_partitionable`, `jax_random_seed_offset`, x64), and some trainers and launch
scripts set them for the whole process; a student must meet the noise that its pairs were made from.
"""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.random import define_prng_impl, threefry_prng_impl

from dd_jax.system.errors import UserError

STREAMS = {"pairs": 0, "sample": 1, "evaluate": 2, "reference": 3, "train": 4, "init": 5, "on_policy": 6}
STREAMS |= {"csd": 7}
ROUNDING = 2e-4  # by which noise may differ between kinds of devices


def _partitionable(draw: Callable) -> Callable:
    """`draw` as JAX has it by default, which shards without changing a bit."""

    @functools.wraps(draw)
    def fixed(*args: Any) -> Any:
        with jax.threefry_partitionable(True):
            return draw(*args)

    return fixed


# JAX's own generator, by name, with the one setting that it reads fixed: it goes where its keys go.
THREEFRY = define_prng_impl(
    key_shape=threefry_prng_impl.key_shape,
    seed=threefry_prng_impl.seed,
    split=_partitionable(threefry_prng_impl.split),
    random_bits=_partitionable(threefry_prng_impl.random_bits),
    fold_in=threefry_prng_impl.fold_in,
    name="threefry2x32",
    tag="fry",
)


def key(seed: int) -> jax.Array:
    """What `jax.random.key(seed)` is by default, in any environment. UserError for a seed outside 0..2^32 - 1."""
    return jax.random.wrap_key_data(jnp.asarray([0, checked(seed)], jnp.uint32), impl=THREEFRY)


def checked(seed: int) -> int:
    """A seed as a number. UserError for none in 0..2^32 - 1."""
    if not hasattr(seed, "__index__") or not 0 <= operator.index(seed) < 2**32:
        raise UserError(f"the seed is {seed}: choose a whole number in 0..{2**32 - 1}")
    return operator.index(seed)


def stream(seed: int, name: str) -> jax.Array:
    """The root key of one use of randomness."""
    return jax.random.fold_in(key(seed), STREAMS[name])


def traced_stream(seed: jax.Array, name: str) -> jax.Array:
    """`stream` of a seed that is a uint32 scalar of a traced function."""
    data = jnp.stack([jnp.uint32(0), seed.astype(jnp.uint32)])
    return jax.random.fold_in(jax.random.wrap_key_data(data, impl=THREEFRY), STREAMS[name])


def example_keys(root: jax.Array, id_B: jax.Array) -> jax.Array:
    """One key an example, from its id alone."""
    return jax.vmap(jax.random.fold_in, (None, 0))(root, id_B)


def labels(id_B: np.ndarray, classes: int, scheme: str, seed: int) -> np.ndarray:
    """Labels of examples by id: "balanced" walks through the classes, "uniform" draws them."""
    if scheme == "balanced":
        return (np.asarray(id_B) % classes).astype(np.int32)
    root = jax.random.fold_in(key(seed), 1 << 20)
    keys = example_keys(root, jnp.asarray(id_B))
    draw = jax.vmap(lambda key: jax.random.randint(key, (), 0, classes, jnp.int32))
    return np.asarray(draw(keys), np.int32)


def fresh(net: Any, key: jax.Array, *args: Any, **kwargs: Any) -> Any:
    """`net.init(...)`, a plain dict of parameters that follows from the key whatever Flax's environment says."""
    with (
        flax.config.temp_flip_flag("fix_rng_separator", False),
        flax.config.temp_flip_flag("return_frozendict", False),
    ):
        return net.init(key, *args, **kwargs)["params"]


def check_noise(where: Any, recorded: Sequence[float], seed: int) -> None:
    """UserError if the noise that a pair set recorded when it was made is not what its ids give here.

    recorded: the first values of ids 0, 1, ... in equal shares; a value depends on its place, not on the whole shape.
    """
    keys = example_keys(stream(seed, "pairs"), jnp.arange(2))
    draw = jax.vmap(lambda key: jax.random.normal(key, (len(recorded) // 2,), jnp.float32))
    here = [round(float(value), 4) for value in np.ravel(draw(keys))]
    if not np.allclose(recorded, here, atol=ROUNDING):
        raise UserError(
            f"{where} was made from other noise ({list(recorded)}) than its ids give here ({here}, JAX "
            f"{jax.__version__}): use the JAX that made it, or make the pairs again in another --workdir"
        )
