"""Scores against the formulas of other programs, written out again, on the same random features."""

import numpy as np
import pytest
import scipy.linalg

from dd_jax.metrics import scores


def features(count, seed, width=48, shift=0.0, degenerate=False):
    """Non-negative and correlated, as pooled activations are; with `degenerate`, two of them never fire."""
    rng = np.random.default_rng([seed, width])
    mix = np.random.default_rng(5).standard_normal((width, width)) / np.sqrt(width)
    x = np.maximum(rng.standard_normal((count, width)) @ mix + shift, 0).astype(np.float32)
    if degenerate:
        x[:, :2] = 0
    return x


def frechet_by_sqrtm(a, b, eps=1e-6):
    """As pytorch-fid and ADM's evaluator have it: the matrix root of S1 S2, made regular only where that fails."""
    (m1, s1), (m2, s2) = ((x.mean(0, dtype=np.float64), np.cov(x.astype(np.float64), rowvar=False)) for x in (a, b))
    root = scipy.linalg.sqrtm(s1 @ s2)
    if not np.isfinite(root).all():
        more = eps * np.eye(len(s1))
        root = scipy.linalg.sqrtm((s1 + more) @ (s2 + more))
    return float(((m1 - m2) ** 2).sum() + np.trace(s1) + np.trace(s2) - 2 * np.trace(root.real))


@pytest.mark.parametrize("width", [3, 48, 130])
@pytest.mark.parametrize("shift", [0.0, 0.4])
def test_frechet(width, shift):
    a, b = features(700, 0, width), features(500, 1, width, shift)
    want = frechet_by_sqrtm(a, b)
    assert scores.frechet_features(a, b) == pytest.approx(want, rel=1e-6, abs=1e-6)
    assert scores.frechet(*scores.statistics(a), *scores.statistics(b)) == pytest.approx(want, rel=1e-6, abs=1e-6)


def test_frechet_of_few_samples_and_dead_features():
    """There the matrix root itself is only good to about 1e-5 of the traces."""
    a, b = features(700, 0, degenerate=True), features(30, 1, shift=0.3, degenerate=True)
    assert scores.frechet_features(a, b) == pytest.approx(frechet_by_sqrtm(a, b), rel=1e-4)


@pytest.mark.parametrize("split", [100, 130, 1000])
def test_inception_score(split):
    """ADM's evaluator: p log p - p log mean p, over parts in the order given, the last one shorter."""
    logits = np.random.default_rng(0).standard_normal((1000, 40)) * 3
    parts = []
    for i in range(0, 1000, split):
        p = np.exp(logits[i : i + split])
        p /= p.sum(1, keepdims=True)
        parts.append(np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean()))
    got = scores.inception_score(logits.astype(np.float32), split)
    assert got == pytest.approx((np.mean(parts), np.std(parts)), rel=1e-5, abs=1e-9)


def distances(a, b):
    """All squared distances, in float64, term by term."""
    return ((a[:, None].astype(np.float64) - b[None]) ** 2).sum(-1)


@pytest.mark.parametrize("k", [1, 3, 5])
def test_precision_and_recall(k):
    """ADM's manifold estimator: balls about each reference, about each sample; a border belongs to its ball."""
    ref, sample = features(300, 0, 12), features(260, 1, 12, 0.35)
    across = distances(ref, sample)
    ref_radius, sample_radius = (np.sort(distances(x, x), 1)[:, k] for x in (ref, sample))
    want = (across <= ref_radius[:, None]).any(0).mean(), (across <= sample_radius).any(1).mean()
    assert 0.05 < want[0] < 1
    np.testing.assert_allclose(scores.precision_recall(ref, sample, k, block=64), want, atol=1e-7)


def test_other_programs_on_the_same_features():
    """What pytorch-fid 0.3.0 and torch-fidelity 0.4.0 say of them; the latter's means and distances are float32."""
    a, b = features(700, 0, 130), features(500, 1, 130, 0.3)
    assert scores.frechet_features(a, b) == pytest.approx(9.964662058460732, rel=1e-9)  # pytorch-fid
    assert scores.frechet_features(a, b) == pytest.approx(9.96466175647167, rel=1e-7)
    for k, pair in {1: (0.77285713, 0.042), 3: (0.9342857, 0.096), 5: (0.97, 0.154)}.items():
        assert scores.precision_recall(b, a, k) == pytest.approx(pair, abs=1e-6)
    logits = (np.random.default_rng(0).standard_normal((1000, 40)) * 3).astype(np.float32)
    assert scores.inception_score(logits, 250) == pytest.approx((8.070387231196282, 0.46935418996996586), rel=1e-9)
