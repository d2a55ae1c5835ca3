"""Captions as people have them: encodings, line ends, JSON of every layout, Arrow's types of columns, tfds's names."""

import json
import sys
import types

import pytest

from dd_jax.data import tfds
from dd_jax.system.errors import UserError
from dd_jax.text.prompts import read

TWO = ("a red fox in snow", "two dogs, one cat")
ROWS = [{"caption": one, "id": i} for i, one in enumerate(TWO)]
ENCODINGS = ("utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be")


def written(path, data, encoding="utf-8"):
    path.write_bytes(data if isinstance(data, bytes) else data.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_encodings(tmp_path, encoding):
    """With a mark and without; Windows writes the first two, and Excel's "Unicode text" is a table in the second."""
    texts = {
        "a.txt": "un été à Zürich\n狐\n",
        "a.tsv": "id\tcaption\n1\tun été à Zürich\n2\t狐\n",
        "a.jsonl": '{"caption": "un été à Zürich"}\r\n{"caption": "狐"}\r\n',
        "a.json": '[\n "un été à Zürich",\n "狐"\n]',
    }
    for name, text in texts.items():
        found = read(written(tmp_path / name, text, encoding))
        assert (found.captions, found.skipped) == (("un été à Zürich", "狐"), 0), name
    assert read(written(tmp_path / "b.txt", "一只红色的狐狸\n两只狗\n", encoding)).captions == (
        "一只红色的狐狸",
        "两只狗",
    )


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\r\r\n", "\n\r"])
def test_line_ends(tmp_path, end):
    assert read(written(tmp_path / "a.txt", end.join((*TWO, "")))).captions == TWO
    assert read(written(tmp_path / "a.txt", end.join((*TWO, "")), "utf-16")).captions == TWO
    table = end.join(["id,caption", "1,a fox", '2,"two,', 'lines"', ""])
    assert read(written(tmp_path / "a.csv", table)).captions[0] == "a fox"
    assert [one.split() for one in read(tmp_path / "a.csv").captions[1:]] == [["two,", "lines"]]


def test_no_caption_has_control_characters(tmp_path, capsys):
    text = "a fox\0\n\0\nbell\x07\ntwo\fpages\nC1\x80\nb\n"
    assert read(written(tmp_path / "a.txt", text)).captions == ("two pages", "b")
    assert "left out 4 bad rows: 1 (a control character, U+0000)" in capsys.readouterr().out
    rows = '{"caption": "a\\u0000b"}\n{"caption": "\\ud83e"}\n{"caption": "c"}\n'
    assert read(written(tmp_path / "a.jsonl", rows)).captions == ("c",)
    assert read(written(tmp_path / "a.csv", 'id,caption\n1,"a\0b"\n2,c\n')).captions == ("c",)
    assert read(written(tmp_path / "b.txt", "a\ud83e\nb\n".encode("utf-16-le", "surrogatepass"))).captions == ("b",)
    assert read(written(tmp_path / "c.txt", "a fox\nb\n".encode("utf-16")[:-1])).captions == ("a fox",)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"\x1f\x8b\x08\0", "is a gzip archive: unpack it"),
        (b"PK\x03\x04\0\0", "is a zip archive or an office document"),
        (b"PAR1\0\0", "is a parquet file: rename it to .parquet"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "is a pointer of Git LFS"),
        (b"\n<!DOCTYPE html>\n<p>\n", "is a page of HTML"),
        (b"\0\1\2\3" * 99, "has no captions: all 1 rows are bad"),
    ],
)
def test_files_that_are_no_text(tmp_path, data, told):
    for name in ("a.txt", "a.csv"):
        with pytest.raises(UserError, match=told if name == "a.txt" else "is a|has the columns"):
            read(written(tmp_path / name, data))


