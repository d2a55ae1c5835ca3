"""Pictures of one's own, and pair sets as tfds data sets."""

import importlib
import os
import resource

import numpy as np
import pytest
from conftest import tiny_config
from ml_collections import ConfigDict
from PIL import Image

from dd_jax import factory
from dd_jax.data import examples, pairset
from dd_jax.data.pictures import Pictures, known, settled, squared
from dd_jax.scripts import publish_pairs
from dd_jax.system.errors import UserError


def settings(name: str, **more) -> ConfigDict:
    fields = {"name": name, "resolution": 8, "channels": 3, "classes": 2, "copies": 2, "heldout_copies": 1}
    warp = dict.fromkeys(("rotate", "scale", "shear", "shift"), 0.0)
    return ConfigDict(fields | warp | more)


@pytest.fixture
def folder(tmp_path):
    for label, name in enumerate(("apples", "pears")):
        (tmp_path / name).mkdir()
        for i in range(20):
            Image.new("RGB", (12 + i, 10), (100 * label + i, 0, 255)).save(tmp_path / name / f"{i}.png")
    return tmp_path


def test_a_folder_of_classes(folder):
    pictures = Pictures(settings(f"folder:{folder}"), seed=0)
    img, label = pictures.training()
    assert img.shape == (76, 8, 8, 3)
    assert np.bincount(label).tolist() == [38, 38]
    red = (img[:, 4, 4, 0] + 1) * 127.5
    np.testing.assert_array_equal(red.round() // 100, label)
    held, theirs = pictures.held_out()
    assert held.shape == (2, 8, 8, 3)
    assert sorted(theirs) == [0, 1]
    assert known(f"folder:{folder}")
    assert not known("imagenet2012")


def test_grey_pictures_and_the_central_square():
    wide = Image.fromarray(np.repeat(np.arange(30, dtype=np.uint8)[None], 10, 0))
    assert squared(wide, 10, "L")[..., 0].tolist() == [list(range(10, 20))] * 10


def test_what_is_wrong_with_a_folder(folder):
    with pytest.raises(UserError, match="there is no folder"):
        _ = Pictures(settings(f"folder:{folder}/nowhere"), 0).split
    with pytest.raises(UserError, match=r"has 2 classes: set --config\.data\.classes"):
        _ = Pictures(settings(f"folder:{folder}", classes=1), 0).split
    (folder / "apples/a.png").write_text("no picture")
    with pytest.raises(UserError, match=r"a\.png is not a picture"):
        _ = Pictures(settings(f"folder:{folder}"), 0).split
    (folder / "empty/none").mkdir(parents=True)
    with pytest.raises(UserError, match="has no pictures"):
        _ = Pictures(settings(f"folder:{folder}/empty"), 0).split


def test_classes_and_channels_are_found(folder):
    name = f"folder:{folder}"
    assert settled(settings(name, classes=0, channels=0), {}) == {
        "channels": 3,
        "classes": 2,
        "class_names": ("apples", "pears"),
    }
    assert settled(settings(name, classes=7, channels=0), {}) == {"channels": 3, "classes": 7}
    noted = {"data.name": "folder:/gone", "data.classes": 5, "data.channels": 1}
    assert settled(settings("folder:/gone", classes=0, channels=0), noted) == {"channels": 1, "classes": 5}
    assert settled(settings("mnist", classes=0, channels=0), noted) == {"channels": 1, "classes": 10}
    assert settled(settings("mnist", classes=7, channels=0), {}) == {"channels": 1, "classes": 7}
    assert settled(settings("imagenet2012", classes=7, channels=0), {}) == {"channels": 3, "classes": 7}
    with pytest.raises(
        UserError,
        match=r"name=mnits is none of mnist, digits, emoji, folder:PATH, tar:PATTERN, parquet:PATTERN, "
        r"array_record:PATTERN, npz:FILE and tfds:NAME",
    ):
        settled(settings("mnits", classes=0), {})
    for file in folder.rglob("*.png"):
        Image.open(file).convert("L").save(file)
    assert settled(settings(name, channels=0), {})["channels"] == 1


@pytest.mark.parametrize(("classes", "told"), [(1, "now it is 1"), (3, "now it is 3")])
def test_another_number_of_classes_is_an_error_after_the_table(folder, classes, told, capsys):
    with pytest.raises(UserError, match=rf"has 2 classes: set --config\.data\.classes=2, or to 0, .*; {told}"):
        _ = Pictures(settings(f"folder:{folder}", classes=classes), 0).split
    assert "0  apples       20\n    1  pears        20" in capsys.readouterr().out


def test_bundled_pictures_of_another_size():
    with pytest.raises(UserError, match=r"digits has resolution 8: set --config\.data\.resolution=8; now it is 28"):
        _ = Pictures(settings("digits", resolution=28, channels=1, classes=10), 0).split


def test_the_table_says_what_was_converted_and_left_out(folder, capsys):
    Image.new("RGBA", (9, 9)).save(folder / "apples/clear.png")
    (folder / ".ipynb_checkpoints").mkdir()
    _ = Pictures(settings(f"folder:{folder}"), 0).split
    out = capsys.readouterr().out
    assert "41 pictures, 2 classes; 39 to train on, 2 held out" in out
    assert "left out: 1 hidden, or of the system: .ipynb_checkpoints" in out
    assert "converted: 1 picture: transparent, laid on #ffffff" in out
    assert "converted: 40 pictures: cut to the central square" in out


def test_torn_pictures_are_all_named(folder, capsys):
    for name in ("apples/3.png", "pears/5.png"):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "pears/x.jpg").write_text("")
    with pytest.raises(UserError) as told:
        _ = Pictures(settings(f"folder:{folder}"), 0).split
    line = str(told.value)
    assert "\n" not in line
    assert "3.png is not a picture that can be read (" in line
    assert "and 2 more are not: " in line
    assert line.endswith(
        "pears/5.png, "
        + f"{folder}/pears/x.jpg; remove them, fetch them again, or do without them: --config.data.strict=false"
    )
    assert capsys.readouterr().out.count("cannot be read: ") == 3


