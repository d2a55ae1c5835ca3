"""Folders as people have them: which are classes, what is left out, and one line for what cannot be."""

import os

import pytest
from PIL import Image

from dd_jax.data import folder
from dd_jax.system.errors import UserError


def fill(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8)).save(root / name)
    return root


def classes(root):
    return {name: len(files) for name, files in folder.find(root).classes.items()}


def test_what_is_no_class(tmp_path):
    fill(tmp_path, "cat/1.png", "dog/1.png", "dog/2.png", ".ipynb_checkpoints/1.png", "__MACOSX/cat/1.png", ".x/1.png")
    fill(tmp_path, "cat/.ipynb_checkpoints/1-checkpoint.png", "cat/._1.png", "loose.png")
    (tmp_path / "empty/within").mkdir(parents=True)
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels/cat.txt").write_text("cat")
    (tmp_path / "cat/notes").write_text("")
    assert classes(tmp_path) == {"cat": 1, "dog": 2}
    told = "\n".join(folder.find(tmp_path).left_out)
    assert "folders without pictures: empty, labels" in told
    assert "1 pictures beside the class folders: loose.png" in told
    assert "hidden, or of the system: .ipynb_checkpoints, .x, __MACOSX, ._1.png" in told
    assert "not read here by their suffix: 1 without one, 1 .txt" in told


@pytest.mark.parametrize("suffix", ["JPEG", "JPG", "jfif", "tif", "TIFF", "ppm", "gif", "bmp", "webp", "pgm"])
def test_suffixes(tmp_path, suffix):
    assert classes(fill(tmp_path, f"a/1.{suffix}", "b/1.png")) == {"a": 1, "b": 1}


def test_links_one_level_down_and_round(tmp_path):
    more = fill(tmp_path / "elsewhere", "2.png", "deep/3.png")
    root = fill(tmp_path / "set", "a/1.png", "b/1.png")
    (root / "a/more").symlink_to(more)
    (root / "a/again").symlink_to(more)  # one folder is read once
    (root / "a/up").symlink_to(root)
    (root / "c").symlink_to(more)
    (root / "top").symlink_to(tmp_path)
    (root / "b/gone.png").symlink_to(tmp_path / "nowhere.png")
    os.mkfifo(root / "b/pipe.png")
    assert classes(root) == {"a": 3, "b": 1, "c": 2}
    (told,) = folder.find(root).left_out
    assert told == "3 that are no files, or links to none or upwards: b/gone.png, b/pipe.png, top"


@pytest.mark.parametrize("parts", [("train", "val"), ("Training", "test"), ("train2017", "val2017"), ("train",)])
def test_of_parts_the_one_for_training(tmp_path, parts):
    for part in parts:
        fill(tmp_path, f"{part}/cat/1.png", f"{part}/dog/1.png")
    assert classes(tmp_path) == {"cat": 1, "dog": 1}
    others = [f"parts of the data set besides {parts[0]}: {part} (2 pictures)" for part in parts[1:]]
    assert folder.find(tmp_path).left_out == others


def test_parts_without_one_for_training(tmp_path):
    with pytest.raises(UserError, match=r"holds test, val: these are .* name the one to train on, folder:.*/test"):
        folder.find(fill(tmp_path, "val/a/1.png", "test/a/1.png"))
    assert classes(fill(tmp_path, "bus/1.png")) == {"bus": 1, "test": 1, "val": 1}  # with a bus they are classes


def test_one_class(tmp_path):
    assert classes(fill(tmp_path / "flat", "1.png", "2.png")) == {"flat": 2}
    found = folder.find(fill(tmp_path / "wrapped", "set/cat/1.png", "set/dog/1.png"))
    assert list(found.classes) == ["set"]
    assert found.notes == [
        f"set holds folders of its own (cat, dog): folder:{tmp_path}/wrapped/set takes these as classes"
    ]


def test_nothing_to_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/1.heif2").write_text("")
    (tmp_path / "x.zip").write_bytes(b"")
    with pytest.raises(UserError, match=r"has no pictures: \.png .* left out: folders without .* 1 \.heif2, 1 \.zip"):
        folder.find(tmp_path)
    with pytest.raises(UserError, match="is a file: unpack it"):
        folder.find(tmp_path / "x.zip")
    with pytest.raises(UserError, match="there is no folder"):
        folder.find(tmp_path / "nowhere")


def test_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(fill(tmp_path, "set/a/1.png")))
    assert list(folder.find(folder.Path("~/set")).classes) == ["a"]
