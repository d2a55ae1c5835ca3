"""Two real processes do what one does: pairs, training, checkpoints, and stopping when told to."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import streamed
from safetensors.numpy import load_file

import dd_jax
from dd_jax.system import processes
from dd_jax.system.errors import UserError

ROOT = Path(__file__).parents[1]
SMALL = {"data.copies": 1, "model.width": 32, "model.depth": 1, "model.heads": 2, "pairs.count": 80, "pairs.shard": 16}
SMALL |= {f"pretrain.{part}.{key}": 8 for part in ("classifier", "tokenizer", "teacher") for key in ("steps", "batch")}
PLAYING = {"gan_weight": 0.5, "gan_start": 3, "gan_width": 8, "gan_layers": 1, "grid_every": 4}
PLAYING = {f"pretrain__tokenizer__{key}": value for key, value in PLAYING.items()}
SMALL |= {"pairs.batch": 16, "train.batch": 16, "train.steps": 10, "train.checkpoint_every": 4}


def command(workdir: Path, stage: str, count: int = 1, config: str = "digits_llamagen", **more) -> list[list[str]]:
    """One command for each of `count` processes."""
    overrides = [f"--config.{key.replace('__', '.')}={value}" for key, value in (SMALL | more).items()]
    flags = [f"--config={ROOT}/configs/{config}.py", f"--workdir={workdir}", f"--stage={stage}", *overrides]
    whole = [sys.executable, "-m", "dd_jax.main", *flags]
    if count == 1:
        return [whole]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"--coordinator=localhost:{free.getsockname()[1]}"
    return [[*whole, where, f"--processes={count}", f"--process={i}"] for i in range(count)]


def start(commands: list[list[str]]) -> list[subprocess.Popen]:
    given = {"cwd": ROOT, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return [subprocess.Popen(line, env=os.environ | {"XLA_FLAGS": ""}, **given) for line in commands]


def run(workdir: Path, stage: str, count: int = 1, **more) -> list[tuple[str, str]]:
    running = start(command(workdir, stage, count, **more))
    told = [process.communicate(timeout=900) for process in running]
    assert all(process.returncode == 0 for process in running), told
    return told


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("alone")
    run(workdir, "pretrain")
    shutil.copytree(workdir, workdir.parent / "begun")
    for stage in ("pairs", "train"):
        run(workdir, stage)
    return workdir


@pytest.mark.slow
def test_two_processes_do_what_one_does(alone, tmp_path):
    workdir = tmp_path / "two"
    shutil.copytree(alone.parent / "begun", workdir)
    first, second = run(workdir, "pairs", 2)
    assert "pairs: wrote" in first[0]
    assert "wrote" not in second[0]  # (gloo itself has a word to say)
    names = sorted(path.name for path in (alone / "pairs").iterdir())
    assert sorted(path.name for path in (workdir / "pairs").iterdir()) == names
    for name in names:
        assert (workdir / "pairs" / name).read_bytes() == (alone / "pairs" / name).read_bytes(), name
    run(workdir, "train", 2)
    a, b = (dd_jax.load(folder).params["student"] for folder in (alone, workdir))
    square = [sum(float((x**2).sum()) for x in jax.tree.leaves(tree)) for tree in (jax.tree.map(np.subtract, a, b), b)]
    assert (square[0] / square[1]) ** 0.5 < 1e-5
    curves = [[json.loads(line) for line in (w / "student/curve.jsonl").open()] for w in (alone, workdir)]
    assert [row["step"] for row in curves[0]] == [row["step"] for row in curves[1]]
    np.testing.assert_allclose([row["loss"] for row in curves[1]], [row["loss"] for row in curves[0]], rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize(("config", "own"), [("digits_llamagen", False), ("digits_var", True)])
def test_two_processes_train_tokenizer_and_teacher_as_one_does(config, own, tmp_path):
    """The tokenizer against a discriminator; published weights, codes in use and curves, to rounding."""
    whole, workdir = tmp_path / "one", tmp_path / "two"
    more = {"config": config, **PLAYING, **(streamed.settings(tmp_path / "pictures") if own else {})}
    [alone] = run(whole, "pretrain", **more)
    first, second = run(workdir, "pretrain", 2, **more)
    for told in (alone, first):
        assert "pretrain: wrote" in told[0]
        assert bool(re.search(r"pretrain: 1 picture could not be read, .* stood in: \S*dogs/07.png", told[0])) == own
    assert "wrote" not in second[0]
    codes = [(w / "codes/codes.bin").read_bytes() for w in (whole, workdir)]
    assert len(codes[0]) == len(codes[1])
    assert np.mean(np.frombuffer(codes[0], np.uint16) == np.frombuffer(codes[1], np.uint16)) > 0.999
    for part in ("classifier", "tokenizer", "teacher"):
        a, b = (load_file(folder / "weights" / part / "weights.safetensors") for folder in (whole, workdir))
        square = [sum(float((x**2).sum()) for x in some.values()) for some in ({k: a[k] - b[k] for k in b}, b)]
        curves = [[json.loads(line) for line in (w / part / "curve.jsonl").open()] for w in (whole, workdir)]
        loss = [np.asarray([row["loss"] for row in curve]) for curve in curves]
        print(part, "params", (square[0] / square[1]) ** 0.5, "loss", abs(loss[1] / loss[0] - 1).max())
        assert [row["step"] for row in curves[0]] == [row["step"] for row in curves[1]]
        np.testing.assert_allclose(loss[1], loss[0], rtol=1e-5)
        assert (square[0] / square[1]) ** 0.5 < 1e-5
    assert "discriminator" in curves[0][-1] or "discriminator" in (whole / "tokenizer/curve.jsonl").read_text()


@pytest.mark.slow
def test_told_to_stop_all_save_the_same_step(alone, tmp_path):
    workdir = tmp_path / "two"
    shutil.copytree(alone, workdir)
    shutil.rmtree(workdir / "student")
    (workdir / "stages.json").write_text((alone.parent / "begun/stages.json").read_text())
    run(workdir, "pairs")
    long = {"train.steps": 100_000, "train.checkpoint_every": 100_000}
    running = start(command(workdir, "train", 2, **long))
    deadline = time.time() + 600
    while time.time() < deadline and not (workdir / "student/curve.jsonl").exists():
        time.sleep(0.1)
    time.sleep(20)
    running[1].send_signal(signal.SIGTERM)  # one of them is told; they agree
    told = [process.communicate(timeout=300) for process in running]
    assert [process.returncode for process in running] == [75, 75], told
    saved = [int(path.name) for path in (workdir / "student").iterdir() if path.name.isdigit()]
    assert len(saved) == 1
    assert all(f"stopped at step {saved[0]} of 100000, which is saved" in err for _, err in told)


@pytest.mark.slow
def test_what_one_of_two_cannot_read_ends_both_soon(tmp_path):
    """The other waits for a batch's gradients; an orderly end of this one would wait for the other."""
    more = {"config": "digits_var", **streamed.settings(tmp_path / "pictures"), "data.strict": "true"}
    running = start(command(tmp_path / "two", "pretrain", 2, **more))
    try:
        told = [process.communicate(timeout=240) for process in running]
    finally:
        for process in running:
            process.kill()
    assert all(process.returncode for process in running)
    assert any(re.search(r"error: .*dogs/07\.png", err) for _, err in told), told


def test_flags_that_do_not_fit():
    with pytest.raises(UserError, match=r"--processes=2 --process=None: give all three"):
        processes.start("localhost:1", 2)
    with pytest.raises(UserError, match=r"process in 0\.\.processes-1"):
        processes.start("localhost:1", 2, 2)
