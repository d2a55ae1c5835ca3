"""Reading PyTorch's zip format: exact numbers, and nothing that a hostile file asks for is done."""

import os
import pickle
import tracemalloc
import zipfile
from collections import OrderedDict
from pathlib import Path

import helpers
import ml_dtypes
import numpy as np
import pytest

from dd_jax.system.errors import UserError
from dd_jax.system.torch_file import MAX_PICKLE, TorchFile
from dd_jax.system.torch_names import Tensor
from dd_jax.system.torch_old import MAGIC, open_torch
from dd_jax.system.torch_writer import write_old_torch, write_torch
from port_weights.source import open_weights

KINDS = [np.float32, np.float64, np.float16, ml_dtypes.bfloat16, np.int64, np.int32, np.int8, np.uint8, np.bool_]


def weights(seed=0):
    rng = np.random.default_rng(seed)
    return OrderedDict(a=rng.standard_normal((3, 4)).astype(np.float32), b=rng.standard_normal(5).astype(np.float32))


@pytest.fixture
def file(tmp_path):
    return write_torch(tmp_path / "w.pt", {"model": weights(), "steps": 7})


def read_all(path):
    found = open_weights(path)
    return [found[key] for key in found]


def refuses(path, text):
    with pytest.raises(UserError, match=text):
        read_all(path)


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_comes_back(tmp_path, kind):
    x = np.arange(12).reshape(3, 4).astype(kind)
    path = write_torch(tmp_path / "w.pt", {"x": x, "empty": np.zeros((0, 2), kind)})
    found = TorchFile(path)
    np.testing.assert_array_equal(found.read(found.tree["x"]), x)
    assert found.read(found.tree["empty"]).shape == (0, 2)


def test_numbers_are_mapped_and_strided(tmp_path):
    path = write_torch(tmp_path / "w.pt", {"x": np.arange(12, dtype=np.float32)})
    file = TorchFile(path)
    storage = file.tree["x"].storage
    view = Tensor(storage, 1, (2, 3), (1, 4))
    np.testing.assert_array_equal(file.read(view), [[1, 5, 9], [2, 6, 10]])
    with pytest.raises(UserError, match="reaches beyond its 12 numbers"):
        file.read(Tensor(storage, 2, (2, 3), (1, 5)))
    with pytest.raises(UserError, match="reaches beyond"):
        file.read(Tensor(storage, 0, (1 << 60,), (0,)))


@pytest.mark.parametrize("tree", ["model", "module", "state_dict", ""])
def test_containers_are_found_in_order(tmp_path, tree):
    inner = weights()
    path = write_torch(tmp_path / "w.pt", {tree: inner, "optimizer": {"lr": 0.1}} if tree else inner)
    np.testing.assert_array_equal(open_weights(path)["a"], inner["a"])


def test_a_container_by_name(tmp_path):
    path = write_torch(tmp_path / "w.pt", {"model": weights(0), "trainer": {"ema": weights(1)}})
    np.testing.assert_array_equal(open_weights(path, ("trainer.ema",))["b"], weights(1)["b"])
    with pytest.raises(UserError, match="no weights in ema; name another with --container"):
        open_weights(path, ("ema",))


class Evil:
    def __reduce__(self):
        return os.system, ("touch hacked",)


def test_code_in_a_file_is_never_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({"model": Evil()}))
    refuses("evil.pt", r"evil.pt: it asks for posix.system, which no weights need: nothing was executed")
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize("call", [b"cbuiltins\neval\n", b"ctorch\nload\n", b"cnumpy\nfromfile\n", b"cos\nsystem\n"])
def test_only_the_few_known_names_resolve(tmp_path, call):
    with zipfile.ZipFile(tmp_path / "evil.pt", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + call + b"(U\x011tR.")
    refuses(tmp_path / "evil.pt", "it asks for")


def test_a_bomb_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", bytes(MAX_PICKLE + 1))
    assert (tmp_path / "bomb.pt").stat().st_size < 1 << 20
    refuses(tmp_path / "bomb.pt", "no state dict is that long")


@pytest.mark.parametrize("how", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_archive_that_was_packed_again_is_read(tmp_path, file, how):
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "z.pt", "w", how) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    for x, want in zip(read_all(tmp_path / "z.pt"), weights().values(), strict=True):
        np.testing.assert_array_equal(x, want)