def test_few_open_files_are_enough(tmp_path):
    for i in range(80):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i:02}.{('png', 'gif', 'tif')[i % 3]}")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    used = max(int(name) for name in os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 64
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, used + 40), hard))
    try:
        img, _ = Pictures(settings(f"folder:{tmp_path}", classes=1, channels=1), 0).training()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert len(img) == 152


@pytest.mark.parametrize("warp", [{}, {"rotate": 0.3, "scale": 0.1, "shift": 1.0}])
def test_large_sets_are_made_batch_by_batch_and_the_same(folder, monkeypatch, warp):
    at = np.array([3, 75, 40, 3])
    kept, label = Pictures(settings(f"folder:{folder}", **warp), 3).training()
    monkeypatch.setattr(examples, "KEPT", 0)
    lazy, same = Pictures(settings(f"folder:{folder}", cache=0, **warp), 3).training()
    assert isinstance(lazy, examples.Examples)
    assert lazy.shape == kept.shape
    assert lazy[at].dtype == np.float32
    np.testing.assert_array_equal(lazy[at], kept[at])
    np.testing.assert_array_equal(lazy[:50], kept[:50])
    np.testing.assert_array_equal(np.asarray(lazy), kept)
    np.testing.assert_array_equal(label, same)
    (folder / "apples/0.png").unlink()
    (folder / "pears/0.png").unlink()
    with pytest.raises(UserError, match=r"0\.png cannot be read \(No such file or directory\): "):
        np.asarray(lazy)


@pytest.mark.parametrize("kind", ["digits_llamagen", "digits_var", "mnist_llamagen", "mnist_var", "emoji_t2i"])
def test_demos_find_their_numbers(kind):
    config = importlib.import_module(f"dd_jax.configs.{kind}").get_config()
    found = factory.settled(config)
    expected = {"digits": (1, 10, 4), "mnist": (1, 10, 7), "emoji": (3, 384, 8)}[found.data.name]
    side = found.tokenizer.sides[-1] if found.family == "var" else found.tokenizer.side
    assert (found.data.channels, found.data.classes, side) == expected
    assert config.data.classes == 0  # a config that was given stays as it was
    if found.family == "var":
        assert found.tokenizer.sides == {4: (1, 2, 4), 7: (1, 2, 3, 5, 7)}[side]


def test_the_grid_of_codes_follows_from_the_resolution(folder):
    config = importlib.import_module("dd_jax.configs.mnist_llamagen").get_config()
    config.data.update({"name": f"folder:{folder}", "resolution": 32})
    assert factory.build(config).layout.tokens == 64
    assert factory.build(config).classes == 2
    config.tokenizer.side = 7
    with pytest.raises(UserError, match=r"side=7, .* makes 8 codes a side of 32 px: set --config\.tokenizer\.side=8"):
        factory.build(config)
    config.data.resolution = 30
    with pytest.raises(UserError, match=r"resolution=30: .* a multiple of 4: set 28 or 32"):
        factory.build(config)
    config = importlib.import_module("dd_jax.configs.mnist_var").get_config()
    config.data.update({"name": f"folder:{folder}", "resolution": 64})
    assert factory.settled(config).tokenizer.sides == (1, 2, 3, 5, 7, 11, 16)
    config.tokenizer.sides = (1, 2, 4)
    with pytest.raises(UserError, match=r'a last map of 16 codes a side: set --config\.tokenizer\.sides="\(1, 2, 3, 5'):
        factory.build(config)


def test_a_pair_set_goes_out_as_tfds_and_comes_back(tmp_path):
    pytest.importorskip("tensorflow_datasets")
    draw, hashes = np.random.default_rng(0), {}
    for first in (0, 4):
        ids = np.arange(first, min(first + 4, 6), dtype=np.int32)
        shard = {"id": ids, "label": ids % 3, "code": draw.integers(0, 9, (len(ids), 5)).astype(np.uint16)}
        name = pairset.name_of(first, 4)
        hashes[name] = pairset.write(tmp_path / "pairs" / name, shard)
    facts = {"first": 0, "count": 6, "shard": 4, "seed": 0, "guidance": 2.0}
    pairset.check_settings(tmp_path / "pairs", facts)
    pairset.close(tmp_path / "pairs", facts, hashes)
    made = publish_pairs.publish(tmp_path / "pairs", tmp_path / "data")
    assert list(made.glob("*.array_record*"))
    publish_pairs.fetch(made, tmp_path / "back")
    for path in (tmp_path / "pairs").iterdir():
        assert (tmp_path / "back" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_names_of_a_folder_are_remembered(folder):
    config = tiny_config("llamagen")
    config.data.update({"name": f"folder:{folder}", "classes": 0, "channels": 0})
    config = factory.settled(config)
    assert config.data.class_names == ("apples", "pears")
    noted = {
        "data.name": "folder:/gone",
        "data.classes": 2,
        "data.channels": 3,
        "data.class_names": ["apples", "pears"],
    }
    assert settled(settings("folder:/gone"), noted)["class_names"] == ("apples", "pears")
    with pytest.raises(UserError, match="class_names has 1 names, and there are 2 classes"):
        settled(settings(f"folder:{folder}", class_names=("one",)), {})
