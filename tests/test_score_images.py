"""Images to be scored: read as other evaluators read them, and told; arrays that are none, and advice that fits."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image
from stand_in import POOL, SPATIAL, Stand, stand

from dd_jax.data import images
from dd_jax.metrics import features, inception, protocols, reference, score
from dd_jax.metrics.inception import Features, Inception
from dd_jax.system.errors import UserError

DRAW = np.random.default_rng(0)
RGB = DRAW.integers(0, 256, (8, 8, 3), np.uint8)
EXIF = Image.Exif()
EXIF[0x0112] = 6  # a camera held upright


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(inception, "POOL", POOL)
    monkeypatch.setattr(inception, "SPATIAL", SPATIAL)


def odd_pictures(folder):
    """One of each kind whose meaning `convert("RGB")` changes, and what does not count."""
    folder.mkdir()
    Image.fromarray(RGB).save(folder / "a.png")
    Image.fromarray(np.full((8, 8), 30_000, np.uint16)).save(folder / "b16.png")
    Image.fromarray(np.dstack([RGB, 0 * RGB[..., 0]])).save(folder / "c_alpha.PNG")
    Image.fromarray(RGB).save(folder / "d_exif.jpg", exif=EXIF)
    Image.fromarray(RGB).quantize(4).save(folder / "e_palette.png")
    Image.fromarray(RGB).convert("CMYK").save(folder / "f_cmyk.jpeg")
    Image.fromarray(RGB[..., 0]).save(folder / "g_grey.tif")
    Image.fromarray(RGB).save(folder / "h.ppm")
    Image.fromarray(RGB).save(folder / "i.gif")
    for hidden in ("__MACOSX", ".ipynb_checkpoints"):
        (folder / hidden).mkdir()
        (folder / hidden / "a.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_text("x")
    return folder


CHANGED = {
    "more than 8 bits, cut at 255": 1,
    "alpha dropped": 1,
    "EXIF rotation ignored": 1,
    "palette converted": 1,
    "CMYK converted": 1,
    "grey repeated": 1,
}


def test_pictures_are_read_as_others_read_them_and_it_is_told(tmp_path):
    some = images.open_images(odd_pictures(tmp_path / "x"))
    for _ in range(2):  # counted anew each time
        (found,) = some.read(99)
        assert some.changed == CHANGED
    assert some.left_out == {"hidden": 2, ".gif": 1}
    paths = sorted((tmp_path / "x").glob("[a-h]*"))
    np.testing.assert_array_equal(found, [np.asarray(Image.open(path).convert("RGB")) for path in paths])
    assert (found[1] == 255).all()
    np.testing.assert_array_equal(found[2], RGB)


ARRAYS = {
    "planes": DRAW.integers(0, 256, (2, 3, 8, 9), np.uint8),
    "grey": DRAW.integers(0, 256, (2, 8, 9), np.uint8),
    "one channel": DRAW.integers(0, 256, (2, 8, 9, 1), np.uint8),
    "a single plane": DRAW.integers(0, 256, (2, 1, 8, 9), np.uint8),
    "rgba": DRAW.integers(0, 256, (2, 8, 9, 4), np.uint8),
    "rgba planes": DRAW.integers(0, 256, (2, 4, 8, 9), np.uint8),
    "int64": DRAW.integers(0, 256, (2, 8, 9, 3)),
    "float planes": DRAW.random((2, 3, 8, 9), np.float32),
    "one image": DRAW.integers(0, 256, (8, 9, 3), np.uint8),
}


@pytest.mark.parametrize("kind", ARRAYS)
@pytest.mark.parametrize("suffix", ["npz", "npy"])
def test_the_advice_fits(tmp_path, kind, suffix):
    """What a message says to save is an array that is taken."""
    path = tmp_path / f"x.{suffix}"
    save = np.savez if suffix == "npz" else np.save
    save(path, ARRAYS[kind])
    with pytest.raises(UserError) as caught:
        images.open_images(path)
    advice = re.search(r"; save (.*?)(?: if they|, to |$)", str(caught.value))[1]
    save(path, eval(advice, {"np": np, "images": ARRAYS[kind]}))  # our own words
    assert next(images.open_images(path).read(9)).shape == (1 if kind == "one image" else 2, 8, 9, 3)


def test_arrays_that_no_expression_mends(tmp_path):
    for array, told in (
        (np.zeros((3, 3072), np.uint8), "reshape what is flat"),
        (np.zeros(3, np.int64), r"holds int64: .* and this is \(3,\); np\.savez"),
        (np.array(["a"]), "np.savez"),
    ):
        np.save(tmp_path / "x.npy", array)
        with pytest.raises(UserError, match=told):
            images.open_images(tmp_path / "x.npy")


def test_labels_first(tmp_path):
    np.savez(tmp_path / "x.npz", np.arange(2), RGB[None].repeat(2, 0))
    with pytest.raises(
        UserError, match=r"holds arr_0, arr_1, in arr_0 int64 \(2,\): np\.savez\(path, file\['arr_1'\]\)"
    ):
        images.open_images(tmp_path / "x.npz")
    (tmp_path / "x.zip").write_bytes(b"PK")
    with pytest.raises(UserError, match=r"nor a folder of pictures: unpack it"):
        images.open_images(tmp_path / "x.zip")


def test_an_array_alone_in_a_file(tmp_path):
    np.save(tmp_path / "x.npy", RGB[None].repeat(3, 0))
    some = images.open_images(tmp_path / "x.npy")
    assert [x.shape for x in some.read(2)] == [(2, 8, 8, 3), (1, 8, 8, 3)]


@pytest.mark.parametrize("size", [(40, 31), (299, 299), (640, 480)])
def test_pictures_resized_alone_are_as_clean_fid_resizes_them(size):
    """Channel by channel, in Pillow's floats."""
    img = DRAW.integers(0, 256, (*size[::-1], 3), np.uint8)
    want = [Image.fromarray(np.float32(img[..., i])).resize((299, 299), Image.Resampling.BICUBIC) for i in range(3)]
    found = protocols.find("clean").resized(img)
    np.testing.assert_allclose(found, np.dstack([np.asarray(x) for x in want]), atol=1e-3)


