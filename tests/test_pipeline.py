"""Every stage of both families at toy size, the library, and what a person meets when something is wrong."""

import json
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_config

import dd_jax
from dd_jax import pipeline
from dd_jax.data import pairset
from dd_jax.system.errors import UserError

pytestmark = pytest.mark.xdist_group("pipeline")
KEYS = {
    "generator",
    "plan",
    "steps",
    "fd",
    "fd_teacher",
    "class_accuracy",
    "precision",
    "recall",
    "nll",
    "agreement",
    "ms_per_image",
    "n",
}


def rows(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


def test_all_stages_leave_their_files(tiny_run):
    workdir, _ = tiny_run
    for name in ("report.html", "grid.png", "speed.json", "pairs/manifest.json", "samples/S0.png"):
        assert (workdir / name).stat().st_size > 0, name
    table = rows(workdir)
    assert all(set(row) >= KEYS for row in table)
    assert {row["generator"] for row in table} == {"teacher", "student", "skip-8", "onestep*"}
    teacher = table[0]
    assert teacher["agreement"] == 1.0
    assert teacher["steps"] == 16
    lossless = next(row for row in table if row["plan"] == "S0 J*")
    assert lossless["identical"] == 1.0
    assert "onestep" in (workdir / "report.html").read_text()


def test_training_shows_how_it_learns(tiny_run):
    workdir, _ = tiny_run
    assert sorted(path.name for path in (workdir / "student/grids").iterdir()) == [f"step-{i:08d}.png" for i in (6, 12)]
    curve = [json.loads(line) for line in (workdir / "student/curve.jsonl").open()]
    assert [row["step"] for row in curve if row.get("nll", 0) > 0] == [6, 12]
    assert {"ce/t0", "ce/t5", "agreement/t0", "agreement/steps_0-3", "grad_norm"} <= set(curve[-1])
    speed = [json.loads(line) for line in (workdir / "student/speed.jsonl").open()]
    assert all(row["tokens_per_s"] > 0 and row["mfu"] > 0 for row in speed)


def test_a_second_run_only_writes_the_report(tiny_run, capsys):
    workdir, config = tiny_run
    pipeline.run(config, str(workdir), "all")
    out = capsys.readouterr().out
    assert "report: wrote" in out
    assert "pretrain" not in out


@pytest.mark.slow  # .ci/run has one of its own
def test_next_scale_pipeline(tmp_path):
    config = tiny_config("var")
    pipeline.run(config, str(tmp_path), "all")
    table = rows(tmp_path)
    assert next(row for row in table if row["plan"] == "S0 J*")["identical"] == 1.0
    assert all(np.isfinite(row["fd"]) for row in table)


def test_library_images_belong_to_their_noise(tiny_run):
    workdir, _ = tiny_run
    pipe = dd_jax.load(workdir)
    three = pipe.sample([1, 2, 3], plan="S0 S5", seed=7)
    assert three.shape == (3, 8, 8, 1)
    assert three.dtype == np.uint8
    np.testing.assert_array_equal(pipe.sample([1, 2], plan="S0 S5", seed=7), three[:2])
    noise = pipe.noise(3, seed=7)
    np.testing.assert_array_equal(pipe.sample([1, 2, 3], plan="S0 S5", noise=noise), three)
    assert (pipe.sample([1, 2, 3], plan="S0 S5", seed=8) != three).any()
    draft = pipe.tokens([1, 2, 3], plan="T0:16")
    assert draft.code_BxL.shape == (3, 16)
    assert (np.asarray(draft.exact_B) == 16).all()


def test_library_names_what_is_wrong(tiny_run, tmp_path):
    pipe = dd_jax.load(tiny_run[0])
    with pytest.raises(UserError, match=r"labels must lie in 0\.\.9"):
        pipe.sample([10])
    with pytest.raises(UserError, match="noise must be"):
        pipe.sample([1], noise=np.zeros((2, 16, 4)))
    with pytest.raises(UserError, match="cannot read"):
        pipe.sample([1], plan="S0 X3")
    with pytest.raises(UserError, match=r"no config\.json"):
        dd_jax.load(tmp_path)


def test_stage_out_of_order(tmp_path):
    with pytest.raises(UserError, match="--stage=train needs --stage=pretrain"):
        pipeline.run(tiny_config("llamagen"), str(tmp_path), "train")


def test_work_directory_of_another_config(tiny_run):
    workdir, _ = tiny_run
    config = tiny_config("llamagen")
    config.pretrain.teacher.steps = 13
    with pytest.raises(UserError, match=r"config\.pretrain\.teacher\.steps=12, now it is 13"):
        pipeline.run(config, str(workdir), "all")
    with pytest.raises(UserError, match=r"config\.family=llamagen"):
        pipeline.run(tiny_config("var"), str(workdir), "all")


@pytest.fixture
def copy(tiny_run, tmp_path):
    shutil.copytree(tiny_run[0], tmp_path / "run")
    return tmp_path / "run"


def flip(path: Path, at: float = 0.5) -> None:
    data = bytearray(path.read_bytes())
    data[int(len(data) * at)] ^= 0xFF
    path.write_bytes(data)


def test_damaged_shard_is_named_and_made_anew(tiny_run, copy):
    before = (copy / "pairs/shard-00001.npz").read_bytes()
    flip(copy / "pairs/shard-00001.npz")
    with pytest.raises(UserError, match=r"shard-00001\.npz is damaged"):
        pairset.load(copy / "pairs")
    pipeline.run(tiny_run[1], str(copy), "pairs")
    assert (copy / "pairs/shard-00001.npz").read_bytes() == before


def test_missing_shard(copy):
    (copy / "pairs/shard-00002.npz").unlink()
    with pytest.raises(UserError, match=r"shard-00002\.npz is missing"):
        pairset.load(copy / "pairs")


def test_pairs_of_another_teacher_are_refused(tiny_run, copy):
    config = tiny_config("llamagen")
    record = json.loads((copy / "stages.json").read_text())
    del record["pairs"], record["train"]
    (copy / "stages.json").write_text(json.dumps(record))
    config.guidance = 1.5
    with pytest.raises(UserError, match=r"begun with guidance=2\.0, now it is 1\.5"):
        pipeline.run(config, str(copy), "pairs")


def test_damaged_checkpoint(copy):
    files = [p for p in (copy / "student/12/state").rglob("*") if p.is_file() and p.stat().st_size > 4000]
    for path in files:
        flip(path)
    assert files
    with pytest.raises(UserError, match=r"student/12 is damaged .*delete that folder"):
        dd_jax.load(copy)


def test_unfinished_training(copy):
    shutil.rmtree(copy / "student/12")
    with pytest.raises(UserError, match="is at step 10 of 12"):
        dd_jax.load(copy)


def test_full_disk_names_the_file(tiny_run, copy, monkeypatch):
    import errno
    import os

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (copy / "pairs/shard-00000.npz").unlink()
    kept = (copy / "pairs/shard-00001.npz").read_bytes()
    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match="No space left on device"):
        pipeline.run(tiny_run[1], str(copy), "pairs")
    assert (copy / "pairs/shard-00001.npz").read_bytes() == kept


def test_loss_that_is_not_finite_keeps_the_last_good_state(tmp_path):
    config = tiny_config("llamagen")
    config.pretrain.classifier.lr = 1e30
    config.pretrain.classifier.clip = 1e30
    with pytest.raises(UserError, match=r"classifier: the loss is (nan|inf) at step \d+ \(examples \["):
        pipeline.run(config, str(tmp_path), "pretrain")
    assert json.loads((tmp_path / "stages.json").read_text())["pretrain"]["done"] is False


def test_resumed_training_equals_uninterrupted(tiny_run, copy):
    """Throw the end of the student's training away; what is trained again is the same to the last bit."""
    before = dd_jax.load(copy).params["student"]
    curve = (copy / "student/curve.jsonl").read_text()
    shutil.rmtree(copy / "student/12")
    pipeline.run(tiny_run[1], str(copy), "train")
    jax.tree.map(np.testing.assert_array_equal, dd_jax.load(copy).params["student"], before)
    assert (copy / "student/curve.jsonl").read_text() == curve
