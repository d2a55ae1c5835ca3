"""Records as sources of pictures: those that TensorFlow packs, and the data sets of tensorflow-datasets itself."""

import io
import sys

import numpy as np
import pytest
from array_record.python import array_record_module
from fruit import CLASSES, example, field, pixels, png, records

from dd_jax.data import sources
from dd_jax.system.errors import UserError


@pytest.fixture(autouse=True)
def cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_records_are_read_by_name_and_say_what_they_cannot(tmp_path):
    path = tmp_path / "x.array_record"

    def told(*rows) -> str:
        with pytest.raises(UserError) as caught:
            sources.open_source(f"array_record:{records(path, rows)}")
        assert "\n" not in str(caught.value)
        return str(caught.value)

    rows = [{"image/encoded": png(1), "image/class/label": 3}, {"png": png(2), "cls": [1]}, {"png": png(4)}, {"cls": 1}]
    rows += [{"image": png(3), "more": 0.5, "label": b"0"}, {"image": b"", "label": 7}]
    source = sources.open_source(f"array_record:{records(path, rows)}")
    assert (source.names, source.label.tolist()) == (("0", "1", "2", "3"), [3, 1, 0])
    assert source.left_out == ["2 samples without a picture", "1 sample without a label"]
    assert source.called(2) == f"record 4 of {path}"
    for number, i in enumerate((1, 2, 3)):
        np.testing.assert_array_equal(np.asarray(source.open(number)), pixels(i))
    assert "holds caption, label, and no picture that is called image or image/encoded" in told(
        {"label": 1, "caption": "x"}
    )
    assert "labels go from -1 to 0" in told({"image": png(1), "label": -1}, {"image": png(1), "label": 0})
    for row in (b"\0", b"no example", b"\x08\x01", field(1, field(1, b"\x08\x05")), example({"image": png(1)})[:-9]):
        assert "record 1 of " in (line := told(rows[0], row)), row
        assert line.endswith("cannot be read (it is no tf.train.Example): write it again")
    assert "cannot be read (label has 2 values)" in told({"image": png(1), "label": [1, 2]})
    assert "cannot be read (floats are neither" in told({"image": png(1), "label": 0.5})
    whole = records(path, [{"image": png(i), "label": 1} for i in range(99)]).read_bytes()
    damaged = bytearray(whole)
    damaged[50_000:50_040] = b"?" * 40
    path.write_bytes(damaged)
    with pytest.raises(UserError, match=r"x\.array_record is damaged about record \d+ \(.*\): fetch or write it again"):
        sources.open_source(f"array_record:{path}")
    path.write_bytes(whole[:70_000])
    with pytest.raises(UserError, match=r"x\.array_record is cut off or damaged, or no array_record file: fetch"):
        sources.open_source(f"array_record:{path}")


def test_records_in_groups_are_noted_and_a_missing_package_is_a_line(tmp_path, monkeypatch):
    path = tmp_path / "x.array_record"
    writer = array_record_module.ArrayRecordWriter(str(path), "group_size:4")
    for i in range(9):
        writer.write(example({"image": png(i)}))
    writer.close()
    source = sources.open_source(f"array_record:{path}")
    assert source.notes == [
        f"{path} has groups of 4 records, unpacked whole for each picture: group_size:1 writes single ones"
    ]
    np.testing.assert_array_equal(np.asarray(source.open(7)), pixels(7))
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    with pytest.raises(UserError, match=r"x\.array_record needs array_record: pip install 'dd_jax\[data\]'"):
        sources.open_source(f"array_record:{path}")


def test_a_data_set_that_tensorflow_datasets_prepared(tmp_path):
    """Not the stand-in of the other tests: names of classes, splits, records by themselves, a torn file."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class Fruit(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            held = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=list(CLASSES))}
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(held))

        def _split_generators(self, manager):
            return {"train": self._generate_examples(range(40)), "test": self._generate_examples(range(40, 50))}

        def _generate_examples(self, numbers):
            for i in numbers:
                yield i, {"image": io.BytesIO(png(i)), "label": i % 2}

    builder = Fruit(data_dir=str(tmp_path), file_format="array_record")
    builder.download_and_prepare()
    stored = builder.data_path
    for name, some in ((f"tfds:{stored}", range(40)), (f"tfds:{stored}:test", range(40, 50))):
        source = sources.open_source(name)
        assert (source.count, source.names, source.channels) == (len(some), CLASSES, 3)
        found = {np.asarray(source.open(i)).tobytes(): int(source.label[i]) for i in range(source.count)}
        assert found == {pixels(i).tobytes(): i % 2 for i in some}
    direct = sources.open_source(f"array_record:{stored}/*train*")
    source = sources.open_source(f"tfds:{stored}")
    assert direct.label.tolist() == source.label.tolist()
    np.testing.assert_array_equal(np.asarray(direct.open(5)), np.asarray(source.open(5)))
    with pytest.raises(UserError, match=r"has no dataset_info\.json: name the folder of a version, such as .*/1\.0\.0"):
        sources.open_source(f"tfds:{stored.parent}")
    (file,) = stored.glob("*train*")
    with open(file, "r+b") as torn:
        torn.truncate(70_000)
    with pytest.raises(UserError, match=r"^record \d+ of tfds:.* cannot be read \(.*\): prepare it again$"):
        _ = sources.open_source(f"tfds:{stored}").label
