"""Captions of one's own pictures: wherever they lie the same, each with its picture; and a teacher that reads them."""

import copy
import csv
import dataclasses
import functools
import io
import json
import shutil
import sys
import types

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fruit import records
from PIL import Image
from test_streams import Rows, settings, shard

from dd_jax import factory, pipeline
from dd_jax.configs import common, digits_var, own_llamagen, own_t2i, own_var
from dd_jax.data import batches, beside, sources
from dd_jax.data.pictures import Pictures
from dd_jax.data.said import Said
from dd_jax.pipeline import load
from dd_jax.scripts import fake_shards
from dd_jax.scripts.fake_release import _random, write_torch
from dd_jax.stages import checks
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE
from dd_jax.text import noted
from dd_jax.text.tokens import FIRST, UNKNOWN, Words
from port_weights import __main__ as cli
from port_weights.catalog import CATALOG

COLOURS = {"red": (220, 40, 40), "green": (40, 170, 60), "blue": (50, 80, 220), "white": (255, 255, 255)}
COUNT = 40


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def colour(i: int) -> str:
    return [*COLOURS][i % len(COLOURS)]


def said(i: int) -> list[str]:
    """Two captions of picture i."""
    return [f"a {colour(i)} square", f"Square no. {i}, {colour(i)}"]