def test_numbers_that_unpack_to_no_weights_are_refused(tmp_path, file, monkeypatch):
    monkeypatch.setattr("dd_jax.system.torch_file.MAX_UNPACKED", 1 << 16)
    big = write_torch(tmp_path / "big.pt", {"x": np.zeros(1 << 16, np.float32)})
    with zipfile.ZipFile(big) as old, zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    refuses(tmp_path / "z.pt", "unpack to more than 262,144 bytes: no weights do")


def test_a_cut_or_changed_file_is_named(tmp_path, file):
    data = file.read_bytes()
    (tmp_path / "cut.pt").write_bytes(data[: len(data) // 2])
    refuses(tmp_path / "cut.pt", "cut.pt is no zip file .* was the download cut off")
    at = data.index(weights()["a"].tobytes())
    (tmp_path / "bit.pt").write_bytes(data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
    refuses(tmp_path / "bit.pt", "damaged")
    refuses(tmp_path / "none.pt", "none.pt does not exist")
    (tmp_path / "text.pt").write_text("hello")
    refuses(tmp_path / "text.pt", "no zip file")


def test_the_old_format():
    """A file as PyTorch 0.4 wrote it, on a GPU, from Python 2: LPIPS's published heads."""
    found = open_weights(helpers.GOLDENS / "eval/lpips/vgg.pth")
    assert {key: x.shape for key, x in found.items()} == {
        f"lin{i}.model.1.weight": (1, width, 1, 1) for i, width in enumerate((64, 128, 256, 512, 512))
    }
    assert all((x >= 0).all() and 0.05 < x.mean() < 0.3 for x in found.values())


@pytest.mark.parametrize("kind", KINDS)
def test_every_type_comes_back_from_the_old_format(tmp_path, kind):
    x = np.arange(12).reshape(3, 4).astype(kind)
    path = write_old_torch(tmp_path / "w.pt", {"odd": np.ones(3, np.uint8), "x": x, "empty": np.zeros((0, 2), kind)})
    found = open_torch(path)
    np.testing.assert_array_equal(found.read(found.tree["x"]), x)
    assert found.read(found.tree["empty"]).shape == (0, 2)


def old(*pickles):
    return b"".join(x if isinstance(x, bytes) else pickle.dumps(x, protocol=2) for x in (MAGIC, 1001, *pickles))


def test_what_the_old_format_may_not_hold(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, machine = tmp_path / "old.pt", {"little_endian": True}
    view = b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpuK\x01K\x02tQ."
    for pickles, told in (
        ((machine, Evil()), "it asks for posix.system"),
        ((machine, view), "storage 0 is a view"),
        ((machine, {}, ["0"]), "no readable checkpoint"),
        ((machine,), "no readable checkpoint"),
    ):
        path.write_bytes(old(*pickles))
        refuses(path, told)
    assert not (tmp_path / "hacked").exists()
    data = write_old_torch(path, weights()).read_bytes()
    path.write_bytes(data[:-1])
    refuses(path, "ends within storage 1: was the download cut off")


def test_a_mutated_old_file_never_crashes(tmp_path):
    data, rng = write_old_torch(tmp_path / "w.pt", {"model": weights()}).read_bytes(), np.random.default_rng(2)
    path, refused = tmp_path / "m.pt", 0
    for trial in range(400):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 4)):
            changed[rng.integers(0, len(changed))] = rng.integers(0, 256)
        path.write_bytes(changed[: rng.integers(1, len(changed))] if trial % 5 == 0 else changed)
        try:
            read_all(path)
        except UserError:
            refused += 1
    assert refused > 200


def test_mutated_files_never_crash(tmp_path, file):
    """Any change of the file is read as before, or refused in one clear line."""
    data, rng = file.read_bytes(), np.random.default_rng(0)
    pickled = data.index(b"\x80\x02")
    path, refused = tmp_path / "m.pt", 0
    for trial in range(400):
        changed = bytearray(data)
        for _ in range(rng.integers(1, 6)):
            inside = pickled + int(rng.integers(0, 500)) if trial % 2 else int(rng.integers(0, len(data)))
            changed[min(inside, len(data) - 1)] = rng.integers(0, 256)
        if trial % 5 == 0:
            changed = changed[: rng.integers(1, len(changed))]
        path.write_bytes(changed)
        try:
            found = open_weights(path)
            [np.asarray(found[key]).sum() for key in found]
        except UserError:
            refused += 1
    assert refused > 200


def test_a_mutated_pickle_never_crashes(tmp_path):
    """The same without the zip's checksum in the way."""
    with zipfile.ZipFile(write_torch(tmp_path / "w.pt", {"model": weights()})) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    rng, refused, path = np.random.default_rng(1), 0, tmp_path / "m.pt"
    for _ in range(400):
        text = bytearray(entries["archive/data.pkl"])
        for _ in range(rng.integers(1, 4)):
            text[rng.integers(0, len(text))] = rng.integers(0, 256)
        with zipfile.ZipFile(path, "w") as archive:
            for name, value in entries.items():
                archive.writestr(name, bytes(text) if name == "archive/data.pkl" else value)
        try:
            found = open_weights(path)
            [np.asarray(found[key]).sum() for key in found]
        except UserError:
            refused += 1
    assert refused > 200


def test_bytes_that_are_announced_and_missing_take_no_memory(tmp_path):
    """Arrays are bytearrays in protocol 5: a length, then the bytes."""
    x = np.arange(6.0)
    text = pickle.dumps({"x": x}, 5)
    at = text.index(pickle.BYTEARRAY8) + 1
    longer = text[:at] + (1 << 28).to_bytes(8, "little") + text[at + 8 :]

    def read(text):
        with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
            archive.writestr("archive/data.pkl", text)
        return open_weights(tmp_path / "w.pt")["x"]

    np.testing.assert_array_equal(read(text), x)
    tracemalloc.start()
    with pytest.raises(UserError, match="exhausted before end"):
        read(longer)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


TORCH = Path(__file__).parent / "goldens/torch"  # written by PyTorch 2.13 with _use_new_zipfile_serialization=False


def test_the_old_format_is_read():
    """A file of PyTorch's own: several types, a transposed view, two tensors of one storage."""
    found = open_weights(TORCH / "legacy.pth")
    a = np.arange(12, dtype=np.float32).reshape(3, 4)
    np.testing.assert_array_equal(found["a"], a)
    np.testing.assert_array_equal(found["b"], np.arange(5))
    np.testing.assert_array_equal(found["c"], (np.arange(6) / 4).astype(np.float16).reshape(2, 3).T)
    np.testing.assert_array_equal(found["shared"], a[1:])
    assert open_torch(TORCH / "legacy.pth").tree["epoch"] == 3


def test_numpy_arrays_in_a_file():
    """Inside the pickle, by stand-ins: C and Fortran order."""
    file = open_torch(TORCH / "statistic.pth")
    np.testing.assert_array_equal(file.array(file.tree["m"]), np.arange(3) / 4)
    np.testing.assert_array_equal(file.array(file.tree["s"]), np.arange(9, dtype=np.float32).reshape(3, 3))
    file = open_torch(TORCH / "statistic_legacy.pth")
    np.testing.assert_array_equal(file.array(file.tree["s"]), np.arange(9.0).reshape(3, 3))
    with pytest.raises(UserError, match="holds str where an array is expected"):
        file.array("x")


@pytest.mark.parametrize("name", ["legacy.pth", "statistic.pth", "statistic_legacy.pth"])
def test_mutated_files_are_refused_or_read(tmp_path, name):
    """Whatever a file says: numbers or a UserError, nothing else."""
    data, rng, refused = (TORCH / name).read_bytes(), np.random.default_rng(0), 0
    for i in range(200):
        spoilt = bytearray(data[: rng.integers(20, len(data))] if i % 4 == 0 else data)
        for at in rng.integers(0, len(spoilt), 3):
            spoilt[at] = rng.integers(256)
        path = tmp_path / "x.pth"
        path.write_bytes(spoilt)
        try:
            file = open_torch(path)
            leaves = file.tree.values() if isinstance(file.tree, dict) else ()
            [file.array(leaf) for leaf in leaves]
        except UserError:
            refused += 1
    assert refused >= 50  # those that were cut, at least


def test_old_files_run_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    head = [pickle.dumps(x, protocol=2) for x in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    (tmp_path / "evil.pth").write_bytes(b"".join([*head, pickle.dumps(Evil(), protocol=2)]))
    with pytest.raises(UserError, match=r"asks for posix\.system.*nothing was executed"):
        open_torch(tmp_path / "evil.pth")
    assert not (tmp_path / "hacked").exists()


def test_a_cut_old_file(tmp_path):
    data = (TORCH / "legacy.pth").read_bytes()
    for spoilt, text in ((data[:-3], "cut off"), (data + b"more", "4 bytes behind the last storage")):
        (tmp_path / "x.pth").write_bytes(spoilt)
        with pytest.raises(UserError, match=text):
            open_torch(tmp_path / "x.pth")
