"""Samples by the thousand: interrupted, resumed, cut in other ways, and read by others."""

import errno
import functools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from PIL import Image

from dd_jax import factory
from dd_jax.data import images, sampleset
from dd_jax.metrics import resize
from dd_jax.pipeline import Pipeline
from dd_jax.stages import sample
from dd_jax.stages.parts import PARTS, load_params
from dd_jax.stages.sample import Finish, Sampling
from dd_jax.system.errors import UserError

COUNT, SHARD, BATCH = 22, 8, 4
ROOT = Path(__file__).parents[1]


def small(**changes):
    """The raster demo with random weights, and how it is sampled here."""
    config = tiny_config("llamagen")
    fields = {"count": COUNT, "shard": SHARD, "batch": BATCH, "few": 4, "plans": ("S0", "S0 S5")}
    config.sample.update(fields | changes)
    config.student.split = 8  # both heads
    return factory.settled(config)


@functools.cache
def system():
    return factory.build(small())


@functools.cache
def params():
    return load_params(system(), small(), Path("nowhere"), ("tokenizer", "student"), PARTS)


def sampling(workdir, config=None):
    return Sampling(system(), config or small(), workdir, lambda *parts: {part: params()[part] for part in parts})


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A finished run."""
    workdir = tmp_path_factory.mktemp("made")
    sample.run(sampling(workdir))
    return workdir


@pytest.fixture
def copy(made, tmp_path):
    shutil.copytree(made, tmp_path / "run")
    return tmp_path / "run"


def contents(workdir):
    """All that does not depend on the clock."""
    return {str(p.relative_to(workdir)): p.read_bytes() for p in workdir.rglob("*") if p.suffix in (".npz", ".png")}


def test_what_is_written(made):
    with np.load(made / "samples/S0.npz") as file:
        img, label = file["arr_0"], file["label"]
    assert (img.shape, img.dtype) == ((COUNT, 8, 8, 1), np.uint8)
    np.testing.assert_array_equal(label, np.arange(COUNT) % 10)
    assert len({x.tobytes() for x in img}) == COUNT
    manifest = json.loads((made / "samples/S0/manifest.json").read_text())
    assert [*manifest["shards"]] == ["shard-00000.npz", "shard-00001.npz", "shard-00002.npz"]
    assert manifest["settings"]["weights"].keys() == {"tokenizer", "student"}
    assert {"plan", "seed", "labels", "guidance", "split"} <= manifest["settings"].keys()
    assert all(ms > 0 for ms in manifest["ms"].values())
    assert (made / "samples/S0_S5.png").stat().st_size > 0


def test_images_are_those_of_the_library(made):
    pipe = Pipeline(system(), params())
    with np.load(made / "samples/S0_S5.npz") as file:
        some = pipe.sample(file["label"][9:12], "S0 S5", small().seed, ids=np.arange(9, 12))
        np.testing.assert_array_equal(some, file["arr_0"][9:12])


def test_images_depend_on_their_number_alone(made, tmp_path):
    """Other batches, other shards: the same file."""
    sample.run(sampling(tmp_path, small(batch=5, shard=7)))
    for name in ("S0.npz", "S0_S5.npz"):
        assert (tmp_path / "samples" / name).read_bytes() == (made / "samples" / name).read_bytes()


@pytest.mark.slow
def test_eight_devices_draw_what_one_does(made, tmp_path):
    command = [sys.executable, str(ROOT / "tests/sample_on_eight.py"), str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert contents(tmp_path) == contents(made)
    assert json.loads((tmp_path / "samples/S0/manifest.json").read_text())["devices"] == ["8 x cpu"]


class Killed(BaseException):
    pass


@pytest.mark.parametrize("after", [0, 1, 4])
def test_killed_and_resumed_equals_uninterrupted(made, tmp_path, monkeypatch, after):
    """Between a shard and its checksum, as nothing of ours runs any more then."""
    replace, seen = os.replace, []

    def kill(source, target):
        if str(target).endswith(sampleset.MANIFEST):
            seen.append(target)
            if len(seen) > after:
                raise Killed
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", kill)
        with pytest.raises(Killed):
            sample.run(sampling(tmp_path))
    sample.run(sampling(tmp_path))
    assert contents(tmp_path) == contents(made)


def test_finished_shards_are_kept_and_torn_ones_made_again(made, copy, monkeypatch):
    torn = copy / "samples/S0/shard-00001.npz"
    torn.write_bytes(torn.read_bytes()[:-9])
    (copy / "samples/S0/shard-00002.npz").unlink()
    written, write = [], sampleset.SampleSet.write
    monkeypatch.setattr(
        sampleset.SampleSet, "write", lambda self, name, *more: (written.append(name), write(self, name, *more))
    )
    with pytest.raises(UserError, match=r"shard-00001.npz is damaged: run --stage=sample again"):
        list(sampling(copy).set_of("S0").images().read(5))
    sample.run(sampling(copy))
    assert written == ["shard-00001.npz", "shard-00002.npz"]
    assert contents(copy) == contents(made)


def test_a_finished_run_computes_nothing(copy, monkeypatch):
    monkeypatch.setattr(sample, "sampler", None)
    sample.run(sampling(copy))


@pytest.mark.parametrize("change", [{"count": 23}, {"shard": 4}, {"scheme": "uniform"}, {"rounding": "floor"}])
def test_settings_do_not_mix(made, change):
    ((key, value),) = change.items()
    name = {"scheme": "labels"}.get(key, key)
    with pytest.raises(UserError, match=rf"samples/S0 were begun with {name}=\w+, now it is {value}: use another"):
        sample.run(sampling(made, small(**change)))


def test_weights_do_not_mix(made):
    config = small()
    config.seed = 1
    with pytest.raises(UserError, match="were begun with seed=0, now it is 1"):
        sample.run(sampling(made, config))


def test_quick_samples_and_named_ones_have_their_own_place(copy, made, monkeypatch):
    monkeypatch.setattr(sample, "FAST", 6)
    sample.run(sampling(copy, small(fast=True)))
    with np.load(copy / "samples/fast/S0.npz") as fast, np.load(made / "samples/S0.npz") as full:
        np.testing.assert_array_equal(fast["arr_0"], full["arr_0"][:6])
    for labels in ("3, 7", "5"):  # a second look takes the place of the first
        sample.run(sampling(copy, small(labels=labels)))
        with np.load(copy / "samples/named/S0.npz") as named:
            wanted = [3, 7, 3, 7] if labels == "3, 7" else [5, 5, 5, 5]
            np.testing.assert_array_equal(named["label"], wanted)
            images = named["arr_0"]
        # Each is a file of its own, called by its class; those of the first look are gone.
        files = {"3-00": 0, "7-00": 1, "3-01": 2, "7-01": 3} if labels == "3, 7" else {f"5-0{i}": i for i in range(4)}
        folder = copy / "samples/named/S0_images"
        assert {path.stem for path in (folder / "images").iterdir()} == files.keys()
        for name, i in files.items():
            np.testing.assert_array_equal(np.asarray(Image.open(folder / f"images/{name}.png"))[..., :1], images[i])
        assert (folder / "captions.txt").read_text().split() == [str(i) for i in wanted]
    assert contents(copy).items() >= contents(made).items()


def test_uniform_labels(tmp_path):
    label = sampling(tmp_path, small(scheme="uniform")).label
    ids = np.arange(4000)
    assert np.bincount(label(ids), minlength=10).min() > 300
    np.testing.assert_array_equal(label(ids[50:60]), label(ids)[50:60])
    with pytest.raises(UserError, match="scheme is 'all'"):
        sampling(tmp_path, small(scheme="all"))


def test_others_read_the_npz(made):
    """Streamed, three channels or one; the shards hold the same."""
    with np.load(made / "samples/S0.npz") as file:
        img = file["arr_0"]
    some = sampling(made).set_of("S0").images()
    assert some.count == COUNT
    np.testing.assert_array_equal(np.concatenate(list(some.read(5))), np.repeat(img, 3, -1))
    assert [len(x) for x in some.read(5)] == [5, 5, 5, 5, 2]
    with pytest.raises(UserError, match="repeat a single channel"):
        images.open_images(made / "samples/S0.npz")


def test_a_full_disk_is_one_clear_line(copy, made, monkeypatch):
    shutil.rmtree(copy / "samples/S0")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(np, "savez", full)
        with pytest.raises(
            UserError, match=r"cannot write .*shard-00000.npz: No space left on device; free some space"
        ):
            sample.run(sampling(copy))
    sample.run(sampling(copy))
    (copy / "samples/S0.npz").unlink()
    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "write_array", full)
        with pytest.raises(UserError, match=r"cannot write .*samples/S0.npz: No space left"):
            sample.run(sampling(copy))
    assert not list(copy.rglob("*.tmp"))
    sample.run(sampling(copy))
    assert contents(copy) == contents(made)


def test_a_damaged_manifest(copy):
    (copy / "samples/S0/manifest.json").write_text("{")
    with pytest.raises(UserError, match=r"manifest.json is damaged .*: delete"):
        sample.run(sampling(copy))


def test_rounding():
    x = np.array([[-1.2, -1, 0, 0.5, 1, 1.2]], np.float32)
    np.testing.assert_array_equal(Finish()(x[..., None, None])[..., 0, 0], [[0, 0, 128, 191, 255, 255]])
    floor = Finish(rounding="floor")(x[..., None, None])[..., 0, 0]
    np.testing.assert_array_equal(floor, [[0, 0, 127, 191, 255, 255]])
    with pytest.raises(UserError, match="rounding is 'up'"):
        Finish(rounding="up")


def test_smaller_pictures():
    """Against torch 2.13.0's interpolate(mode="bicubic"), then rounded."""
    ramp = (np.arange(144).reshape(12, 12) * 37 % 101).astype(np.float32) / 50 - 1
    got = np.asarray(resize.resize(ramp[None, ..., None], 8, resize.torch_bicubic))[0, ..., 0]
    row = [-0.6705588, 0.2428336, -0.5572903, 0.4428335, -0.3572903, 0.6353436, -0.1783115, -0.5931332]
    np.testing.assert_allclose(got[0], row, atol=1e-6)
    row = [0.7060467, 0.3136948, -0.7096783, 0.5001636, -0.5171682, 0.7001636, -0.1989938, -0.5264331]
    np.testing.assert_allclose(got[3], row, atol=1e-6)
    img = np.random.default_rng(0).uniform(-1, 1, (2, 12, 12, 3)).astype(np.float32)
    out = np.asarray(Finish(8)(img))
    assert out.shape == (2, 8, 8, 3)
    assert out.dtype == np.uint8
    want = resize.resize(img, 8, resize.torch_bicubic)
    np.testing.assert_array_equal(out, np.clip(127.5 * np.asarray(want) + 128, 0, 255).astype(np.uint8))
    np.testing.assert_array_equal(Finish(12)(img), Finish()(img))