def test_mixed_sizes_under_clean(tmp_path, monkeypatch):
    """Each batch as it is, or, where sizes differ, resized one by one; the pixels of all are in the checksum."""
    for i, side in enumerate((8, 8, 12, 20)):
        Image.fromarray(RGB).resize((side, 8)).save(tmp_path / f"{i}.png")
    some = images.open_images(tmp_path, crop="lanczos", mixed=True)
    given = []

    def apply(protocol, precision, params, img):
        given.append(np.asarray(img))
        return Features(*(np.zeros((len(img), 2)) for _ in Features._fields))

    monkeypatch.setattr(features, "apply", apply)
    extractor = features.Extractor(Inception({}, {}), protocols.find("clean"), batch=8)
    made, _ = extractor.collect(some)
    assert made["pool3"].shape == (4, 2)
    assert (given[0].dtype, given[0].shape[1:]) == (np.float32, (299, 299, 3))
    np.testing.assert_array_equal(given[0][0], given[0][1])
    with pytest.raises(UserError, match="give --resolution"):
        list(images.open_images(tmp_path).read(8))


def test_the_command_crops_and_tells(tmp_path, monkeypatch, capsys):
    """--resolution, and what reading changed in the result's JSON."""
    folder = odd_pictures(tmp_path / "x")
    Image.fromarray(RGB).resize((20, 30)).save(folder / "z.png")
    monkeypatch.setattr(score, "Extractor", Stand)
    monkeypatch.setattr(score.inception, "load", lambda folder: Inception({}, {"id": "stand", "sha256": "a" * 64}))
    monkeypatch.setattr(score.runtime, "setup", lambda: None)
    reference.record(stand(), images.from_array(RGB[None].repeat(20, 0)), tmp_path / "ref.npz")
    words = [folder, "--reference", tmp_path / "ref.npz", "--protocol", "adm", "--inception", "w"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
    with pytest.raises(SystemExit, match=r"z\.png is \(30, 20, 3\), others are \(8, 8, 3\): give --resolution"):
        score.main()
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--resolution", "8", "--json", str(tmp_path / "out.json")])
    score.main()
    told = json.loads((tmp_path / "out.json").read_text())["samples"]
    assert told["source"].endswith("x (box to 8 px)")
    assert told["changed"] == CHANGED
    assert told["left_out"] == {"hidden": 2, ".gif": 1}
    assert "1 alpha dropped" in capsys.readouterr().out