COCO = {
    "info": {},
    "images": [{"id": 1, "file_name": "1.jpg"}],
    "annotations": [{"image_id": 1, "id": i, "caption": one} for i, one in enumerate(TWO)],
}
SPLITS = {"images": [{"sentids": [0, 1], "sentences": [{"raw": one, "tokens": []} for one in TWO]}], "dataset": "coco"}
DOCUMENTS = {
    "captions_val2014.json": COCO,
    "dataset_coco.json": SPLITS,
    "array.json": TWO,
    "objects.json": ROWS,
    "lists.json": [{"captions": TWO}],
    "names.json": {"1.jpg": TWO[0], "2.jpg": TWO[1]},
    "several.json": {"1.jpg": TWO},
    "meta.json": {"1": {"category": "x", "prompt": TWO[0]}, "2": {"prompt": TWO[1]}},
    "columns.json": {"id": [1, 2], "text": TWO},
    "frame.json": {"caption": {"0": TWO[0], "1": TWO[1]}},
    "array.jsonl": ROWS,
}


@pytest.mark.parametrize("name", DOCUMENTS)
def test_json(tmp_path, name):
    for indent in (None, 1):
        path = written(tmp_path / name, json.dumps(DOCUMENTS[name], indent=indent))
        assert read(path).captions == TWO


LINES = {
    "objects": ROWS,
    "lists": [{"caption": [one]} for one in TWO],
    "strings": TWO,
    "plural": [{"captions": one} for one in TWO],
    "nested": [{"sentences": {"raw": one, "tokens": ["a"]}} for one in TWO],
    "both": [{"sentence": [{"raw": TWO[0]}, {"raw": TWO[1]}]}],
}


@pytest.mark.parametrize("name", LINES)
@pytest.mark.parametrize("suffix", ["jsonl", "json", "ndjson"])
def test_json_lines(tmp_path, name, suffix):
    text = "\n".join(json.dumps(one) for one in LINES[name])
    assert read(written(tmp_path / f"a.{suffix}", text)).captions == TWO


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"a": 1}', "has the columns a: none of them is caption, prompt, text, sentence, comment; give the one"),
        ('[{"caption": "a"},', "is no readable JSON"),
        ("[" * 100_000, "is no readable JSON"),
        ("", "is no readable JSON"),
        ("[1, 2]", "has no captions: all 2 rows are bad"),
        ('{"images": [], "annotations": [{"bbox": [1]}]}', "has the columns images, annotations"),
    ],
)
def test_json_without_captions(tmp_path, text, told):
    with pytest.raises(UserError, match=told):
        read(written(tmp_path / "a.json", text))


TABLES = {
    "id,caption\n1,two dogs, one cat\n2,a fox\n": ("two dogs, one cat", "a fox"),
    "id,caption,\n1,a fox,\n": ("a fox",),
    "image_name| comment_number| comment\n1.jpg| 0| a fox .\n": ("a fox .",),
    '"id","sentence"\n"1","a fox"\n': ("a fox",),
    "sep=;\nid;Text\n1;a, b\n": ("a, b",),
    'caption,n\n"G I G" painted,1\n"Head shot" of a "zebra",2\n"a ""b"", c",3\n': (
        '"G I G" painted',
        '"Head shot" of a "zebra"',
        'a "b", c',
    ),
    'id, caption\n1, "a, b"\n2, "Stop" says it, twice\n': ("a, b", '"Stop" says it, twice'),
    'caption\tn\n"two\nlines"\t1\n"open\nb" c\t2\nd\t3\n': ("two\nlines", 'b" c', "d"),
}


@pytest.mark.parametrize("text", TABLES)
def test_tables(tmp_path, text):
    assert read(written(tmp_path / "a.csv", text)).captions == TABLES[text]


def test_a_table_under_a_text_files_name(tmp_path, capsys):
    """Flickr8k's captions.txt."""
    assert read(written(tmp_path / "a.txt", "image,caption\n1.jpg,A child , in pink .\n")).captions == (
        "A child , in pink .",
    )
    assert "read as a table" in capsys.readouterr().out
    assert len(read(written(tmp_path / "a.txt", "a caption, text\nanother, one\n"))) == 2


def test_folders_and_packed_files(tmp_path):
    written(tmp_path / "train.parquet", b"")
    with pytest.raises(UserError, match=r"is a folder: name a file in it, such as train\.parquet"):
        read(tmp_path)
    with pytest.raises(UserError, match="unpack it"):
        read(tmp_path / "captions.jsonl.gz")


