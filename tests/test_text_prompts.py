"""Prompt files, good and bad, and the cache of features."""

import json
import sys
import types

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from test_text_t5 import encoder

from dd_jax.system.errors import UserError
from dd_jax.text import cache
from dd_jax.text.features import STORED, Live
from dd_jax.text.prompts import Prompts, read

GOOD = {
    "lines.txt": ("a red fox\r\n\n  two dogs \nlast", ("a red fox", "two dogs", "last")),
    "parti.tsv": (
        "Prompt\tCategory\tChallenge\tNote\n"
        'a sign that says "Deep"\tArts\tx\ty\n"a ""big"" cat"\tA\tB\t\n12" ruler\tA\tB\t\n',
        ('a sign that says "Deep"', 'a "big" cat', '12" ruler'),
    ),
    "coco.csv": ("image_id\tPrompt\n7\tA man, a plan.\n8\ta dog\n", ("A man, a plan.", "a dog")),
    "comma.csv": ('id,Caption\n1,"a, b"\n2,plain\n3,"two\nlines"\n', ("a, b", "plain", "two\nlines")),
    "semicolon.csv": ("id;TEXT\n1;a, b\n", ("a, b",)),
    "one.csv": ("caption\na, b and c\nd\n", ("a, b and c", "d")),
    "both.csv": ("text,caption\nno,yes\n", ("yes",)),
    "rows.jsonl": ('{"id": 1, "Prompt": "a fox"}\n{"Prompt": "b"}\n', ("a fox", "b")),
    "mark.tsv": ("\ufeffcaption\tn\nx\t1\n", ("x",)),
}


@pytest.mark.parametrize("name", GOOD)
def test_good_files(tmp_path, name):
    text, captions = GOOD[name]
    (tmp_path / name).write_bytes(text.encode())
    found = read(tmp_path / name)
    assert found.captions == captions
    assert found.skipped == (name == "lines.txt")
    assert len(found.sha256) == 64


BAD = {
    "bytes.txt": (b"one\n\xff\xfe\n\ntwo\n", ("one", "two"), "2 (not UTF-8), 3 (empty)"),
    "bytes.csv": (
        b"id,caption\n1,a\n2,\xff\n3\n,\n4,b,c\n5,d\n",
        ("a", "b,c", "d"),
        "3 (not UTF-8), 4 (1 columns, not 2)",
    ),
    "quote.tsv": (b'caption\tn\n"open\t1\na\t2\nb\t3\n', ("a", "b"), "2 (a quote is not closed)"),
    "rows.jsonl": (
        b'{"text": "a"}\n{"text": 3}\nnope\n[]\n{"text": "b"}\n',
        ("a", "b"),
        "2 (no text in 'text'), 3 (no JSON)",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_rows_are_left_out_and_told(tmp_path, capsys, name):
    data, captions, told = BAD[name]
    (tmp_path / name).write_bytes(data)
    found = read(tmp_path / name)
    assert found.captions == captions
    out = capsys.readouterr().out
    assert told in out
    assert f"left out {found.skipped} bad rows" in out


def test_an_open_quote_costs_one_row_of_many(tmp_path):
    rows = ["caption\tn", "a\t1", '"b\t2', *(f"c{i}\t{i}" for i in range(300)), 'd "e" f\t9']
    (tmp_path / "a.tsv").write_text("\n".join(rows))
    found = read(tmp_path / "a.tsv")
    assert (len(found), found.skipped) == (302, 1)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "id,name\n1,2\n", "has the columns id, name: none of them is caption, prompt, text"),
        ("a.jsonl", '{"id": 1}\n', "has the columns id: none"),
        ("a.tsv", "", "has the columns none"),
        ("a.txt", "\n\n", "has no captions: all 2 rows are bad"),
        ("a.docx", "x", r"are read from .txt, .csv, .tsv, .json, .*, .parquet, .* files, or tfds:NAME"),
    ],
)
def test_files_without_captions(tmp_path, name, text, told):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=told):
        read(tmp_path / name)
    with pytest.raises(UserError, match="does not exist"):
        read(tmp_path / "missing.txt")


def test_parquet(tmp_path, monkeypatch, capsys):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    path = tmp_path / "a.parquet"
    raw = pa.array([b"a fox", b"\xff", b"", None, b"b"], pa.binary())
    pq.write_table(pa.table({"id": [1, 2, 3, 4, 5], "Caption": raw}), path)
    assert read(path).captions == ("a fox", "b")
    assert "left out 3 bad rows: 2 (not UTF-8), 3 (empty), 4 (empty)" in capsys.readouterr().out
    pq.write_table(pa.table({"prompt": [1, 2]}), path)
    with pytest.raises(UserError, match="column prompt is int64, and captions are strings"):
        read(path)
    path.write_bytes(b"PAR1 no")
    with pytest.raises(UserError, match="no readable parquet file"):
        read(path)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    with pytest.raises(UserError, match="needs pyarrow"):
        read(path)


