"""What keeps a tokenizer's discriminator smooth, R1 and LeCam, and its codebook alive where batches are small."""

import dataclasses
import json
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from test_tokenizing import IMG, PLAYING, RECIPE, VQ8

from dd_jax.method import adversarial
from dd_jax.method.adversarial import Anchors, Smooth
from dd_jax.nn.discriminator import Discriminator
from dd_jax.stages import tokenizing
from dd_jax.stages.tokenizing import Trainer
from dd_jax.system.checkpoint import Checkpoints
from dd_jax.system.errors import UserError

NET = Discriminator(4, 1)
REAL, FAKE = jnp.asarray(IMG[:4]), jnp.asarray(IMG[4:8])


@pytest.fixture(scope="module")
def rival():
    return jax.jit(NET.init)(jax.random.key(0), REAL)["params"]


def judge(params, img):
    return NET.apply({"params": params}, img)


def test_r1_of_a_linear_discriminator_is_its_weights(rival):
    """Logits w x and 2 w x: their sum has the gradient 3 w, whatever x is."""
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(8, 8, 1)), jnp.float32)
    linear = lambda w, img: jnp.sum(w * img, (1, 2, 3))[:, None] * jnp.asarray([1.0, 2.0])  # noqa: E731
    value, slope = jax.value_and_grad(adversarial.r1, 1)(linear, weight, REAL)
    np.testing.assert_allclose(value, 9 * jnp.sum(weight**2) / 2, rtol=1e-5)
    np.testing.assert_allclose(slope, 9 * weight, rtol=1e-5)


def test_r1_is_the_square_of_finite_differences(rival):
    """Logits rise by it along each picture's own gradient."""
    score = jax.jit(lambda img: jnp.sum(judge(rival, img), (1, 2)))
    slope, step = jax.jit(jax.grad(lambda img: jnp.sum(score(img))))(REAL), 1e-3
    rise = (score(REAL + step * slope) - score(REAL - step * slope)) / (2 * step)
    np.testing.assert_allclose(jax.jit(lambda: adversarial.r1(judge, rival, REAL))(), jnp.mean(rise) / 2, rtol=2e-3)


def test_lecam_by_its_formula():
    real, fake, anchors = jnp.asarray([2.0, 0.5]), jnp.asarray([-3.0, 0.0]), Anchors(jnp.float32(1), jnp.float32(-2))
    np.testing.assert_allclose(adversarial.lecam(real, fake, anchors), (4**2 + 2.5**2) / 2 + (4**2 + 1) / 2)
    moved = anchors.moved(jnp.mean(real), jnp.mean(fake))
    np.testing.assert_allclose(moved, [0.99 + 0.0125, -1.98 - 0.015], rtol=1e-6)


def test_terms_are_the_discriminator_s_alone_and_nothing_without_a_weight(rival):
    anchors = Anchors(jnp.float32(0.5), jnp.float32(-1.5))

    @jax.jit
    def plain():
        fooled, by_img = jax.value_and_grad(lambda fake: adversarial.fooled(judge(rival, fake)))(FAKE)
        hinge, by_params = jax.value_and_grad(lambda p: adversarial.hinge(judge(p, REAL), judge(p, FAKE)))(rival)
        return fooled, hinge, by_img, by_params

    run = lambda smooth: jax.jit(lambda: adversarial.match(judge, rival, REAL, FAKE, smooth))()  # noqa: E731
    without, found = run(Smooth()), run(Smooth(0.3, 0.2, anchors))
    chex.assert_trees_all_equal(tuple(without), (*plain(), {}))
    chex.assert_trees_all_equal(found.by_img_BxRxRxc, without.by_img_BxRxRxc)
    assert (found.hinge, found.fooled) == (without.hinge, without.fooled)

    def whole(params):
        real, fake = judge(params, REAL), judge(params, FAKE)
        far = adversarial.lecam(real, fake, anchors)
        return adversarial.hinge(real, fake) + 0.3 * adversarial.r1(judge, params, REAL) + 0.2 * far

    chex.assert_trees_all_close(found.by_params, jax.jit(jax.grad(whole))(rival), rtol=1e-4, atol=1e-6)
    assert {*found.terms} == {"r1", "lecam", "real", "fake"}


