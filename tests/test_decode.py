"""One picture of one's own: 8 bits, opaque, upright, a square, and what is told of it."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from dd_jax.data import decode
from dd_jax.data.pictures import squared
from dd_jax.system.errors import UserError

RAMP = np.arange(160, 224, dtype=np.uint16).reshape(8, 8)  # as 8 bits


def stored(img, format, **more):
    """Through a file."""
    buffer = io.BytesIO()
    img.save(buffer, format, **more)
    return Image.open(buffer)


def prepared(img, mode="L", background="white"):
    made, told = decode.prepared(img, 8, mode, decode.ground(background))
    return made, ", ".join(told)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled(format):
    pgm = io.BytesIO(b"P5 8 8 65535\n" + (RAMP * 257).astype(">u2").tobytes())
    made, told = prepared(Image.open(pgm) if format == "PPM" else stored(Image.fromarray(RAMP * 257), format))
    np.testing.assert_array_equal(made[..., 0], RAMP)
    assert told == "16 bits scaled to 8"


@pytest.mark.parametrize(
    ("values", "format"),
    [
        (RAMP.astype(np.int32) * 257, "TIFF"),  # mode I
        (RAMP.astype(np.int32), "TIFF"),
        (RAMP.astype(np.float32) / 255, "TIFF"),  # mode F
        (RAMP.astype(np.float32), "TIFF"),
        (RAMP.astype(np.float32) * 257, "TIFF"),
    ],
)
def test_integers_and_floats_are_scaled_by_their_range(values, format):
    made, told = prepared(stored(Image.fromarray(values), format))
    np.testing.assert_array_equal(made[..., 0], RAMP)
    assert told == "16 bits scaled to 8"


def test_big_endian_values_of_a_dark_picture_stay_dark():
    dark = (RAMP // 32).astype(np.uint16)  # 5 and 6 of 65,535
    made, _ = prepared(stored(Image.frombytes("I;16B", (8, 8), dark.astype(">u2").tobytes()), "TIFF"))
    assert made.max() == 0
    bright = Image.frombytes("I;16B", (8, 8), (RAMP * 257).astype(">u2").tobytes())
    np.testing.assert_array_equal(squared(bright, 8, "L")[..., 0], RAMP)


def test_colours_of_sixteen_bits_are_told():
    ppm = b"P6 8 8 65535\n" + np.repeat(RAMP[..., None] * 257, 3, -1).astype(">u2").tobytes()
    made, told = prepared(Image.open(io.BytesIO(ppm)), "RGB")
    np.testing.assert_array_equal(made[..., 1], RAMP)
    assert told == "16 bits scaled to 8"


@pytest.mark.parametrize("value", [-1.0, 70_000.0, np.nan])
def test_numbers_of_no_known_range_are_refused(value):
    with pytest.raises(ValueError, match="save it with 8 or 16 bits"):
        prepared(Image.fromarray(np.full((8, 8), value, np.float32)))


def palette(transparency):
    img = Image.new("P", (8, 8))
    img.putpalette([10, 20, 200, 0, 255, 0])
    return stored(img, "PNG", transparency=transparency)


def sixteen_bits(**info):
    """As a PNG of one transparent value is opened, which not every Pillow writes."""
    img = Image.fromarray(np.full((8, 8), 300, np.uint16))
    img.info.update(info)
    return img


CLEAR = {
    "RGBA": lambda: Image.new("RGBA", (8, 8), (9, 9, 9, 0)),
    "LA": lambda: stored(Image.new("LA", (8, 8), (0, 0)), "PNG"),
    "La": lambda: Image.new("La", (8, 8)),
    "PA": lambda: Image.new("PA", (8, 8)),
    "palette, an index": lambda: palette(0),
    "palette, bytes": lambda: palette(bytes([0, 255])),
    "gif": lambda: stored(Image.new("P", (8, 8)), "GIF", transparency=0),
    "L, a value": lambda: stored(Image.new("L", (8, 8), 7), "PNG", transparency=7),
    "1, a value": lambda: stored(Image.new("1", (8, 8), 0), "PNG", transparency=0),
    "RGB, a value": lambda: stored(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)),
    "16 bits, a value": lambda: sixteen_bits(transparency=300),
    "webp": lambda: stored(Image.new("RGBA", (8, 8), (9, 9, 9, 0)), "WEBP", lossless=True),
}


@pytest.mark.parametrize("kind", CLEAR)
def test_what_is_transparent_shows_the_background(kind):
    made, told = prepared(CLEAR[kind](), "RGB")
    assert (made == 255).all()
    assert "transparent, laid on #ffffff" in told
    made, told = prepared(CLEAR[kind](), "RGB", "#102030")
    assert (made == (0x10, 0x20, 0x30)).all()
    assert "laid on #102030" in told


def test_what_is_opaque_is_left_alone():
    assert prepared(Image.new("RGBA", (8, 8), (1, 2, 3, 255)), "RGB")[1] == ""
    half = Image.new("RGBA", (8, 8), (0, 0, 0, 128))
    assert prepared(half)[0][0, 0, 0] == 127


def test_a_background_that_is_no_colour():
    with pytest.raises(UserError, match=r"config\.data\.background=whit is no colour"):
        decode.ground("whit")
    assert decode.ground(None) == (255, 255, 255)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("turn", [1, 3, 6, 8])
def test_exif_orientation_is_applied_once(format, turn):
    """Bright where the first row is shown: above, below, right, left."""
    img = np.zeros((32, 32), np.uint8)
    img[:8] = 255
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"quality": 95} if format in ("JPEG", "WEBP") else {}
    made, told = prepared(stored(Image.fromarray(img).convert("RGB"), format, exif=exif, **options))
    inner = made[1:-1, 1:-1, 0]
    edges = {1: made[0, 1:-1, 0], 3: made[-1, 1:-1, 0], 6: made[1:-1, -1, 0], 8: made[1:-1, 0, 0]}
    assert edges[turn].min() > 180
    assert all(edge.mean() < 60 for other, edge in edges.items() if other != turn)
    assert inner[3, 3] < 20
    assert ("turned as EXIF says" in told) == (turn != 1)


def test_exif_that_cannot_be_read_does_not_cost_the_picture(monkeypatch):
    img = Image.new("RGB", (8, 8), (5, 5, 5))
    monkeypatch.setattr(img, "getexif", lambda: 1 / 0)
    assert (prepared(img)[0] == 5).all()


def test_the_first_of_several_frames():
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    made, told = prepared(stored(frames[0], "GIF", save_all=True, append_images=frames[1:]), "RGB")
    assert made[0, 0].tolist() == [255, 0, 0]
    assert told == "first of several frames or pages taken"


def test_what_else_is_told():
    assert prepared(Image.new("RGB", (9, 8)))[1] == "colour made grey, cut to the central square"
    assert prepared(Image.new("L", (7, 7)), "RGB")[1] == "smaller than 8 px, enlarged"
    assert prepared(Image.new("CMYK", (8, 8)), "RGB")[1] == ""


def test_colour_is_how_a_picture_is_stored():
    grey, colour = Image.new("P", (8, 8)), Image.new("P", (8, 8))
    grey.putpalette([1, 1, 1, 9, 9, 9])
    colour.putpalette([1, 1, 1, 9, 8, 9])
    assert [decode.in_colour(img) for img in (grey, colour)] == [False, True]
    assert [decode.in_colour(Image.new(mode, (1, 1))) for mode in ("L", "I;16", "LA", "RGB", "CMYK")] == [0, 0, 0, 1, 1]


def test_grey_with_alpha_of_sixteen_bits_is_grey():
    """Pillow opens it as RGBA."""
    rows = zlib.compress((b"\0" + struct.pack(">HH", 40_000, 65_535) * 8) * 8)
    head = struct.pack(">IIBBBBB", 8, 8, 16, 4, 0, 0, 0)
    parts = [
        struct.pack(">I", len(x)) + kind + x + struct.pack(">I", zlib.crc32(kind + x))
        for kind, x in ((b"IHDR", head), (b"IDAT", rows), (b"IEND", b""))
    ]
    img = Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(parts)))
    assert not decode.in_colour(img)
    made, told = prepared(img)
    assert (made == 156).all()
    assert told == "16 bits scaled to 8"


def test_suffixes_that_people_use():
    read = decode.suffixes()
    assert {".png", ".jpg", ".jpeg", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm"} <= {*read}
    assert not {".eps", ".pdf", ".wmf", ".h5"} & {*read}
