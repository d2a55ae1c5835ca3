"""Pair sets on disk: mapped shards, joined sets, and everything that verifying must notice."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import tiny

from dd_jax.data import pairset
from dd_jax.data.conditions import Classes
from dd_jax.scripts import merge_pairs
from dd_jax.stages import pairs, verify
from dd_jax.system import stopping
from dd_jax.system.errors import UserError

SEED, SHARD = 3, 4


def make(folder: Path, first: int, count: int, **facts) -> pairset.PairSet:
    models, params = tiny.raster()
    given = {
        "seed": SEED,
        "conditions": Classes(tiny.CLASSES),
        "label_scheme": "uniform",
        "facts": {"guidance": 2.0} | facts,
    }
    return pairs.generate(folder, models, params, count, SHARD, 4, first=first, **given)


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> Path:
    """`whole`: ids 0..9; `a` and `b`: 0..3 and 4..9."""
    folder = tmp_path_factory.mktemp("sets")
    for name, first, count in (("whole", 0, 10), ("a", 0, 4), ("b", 4, 6)):
        make(folder / name, first, count)
    return folder


@pytest.fixture
def copy(sets, tmp_path) -> Path:
    shutil.copytree(sets, tmp_path / "sets")
    return tmp_path / "sets"


def check(folder: Path, **facts) -> str:
    models, params = tiny.raster()
    return verify.verify(folder, models, params, Classes(tiny.CLASSES), tiny.VOCAB, 4, {"guidance": 2.0} | facts)


def test_rows_are_read_from_any_shard(sets):
    found = pairset.load(sets / "whole")
    assert len(found) == 10
    at = np.array([9, 0, 4, 3, 9])
    rows = found.rows(at)
    np.testing.assert_array_equal(rows["id"], at)
    for name in pairset.FIELDS:
        np.testing.assert_array_equal(rows[name], getattr(found, name)[at])
        with np.load(sets / "whole" / "shard-00001.npz") as shard:
            np.testing.assert_array_equal(getattr(found, name)[4:8], shard[name])
    assert isinstance(found.shards[0]["code"].base, np.memmap)
    assert found.code.dtype == np.uint16


def test_parts_of_several_runs_are_the_whole(sets, tmp_path):
    merge_pairs.main([str(tmp_path / "out"), str(sets / "b"), str(sets / "a")])
    for path in (sets / "whole").iterdir():
        assert (tmp_path / "out" / path.name).read_bytes() == path.read_bytes(), path.name
    made = (tmp_path / "out/shard-00001.npz").stat().st_mtime_ns
    assert len(make(tmp_path / "out", 0, 10)) == 10
    assert (tmp_path / "out/shard-00001.npz").stat().st_mtime_ns == made


def test_a_set_takes_in_another(copy):
    assert len(pairset.merge(copy / "a", [copy / "a", copy / "b"])) == 10
    assert pairset.manifest_of(copy / "a") == pairset.manifest_of(copy / "whole")


def test_sets_that_do_not_mix(copy):
    with pytest.raises(UserError, match=r"both have the ids 4\.\.7"):
        pairset.merge(copy / "out", [copy / "whole", copy / "b"])
    with pytest.raises(UserError, match="holds a pair set already"):
        pairset.merge(copy / "whole", [copy / "a", copy / "b"])
    manifest = json.loads((copy / "b/manifest.json").read_text())
    (copy / "b/manifest.json").write_text(json.dumps(manifest | {"guidance": 1.5}))
    with pytest.raises(UserError, match=r"guidance=2\.0, .*b with guidance=1\.5: they do not mix"):
        pairset.merge(copy / "out", [copy / "a", copy / "b"])
    with pytest.raises(UserError, match="no pair set"):
        pairset.merge(copy / "out", [copy / "a", copy / "nowhere"])
    with pytest.raises(UserError, match=r"config\.pairs\.first=3 is not a multiple"):
        make(copy / "new", 3, 4)
    with pytest.raises(UserError, match=r"begun with guidance=2\.0, now it is 1\.5"):
        make(copy / "a", 0, 4, guidance=1.5)


def test_a_whole_set_is_verified(sets):
    assert check(sets / "whole").startswith("10 pairs in 3 shards are whole; 100")


def rewrite(folder: Path, name: str, **arrays) -> None:
    """A shard with other contents, and a manifest that knows no better."""
    shard = {key: np.array(x) for key, x in pairset.read(folder / name).items()}
    digest = pairset.write(folder / name, shard | arrays)
    manifest = pairset.manifest_of(folder)
    manifest["shards"][name] = digest
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_verifying_notices(copy):
    whole, name = copy / "whole", "shard-00001.npz"
    kept = {path: path.read_bytes() for path in whole.iterdir()}
    code = np.array(pairset.read(whole / name)["code"])
    cases = [
        ({"id": np.arange(0, 4, dtype=np.int32)}, "ids of another shard"),
        ({"id": np.array([4, 5, 5, 7], np.int32)}, "ids with gaps"),
        ({"label": np.full(4, tiny.CLASSES, np.int32)}, "labels that this run does not draw"),
        ({"code": code + np.uint16(tiny.VOCAB)}, r"codes outside 0\.\.11"),
        ({"code": code[:, 1:]}, "codes of another shape"),
        ({"code": (code + np.uint16(1)) % np.uint16(tiny.VOCAB)}, "of its tokens again, less than 99%"),
    ]
    for arrays, message in cases:
        rewrite(whole, name, **arrays)
        with pytest.raises(UserError, match=message):
            check(whole)
        for path, data in kept.items():
            path.write_bytes(data)
    for facts, message in (
        ({"guidance": 1.0}, r"guidance=2\.0, here it is 1\.0"),
        ({"seed": 4}, "seed=3, here it is 4"),
    ):
        with pytest.raises(UserError, match=message):
            check(whole, **facts)
    data = bytearray(kept[whole / name])
    data[-300] ^= 1
    (whole / name).write_bytes(data)
    with pytest.raises(UserError, match="is damaged"):
        check(whole)


def test_one_flipped_byte_is_found_before_there_is_a_manifest(copy):
    whole = copy / "whole"
    (whole / "manifest.json").unlink()
    path, kept = whole / "shard-00001.npz", (whole / "shard-00001.npz").read_bytes()
    at = kept.index(np.array(pairset.read(path)["code"]).tobytes())
    path.write_bytes(kept[:at] + bytes([kept[at] ^ 1]) + kept[at + 1 :])
    make(whole, 0, 10)
    assert path.read_bytes() == kept


def test_what_goes_wrong_in_the_writing_thread_is_raised(tmp_path, monkeypatch):
    def full(path, shard):
        raise UserError(f"cannot write {path}: no space")

    monkeypatch.setattr(pairset, "write", full)
    with pytest.raises(UserError, match=r"cannot write .*shard-00000\.npz"):
        make(tmp_path / "set", 0, 10)


def test_told_to_stop_whole_shards_stay(tmp_path, monkeypatch):
    seen = iter([False, True])
    monkeypatch.setattr(stopping, "asked", lambda: next(seen))
    with pytest.raises(stopping.Stopped, match="pairs: stopped at 8 of 10"):
        make(tmp_path / "set", 0, 10)
    assert sorted(path.name for path in (tmp_path / "set").iterdir()) == ["settings.json", "shard-00000.npz"]


def test_processes_share_the_shards(tmp_path, monkeypatch, sets):
    monkeypatch.setattr(pairs.processes, "count", lambda: 2)
    monkeypatch.setattr(pairs.processes, "meet", lambda name: None)
    monkeypatch.setattr(pairs.processes, "is_first", lambda: False)
    monkeypatch.setattr(pairs, "load", lambda folder: None)
    for index, names in ((1, {"shard-00001.npz"}), (0, {"shard-00000.npz", "shard-00001.npz", "shard-00002.npz"})):
        monkeypatch.setattr(pairs.processes, "index", lambda index=index: index)
        make(tmp_path / "set", 0, 10)
        assert {path.name for path in (tmp_path / "set").glob("*.npz")} == names
    jax.tree.map(
        np.testing.assert_array_equal,
        pairset.read(tmp_path / "set" / "shard-00002.npz")["code"],
        pairset.read(sets / "whole/shard-00002.npz")["code"],
    )
