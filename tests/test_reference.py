"""Statistics of real images, their files, and scores of anyone's samples: with a stand-in for the network."""

import json
import sys
import types

import helpers
import numpy as np
import pytest
from PIL import Image
from stand_in import POOL, SPATIAL, Stand, stand

from dd_jax.data import images
from dd_jax.metrics import inception, protocols, reference, score, scores
from dd_jax.metrics.inception import Inception
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from dd_jax.system.torch_writer import write_torch


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setattr(inception, "POOL", POOL)
    monkeypatch.setattr(inception, "SPATIAL", SPATIAL)


def pictures(count, seed, top=256):
    return np.random.default_rng(seed).integers(0, top, (count, 8, 8, 3), dtype=np.uint8)


@pytest.fixture
def real(tmp_path):
    np.savez(tmp_path / "real.npz", pictures(100, 0, 200))
    return tmp_path / "real.npz"


@pytest.fixture
def samples(tmp_path):
    np.savez_compressed(tmp_path / "samples.npz", pictures(90, 1))
    return tmp_path / "samples.npz"


@pytest.fixture
def recorded(tmp_path, real):
    return reference.record(stand(batch=32), images.open_images(real), tmp_path / "ref.npz", keep=40)


def test_a_result_says_how_it_was_made(recorded, samples):
    result = score.score(stand(), images.open_images(samples), reference.read(recorded), score.Options(extras=True))
    made, _ = stand().collect(images.from_array(pictures(90, 1)))
    real, _ = stand().collect(images.from_array(pictures(100, 0, 200)))
    assert result["fid"] == pytest.approx(scores.frechet_features(made["pool3"], real["pool3"]), rel=1e-9)
    assert result["sfid"] == pytest.approx(scores.frechet_features(made["spatial"], real["spatial"]), rel=1e-9)
    assert result["inception_score"] == scores.inception_score(made["logits_unbiased"])[0]
    kept = real["pool3"][np.linspace(0, 99, 40).astype(int)]
    pair = scores.precision_recall(kept, made["pool3"])
    assert (result["precision"], result["recall"]) == pytest.approx(pair)
    assert result["precision_recall_reference"] == 40
    assert result["n"] == 90
    assert result["fast"]
    assert result["protocol"] == "adm"
    assert result["reference"]["sha256"] == weights.sha256(recorded)
    assert result["reference"]["count"] == 100
    assert result["weights"] == {"id": "stand", "sha256": "a" * 64, "origin": "nowhere"}
    assert result["fid_standard_error"] > 0
    assert np.isfinite(result["fid_infinity"])
    json.dumps(result)
    assert "fast, 90 samples: not comparable with 50000" in score.table(result, protocols.find("adm"))


def test_a_set_compared_with_itself(recorded, real):
    result = score.score(stand(), images.open_images(real), reference.read(recorded))
    assert result["fid"] == pytest.approx(0, abs=1e-8)
    assert result["recall"] == 1.0


def test_protocols_do_not_mix(recorded, samples):
    some, ref = images.open_images(samples), reference.read(recorded)
    with pytest.raises(UserError, match=r"ref.npz was recorded under adm: .* under clean; use --protocol adm"):
        score.score(stand("clean"), some, ref)
    with pytest.raises(UserError, match="recorded with other Inception weights"):
        score.score(stand(sha="b" * 64), some, ref)
    result = score.score(stand("clean"), some, ref, score.Options(forced=True))
    assert result["forced"]
    assert result["reference"]["protocols"] == ["adm"]
    with pytest.raises(UserError, match="distances in 'float8'"):
        score.Options("float8")


def gaussian(width, seed=0):
    x = np.random.default_rng(seed).standard_normal((50, width))
    return scores.statistics(x)


def adm_file(path, **arrays):
    """As guided-diffusion writes them: float32 means, float64 covariances."""
    (mu, sigma), (mu_s, sigma_s) = gaussian(POOL), gaussian(SPATIAL)
    np.savez(path, mu=np.float32(mu), sigma=sigma, mu_s=np.float32(mu_s), sigma_s=sigma_s, **arrays)
    return path


def test_adm_reference_files(tmp_path, samples):
    """Stored statistics for the distances, stored images for precision and recall."""
    path = adm_file(tmp_path / "VIRTUAL.npz", arr_0=pictures(30, 5, 180))
    result = score.score(stand(), images.open_images(samples), reference.read(path))
    made, _ = stand().collect(images.open_images(samples))
    assert result["fid"] == pytest.approx(scores.frechet_to(made["pool3"], *gaussian(POOL)), rel=1e-6)
    real, _ = stand().collect(images.from_array(pictures(30, 5, 180)))
    assert (result["precision"], result["recall"]) == scores.precision_recall(real["pool3"], made["pool3"])
    without = score.score(stand(), images.open_images(samples), reference.read(adm_file(tmp_path / "few.npz")))
    assert without["fid"] == result["fid"]
    assert without["precision"] is None
    assert "precision           not with this reference" in score.table(without, protocols.find("adm"))


