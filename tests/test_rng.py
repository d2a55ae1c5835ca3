"""Keys draw the same numbers whatever the environment says, and a pair set knows its noise."""

import json
import os
import subprocess
import sys

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from dd_jax.data import pairset
from dd_jax.method import ar
from dd_jax.method.fewstep import noise_for
from dd_jax.method.filtering import Filter
from dd_jax.system import rng
from dd_jax.system.errors import UserError

# What people set for other programs, and what it would change.
SETTINGS = {
    "jax_default_prng_impl": "rbg",
    "jax_threefry_partitionable": False,
    "jax_random_seed_offset": 7,
    "jax_high_dynamic_range_gumbel": True,
}


def draws() -> dict[str, np.ndarray]:
    """Everything that the product draws, in small; made anew by every call, compiled and not."""
    keys = rng.example_keys(rng.stream(3, "pairs"), jnp.arange(5, dtype=jnp.int32))
    net = nn.Sequential([nn.Dense(3), nn.Dense(4)])
    return {
        "noise": noise_for(keys, 7, 5),
        "compiled": jax.jit(lambda key: jax.random.uniform(key, (3, 5), jnp.float32))(rng.key(2**32 - 1)),
        "split": jax.random.key_data(jax.random.split(rng.key(1), 3)),
        "labels": rng.labels(np.arange(9), 10, "uniform", 0),
        "permutation": jax.random.permutation(rng.key(2), 13),
        "categorical": ar.by_chance(keys, Filter())(jnp.zeros((5, 3, 11)), 2),
        **{"/".join(path): x for path, x in flat(rng.fresh(net, rng.key(1), jnp.zeros((1, 5)))).items()},
    }


def flat(params):
    assert type(params) is dict
    return traverse_util.flatten_dict(params)


@pytest.fixture
def elsewhere():
    """All of SETTINGS, in this process."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    with flax.config.temp_flip_flag("fix_rng_separator", True), flax.config.temp_flip_flag("return_frozendict", True):
        try:
            for name, value in SETTINGS.items():
                jax.config.update(name, value)
            yield
        finally:
            for name, value in before.items():
                jax.config.update(name, value)


@pytest.fixture(scope="module")
def plain():
    return draws()


def test_draws_follow_from_the_keys_alone(plain, elsewhere):
    for name, found in draws().items():
        np.testing.assert_array_equal(found, plain[name], err_msg=name)


def test_keys_are_those_of_jax():
    ours, theirs = (jax.random.fold_in(key, 5) for key in (rng.key(11), jax.random.key(11, impl="threefry2x32")))
    assert jax.random.key_impl(ours) == "threefry2x32"
    for draw in (jax.random.normal, jax.random.uniform, jax.random.gumbel):
        np.testing.assert_array_equal(draw(ours, (3, 4)), draw(theirs, (3, 4)))
    np.testing.assert_array_equal(rng.labels(np.arange(4), 3, "uniform", np.int64(2)).shape, (4,))


@pytest.mark.parametrize("seed", [-1, 2**32, 1.5, None, "3"])
def test_a_seed_is_a_whole_number(seed):
    with pytest.raises(UserError, match=r"the seed is .*: choose a whole number in 0\.\.4294967295"):
        rng.key(seed)


@pytest.mark.parametrize("given", ["JAX_DEFAULT_PRNG_IMPL=rbg", "JAX_THREEFRY_PARTITIONABLE=0 JAX_ENABLE_X64=1"])
def test_the_environment_of_a_process(given, plain):
    """The variables themselves, read when JAX is imported."""
    program = (
        "import jax.numpy as jnp\nfrom dd_jax.system import rng\nfrom dd_jax.method.fewstep import noise_for\n"
        "keys = rng.example_keys(rng.stream(3, 'pairs'), jnp.arange(5))\nprint(noise_for(keys, 7, 5).tolist())"
    )
    env = os.environ | dict(pair.split("=") for pair in given.split()) | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    ran = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
    np.testing.assert_array_equal(np.array(json.loads(ran.stdout), np.float32), plain["noise"], ran.stderr)


def test_pairs_of_other_noise_are_refused(tmp_path):
    shard = {"id": np.arange(2, dtype=np.int32), "label": np.zeros(2, np.int32), "code": np.zeros((2, 3), np.uint16)}
    digest = pairset.write(tmp_path / "shard-00000.npz", shard)
    noise = np.asarray(noise_for(rng.example_keys(rng.stream(4, "pairs"), jnp.arange(2)), 3, 5))
    recorded = [round(float(x), 4) for x in noise[:, 0, :2].ravel()]
    facts = {"first": 0, "count": 2, "seed": 4}
    pairset.close(tmp_path, facts | {"noise": recorded}, {"shard-00000.npz": digest})
    assert len(pairset.load(tmp_path)) == 2
    pairset.close(tmp_path, facts | {"noise": recorded[::-1]}, {"shard-00000.npz": digest})
    with pytest.raises(UserError, match=r"was made from other noise \(\[.*use the JAX that made it"):
        pairset.load(tmp_path)