def columns_of(pa):
    """Arrow's types of text, of dictionaries, lists and structs of it."""
    for kind in (pa.string, pa.large_string, pa.string_view, pa.large_binary, pa.binary_view):
        yield pa.array(TWO, kind())
        yield pa.array([[one] for one in TWO], pa.large_list(kind()))
    yield pa.array(TWO).dictionary_encode()
    yield pa.array([[one] for one in TWO], pa.list_(pa.string(), 1))
    yield pa.array([[one] for one in TWO], pa.list_view(pa.string()))
    yield pa.array([{"raw": one, "id": 1} for one in TWO])
    yield pa.array([[{"raw": one}] for one in TWO])


def test_columns_of_arrow(tmp_path):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    for column in columns_of(pa):
        table = pa.table({"id": [1, 2], "captions": column})
        pq.write_table(table, tmp_path / "a.parquet")
        with pa.ipc.new_file(tmp_path / "a.feather", table.schema) as file:
            file.write_table(table)
        with pa.ipc.new_stream(tmp_path / "a.arrow", table.schema) as file:
            file.write_table(table)
        for name in ("a.parquet", "a.feather", "a.arrow"):
            assert read(tmp_path / name).captions == TWO, (name, column.type)
    pq.write_table(pa.table({"caption": [[1]]}), tmp_path / "a.parquet")
    with pytest.raises(UserError, match=r"column caption is list<.*int64>, and captions are strings"):
        read(tmp_path / "a.parquet")
    with pytest.raises(UserError, match="no readable Arrow file"):
        read(written(tmp_path / "b.arrow", b"ARROW1 no"))


def test_a_string_of_arrow_that_is_not_utf8(tmp_path, capsys):
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    text = pa.array([b"a", b"\xff", b"b"]).view(pa.string())
    for column in (text, pa.ListArray.from_arrays(pa.array([0, 1, 2, 3], pa.int32()), text)):
        pq.write_table(pa.table({"caption": column}), tmp_path / "a.parquet")
        assert read(tmp_path / "a.parquet").captions == ("a", "b")
        assert "2 (not UTF-8)" in capsys.readouterr().out


def test_names_of_data_sets():
    assert tfds.parse("mnist") == ("mnist", "train")
    assert tfds.parse("mnist:3.0.1") == ("mnist:3.0.1", "train")
    assert tfds.parse("mnist:3.0.1:test[:50%]") == ("mnist:3.0.1", "test[:50%]")
    assert tfds.parse("coco_captions/2014:1.*.*:val[10:20]") == ("coco_captions/2014:1.*.*", "val[10:20]")
    assert tfds.parse("mnist:train[:10]+test") == ("mnist", "train[:10]+test")


class DatasetNotFoundError(ValueError):
    """As tensorflow-datasets names it."""


NOT_FOUND = "Dataset mnsit not found.\nAvailable datasets:\n" + "".join(f"\t- {x}\n" for x in ("mnist", *"abc" * 90))
REFUSED = {
    "name": (DatasetNotFoundError(NOT_FOUND), "no data set .* of this name; did you mean mnist"),
    "tfrecord": (
        ValueError("File format array_record does not match the file formats in the DatasetInfo: ['tfrecord']."),
        "prepared in another format than array_record: .*tfds build mnsit --file_format=array_record",
    ),
    "absent": (
        KeyError("Trying to access `splits['train']` but `splits` is empty. ... has not been generated yet."),
        "not prepared here .*: tfds build mnsit --file_format=array_record",
    ),
    "version": (
        AssertionError('Failed to construct dataset "x", builder_kwargs "{}": Dataset x cannot be read, only: 1.2.0.'),
        r"cannot be opened \(Dataset x cannot be read, only: 1\.2\.0\.\)",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_data_sets_that_cannot_be_read_are_one_line(monkeypatch, kind):
    error, told = REFUSED[kind]

    def data_source(*args, **kwargs):
        raise error

    monkeypatch.setitem(sys.modules, "tensorflow_datasets", types.SimpleNamespace(data_source=data_source))
    with pytest.raises(UserError, match=told) as caught:
        read("tfds:mnsit")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300