def test_statistics_that_a_file_brings_are_kept(tmp_path, monkeypatch):
    path = adm_file(tmp_path / "VIRTUAL.npz", arr_0=pictures(30, 5, 180))
    published = reference._published(str(path), "adm")
    out = reference.record(stand(), images.open_images(path), tmp_path / "ours.npz", published=published)
    found = reference.read(out)
    np.testing.assert_allclose(found.pool3[0], gaussian(POOL)[0], atol=1e-6)
    assert len(found.features) == 30
    assert found.about["published_statistics"]["file"] == "VIRTUAL.npz"
    with pytest.raises(UserError, match="recorded under adm"):
        reference._published(str(path), "clean")


@pytest.mark.parametrize("kind", ["tensor", "clean"])
def test_statistics_of_others(tmp_path, samples, kind):
    mean, cov = gaussian(POOL)
    if kind == "tensor":
        path = write_torch(tmp_path / "statistic.pth", {"m": mean, "s": cov})
    else:
        path = tmp_path / "imagenet_clean.npz"
        np.savez(path, mu=mean, sigma=cov)
    found = reference.read(path)
    np.testing.assert_array_equal(found.pool3[1], cov)
    result = score.score(stand("pytorch_fid"), images.open_images(samples), found)
    assert result["fid"] > 0
    assert "sfid" not in result
    if kind == "tensor":
        with pytest.raises(UserError, match=r"recorded under .*its numbers mean nothing under adm"):
            score.score(stand("adm"), images.open_images(samples), found)
        return
    result = score.score(stand("adm"), images.open_images(samples), found)  # ADM's own, for all that the file says
    assert (result["sfid"], result["precision"]) == (None, None)
    assert "does not say under which protocol" in result["reference"]["note"]


def test_a_statistic_pth_of_numpy_arrays(monkeypatch):
    monkeypatch.setattr(inception, "POOL", 3)
    found = reference.read(helpers.GOLDENS / "torch/statistic.pth")
    assert found.protocols == ("pytorch_fid",)
    np.testing.assert_array_equal(found.pool3[1], np.arange(9).reshape(3, 3))


def test_folders_are_npz_files_in_other_clothes(tmp_path, samples, recorded):
    """The same pixels give the same result, whatever holds them."""
    for i, picture in enumerate(pictures(90, 1)):
        Image.fromarray(picture).save(tmp_path / f"{i:05d}.png")
    ref = reference.read(recorded)
    a, b = (score.score(stand(), images.open_images(path), ref) for path in (tmp_path, samples))
    assert a["samples"]["sha256"] == b["samples"]["sha256"]
    assert a["fid"] == b["fid"]


def test_every_other_image_in_memory():
    """Arrays that are views of others."""
    img = pictures(20, 3)
    a, b = (stand().collect(images.from_array(x)) for x in (img[::2], img[::2].copy()))
    assert a[1] == b[1]
    np.testing.assert_array_equal(a[0]["pool3"], b[0]["pool3"])


def test_photographs_become_squares(tmp_path):
    gradient = np.linspace(0, 255, 90 * 40 * 3).reshape(40, 90, 3).astype(np.uint8)
    for crop in ("box", "lanczos"):
        for size in ((90, 40), (40, 90), (16, 16), (17, 16), (200, 33)):
            picture = Image.fromarray(gradient).resize(size)
            assert images.square(picture, 16, crop).size == (16, 16)
    flat = Image.new("RGB", (70, 33), (10, 20, 30))
    for crop in ("box", "lanczos"):
        assert (np.asarray(images.square(flat, 16, crop)) == (10, 20, 30)).all()
    Image.fromarray(gradient).save(tmp_path / "a.jpg")
    Image.new("L", (50, 50), 9).save(tmp_path / "b.png")
    assert next(images.open_images(tmp_path, 16).read(8)).shape == (2, 16, 16, 3)
    with pytest.raises(UserError, match=r"b.png is \(50, 50, 3\), others are \(40, 90, 3\): give --resolution"):
        list(images.open_images(tmp_path).read(8))


BAD = {
    "float": ({"arr_0": np.zeros((4, 8, 8, 3), np.float32)}, r"arr_0 holds float32: networks take uint8 images"),
    "grey": ({"arr_0": np.zeros((4, 8, 8), np.uint8)}, r"has shape \(4, 8, 8\): \(N, rows, columns, 3\)"),
    "planes": ({"arr_0": np.zeros((4, 3, 8, 8), np.uint8)}, r"has shape \(4, 3, 8, 8\)"),
    "empty": ({"arr_0": np.zeros((0, 8, 8, 3), np.uint8)}, r"has shape \(0, 8, 8, 3\)"),
    "named": ({"images": np.zeros((4, 8, 8, 3), np.uint8)}, r"holds images, no arr_0"),
    "fortran": ({"arr_0": np.asfortranarray(pictures(4, 0))}, r"in Fortran order"),
}


