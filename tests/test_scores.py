"""Scores against the reference programs' numbers; the classifier's interface and gradients."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inception_recipe import recipe

from dd_jax.metrics import classified, moments, neighbours, scores
from dd_jax.metrics.classifier import Classifier
from dd_jax.system.errors import UserError

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


def test_frechet_to_given_statistics(golden):
    """Few samples against statistics: as exact as against the features that they come from."""
    data, _ = golden
    many = data["ref"]
    for few in (data["sample"][:30], data["sample"]):
        want = scores.frechet_features(few, many)
        assert scores.frechet_to(few, *scores.statistics(many)) == pytest.approx(want, abs=1e-9)


def test_the_published_2048_dimensions():
    """goldens/eval/stats: 11.0810043223 by four solvers."""
    ref, sample = recipe.inception_features(6000, "ref"), recipe.inception_features(5000, "sample", 0.5)
    got = scores.frechet_to(sample, *scores.statistics(ref))
    assert got == pytest.approx(11.0810043223, rel=1e-9)


@pytest.mark.parametrize("split", [5000, 250, 300])
def test_inception_score(golden, split):
    """The reference's exact numbers (its own float32 ones are 1e-7 away), an uneven last part included."""
    data, expected = golden
    logits = np.concatenate([data["ref"], data["sample"]]).astype(np.float64) @ data["is_W"].astype(np.float64)
    mean, spread = scores.inception_score(logits, split)
    assert mean == pytest.approx(expected[f"is_float64_split_size_{split}"], rel=1e-9)
    assert (spread == 0) == (split == 5000)


def test_inception_score_laws():
    sure = 1000.0 * np.eye(10)[np.arange(500) % 10]  # a float32 softmax times its logarithm would be NaN here
    assert scores.inception_score(sure)[0] == pytest.approx(10, rel=1e-9)
    assert scores.inception_score(np.ones((500, 10)))[0] == pytest.approx(1, rel=1e-12)
    with pytest.raises(UserError, match="parts of 0 samples"):
        scores.inception_score(sure, 0)


def test_precision_recall_in_float16(golden):
    """As the evaluator's float16 path: no exact target (see goldens/eval/README.md), but within 0.005."""
    data, expected = golden
    got = scores.precision_recall(data["ref"], data["sample"], dtype="float16")
    np.testing.assert_allclose(got, expected["pr_adm_fp16path"], atol=0.005)
    got = scores.precision_recall(1024 * data["ref"], 1024 * data["sample"], dtype="float16")  # overflows
    np.testing.assert_allclose(got, expected["pr_adm_fp32path(features*1024 -> fp16 overflows)"], atol=1e-7)


def test_rows_in_several_tiles(golden, monkeypatch):
    data, expected = golden
    monkeypatch.setattr(neighbours, "ROWS", 128)
    got = scores.precision_recall(data["ref"], data["sample"], 3, 100)
    np.testing.assert_allclose(got, expected["pr_brute_float64"], atol=1e-7)


def test_distances_are_never_n_by_n(golden):
    """The largest intermediate of a pass is rows x block."""
    x = np.zeros((4096, 8), np.float32)
    columns, valid = neighbours.blocks(x, 64)
    text = neighbours._row_radii.lower(x[:512], columns, valid, 3, "float32").compile().as_text()
    assert "512,64" in text
    assert "512,4096" not in text


def test_moments_as_they_come(golden, monkeypatch):
    monkeypatch.setattr(moments, "BUFFER", 100)
    x = golden[0]["ref"] + 1000  # far from zero, where raw second moments would lose everything
    sums = moments.Moments()
    for part in np.split(x, [7, 130, 131, 400]):
        sums.add(part)
    for got, want in zip(sums.statistics(), scores.statistics(x), strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-9, atol=1e-9)
    with pytest.raises(UserError, match="statistics of 0 images"):
        moments.Moments().statistics()


def test_standard_error_is_the_spread_of_repeated_draws():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((60, 500, 8)) + 0.3
    truth = np.std([scores.frechet_to(x, np.zeros(8), np.eye(8)) for x in draws])
    found = [scores.standard_error(x, np.zeros(8), np.eye(8), 40) for x in draws[:8]]
    assert np.mean(found) == pytest.approx(truth, rel=0.25)
    with pytest.raises(UserError, match="1 resamples have no spread"):
        scores.standard_error(draws[0], np.zeros(8), np.eye(8), 1)


