"""Pictures that a user hands over: every usual kind is the same picture, and what is none is told."""

import numpy as np
import pytest
from PIL import Image

from dd_jax.data.given import squares
from dd_jax.system.errors import UserError

GREY = np.random.default_rng(0).integers(0, 256, (8, 8), np.uint8)
COLOUR = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)


def test_usual_kinds_are_one_picture(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "grey.png")
    kinds = [
        GREY,
        GREY[..., None],
        GREY[None],
        GREY[None, ..., None],
        GREY / 255,
        (GREY / 255).astype(np.float16),
        GREY.astype(np.uint16) * 257,
        (GREY / 255).tolist(),
        np.stack([GREY] * 3, -1),
        np.dstack([GREY, np.full_like(GREY, 255)]),
        Image.fromarray(GREY),
        tmp_path / "grey.png",
        str(tmp_path / "grey.png"),
        [Image.fromarray(GREY)],
        [str(tmp_path / "grey.png")],
    ]
    for kind in kinds:
        found = squares(kind, 8, 1)
        assert (found.shape, found.dtype) == ((1, 8, 8, 1), np.uint8)
        np.testing.assert_allclose(found[0, ..., 0].astype(int), GREY, atol=1)
    np.testing.assert_array_equal(squares(GREY, 8, 3)[0], np.stack([GREY] * 3, -1))
    np.testing.assert_array_equal(squares(COLOUR, 8, 3)[0], COLOUR)
    np.testing.assert_array_equal(squares(np.eye(8, dtype=bool), 8, 1)[0, ..., 0], 255 * np.eye(8))


def test_many_of_any_size():
    several = squares([GREY, COLOUR, Image.new("RGB", (90, 40)), np.zeros((3, 200, 3), np.uint8)], 16, 3)
    assert several.shape == (4, 16, 16, 3)
    assert squares(np.stack([GREY] * 5), 8, 1).shape == (5, 8, 8, 1)
    assert squares(np.stack([GREY] * 3), 8, 1).shape == (3, 8, 8, 1)
    assert squares([], 8, 1).shape == squares(np.zeros((0, 8, 8, 1)), 8, 1).shape == (0, 8, 8, 1)


def test_crop_and_fit_alpha_and_turned():
    wide = np.zeros((10, 20, 3), np.uint8)
    assert squares(wide, 10, 3).max() == 0
    fit = squares(wide, 20, 3, "fit", "#102030")[0]
    np.testing.assert_array_equal(fit[0, 0], [16, 32, 48])
    np.testing.assert_array_equal(fit[10, :], 0)
    assert squares(wide, 20, 1, "fit")[0, 0, 0, 0] == 255
    clear = np.zeros((8, 8, 4), np.uint8)
    assert squares(clear, 8, 3).min() == 255
    assert squares(clear, 8, 1, background="black").max() == 0
    assert squares(clear, 8, 3, "fit").min() == 255
    half = Image.fromarray(np.repeat(np.arange(2, dtype=np.uint8) * 255, 4)[None].repeat(8, 0))
    half.getexif()[0x0112] = 3
    for size in ("crop", "fit"):
        np.testing.assert_array_equal(squares(half, 8, 1, size)[0, 0, :, 0], [255] * 4 + [0] * 4)


def test_what_is_no_picture_is_told_in_one_line(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    cases = [
        (GREY.astype(int), "is int64: give uint8"),
        (GREY.astype(float), r"from 4 to 248, and floats must lie in \[0, 1\].*/ 255"),
        (GREY / 127.5 - 1, r"goes from -0.9.* to 0.9.*, .* / 2 \+ 0\.5"),
        (GREY * np.nan, "goes from nan"),
        ([GREY, GREY * 1j], "image 1 is complex128"),
        (COLOUR.transpose(2, 0, 1), r"channels first: give images.transpose\(1, 2, 0\)"),
        (COLOUR.transpose(2, 0, 1)[None], r"transpose\(0, 2, 3, 1\)"),
        ([COLOUR.transpose(2, 0, 1)], r"image 0 is \(3, 8, 8\): channels first"),
        (np.zeros(8, np.uint8), r"uint8 \(8,\): give \(B, rows"),
        (np.zeros((0, 8), np.uint8)[None], "image 0 is"),
        (3, r"images are int64 \(\)"),
        (None, r"images are object \(\)"),
        ([None], r"image 0 is \(\)"),
        ([[1.0, 2.0], [3.0]], "images are no array"),
        (tmp_path / "none.png", r"none\.png is no picture that can be read \(No such file"),
        ([str(tmp_path / "text.png")], r"text\.png is no picture that can be read \(no picture format"),
        (tmp_path, "is no picture that can be read"),
        ("a\0b", "is no picture that can be read"),
    ]
    for given, told in cases:
        with pytest.raises(UserError, match=told) as error:
            squares(given, 8, 3)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="size='stretch' is unknown"):
        squares(GREY, 8, 1, "stretch")
    with pytest.raises(UserError, match="is no colour"):
        squares(GREY, 8, 1, background="blurple")
