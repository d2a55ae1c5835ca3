"""The flow backwards: noises of a code come back to it, are Gaussian, and make a teacher draw what was there."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import tiny

import dd_jax
from dd_jax.method import inversion
from dd_jax.method.fewstep import run_plan
from dd_jax.method.filtering import Filter
from dd_jax.method.flow import FlowSolver, transport
from dd_jax.method.inversion import Backwards, Inverted, noise_of, slerp
from dd_jax.system import rng
from dd_jax.system.errors import UserError

FAMILIES = {"raster": tiny.raster, "scales": tiny.scales}
RECIPES = {"V64 C4": (64, 4, False), "V4096 C32": (4096, 32, False), "V16384 C8": (16384, 8, True)}
# Of flat p, and of peaked: the likeliest code near .3. Flat p has many boundaries, which 16 evaluations forwards miss.
STEPS = {2.0: Backwards(steps=62, redraws=0), 4.0: Backwards(steps=62, bend=2.0, redraws=0)}
FORWARDS = {2.0: FlowSolver(evaluations=32), 4.0: FlowSolver()}
invert = jax.jit(inversion.invert, static_argnums=(4, 5))
run = jax.jit(transport, static_argnums=3)


def drawn(recipe, count, spread=2.0):
    """(codes drawn from p, logits, codebook) of `count` tokens."""
    vocab, dim, unit = RECIPES[recipe]
    draw = np.random.default_rng(0)
    codebook = draw.standard_normal((vocab, dim)).astype(np.float32)
    if unit:
        codebook /= np.linalg.norm(codebook, axis=-1, keepdims=True)
    logits = jnp.asarray(spread * draw.standard_normal((count, vocab)), jnp.float32)
    return jax.random.categorical(jax.random.key(1), logits).astype(jnp.int32), logits, jnp.asarray(codebook)


def assert_standard_normal(noise_NxC):
    """Moments within four standard errors, and each dimension's distribution by Kolmogorov and Smirnov."""
    count, dim = noise_NxC.shape
    assert np.abs(noise_NxC.mean(0)).max() < 4 / np.sqrt(count)
    assert np.abs(np.cov(noise_NxC.T) - np.eye(dim)).max() < 5 / np.sqrt(count)
    assert min(scipy.stats.kstest(noise_NxC[:, i], "norm").pvalue for i in range(dim)) > 1e-3 / dim


@pytest.mark.parametrize(("recipe", "count"), [("V64 C4", 4000), ("V4096 C32", 64)])
def test_what_is_inverted_comes_back(recipe, count):
    code, logits, codebook = drawn(recipe, count)
    noise, exact = invert(code, logits, codebook, rng.key(3), FlowSolver(), Backwards())
    assert noise.shape == (count, codebook.shape[1])
    assert np.asarray(exact).all()
    if count > 1000:
        np.testing.assert_array_equal(run(noise, logits, codebook, FlowSolver()), code)
        assert_standard_normal(np.asarray(noise))


@pytest.mark.slow
@pytest.mark.parametrize("spread", [2.0, 4.0])
@pytest.mark.parametrize("recipe", RECIPES)
def test_nearly_all_come_back_at_once(recipe, spread):
    code, logits, codebook = drawn(recipe, 2000, spread)
    noise, exact = invert(code, logits, codebook, rng.key(3), FORWARDS[spread], STEPS[spread])
    assert np.mean(exact) >= 0.995
    assert_standard_normal(np.asarray(noise))
    _, exact = invert(code, logits, codebook, rng.key(3), FlowSolver(), Backwards())
    assert np.asarray(exact).all()


def test_a_tokens_noise_does_not_depend_on_its_batch():
    code, logits, codebook = drawn("V64 C4", 4000)
    keys = jax.random.split(rng.key(3), 4000)  # as `invert` itself splits it
    whole = invert(code, logits, codebook, rng.key(3), FlowSolver(), Backwards()).noise
    some = np.array([150, 3, 77, 3999, 1001, 2, 1, 0])
    alone = invert(code[some], logits[some], codebook, keys[some], FlowSolver(), Backwards()).noise
    np.testing.assert_allclose(alone, whole[some], atol=1e-4)