def test_fid_infinity_has_less_bias():
    rng = np.random.default_rng(0)
    draws = rng.standard_normal((8, 2000, 16))  # of the very Gaussian: the distance is 0
    biased = np.mean([scores.frechet_to(x, np.zeros(16), np.eye(16)) for x in draws])
    corrected = np.mean([scores.extrapolate(x, np.zeros(16), np.eye(16)) for x in draws])
    assert abs(corrected) < biased / 5
    with pytest.raises(UserError, match="it needs more than 32"):
        scores.extrapolate(draws[0][:30], np.zeros(16), np.eye(16))


def test_bad_features_are_named():
    with pytest.raises(UserError, match="more than k = 3 samples, got 3"):
        scores.precision_recall(np.ones((9, 2)), np.ones((3, 2)))
    with pytest.raises(UserError, match="1 of 4 feature vectors"):
        scores.statistics(np.array([[1.0], [np.nan], [2.0], [3.0]]))
    with pytest.raises(UserError, match=r"\(1, 2\)"):
        scores.frechet_features(np.ones((1, 2)), np.ones((5, 2)))
    x = np.random.default_rng(0).standard_normal((9, 3))
    for wrong in (scores.frechet_features, scores.precision_recall):
        with pytest.raises(UserError, match="3 and 2 dimensions"):
            wrong(x, x[:, :2])
    with pytest.raises(UserError, match="2 and 3 dimensions"):
        scores.frechet_to(x, *scores.statistics(x[:, :2]))
    with pytest.raises(UserError, match="not finite: record them again"):
        scores.frechet_to(x, np.full(3, np.nan), np.eye(3))
    with pytest.raises(UserError, match="distances in 'int8'"):
        scores.precision_recall(x, x, dtype="int8")


def test_class_accuracy():
    assert scores.class_accuracy(np.eye(4), np.array([0, 1, 2, 0])) == 0.75


@pytest.mark.parametrize(("side", "patch"), [(28, 2), (8, 1)])
def test_judge(side, patch):
    classifier = Classifier(side, patch=patch)
    params = jax.jit(classifier.init)(jax.random.key(0))
    img = jax.random.uniform(jax.random.key(1), (5, side, side, 1), minval=-1.0)
    label = jnp.arange(5)
    logits, features, (loss, aux) = jax.jit(
        lambda p: (classifier.logits(p, img), classifier.features(p, img), classifier.loss(p, img, label))
    )(params)
    assert logits.shape == (5, 10)
    assert features.shape == (5, 64)
    assert float(features.min()) >= 0
    assert float(loss) == pytest.approx(np.log(10), rel=0.5)
    assert set(aux) == {"loss", "accuracy"}


def test_perceptual_distance():
    classifier = Classifier(8, patch=1)
    params = jax.jit(classifier.init)(jax.random.key(0))
    img = jax.random.uniform(jax.random.key(1), (3, 8, 8, 1), minval=-1.0)
    near, far = img + 0.01, -img
    distance = jax.jit(classifier.perceptual)
    np.testing.assert_allclose(distance(params, img, img), np.zeros(3), atol=1e-7)
    assert (distance(params, img, near) < distance(params, img, far)).all()
    for x in jax.jit(classifier.maps)(params, img):
        norm = np.linalg.norm(x, axis=-1)
        assert ((norm < 1e-6) | (np.abs(norm - 1) < 1e-5)).all()


def test_perceptual_gradient_is_finite_where_maps_vanish():
    classifier = Classifier(8, patch=1)
    params = jax.tree.map(jnp.zeros_like, jax.jit(classifier.init)(jax.random.key(0)))  # every map is zero
    a, b = jnp.ones((2, 8, 8, 1)), jnp.zeros((2, 8, 8, 1))
    gradient = jax.jit(jax.grad(lambda p, x: classifier.perceptual(p, x, b).sum(), (0, 1)))(params, a)
    assert all(bool(jnp.isfinite(g).all()) for g in jax.tree.leaves(gradient))


def test_variance_within_classes():
    features = np.array([[0.0, 1.0], [2.0, 1.0], [5.0, 5.0], [5.0, 9.0], [7.0, 7.0]])
    assert scores.within_class(features, np.array([0, 0, 1, 1, 2])) == pytest.approx((2 + 8) / 2)
    assert scores.within_class(features, np.arange(5)) is None


def test_few_held_out_pictures_leave_precision_out():
    draw = np.random.default_rng(0)
    features, teacher, seen = draw.normal(size=(20, 4)), draw.normal(size=(20, 4)), draw.normal(size=(20, 3))
    found = [
        classified.classified(features, seen, seen.argmax(-1), classified.References(draw.normal(size=(n, 4)), teacher))
        for n in (3, 20)
    ]
    assert [row["precision"] is None and row["recall"] is None for row in found] == [True, False]
    assert found[0]["held_out"] == 3
    assert np.isfinite(found[0]["fd"])
