"""Pictures of one's own, and pair sets as tfds data sets."""

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from dd_jax.data import pairset
from dd_jax.data.pictures import Pictures, known, squared
from dd_jax.system.errors import UserError
from scripts import publish_pairs


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
