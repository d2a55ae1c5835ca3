"""Every kind of file that people have for a PyTorch checkpoint: read right, or refused in one line that helps."""

import pickle
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from safetensors.numpy import save_file

from dd_jax.system.errors import UserError
from dd_jax.system.torch_writer import write_torch
from port_weights.source import open_weights

REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def weights():
    return OrderedDict(a=np.arange(12, dtype=np.float32).reshape(3, 4), b=np.ones(5, np.float32))


@pytest.fixture
def file(tmp_path):
    return write_torch(tmp_path / "w.pt", {"model": weights(), "steps": 7})


def refuses(path, text):
    with pytest.raises(UserError, match=text):
        open_weights(path)


def pickled(path, text, **entries):
    """A checkpoint with this pickle, and numbers by key."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", text)
        for key, x in entries.items():
            archive.writestr(f"archive/data/{key}", x.tobytes())
    return path


def tensor(more=b"", offset=0, shape=b"K\x03K\x04\x86", strides=b"K\x04K\x01\x86", kind=b"FloatStorage"):
    """The call that stands for a tensor of storage n0 (a pickle without its ends)."""
    storage = b"(U\x07storagectorch\n" + kind + b"\nU\x02n0U\x03cpuK\x0ctQ"
    rest = b"\x89ccollections\nOrderedDict\n)R"
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n("
        + storage
        + b"K"
        + bytes([offset])
        + shape
        + strides
        + rest
        + more
        + b"tR"
    )


NUMBERS = np.arange(12, dtype=np.float32).reshape(3, 4) + 1


def one(path, call, numbers=NUMBERS):
    return open_weights(pickled(path, b"\x80\x02}U\x01w" + call + b"s.", n0=numbers))["w"]


def test_a_negated_tensor_has_the_other_sign(tmp_path):
    np.testing.assert_array_equal(one(tmp_path / "n.pt", tensor(b"}U\x03neg\x88s")), -NUMBERS)
    np.testing.assert_array_equal(one(tmp_path / "p.pt", tensor(b"}U\x03neg\x89s")), NUMBERS)


@pytest.mark.parametrize("name", ["conj", "sheared"])
def test_metadata_that_is_not_read_is_refused_by_name(tmp_path, name):
    said = b"}U" + bytes([len(name)]) + name.encode() + b"\x88s"
    with pytest.raises(UserError, match=rf"w is a tensor with the metadata {name}, .*resolve_conj"):
        one(tmp_path / "c.pt", tensor(said))


def test_an_expanded_tensor_shows_a_number_often(tmp_path):
    shown = one(tmp_path / "e.pt", tensor(shape=b"K\x05K\x04\x86", strides=b"K\x00K\x01\x86"))
    np.testing.assert_array_equal(shown, np.repeat(NUMBERS[:1], 5, 0))


def test_wrappers_of_tensors_come_off(tmp_path):
    plain = tensor()
    call = (
        b"ctorch._utils\n_rebuild_parameter_with_state\n("
        + plain
        + b"\x88ccollections\nOrderedDict\n)R}U\x03tagU\x01xstR"
    )
    np.testing.assert_array_equal(one(tmp_path / "p.pt", call), NUMBERS)
    arguments = plain.removeprefix(REBUILD).removesuffix(b"R")
    for kind, read in ((b"ctorch\nTensor\n", True), (b"cmine\nScaled\n", False)):
        call = (
            b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\n" + kind + arguments + b"}tR"
        )
        if read:
            np.testing.assert_array_equal(one(tmp_path / "b.pt", call), NUMBERS)
        else:
            with pytest.raises(UserError, match=r"w is a tensor of the class mine\.Scaled: save its plain numbers"):
                one(tmp_path / "b.pt", call)


TEXT = b"c_codecs\nencode\n(X\x08\x00\x00\x0012345678tR"
VALUES = {
    "dtype": b"ctorch\nbfloat16\n",
    "device": b"ctorch\ndevice\n(U\x04cudaK\x00tR",
    "path": b"cpathlib\nPosixPath\n(U\x01/U\x04datatR",
    "defaultdict": b"ccollections\ndefaultdict\n(c__builtin__\nint\ntR",
    "datetime": b"cdatetime\ndatetime\n(U\x0a0123456789tR",
    "own class": b"ctrainer.state\nProgress\n)\x81}U\x01aK\x01sb",
    "old class": b"ccopy_reg\n_reconstructor\n(cmine\nArgs\nc__builtin__\nobject\nNtR}U\x01aK\x01sb",
    "generator": b"ctorch._C\nGenerator\n(ctorch\ndevice\n(U\x03cputRtR",
    "scalar": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(U\x02f8\x89\x88tR" + TEXT + b"tR",
    "random state": b"cnumpy.random._pickle\n__randomstate_ctor\n(U\x07MT19937tR}b",
    "set": b"c__builtin__\nset\n(]K\x01atR",
}  # fmt: skip


@pytest.mark.parametrize("kind", VALUES)
def test_values_beside_the_weights_are_inert(tmp_path, kind):
    found = open_weights(
        pickled(
            tmp_path / "v.pt",
            b"\x80\x02}(U\x05model}U\x01w" + tensor() + b"sU\x04more" + VALUES[kind] + b"u.",
            n0=NUMBERS,
        )
    )
    np.testing.assert_array_equal(found["w"], NUMBERS)


def test_a_value_among_the_weights_is_left_aside_and_named(tmp_path):
    text = b"\x80\x02}(U\x01w" + tensor() + b"U\x04kindctorch\nbfloat16\nu."
    found = open_weights(pickled(tmp_path / "v.pt", text, n0=NUMBERS))
    assert list(found) == ["w"]
    assert found.notes == ("left aside, since it is no tensor: kind",)


@pytest.mark.parametrize(
    "name", ["torch.hub\nload", "subprocess\nPopen", "nt\nsystem", "__builtin__\nexecfile", "io\nopen"]
)
def test_a_file_is_accused_where_it_asks_for_code(tmp_path, name):
    text = b"\x80\x02}(U\x05model}U\x01w" + tensor() + b"sU\x04morec" + name.encode() + b"\n)Ru."
    refuses(pickled(tmp_path / "v.pt", text, n0=NUMBERS), "it asks for .* do not trust this file")


@pytest.mark.parametrize("target", [tensor(), b"ctorch\nFloatStorage\n", b"ctorch._utils\n_rebuild_tensor_v2\n"])
def test_a_file_sets_no_state_but_of_stand_ins(tmp_path, target):
    """Tensors were checked when they were made: offsets that come later would reach out of the file."""
    text = b"\x80\x02}U\x01w" + target + b"}U\x06offsetJ\x00\x00\xff\xffsbs."
    refuses(pickled(tmp_path / "v.pt", text, n0=NUMBERS), "sets the state of something that has none")


def test_a_file_without_checksums_is_read_with_a_note(tmp_path, file):
    data, at = bytearray(file.read_bytes()), 0
    for mark, field in ((b"PK\x03\x04", 14), (b"PK\x01\x02", 16)):
        at = 0
        while (at := data.find(mark, at)) >= 0:
            data[at + field : at + field + 4] = bytes(4)
            at += 4
    (tmp_path / "z.pt").write_bytes(data)
    found = open_weights(tmp_path / "z.pt")
    np.testing.assert_array_equal(found["a"], weights()["a"])
    assert "has no checksums" in found.notes[0]


def test_numbers_of_a_big_endian_machine(tmp_path, file):
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "b.pt", "w") as new:
        for name in old.namelist():
            data = np.frombuffer(old.read(name), "<f4").astype(">f4").tobytes() if "/data/" in name else old.read(name)
            new.writestr(name, b"big" if name.endswith("byteorder") else data)
    np.testing.assert_array_equal(open_weights(tmp_path / "b.pt")["a"], weights()["a"])


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_plain_pickle_of_arrays_is_read_by_path(tmp_path, protocol):
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    tree = {"params": {"a": {"kernel": x.T, "bias": x[0]}, "none": None}, "step": 3, "list": [x]}
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(tree, protocol=protocol))
    found = open_weights(tmp_path / "x.ckpt")
    assert list(found) == ["params/a/kernel", "params/a/bias"]
    np.testing.assert_array_equal(found["params/a/kernel"], x.T)
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps(tree, protocol=protocol)[:-40])
    refuses(tmp_path / "x.ckpt", r"x\.ckpt is ")


FOREIGN = {
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 9\n", "is a Git LFS pointer"),
    "page": (b"<!DOCTYPE html>\n<html><body>Sign in", "is an HTML page"),
    "answer": (b'{"error": "not found"}', "is JSON"),
    "gzip": (b"\x1f\x8b\x08\x00", "is a gzip archive"),
    "nothing": (b"", "is empty"),
    "zeros": (bytes(600), "all zero"),
    "pickle": (pickle.dumps({"w": 1}, protocol=4), "is a plain pickle without NumPy arrays, not written by torch.save"),
    "hdf": (b"\x89HDF\r\n\x1a\n" + bytes(9), "is an HDF5 file"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_files_of_another_kind_are_named(tmp_path, kind):
    content, told = FOREIGN[kind]
    (tmp_path / "x.pt").write_bytes(content)
    refuses(tmp_path / "x.pt", rf"x\.pt is .*{told.removeprefix('is ')}")


def test_archives_and_folders_of_another_kind_are_named(tmp_path, file):
    for inside, told in (("w.npy", "an .npz of NumPy"), ("m/code/x.py", "TorchScript"), ("w.pt", "a zip of w.pt")):
        with zipfile.ZipFile(tmp_path / "x.pt", "w") as archive:
            archive.writestr(inside, "")
        refuses(tmp_path / "x.pt", told)
    refuses(tmp_path, "is a folder: name a file in it")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(tmp_path / "unpacked")
    refuses(tmp_path / "unpacked", "was unpacked")
    (tmp_path / "link.pt").symlink_to(tmp_path / "gone")
    refuses(tmp_path / "link.pt", "points to .*gone, which is not there")


@pytest.mark.parametrize("name", ["x.bin", "x.SAFETENSORS", "3f9a"])
def test_safetensors_are_known_by_content(tmp_path, name):
    save_file({"w": NUMBERS}, tmp_path / name)
    np.testing.assert_array_equal(open_weights(tmp_path / name)["w"], NUMBERS)


def test_pytorch_s_content_under_the_other_name(tmp_path):
    path = write_torch(tmp_path / "w.safetensors", weights())
    np.testing.assert_array_equal(open_weights(path)["a"], weights()["a"])


def test_containers_that_would_do_are_listed(tmp_path):
    tree = {
        "trainer": {"var_wo_ddp": weights(), "step": 3},
        "ema": {"a": NUMBERS},
        "optimizer": {"state": {0: weights()}},
    }
    path = write_torch(tmp_path / "w.pt", tree)
    told = r"holds trainer, ema, optimizer: .* --container: trainer\.var_wo_ddp \(2 tensors\), ema \(1 tensor\)$"
    refuses(path, told)
    assert len(open_weights(path, ("trainer.var_wo_ddp",))) == 2


def test_the_weights_are_not_a_tensor_beside_them(tmp_path):
    path = write_torch(tmp_path / "w.pt", {"model": weights(), "seen": NUMBERS})
    assert set(open_weights(path, ("", "model"))) == {"a", "b"}