def test_with_all_of_it_resumed_equals_uninterrupted(tmp_path):
    """And a checkpoint of before codes were counted goes on, their count begun anew; one without anchors does not."""
    aims = dataclasses.replace(PLAYING, gan_r1=0.1, gan_lecam=0.1, revive_every=4)
    trainer = Trainer(VQ8, RECIPE, aims, 0, counts=True)
    whole = tokenizing.run(tmp_path, trainer, IMG, {})
    shutil.rmtree(tmp_path / "6")
    like = trainer.begin(trainer.start(IMG))
    with Checkpoints(tmp_path) as checkpoints:
        state, place = checkpoints.restore(like)
    assert 0 < int(state.used_V.sum()) <= 16
    assert float(state.anchors.real) != 0 != float(state.anchors.fake)
    chex.assert_trees_all_equal(tokenizing.run(tmp_path, trainer, IMG, {}), whole)
    rows, anchors = map(json.loads, (tmp_path / "curve.jsonl").read_text().splitlines()[2:]), Anchors.zero()
    for row in rows:
        anchors = anchors.moved(row["discriminator_real"], row["discriminator_fake"])
    with Checkpoints(tmp_path) as checkpoints:
        np.testing.assert_allclose(checkpoints.restore(like)[0].anchors, anchors, rtol=1e-3)
    for name, lacks in (("used", "used_V"), ("anchors", "anchors")):
        with Checkpoints(tmp_path / name) as checkpoints:
            checkpoints.save(3, dataclasses.replace(state, **{lacks: None}), place)
    with Checkpoints(tmp_path / "used") as checkpoints:
        chex.assert_trees_all_equal(checkpoints.restore(like)[0], dataclasses.replace(state, used_V=like.used_V))
    with pytest.raises(UserError, match=r"anchors\.fake is not there, float32 \(\) here"):
        tokenizing.run(tmp_path / "anchors", trainer, IMG, {})


@pytest.mark.parametrize("pieces", [1, 2])
def test_codes_that_any_batch_has_used_since_the_last_revival_live_on(pieces):
    """Two batches use different ones of 64 codes: those that neither used begin again, and the count does."""
    tokenizer = dataclasses.replace(VQ8, vocab=64)
    recipe = dataclasses.replace(RECIPE, lr=0.0, steps=100, accumulate=pieces)
    trainer = Trainer(tokenizer, recipe, dataclasses.replace(PLAYING, gan_weight=0.0, revive_every=2), 0, counts=True)
    state, step = trainer.begin(trainer.start(IMG)), jax.jit(trainer.step)
    before, encode = tokenizer.raw_codebook(state.params), jax.jit(tokenizer.encode)
    batches = [jnp.asarray(some) for some in (IMG[:8], np.broadcast_to(IMG[8], (8, 8, 8, 1)))]
    used = [np.isin(np.arange(64), encode(state.params, some)) for some in batches]
    for seen, some in zip(np.logical_or.accumulate(used), batches, strict=True):
        np.testing.assert_array_equal(state.used_V | used[0], used[0])
        state, metrics = step(state, {"img": some}, {})
        assert "used_V" not in metrics
        kept = seen if int(state.step) == 2 else np.full(64, True)
        np.testing.assert_array_equal((tokenizer.raw_codebook(state.params) == before).all(1), kept)
    assert used[1].sum() < seen.sum() < 64
    assert not state.used_V.any()


def test_use_is_counted_where_a_batch_has_few_codes():
    section = {"steps": 1, "batch": 8, "lr": 0.1}
    counts = [Trainer.of(VQ8, section, 0, tokens=tokens).counts for tokens in (None, 7, 8)]  # of 16 codes, times 4
    assert counts == [False, True, False]