def test_tfds(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(
        UserError, match=r"reading tfds:coco_captions needs tensorflow-datasets: pip install 'dd_jax\[data\]'"
    ):
        read("tfds:coco_captions")
    nested = {"image": 0, "captions": {"id": [1, 2], "text": [b"a fox", b"two dogs"]}}
    fake = types.SimpleNamespace(data_source=lambda name, split, download: [nested, {"caption": split.encode()}])
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", fake)
    assert read("tfds:x:val").captions == ("a fox", "two dogs", "val")


def test_many_rows(tmp_path):
    path = tmp_path / "many.csv"
    path.write_text("id,caption\n" + "".join(f"{i},caption number {i}\n" for i in range(50_000)))
    found = read(path)
    assert len(found) == 50_000
    assert found.captions[-1] == "caption number 49999"


PROMPTS = Prompts.of(*(f"w{i} w{i + 1}" for i in range(9)), "", " ".join(f"w{i % 90}" for i in range(400)))


def folder(root):
    return next(root.iterdir())


def test_stored_features_are_those_made_on_the_fly(tmp_path):
    stored, live = cache.store(encoder(), PROMPTS, tmp_path, shard=4), Live(encoder(), PROMPTS)
    assert len(stored) == len(live) == 11
    for index in (range(11), [10, 0, 10, 3]):
        for mine, theirs in zip(stored.rows(index), live.rows(index), strict=True):
            assert_array_equal(mine, theirs)
    assert stored.rows([1])[0].dtype == STORED
    tokens = 9 * 3 + 1 + 120
    assert sum(path.stat().st_size for path in folder(tmp_path).glob("*.bf16")) == tokens * 32 * 2
    with pytest.raises(UserError, match="caption 11 of"):
        stored.rows([11])


def test_a_killed_run_goes_on(tmp_path, monkeypatch, capsys):
    whole = cache.store(encoder(), PROMPTS, tmp_path / "whole", shard=4)
    write = cache._Parts.write

    def killed(parts, i, pieces):
        if i == 2:
            raise KeyboardInterrupt
        write(parts, i, pieces)

    monkeypatch.setattr(cache._Parts, "write", killed)
    with pytest.raises(KeyboardInterrupt):
        cache.store(encoder(), PROMPTS, tmp_path / "cut", shard=4)
    with pytest.raises(UserError, match="is not finished"):
        cache.Stored(folder(tmp_path / "cut"))
    monkeypatch.setattr(cache._Parts, "write", write)
    capsys.readouterr()
    again = cache.store(encoder(), PROMPTS, tmp_path / "cut", shard=999)  # goes on as it was begun
    assert "11/11" in capsys.readouterr().out
    assert_array_equal(again.rows(range(11))[0], whole.rows(range(11))[0])
    names = sorted(path.name for path in again.folder.iterdir())
    assert names == [
        "00000.bf16",
        "00000.json",
        "00001.bf16",
        "00001.json",
        "00002.bf16",
        "00002.json",
        "features.json",
    ]
    cache.store(encoder(), PROMPTS, tmp_path / "cut")
    assert "captions" not in capsys.readouterr().out


def test_damage_is_found_and_mended(tmp_path, capsys):
    stored = cache.store(encoder(), PROMPTS, tmp_path, shard=4)
    wanted, path = stored.rows(range(11))[0], stored.folder / "00001.bf16"
    data = bytearray(path.read_bytes())
    data[5] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"00001.bf16 is damaged"):
        cache.Stored(stored.folder).verify()
    assert_array_equal(cache.store(encoder(), PROMPTS, tmp_path).rows(range(11))[0], wanted)
    assert "made again" in capsys.readouterr().out
    path.write_bytes(data[:-2])
    with pytest.raises(UserError, match=r"00001.bf16 is damaged"):
        cache.Stored(stored.folder)
    (stored.folder / "00002.json").write_text("{")
    assert_array_equal(cache.store(encoder(), PROMPTS, tmp_path).rows(range(11))[0], wanted)


def test_other_prompts_or_encoders_have_their_own(tmp_path):
    import dataclasses

    cache.store(encoder(), PROMPTS, tmp_path)
    cache.store(encoder(), Prompts.of("w1"), tmp_path)
    cache.store(dataclasses.replace(encoder(), cleaned=True), Prompts.of("w1"), tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    path = folder(tmp_path) / cache.MANIFEST
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 9}))
    with pytest.raises(UserError, match="format 9"):
        cache.Stored(path.parent)
    with pytest.raises(UserError, match="has no caption features"):
        cache.Stored(tmp_path)


def test_no_rows_are_loaded_that_nobody_asks_for(tmp_path):
    stored = cache.store(encoder(), PROMPTS, tmp_path, shard=4)
    stored.rows([0, 1, 5])
    assert stored._map.cache_info().currsize == 2
    assert isinstance(stored._map(0).base, np.memmap) or isinstance(stored._map(0), np.memmap)
