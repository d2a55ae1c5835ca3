"""onestep* and skip-n: what they are by definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.method.baselines import marginals, onestep, skip
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Cond
from dd_jax.system.errors import UserError

BATCH = 3


def correlated(count=3000):
    """Codes whose tokens are all the same one, drawn from a distribution of the class's own."""
    rng = np.random.default_rng(0)
    label = np.arange(count) % tiny.CLASSES
    first = rng.integers(0, 4, count) % (label + 2)
    return np.repeat(first[:, None], 9, 1), label


@pytest.fixture(scope="module")
def raster():
    models, params = tiny.raster()
    code, label = correlated()
    return models, {**params, "marginals": marginals(code, label, np.arange(tiny.CLASSES))}


def test_a_class_without_samples_is_named():
    code, label = correlated()
    with pytest.raises(UserError, match=r"no teacher sample of class 1: raise config\.pairs\.count"):
        marginals(code[label != 1], label[label != 1], np.arange(tiny.CLASSES))


def test_onestep_tokens_follow_the_marginals_independently(raster):
    models, params = raster
    count = 6000
    keys = jax.random.split(jax.random.key(0), count)
    draft = jax.jit(onestep(models))(params, Cond(jnp.full(count, 2)), keys)
    seen, label = correlated()
    wanted = np.stack([np.bincount(seen[label == 2, i], minlength=tiny.VOCAB) / 1000 for i in range(9)])
    code = np.asarray(draft.code_BxL)
    share = np.stack([np.bincount(code[:, i], minlength=tiny.VOCAB) / count for i in range(9)])
    assert_allclose(share, wanted, atol=0.03)
    joint = np.zeros((tiny.VOCAB, tiny.VOCAB))
    np.add.at(joint, (code[:, 0], code[:, 1]), 1 / count)
    assert_allclose(joint, wanted[0][:, None] * wanted[1], atol=0.03)
    assert_array_equal(draft.token_BxLxC, params["tokenizer"]["codebook"][code])
    assert np.all(draft.exact_B == 0)


def test_skip_none_is_the_teacher(raster):
    models, params = raster
    keys = jax.random.split(jax.random.key(1), BATCH)
    skipped = jax.jit(skip(models, 0))(params, tiny.cond(BATCH), keys)
    teacher = jax.jit(generator("T0:9", models))(params, tiny.cond(BATCH), keys)
    assert_array_equal(skipped.code_BxL, teacher.code_BxL)
    assert_array_equal(skipped.token_BxLxC, teacher.token_BxLxC)


def test_skip_all_is_onestep(raster):
    models, params = raster
    keys = jax.random.split(jax.random.key(2), BATCH)
    skipped = skip(models, 9)(params, tiny.cond(BATCH), keys)
    assert_array_equal(skipped.code_BxL, onestep(models)(params, tiny.cond(BATCH), keys).code_BxL)


@pytest.mark.parametrize("drop", [False, True])
def test_skip_keeps_the_teachers_first_steps(raster, drop):
    models, params = raster
    keys = jax.random.split(jax.random.key(3), BATCH)
    skipped = jax.jit(skip(models, 4, drop))(params, tiny.cond(BATCH), keys)
    teacher = jax.jit(generator("T0:9", models))(params, tiny.cond(BATCH), keys)
    assert_array_equal(skipped.code_BxL[:, :5], teacher.code_BxL[:, :5])
    alone = onestep(models)(params, tiny.cond(BATCH), keys)
    assert_array_equal(skipped.code_BxL[:, 5:], alone.code_BxL[:, 5:])
    assert_array_equal(skipped.token_BxLxC[:, 5:], jnp.where(drop, 0, alone.token_BxLxC[:, 5:]))