def test_codes_that_cannot_be_and_shapes_that_do_not_fit():
    code, logits, codebook = drawn("V64 C4", 8)
    cut = logits.at[2, code[2]].set(-jnp.inf).at[5].set(jnp.nan)
    keys = jax.random.split(rng.key(0), 8)
    noise, exact = invert(code, cut, codebook, keys, FlowSolver(), Backwards())
    np.testing.assert_array_equal(exact, [True, True, False, True, True, False, True, True])
    assert np.isfinite(noise[:5]).all()
    with pytest.raises(UserError, match=r"code \(8,\), logits \(7, 64\).*do not fit"):
        inversion.invert(code, logits[:7], codebook, rng.key(0))


def random_codes(models):
    """Of two pictures: half of them most unlikely."""
    return jax.random.randint(jax.random.key(0), (2, models.layout.tokens), 0, tiny.VOCAB)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_draws_from_its_noise_the_codes_that_were_there(family):
    models, params = FAMILIES[family]()
    code, cond = random_codes(models), tiny.cond(2)

    @jax.jit
    def both(params, code):
        keys = jax.random.split(rng.key(0), 2)
        found = noise_of(models, params, cond, code, keys)
        return found, run_plan(f"T0:{models.layout.steps}", models, params, cond, found.noise, keys).code_BxL

    found, again = both(params, code)
    assert isinstance(found, Inverted)
    assert np.asarray(found.exact).all()
    np.testing.assert_array_equal(again, code)


def test_codes_that_the_filter_drops_are_told():
    models, params = tiny.raster()
    models = dataclasses.replace(models, filter=Filter(top_k=4))
    code, cond = random_codes(models), tiny.cond(2)

    @jax.jit
    def all(params, code):
        found = noise_of(models, params, cond, code, jax.random.split(rng.key(0), 2))
        logits = models.teacher.parallel(params["teacher"], cond, code)
        both = jnp.stack([models.filter(logits), logits])
        return found, logits, transport(jnp.stack([found.noise] * 2), both, params["tokenizer"]["codebook"])

    found, logits, (filtered, plain) = all(params, code)
    place = jnp.sum(logits > jnp.take_along_axis(logits, code[..., None], -1), -1)
    np.testing.assert_array_equal(found.exact, place < 4)
    assert 0 < np.mean(found.exact) < 1
    np.testing.assert_array_equal(filtered == code, found.exact)
    np.testing.assert_array_equal(np.where(found.exact, filtered, plain), code)


def test_slerp_walks_on_great_circles():
    a, b = np.random.default_rng(0).standard_normal((2, 5, 3, 4)).astype(np.float32)
    way = np.asarray(dd_jax.slerp(a, b, np.linspace(0, 1, 5)))
    assert way.shape == (5, 5, 3, 4)
    np.testing.assert_allclose(way[0], a, atol=1e-5)
    np.testing.assert_allclose(way[-1], b, atol=1e-5)
    np.testing.assert_allclose(slerp(a, b, 0.25), way[1], atol=1e-6)
    length = np.linalg.norm(way, axis=-1)
    np.testing.assert_allclose(length, np.linspace(length[0], length[-1], 5), rtol=1e-4)
    unit = way / length[..., None]
    turned = np.sum(unit[1:] * unit[:-1], -1)
    np.testing.assert_allclose(turned, np.broadcast_to(turned[:1], turned.shape), atol=1e-4)
    for other in (a, -a, 0 * a):
        assert np.isfinite(slerp(a, other, [0, 0.5, 1])).all()
    np.testing.assert_allclose(slerp(a, a, 0.5), a, atol=1e-5)
    with pytest.raises(UserError, match="two of one shape"):
        slerp(a, b[:1], 0.5)
