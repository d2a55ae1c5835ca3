"""The codes that a teacher learns from: made once, of several views, and on where they were."""

import errno
import json
import os
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from conftest import tiny_config
from ml_collections import ConfigDict
from PIL import Image

from dd_jax import factory
from dd_jax.data import cuts, examples
from dd_jax.data.pictures import Pictures
from dd_jax.families.llamagen.tokenizer import VQ
from dd_jax.nn.conv import ConvStack
from dd_jax.stages.codes import ABOUT, ROWS, encode
from dd_jax.system import rng, stopping
from dd_jax.system.errors import UserError

IMG = np.random.default_rng(0).uniform(-1, 1, (50, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def system():
    return factory.build(tiny_config("llamagen"))


@pytest.fixture(scope="module")
def params(system):
    return jax.jit(system.tokenizer.init)(rng.key(0))


def reads(img):
    """The same pictures, and which of them were asked for."""
    asked = []

    class Told:
        shape = img.shape

        def __len__(self):
            return len(img)

        def __getitem__(self, at):
            asked.extend(np.unique(at).tolist())
            return img[at]

    return Told(), asked


def test_what_is_stopped_goes_on(system, params, tmp_path, monkeypatch):
    whole = encode(tmp_path / "whole", system, params, IMG, batch=8)
    np.testing.assert_array_equal(whole, jax.jit(system.tokenizer.encode)(params, IMG))
    assert (whole.dtype, len(np.unique(whole)) > 5) == (np.uint16, True)
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "asked", lambda: True)
        with pytest.raises(stopping.Stopped, match="codes: stopped at 8 of 50"):
            encode(tmp_path / "cut", system, params, IMG, batch=8)
    with (tmp_path / "cut" / ROWS).open("ab") as file:
        file.write(b"torn")  # of a row
    img, asked = reads(IMG)
    np.testing.assert_array_equal(encode(tmp_path / "cut", system, params, img, batch=8), whole)
    assert asked == [*range(8, 50)]
    img, asked = reads(IMG)
    np.testing.assert_array_equal(encode(tmp_path / "cut", system, params, img, batch=8), whole)
    assert asked == []


@pytest.mark.parametrize("change", ["tokenizer", "pictures", "about", "rows"])
def test_codes_of_others_are_made_anew(system, params, tmp_path, change):
    encode(tmp_path, system, params, IMG, {"name": "one"}, batch=25)
    img, asked = reads(IMG)
    seen = {"name": "other" if change == "pictures" else "one"}
    if change == "tokenizer":
        params = jax.tree.map(lambda x: x + 0.1, params)
    elif change == "about":
        (tmp_path / ABOUT).write_text("torn")
    elif change == "rows":
        (tmp_path / ROWS).unlink()
    found = encode(tmp_path, system, params, img, seen, batch=25)
    assert len(asked) == 50
    np.testing.assert_array_equal(found, jax.jit(system.tokenizer.encode)(params, IMG))
    assert json.loads((tmp_path / ABOUT).read_text())["of"] == seen


@pytest.mark.parametrize(("side", "count"), [(8, 512), (64, 512), (128, 128), (256, 32), (384, 14), (4096, 1)])
def test_larger_pictures_are_encoded_fewer_at_once(side, count):
    img = examples.Examples(np.zeros, 10_000, (side, side, 3))
    assert examples.at_once(img) == count
    assert examples.at_once(img, 8) == min(512, 8 * examples.AT_ONCE * 64**2 // side**2)


def test_pictures_of_any_size_take_the_same_memory():
    """Of the compiled program, nothing is run: 512 of 256 px would take sixteen times as much as 512 of 64 px."""
    tokenizer = VQ(ConvStack(ch=8, z_channels=8, encoder_blocks=1, groups=4, attention=False, mid=False), 1024, 8)
    params = jax.eval_shape(tokenizer.init, rng.key(0))

    def needs(side, count):
        img = jax.ShapeDtypeStruct((count, side, side, 3), np.float32)
        compiled = jax.jit(tokenizer.encode).lower(params, img).compile({"xla_backend_optimization_level": 0})
        return compiled.memory_analysis().temp_size_in_bytes

    large = examples.Examples(np.zeros, 10_000, (256, 256, 3))
    assert 0 < needs(256, examples.at_once(large)) < 1.1 * needs(64, 512)


def test_a_device_gets_no_more_pictures_at_once_than_it_has_room_for(tmp_path):
    tokenizer = SimpleNamespace(vocab=4, encode=lambda params, img: img[:, 0, :5, 0].astype(np.int32))
    system, asked = SimpleNamespace(tokenizer=tokenizer, layout=SimpleNamespace(tokens=5)), []

    def read(at):
        asked.append(len(at))
        return np.broadcast_to((at % 4).astype(np.float32)[:, None, None, None], (len(at), 512, 512, 1))

    found = encode(tmp_path, system, {"none": np.zeros(1)}, examples.Examples(read, 20, (512, 512, 1)))
    assert asked == [8, 8, 8]
    np.testing.assert_array_equal(found, np.tile(np.arange(20)[:, None] % 4, 5))


def test_a_full_disk(system, params, tmp_path, monkeypatch):
    def full(_):
        raise OSError(errno.ENOSPC, "No space left on device")

    encode(tmp_path, system, params, IMG, batch=8)
    os.truncate(tmp_path / ROWS, 8 * 2 * system.layout.tokens)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(UserError, match=r"cannot write .*codes.bin: .*free some space"):
            encode(tmp_path, system, params, IMG, batch=8)
    found = encode(tmp_path, system, params, IMG, batch=8)
    np.testing.assert_array_equal(found, jax.jit(system.tokenizer.encode)(params, IMG))


def pictures(tmp_path, **more):
    for i in range(20):
        (tmp_path / "set" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        img = np.random.default_rng(i).integers(0, 256, (16, 20), np.uint8)
        Image.fromarray(img).save(tmp_path / "set" / "ab"[i % 2] / f"{i:02}.png")
    fields = {"name": f"folder:{tmp_path}/set", "resolution": 8, "channels": 1, "classes": 2}
    fields |= {"copies": 1, "heldout_copies": 1} | dict.fromkeys(("rotate", "scale", "shear", "shift"), 0.0)
    return Pictures(ConfigDict(fields | more), 0)


def test_views_are_what_epochs_show(tmp_path):
    made = pictures(tmp_path, crop="random", crop_share=(0.8, 1.0), flip=True)
    (img, label), (views, tiled) = made.training(), made.encoded(3)
    assert (len(views), len(tiled)) == (54, 54)
    np.testing.assert_array_equal(views[:], img[np.arange(54)])
    np.testing.assert_array_equal(tiled, np.concatenate(3 * [label]))
    assert not np.array_equal(views[:18], views[18:36])
    still, plain = made.encoded(0)
    np.testing.assert_array_equal(still[:], pictures(tmp_path).training()[0])
    np.testing.assert_array_equal(plain, label)


def test_views_want_windows():
    data = ConfigDict({"resolution": 8, "crop": "centre", "crop_share": (0.8, 1.0), "flip": False})
    with pytest.raises(UserError, match=r"teacher\.views=3 .* not cut at random: --config\.data\.crop=random or"):
        cuts.check_views(3, data)
    cuts.check_views(0, data)
    data.flip = True
    cuts.check_views(3, data)
