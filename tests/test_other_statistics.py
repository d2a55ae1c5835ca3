"""Statistics as other tools leave them: what each file holds, read without its tool, or refused with what to do."""

import io
import pickle
import sys
import types
import zipfile

import numpy as np
import pytest
from stand_in import POOL, SPATIAL

from dd_jax.metrics import inception, reference, scores
from dd_jax.system.errors import UserError

FEATURES = np.random.default_rng(0).standard_normal((50, POOL)).astype(np.float32)
MEAN, COV = scores.statistics(FEATURES)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(inception, "POOL", POOL)
    monkeypatch.setattr(inception, "SPATIAL", SPATIAL)


def torch_zip(path, tree):
    """As torch.save writes what has no tensors in it: torch-fidelity's statistics are NumPy arrays."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(tree, 2))
        archive.writestr("x/version", "3\n")
    return path


class EasyDict(dict):
    """dnnlib.util.EasyDict."""


def stylegan(easy):
    """What FeatureStats.save writes of 50 images."""
    sums = {"raw_mean": FEATURES.sum(0, np.float64), "raw_cov": FEATURES.T.astype(np.float64) @ FEATURES}
    facts = {"capture_all": False, "capture_mean_cov": True, "max_items": None, "num_items": 50, "num_features": POOL}
    return (EasyDict if easy else dict)(facts | sums | {"all_features": None})


@pytest.fixture
def dnnlib(monkeypatch):
    module = types.ModuleType("dnnlib.util")
    module.EasyDict = EasyDict
    for name in ("dnnlib", "dnnlib.util"):
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(EasyDict, "__module__", "dnnlib.util")


def npy(x):
    buffer = io.BytesIO()
    np.save(buffer, x)
    return buffer.getvalue()


@pytest.mark.parametrize("easy", [False, True])
def test_nvidia(tmp_path, dnnlib, easy):
    """StyleGAN keeps sums and divides by N; EDM2 keeps statistics of two networks."""
    path = tmp_path / "a.pkl"
    edm2 = {"fid": {"mu": MEAN, "sigma": COV}, "fd_dinov2": {"mu": np.zeros(3), "sigma": np.eye(3)}}
    for tree, scale in ((stylegan(easy), 49 / 50), (EasyDict(edm2) if easy else edm2, 1)):
        path.write_bytes(pickle.dumps(tree, 4))
        found = reference.read(path)
        np.testing.assert_allclose(found.pool3[0], MEAN, atol=1e-6)
        np.testing.assert_allclose(found.pool3[1], COV * scale, atol=1e-6)
        assert found.protocols == ("adm",)
        assert "NVIDIA" in found.about["note"]


@pytest.mark.parametrize("name", ["fidelity.pt", "plain.pkl", "mu.npz"])
def test_mu_and_sigma_alone(tmp_path, name):
    """torch-fidelity's cache, ADM's and anyone's: no file says how its images were resized."""
    path, arrays = tmp_path / name, {"mu": np.float32(MEAN), "sigma": COV}
    if name == "fidelity.pt":
        torch_zip(path, arrays)
    elif name == "plain.pkl":
        path.write_bytes(pickle.dumps(arrays))
    else:
        np.savez(path, **arrays)
    found = reference.read(path)
    np.testing.assert_array_equal(found.pool3[1], COV)
    assert found.protocols == ("clean", "pytorch_fid", "adm")
    assert (found.spatial, found.features) == (None, None)
    assert "does not say under which protocol" in found.about["note"]


def test_features(tmp_path):
    """An .npy of them, or clean-fid's file for KID: precision and recall have what they need."""
    np.save(tmp_path / "a.npy", FEATURES)
    np.savez(tmp_path / "a_kid.npz", feats=FEATURES)
    for name in ("a.npy", "a_kid.npz"):
        found = reference.read(tmp_path / name)
        np.testing.assert_allclose(found.pool3[1], COV, atol=1e-6)
        np.testing.assert_array_equal(found.features, FEATURES)


def npz(**arrays):
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


REFUSED = {
    "images.npy": (npy(np.zeros((2, 8, 8, 3), np.uint8)), r"holds images \(2, 8, 8, 3\), no statistics: python -m"),
    "mean.npy": (npy(MEAN), r"holds float64 of shape \(12,\): features are floats"),
    "dict.npy": (npy(np.array({"mu": 0}, object)), r"holds Python objects, .*: np\.savez\(FILE, mu=mu, sigma=sigma\)"),
    "dict.npz": (npz(mu=np.array({"a": 0}, object), sigma=COV), "holds Python objects"),
    "other.npz": (npz(a=MEAN), r"holds a, no statistics mu and sigma: .* makes them from images"),
    "code.pkl": (b"\x80\x04cos\nsystem\n.", r"os\.system"),
    "cut.pkl": (pickle.dumps({"mu": MEAN})[:-9], "is no readable pickle"),
    "list.pkl": (pickle.dumps([1]), "holds no dict, no mu and sigma"),
    "none.pkl": (pickle.dumps({"fid": {"mu": 1}}), "holds int where an array is expected"),
    "sums.pkl": (pickle.dumps({"raw_mean": None, "raw_cov": None, "num_items": 9}), "kept no mean and covariance"),
    "old.pkl": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "is no readable checkpoint|ends within"),
    "lfs.npz": (b"version https://git-lfs.github.com/spec/v1\n", "a pointer of Git LFS"),
    "page.npz": (b"<!DOCTYPE html>", "a page of HTML"),
    "empty.npz": (b"", r"is no readable \.npz: \.npz, \.npy, \.pth, \.pt and \.pkl files"),
    "ours.npz": (npz(mu=MEAN, sigma=COV, about=np.array("{}")), "is not whole .*: record it again"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_holds_no_statistics(tmp_path, name):
    data, told = REFUSED[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=told) as caught:
        reference.read(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_reference(tmp_path):
    with pytest.raises(UserError, match="is a folder: statistics are a file"):
        reference.read(tmp_path)


def test_the_networks_published_file_has_to_be_ported(tmp_path):
    path = tmp_path / "pt_inception-2015-12-05.pth"
    path.write_bytes(b"")
    with pytest.raises(UserError, match=r"is a file: python -m port_weights inception --src .*pth --out weights, then"):
        inception.load(path)
