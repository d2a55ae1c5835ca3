"""Scores against the reference programs' numbers; the judge's interface and gradients."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.errors import UserError
from dd_jax.metrics import neighbours, scores
from dd_jax.metrics.judge import Judge

GOLDEN = Path(__file__).parent / "goldens/eval/stats"


@pytest.fixture(scope="module")
def golden():
    return np.load(GOLDEN / "data.npz"), json.loads((GOLDEN / "expected.json").read_text())


def test_statistics(golden):
    data, _ = golden
    mean, cov = scores.statistics(data["ref"])
    np.testing.assert_allclose(mean, data["mu_ref"], atol=1e-6)
    np.testing.assert_allclose(cov, data["sigma_ref"], rtol=1e-6, atol=1e-8)


def test_frechet_full_rank(golden):
    data, expected = golden
    want = expected["fid_full_rank(sample 400 vs ref 500, D=64)"]
    got = scores.frechet_features(data["sample"], data["ref"])
    assert got == pytest.approx(want["exact_eigh"], rel=1e-9)
    assert got == pytest.approx(want["adm_evaluator"], rel=1e-6)
    sums = (data["mu_sample"], data["sigma_sample"], data["mu_ref"], data["sigma_ref"])
    assert scores.frechet(*sums) == pytest.approx(want["adm_evaluator"], rel=1e-6)
    assert scores.frechet_features(data["ref"], data["ref"]) == pytest.approx(0, abs=1e-9)


def test_frechet_rank_deficient(golden):
    data, expected = golden
    want = expected["fid_rank_deficient(sample[:30] vs ref[:40], D=64)"]["exact_nuclear_norm_svd"]
    few, many = data["sample"][:30], data["ref"][:40]
    assert scores.frechet_features(few, many) == pytest.approx(want, abs=1e-9)
    assert scores.frechet(*scores.statistics(few), *scores.statistics(many)) == pytest.approx(want, abs=1e-5)


def test_frechet_with_a_dead_feature(golden):
    """A ReLU feature that never fires makes both covariances singular: Cholesky fails, eigh takes over."""
    a, b = (np.pad(golden[0][name], ((0, 0), (0, 1))) for name in ("sample", "ref"))
    with pytest.raises(np.linalg.LinAlgError):
        np.linalg.cholesky(scores.statistics(a)[1])
    want = scores.frechet_features(golden[0]["sample"], golden[0]["ref"])
    assert scores.frechet_features(a, b) == pytest.approx(want, rel=1e-7)


@pytest.mark.parametrize("block", [64, 100, 1024])
def test_precision_recall(golden, block):
    data, expected = golden
    got = scores.precision_recall(data["ref"], data["sample"], 3, block)
    np.testing.assert_allclose(got, expected["pr_brute_float64"], atol=1e-7)
    for k, want in expected["pr_numpy_k1_k5_brute"].items():
        got = scores.precision_recall(data["ref"], data["sample"], int(k), block)
        np.testing.assert_allclose(got, want, atol=1e-7)


def test_radii(golden):
    data, _ = golden
    for name in ("ref", "sample"):
        x = data[name] - data[name].mean(0)
        np.testing.assert_allclose(neighbours.radii(x, 3, 64), data[f"radii_{name}_f64"], rtol=1e-5)


def test_bad_features_are_named():
    with pytest.raises(UserError, match="more than k = 3 samples, got 3"):
        scores.precision_recall(np.ones((9, 2)), np.ones((3, 2)))
    with pytest.raises(UserError, match="1 of 4 feature vectors"):
        scores.statistics(np.array([[1.0], [np.nan], [2.0], [3.0]]))
    with pytest.raises(UserError, match=r"\(1, 2\)"):
        scores.frechet_features(np.ones((1, 2)), np.ones((5, 2)))


def test_class_accuracy():
    assert scores.class_accuracy(np.eye(4), np.array([0, 1, 2, 0])) == 0.75


@pytest.mark.parametrize(("side", "patch"), [(28, 2), (8, 1)])
def test_judge(side, patch):
    judge = Judge(side, patch=patch)
    params = jax.jit(judge.init)(jax.random.key(0))
    img = jax.random.uniform(jax.random.key(1), (5, side, side, 1), minval=-1.0)
    label = jnp.arange(5)
    logits, features, (loss, aux) = jax.jit(
        lambda p: (judge.logits(p, img), judge.features(p, img), judge.loss(p, img, label))
    )(params)
    assert logits.shape == (5, 10)
    assert features.shape == (5, 64)
    assert float(features.min()) >= 0
    assert float(loss) == pytest.approx(np.log(10), rel=0.5)
    assert set(aux) == {"loss", "accuracy"}


def test_perceptual_distance():
    judge = Judge(8, patch=1)
    params = jax.jit(judge.init)(jax.random.key(0))
    img = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1), minval=-1.0)
    near, far = img + 0.01, -img
    distance = jax.jit(judge.perceptual)
    np.testing.assert_allclose(distance(params, img, img), np.zeros(3), atol=1e-7)
    assert (distance(params, img, near) < distance(params, img, far)).all()
    for x in jax.jit(judge.maps)(params, img):
        norm = np.linalg.norm(x, axis=-1)
        assert ((norm < 1e-6) | (np.abs(norm - 1) < 1e-5)).all()


def test_perceptual_gradient_is_finite_where_maps_vanish():
    judge = Judge(8, patch=1)
    params = jax.tree.map(jnp.zeros_like, jax.jit(judge.init)(jax.random.key(0)))  # every map is zero
    a, b = jnp.ones((2, 8, 8, 1)), jnp.zeros((2, 8, 8, 1))
    gradient = jax.jit(jax.grad(lambda p, x: judge.perceptual(p, x, b).sum(), (0, 1)))(params, a)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))