@pytest.mark.parametrize("kind", BAD)
def test_files_that_hold_no_images(tmp_path, kind):
    arrays, text = BAD[kind]
    np.savez(tmp_path / "x.npz", **arrays)
    with pytest.raises(UserError, match=text):
        images.open_images(tmp_path / "x.npz")


def test_damaged_files(tmp_path, samples):
    data = samples.read_bytes()
    (tmp_path / "cut.npz").write_bytes(data[:1000])
    with pytest.raises(UserError, match=r"no readable \.npz"):
        images.open_images(tmp_path / "cut.npz")
    spoilt = bytearray(data)
    spoilt[len(data) // 2] ^= 255
    (tmp_path / "spoilt.npz").write_bytes(spoilt)
    with pytest.raises(UserError, match="is damaged"):
        list(images.open_images(tmp_path / "spoilt.npz").read(8))
    with pytest.raises(UserError, match=r"no readable \.npz"):
        reference.read(tmp_path / "cut.npz")
    (tmp_path / "pictures").mkdir()
    with pytest.raises(UserError, match="no pictures in"):
        images.open_images(tmp_path / "pictures")
    (tmp_path / "pictures/a.png").write_bytes(b"none")
    with pytest.raises(UserError, match=r"a\.png is no readable picture"):
        list(images.open_images(tmp_path / "pictures").read(1))
    with pytest.raises(UserError, match=r"neither an \.npz file nor a folder"):
        images.open_images(tmp_path / "nowhere")


def test_files_that_hold_no_statistics(tmp_path, samples):
    with pytest.raises(UserError, match=r"no statistics mu and sigma: python -m dd_jax\.metrics\.reference makes them"):
        reference.read(samples)
    with pytest.raises(UserError, match="make one with python -m"):
        reference.read(tmp_path / "none.npz")
    np.savez(tmp_path / "vgg.npz", mu=np.zeros(5), sigma=np.eye(5))
    with pytest.raises(UserError, match=r"shapes \(5,\) and \(5, 5\), not of 12 dimensions"):
        reference.read(tmp_path / "vgg.npz")
    np.savez(tmp_path / "nan.npz", mu=np.full(POOL, np.nan), sigma=np.eye(POOL))
    with pytest.raises(UserError, match="not finite"):
        reference.read(tmp_path / "nan.npz")
    with pytest.raises(UserError, match="holds no m and s"):
        reference.read(write_torch(tmp_path / "x.pth", {"model": np.zeros(3, np.float32)}))


def test_data_sets_need_their_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(UserError, match=r"pip install 'dd_jax\[data\]'"):
        images.open_images("tfds:imagenet2012")


def test_data_sets_by_name(monkeypatch):
    """With a stand-in for the package: splits, and grey pictures."""
    sets = {("grey", "test"): [{"image": pictures(1, i)[0, ..., :1]} for i in range(5)]}
    stand_in = types.SimpleNamespace(data_source=lambda name, split, download: sets[name, split])
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", stand_in)
    some = images.open_images("tfds:grey:test", 6)
    assert some.name == "tfds:grey:test (box to 6 px)"
    assert [x.shape for x in some.read(3)] == [(3, 6, 6, 3), (2, 6, 6, 3)]
    with pytest.raises(UserError, match="tfds:grey cannot be opened"):
        images.open_images("tfds:grey")


@pytest.fixture
def commands(monkeypatch):
    """The two commands, with the stand-in for the network."""
    for module in (score, reference):
        monkeypatch.setattr(module, "Extractor", Stand)
    monkeypatch.setattr(inception, "load", lambda folder: Inception({}, {"id": "stand", "sha256": "a" * 64}))
    monkeypatch.setattr(score.runtime, "setup", lambda: None)

    def run(module, *words):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
        module.main()

    return run


def test_the_commands(commands, tmp_path, real, samples, capsys):
    how = ("--protocol", "adm", "--inception", "w")
    commands(reference, real, *how, "--out", tmp_path / "ref.npz")
    commands(score, samples, "--reference", tmp_path / "ref.npz", *how, "--json", tmp_path / "result.json")
    printed = capsys.readouterr().out
    assert "adm (fast, 90 samples" in printed
    result = json.loads((tmp_path / "result.json").read_text())
    assert f"{result['fid']:.4f}" in printed
    with pytest.raises(SystemExit, match=r"error: ref.npz was recorded under adm"):
        commands(score, samples, "--reference", tmp_path / "ref.npz", "--protocol", "clean", "--inception", "w")
    with pytest.raises(SystemExit, match=r"error: unknown protocol 'fid'"):
        commands(reference, real, "--protocol", "fid", "--inception", "w")