def png(i: int, side: int = 16) -> bytes:
    """A square of picture i's colour, a little brighter on its left, with a black pixel at a place of its own."""
    img = np.full((side, side, 3), COLOURS[colour(i)], np.uint8)
    img[:, side // 2 :] -= 20
    img[i // 4 % side, side - 1 - i // (4 * side)] = 0
    file = io.BytesIO()
    Image.fromarray(img).save(file, "PNG")
    return file.getvalue()


def fill(root, count=COUNT, **beside_each):
    """Pictures, and beside each a file for every suffix: bytes of it by number."""
    root.mkdir(parents=True, exist_ok=True)
    for i in range(count):
        (root / f"{i:02}.png").write_bytes(png(i))
        for suffix, content in beside_each.items():
            (root / f"{i:02}.{suffix}").write_bytes(content(i))
    return f"folder:{root}"


def lines(i: int) -> bytes:
    return "\n".join(said(i)).encode() + b"\n\n"


def in_json(i: int) -> bytes:
    return json.dumps({"url": "x", "captions": said(i)}).encode()


def in_table(root, suffix):
    rows = [{"file_name": f"{i:02}.png", "text": text, "id": i} for i in range(COUNT) for text in said(i)]
    if suffix == "jsonl":
        (root / "metadata.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
        return
    with (root / "metadata.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)


def everywhere(kind, tmp_path, monkeypatch) -> str:
    """The same pictures and captions as `kind` has them."""
    root, numbers = tmp_path / "set", range(COUNT)
    if kind in ("txt", "caption", "json"):
        return fill(root, **{kind: in_json if kind == "json" else lines})
    if kind in ("csv", "jsonl"):
        fill(root)
        in_table(root, kind)
        return f"folder:{root}"
    if kind.startswith("tar"):
        how = ("json", in_json) if kind == "tar json" else ("txt", lines)
        found = {f"{i:02}.{end}": x(i) for i in numbers for end, x in (("png", png), how)}
        return f"tar:{shard(root / 'a.tar', found)}"
    if kind == "parquet":
        root.mkdir()
        table = pa.table({"image": [{"bytes": png(i)} for i in numbers], "captions": [said(i) for i in numbers]})
        pq.write_table(table, root / "a.parquet")
    if kind == "array_record":
        records(root / "a.array_record", [{"image": png(i), "captions/text": said(i)} for i in numbers])
    if kind == "npz":
        squares = np.stack([np.asarray(Image.open(io.BytesIO(png(i)))) for i in numbers])
        np.savez(tmp_path / "set.npz", images=squares, captions=np.array([said(i) for i in numbers]))
        return f"npz:{tmp_path}/set.npz"
    if kind == "tfds":
        features = {"image": None, "captions": None}
        found = [{"image": png(i), "captions": {"id": [1, 2], "text": np.array(said(i), "S")}} for i in numbers]
        fake = types.SimpleNamespace(data_source=lambda name, split, download, decoders: Rows(found, features))
        fake.decode = types.SimpleNamespace(SkipDecoding=lambda: "packed")
        monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
        return "tfds:squares"
    return f"{kind}:{root}"


KINDS = ("txt", "caption", "json", "csv", "jsonl", "tar txt", "tar json", *(k for k in sources.KINDS if k[0] in "apnt"))


def own(name, **more):
    return settings(name, **({"classes": 1, "captions": "any"} | more))


@pytest.mark.parametrize("kind", [kind for kind in dict.fromkeys(KINDS) if kind != "tar"])
def test_captions_are_the_same_wherever_they_lie(kind, tmp_path, monkeypatch):
    name = everywhere(kind, tmp_path, monkeypatch)
    source = sources.open_source(name, captioned=True)
    assert [list(found) for found, _ in source.captions] == [said(i) for i in range(COUNT)]
    for i in range(COUNT):
        np.testing.assert_array_equal(np.asarray(source.open(i)), np.asarray(Image.open(io.BytesIO(png(i)))))
    assert (source.classes, list(source.left_out)) == (1, [])
    again = sources.open_source(name, captioned=True)  # shards and files by what the cache has of them
    assert [list(found) for found, _ in again.captions] == [said(i) for i in range(COUNT)]


def test_classes_and_captions_stand_side_by_side(tmp_path):
    for part in ("warm", "cold"):
        fill(tmp_path / "set" / part, 6, txt=lines)
    labelled = {f"{i}.{end}": x for i in range(4) for end, x in (("png", png(i)), ("txt", lines(i)), ("cls", b"1"))}
    source = sources.open_source(f"folder:{tmp_path}/set", captioned=True)
    assert (source.names, source.label.tolist()) == (("cold", "warm"), [0] * 6 + [1] * 6)
    assert list(source.captions[7][0]) == said(1)
    shards = sources.open_source(f"tar:{shard(tmp_path / 'a.tar', labelled)}", captioned=True)
    assert (shards.classes, list(shards.captions[2][0])) == (2, said(2))
    plain = sources.open_source(f"folder:{tmp_path}/set")
    assert plain.captions is None
    assert list(plain.left_out) == ["not read here by their suffix: 12 .txt"]


def test_a_table_may_stand_above_its_pictures(tmp_path):
    fill(tmp_path / "set/train/a", 4)
    fill(tmp_path / "set/test/a", 2)
    rows = "".join(f"train/a/{i:02}.png,a {colour(i)} one\n" for i in range(3))
    (tmp_path / "set/metadata.csv").write_text(f"file_name,caption\n{rows}train/a/09.png,gone\n")
    (tmp_path / "set/train/metadata.jsonl").write_text('{"file_name": "./a/03.png", "prompt": "the last"}\n')
    (tmp_path / "set/train/a/01.txt").write_text("its own")
    source = sources.open_source(f"folder:{tmp_path}/set", captioned=True)
    assert [found for found, _ in source.captions] == [("a red one",), ("its own",), ("a blue one",), ("the last",)]


def test_pictures_without_a_caption(tmp_path, capsys):
    name = fill(tmp_path / "set", 12, txt=lines)
    broken = {"01": b" \n", "02": b"\xff\xfe\xfa\xfb\xfc", "03": b"\xc3\x28 fox", "04": b"a \x00 fox"}
    for stem, content in broken.items():
        (tmp_path / f"set/{stem}.txt").write_bytes(content)
    (tmp_path / "set/05.txt").unlink()
    told = (
        r"5 of 12 pictures have no caption: .*01\.png \(empty\), .*02\.png \(not UTF-8\), .* and 2 more; .*strict=false"
    )
    with pytest.raises(UserError, match=told):
        sources.open_source(name, captioned=True)
    source = sources.open_source(name, captioned=True, strict=False)
    assert [list(found) for found, _ in source.captions] == [said(i) for i in (0, *range(6, 12))]
    assert [source.called(i)[-6:] for i in (0, 1)] == ["00.png", "06.png"]
    assert source.left_out[-1].startswith("5 pictures without a caption: ")
    (tmp_path / "set/07.png").write_bytes(png(7)[:60])  # another in its place would have another's caption
    pictures = Pictures(own(name, strict=False), 0)
    shown, numbers = pictures.encoded(0)
    assert len(shown) + len(pictures.held_out()[0]) == 6
    _matched(pictures, shown, numbers)
    out = capsys.readouterr().out
    assert "left out: 1 picture that cannot be read: " in out
    assert "captions: 12, 10 of them different, one of a picture's drawn in every epoch" in out
    for file in (tmp_path / "set").glob("*.txt"):
        file.unlink()
    with pytest.raises(UserError, match=r"has no captions that can be read: .*; docs/own_data\.md says"):
        sources.open_source(name, captioned=True, strict=False)


@pytest.mark.parametrize(
    ("table", "content", "told"),
    [
        ("csv", b"file_name,label\na.png,3\n", "has the columns label: none of them is caption"),
        ("csv", b"image,text\na.png,fox\n", r"row 1 has no file_name: give each its picture's name"),
        ("csv", b'file_name,text\na.png,"fox\n', "is no readable table"),
        ("csv", b"file_name,text\na.png,\xff\xc3fox\n", "is not UTF-8: save it so"),
        ("jsonl", b'{"file_name": "00.png", "text": "a"}\n{"file\n', "line 2 is no JSON: save it again"),
        ("jsonl", b"[1]\n", "row 1 has no file_name"),
    ],
)
def test_tables_that_are_torn(table, content, told, tmp_path):
    name = fill(tmp_path / "set", 3)
    (tmp_path / f"set/metadata.{table}").write_bytes(content)
    with pytest.raises(UserError, match=told):
        sources.open_source(name, captioned=True)


def test_what_a_file_says():
    assert beside.of_file("txt", "﻿ein  Fuchs\r\nein Fuchs\r\n".encode()) == (("ein Fuchs",), "")  # twice is once
    assert beside.of_file("txt", "a fox".encode("utf-16")) == (("a fox",), "")
    assert beside.of_file("json", b'"a fox"') == (("a fox",), "")
    assert beside.of_file("json", b'{"label": 3}') == ((), "")
    assert beside.of_file("json", b"{") == ((), "no JSON")
    files = {"txt": b"", "json": b'{"caption": "a fox"}'}
    assert beside.of_files(files, bytes) == (("a fox",), "")
    assert beside.of_cell(["a fox", None, 3]) == (("a fox",), "")
    assert beside.of_cell(None) == ((), "")


def _matched(pictures, shown, numbers) -> None:
    """Every row's picture has the colour that its caption says."""
    at = np.arange(len(shown))
    asked = [next(word for word in COLOURS if word in pictures.captions[i]) for i in numbers[at]]
    assert painted((shown[at] + 1) * 127.5) == asked


def test_every_view_has_a_caption_of_its_picture(tmp_path):
    pictures = Pictures(own(fill(tmp_path / "set", txt=lines), flip=True), 0)
    shown, numbers = pictures.encoded(3)
    assert numbers.endless
    _matched(pictures, shown, numbers)
    moved = numbers[np.roll(np.arange(len(shown)), 1)]
    with pytest.raises(AssertionError):  # each beside the next picture's
        _matched(pictures, shown, moved)
    found = {text for text, unseen in zip(pictures.captions, pictures.unseen, strict=True) if unseen}
    assert all("no." in text for text in found)  # those of held-out pictures alone
    assert len(found) == len(pictures.held_out()[0])
    _matched(pictures, pictures.example(np.arange(len(pictures.captions))), np.arange(len(pictures.captions)))


def test_which_caption_follows_from_seed_epoch_and_picture():
    captions = [((f"{i}a", f"{i}b", f"{i}c") if i % 2 else (f"{i}a",), "") for i in range(20)]
    part = np.arange(2, 20)
    numbers = Said.of(captions, "any", 3).numbers(part, len(part))
    epochs = np.stack([numbers[len(part) * e + np.arange(len(part))] for e in range(60)])
    assert (epochs[:, ::2] == epochs[0, ::2]).all()
    assert [len({*column}) for column in epochs.T] == [1, 3] * 9
    np.testing.assert_array_equal(numbers[np.array([40, 7])], [epochs[2, 4], epochs[0, 7]])
    views = Said.of(captions, "any", 3).numbers(part, 4 * len(part))  # of four views an epoch has four draws
    np.testing.assert_array_equal(views[np.arange(4 * len(part))], epochs[:4].reshape(-1))
    first = Said.of(captions, "first", 3)
    assert isinstance(first.numbers(part, 36), np.ndarray)
    assert [first.texts[i] for i in first.numbers(part, 36)] == [f"{i}a" for i in (*part, *part)]
    data = {"code": np.repeat(part[:, None], 2, 1), "token": numbers}
    at = batches.shuffled(data, 5, seed=1)
    for step in range(30):  # codes and captions of a batch are of the same pictures, in every epoch
        batch = at(step)
        texts = [Said.of(captions, "any", 3).texts[i] for i in batch["token"]]
        assert [text[:-1] for text in texts] == [str(code) for code in batch["code"][:, 0]]


def test_words_of_ones_own():
    words = Words.of(["A fox, a Fox's den!", "the don't-know"], 6)
    assert words.words == ("a", "den", "don't", "fox", "fox's", "know", "the")
    token, valid = words(["FOX? den unheard", ""])
    assert token[0].tolist() == [FIRST + 3, FIRST + 1, UNKNOWN, 1, 0, 0]
    np.testing.assert_array_equal(valid, token != 0)


def test_what_cannot_be_is_one_line(tmp_path):
    name = fill(tmp_path / "set", txt=lines)
    for module in (own_var, own_llamagen):
        config = module.get_config()
        config.data.update({"name": name, "captions": "any"})
        with pytest.raises(UserError, match=r"captions=any: the model of this config reads classes, no captions"):
            factory.settled(config)
    config = digits_var.get_config()
    config.data.captions = "first"
    with pytest.raises(UserError, match=r"is for pictures of one's own, and config\.data\.name=digits names none"):
        factory.settled(config)
    config = tiny(name)
    config.text.prompts = str(tmp_path / "more.txt")
    with pytest.raises(UserError, match=r"config\.text\.prompts=.* leave one of them out"):
        factory.build(config)
    config = tiny(name)
    config.data.captions = "none"
    config.text.words, config.weights.text = False, "weights/none"
    with pytest.raises(UserError, match=r"has no captions for a teacher .*: --config\.data\.captions=any, where"):
        checks.pretraining(factory.build(config), factory.settled(config), lambda: ALONE)


def tiny(name):
    """The smallest model that reads captions."""
    config = own_t2i.get_config()
    config.data.update({"name": name, "resolution": 16})
    config.classifier = common.ConfigDict({"patch": 4, "hidden": 16})
    config.tokenizer.update({"vocab": 16, "stack": common.stack(4)})
    config.tokenizer.stack.update({"ch": 16, "background": 0.0})
    config.model.update({"width": 32, "depth": 1, "heads": 2, "cond": 8, "caption_dim": 32})
    config.text.sizes.update({"width": 32, "depth": 1, "heads": 2, "hidden": 32, "tokens": 8})
    config.cache_chunk = None
    config.pretrain.classifier.update({"steps": 20, "batch": 16})
    config.pretrain.tokenizer.update({"steps": 150, "batch": 32, "gan_weight": 0.0, "grid_every": 0})
    config.pretrain.tokenizer.update({"perceptual": "none", "lr": 1e-2, "ema": 0.9})
    config.pretrain.teacher.update({"steps": 120, "batch": 32, "grid_every": 60, "ema": 0.9, "token_corruption": 0.0})
    config.pairs.update({"count": 120, "shard": 60, "batch": 60})
    config.train.update({"steps": 20, "batch": 32, "timesteps": (0, 2), "warmup": 2})
    plans = {"plans": ("S0",)}
    config.evaluate.update({"count": 60, "reference": 60, "batch": 60, "taus": (), **plans})
    config.sample.update({"count": 12, "batch": 12, **plans})
    config.speed.update({"repeats": 1, "training": False, **plans})
    return config


def painted(images) -> list[str]:
    """The colour that each picture comes nearest to."""
    mean = np.asarray(images, float).mean((1, 2))
    names, colours = [*COLOURS], np.array([*COLOURS.values()])
    return [names[i] for i in ((mean[:, None] - colours) ** 2).sum(-1).argmin(1)]


def agreeing(pipe) -> float:
    """Share of pictures, by the teacher, that have the colour that they were asked for."""
    asked = [word for word in COLOURS for _ in range(4)]
    images = pipe.sample([f"a {word} square" for word in asked], plan=f"T0:{pipe.system.layout.steps}")
    return float(np.mean([a == b for a, b in zip(asked, painted(images), strict=True)]))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """(run, its pictures, its config): from captioned pictures to the report."""
    root = tmp_path_factory.mktemp("captions")
    config = tiny(fill(root / "set", 160, txt=lines))
    pipeline.run(config, root / "run")
    return root / "run", root / "set", config


def taught_anew(run, folder, config):
    """Another teacher of the same tokenizer."""
    shutil.copytree(run, folder, ignore=shutil.ignore_patterns("teacher", "weights", "stages.json", "config.json"))
    pipeline.run(config, folder, "pretrain")
    return load(folder, student=None)


def test_a_picture_depends_on_its_caption(finished):
    run = finished[0]
    assert agreeing(load(run)) > 0.9
    results = [json.loads(line) for line in (run / "results.jsonl").read_text().splitlines()]
    assert {row.get("split") for row in results} == {"seen", "held out"}
    rows = {row["generator"]: row for row in results if row["split"] == "seen"}
    assert {"real", "reconstruction", "teacher", "student"} <= {*rows}
    assert rows["real"]["caption_found"] > 0.9
    assert "a red square" in (run / "report.html").read_text()


@pytest.mark.slow
def test_a_teacher_of_other_pictures_captions_draws_other_pictures(finished, tmp_path):
    """What `agreeing` tells is not what any teacher does."""
    run, pictures, config = *finished[:2], copy.deepcopy(finished[2])
    wrong = tmp_path / "wrong"
    shutil.copytree(pictures, wrong)
    for i in range(160):
        (wrong / f"{i:02}.txt").write_bytes(lines(i + 1))
    config.data.name = f"folder:{wrong}"
    assert agreeing(taught_anew(run, tmp_path / "again", config)) < 0.5


@pytest.mark.slow
def test_a_published_encoder_reads_them(finished, tmp_path, monkeypatch):
    """As it is: nothing of it learns, and nothing of it is kept with the run."""
    sizes = functools.partial(common.ConfigDict, fake_shards.TINY.sizes())
    monkeypatch.setitem(CATALOG, "flan_t5_xl", dataclasses.replace(CATALOG["flan_t5_xl"], config=sizes))
    fake_shards.release(tmp_path / "published", fake_shards.TINY, write_torch, _random, "safetensors")
    ported = cli.port(CATALOG["flan_t5_xl"], tmp_path / "published", tmp_path / "flan")
    run, _, config = copy.deepcopy(finished)
    config.text.update({"words": False, "sizes": sizes()})
    config.model.update({"cond": fake_shards.TINY.tokens, "caption_dim": fake_shards.TINY.width})
    config.weights.text = str(ported)
    pipe = taught_anew(run, tmp_path / "again", config)
    assert agreeing(pipe) > 0.9
    assert not (tmp_path / "again/weights/text").exists()
    assert (tmp_path / "again/teacher/grids/step-00000060.png").exists()


def test_a_run_needs_its_pictures_no_more(finished, tmp_path):
    run, pictures, config = *finished[:2], copy.deepcopy(finished[2])
    captions, unseen = noted.read(run / noted.NOTED)
    assert len(captions) == 164
    assert sum(unseen) == 8
    shutil.copytree(run, tmp_path / "moved")
    pictures.rename(pictures.with_name("away"))
    try:
        pipe = load(tmp_path / "moved")
        assert pipe.sample(["a blue square"]).shape == (1, 16, 16, 3)
        assert load(tmp_path / "moved/weights/student").sample(["a blue square"]).shape == (1, 16, 16, 3)
        config.sample.prompt = "a green square"
        pipeline.run(config, tmp_path / "moved", "sample")
        config.sample.prompt, config.train.steps = "", 24
        pipeline.run(config, tmp_path / "more", "train", run)
    finally:
        pictures.with_name("away").rename(pictures)
    assert not (tmp_path / "more" / noted.NOTED).exists()
    config.train.steps = 20
    (pictures / "more.png").write_bytes(png(1))
    (pictures / "more.txt").write_text("another one")
    with pytest.raises(UserError, match="has other captions than this run noted when it began: put those back"):
        pipeline.run(config, tmp_path / "moved", "evaluate")
    for name in ("more.png", "more.txt"):
        (pictures / name).unlink()
    config.data.captions = "first"
    with pytest.raises(UserError, match=r"was made with config\.data\.captions=any, now it is first"):
        pipeline.run(config, tmp_path / "moved")
    assert noted.read(tmp_path / "moved" / noted.NOTED)[0].captions == captions.captions
