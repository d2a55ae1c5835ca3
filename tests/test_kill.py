"""SIGKILL at random moments: what the resumed run leaves is bit-identical to an uninterrupted run's."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest

import dd_jax

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kill")]
ROOT = Path(__file__).parents[1]
SMALL = {
    "data.copies": 1,
    "pretrain.judge.steps": 20,
    "pretrain.tokenizer.steps": 20,
    "pretrain.teacher.steps": 20,
    "pairs.count": 6000,
    "pairs.shard": 500,
    "pairs.batch": 250,
    "train.steps": 120,
    "train.checkpoint_every": 10,
}


def command(workdir: Path, stage: str, more: dict | None = None) -> list[str]:
    overrides = [f"--config.{key}={value}" for key, value in (SMALL | (more or {})).items()]
    config = f"--config={ROOT}/configs/digits_llamagen.py"
    flags = [config, f"--workdir={workdir}", f"--stage={stage}", *overrides]
    return [sys.executable, "-m", "dd_jax.main", *flags]


def finish(workdir: Path, stage: str) -> None:
    subprocess.run(command(workdir, stage), cwd=ROOT, check=True, capture_output=True)


def kill_while_it_works(workdir: Path, stage: str, started: str, moment: float, more: dict | None = None) -> int:
    """Start a stage, wait for its first file, and SIGKILL it `moment` seconds later -> exit status."""
    before = set(workdir.rglob("*"))
    process = subprocess.Popen(command(workdir, stage, more), cwd=ROOT, stdout=subprocess.DEVNULL)
    deadline = time.time() + 120
    while process.poll() is None and time.time() < deadline:
        if any(path not in before and path.match(started) for path in workdir.rglob("*")):
            break
        time.sleep(0.02)
    time.sleep(moment)
    if process.poll() is None:
        os.kill(process.pid, signal.SIGKILL)
    return process.wait()


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("whole")
    for stage in ("pretrain", "pairs", "train"):
        finish(workdir, stage)
    return workdir


def killed_copy(whole: Path, workdir: Path, stage: str, made: str, started: str) -> None:
    """A copy of the run without what `stage` made, killed three times at random moments, then finished."""
    shutil.copytree(whole, workdir)
    for path in workdir.glob(made):
        shutil.rmtree(path)
    draw = random.Random(0)
    codes = [kill_while_it_works(workdir, stage, started, draw.uniform(0.0, 1.5)) for _ in range(3)]
    assert -signal.SIGKILL in codes, codes
    finish(workdir, stage)


def test_pairs(whole, tmp_path):
    killed_copy(whole, tmp_path / "run", "pairs", "pairs", "shard-*.npz")
    names = sorted(path.name for path in (whole / "pairs").iterdir())
    assert sorted(path.name for path in (tmp_path / "run/pairs").iterdir() if path.suffix != ".tmp") == names
    for name in names:
        assert (tmp_path / "run/pairs" / name).read_bytes() == (whole / "pairs" / name).read_bytes(), name


def test_training(whole, tmp_path):
    killed_copy(whole, tmp_path / "run", "train", "student", "student/*")
    a, b = dd_jax.load(whole).params["student"], dd_jax.load(tmp_path / "run").params["student"]
    jax.tree.map(np.testing.assert_array_equal, a, b)


def test_samples(whole, tmp_path):
    """A finished set and one that was killed three times: every byte but the times."""
    more = {"sample.count": 12_000, "sample.shard": 500, "sample.batch": 250}
    for name in ("a", "b"):
        shutil.copytree(whole, tmp_path / name)
    subprocess.run(command(tmp_path / "a", "sample", more), cwd=ROOT, check=True, capture_output=True)
    draw = random.Random(1)
    times = [draw.uniform(0.0, 0.4) for _ in range(3)]
    codes = [kill_while_it_works(tmp_path / "b", "sample", "S0/shard-*.npz", moment, more) for moment in times]
    assert -signal.SIGKILL in codes, codes
    subprocess.run(command(tmp_path / "b", "sample", more), cwd=ROOT, check=True, capture_output=True)
    names = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a/samples").rglob("*.npz")]
    assert len(names) == 25
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"train.stepz": 3}, "stepz"),
        ({"train.steps": "many"}, "train.steps"),
        ({"family": "gan"}, "config.family is 'gan': choose one of"),
        ({"flow.name": "rk9"}, "rk9"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, more, message):
    run = subprocess.run(command(tmp_path, "pretrain", more), cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert message in run.stderr + run.stdout
    assert "Traceback" not in run.stderr
