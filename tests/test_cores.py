"""Cores of a CPU as devices: how many, for which stages; and two of them score a run as one does."""

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from conftest import tiny_config
from ml_collections import ConfigDict

from dd_jax import settings
from dd_jax.system import runtime

NEAR = ("fd", "fd_teacher", "class_accuracy", "precision", "recall", "nll", "agreement", "spread", "sweeps", "exact")


@pytest.mark.parametrize(
    ("share", "cores", "told", "count"),
    [
        *((32, 2, {}, 2), (48, 5, {}, 4), (7, 4, {}, 1), (64, 64, {}, 8), (1, 2, {}, 1), (3, 3, {}, 3)),
        (32, 2, {"JAX_NUM_CPU_DEVICES": "1"}, None),
        (32, 2, {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}, None),
    ],
)
def test_cores_are_devices_as_far_as_they_share_a_batch(monkeypatch, share, cores, told, count):
    said = {}
    monkeypatch.setattr(jax.config, "update", said.__setitem__)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: range(cores), raising=False)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    for name, value in {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false", **told}.items():
        monkeypatch.setenv(name, value)
    runtime.cut_cores(share)
    assert said.get("jax_num_cpu_devices") == count


def test_what_trainings_share():
    config = tiny_config("llamagen")
    config.train.timesteps = (0, 5)
    assert settings.share(config) == 16  # batches of 32, half of one fresh
    config.pretrain.teacher.update({"batch": 24, "accumulate": 3})
    assert settings.share(config) == 8
    config.train.accumulate = 4
    assert settings.share(config) == 2  # 16 fresh noises, four micro-batches, two timesteps
    config.weights.teacher = "weights/llamagen_l"
    assert settings.share(config) == 1
    assert settings.share(ConfigDict({"batch": 3})) == 1


@pytest.mark.parametrize("stage", ["pretrain", "sample"])
def test_only_trainings_cut_the_cores(tmp_path, stage):
    """The command itself: what it does with a set that is not there, and how many devices it had by then."""
    code = (
        "import atexit, sys, jax, os; os.sched_getaffinity = lambda _: range(4)\n"
        "from dd_jax import main; atexit.register(lambda: print('devices', jax.local_device_count()))\n"
        f"sys.argv = ['main', '--config=configs/digits_var.py', '--stage={stage}', '--workdir={tmp_path}/run',\n"
        f"  '--config.data.name=folder:{tmp_path}/none']\nmain.entry()"
    )
    env = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS", "JAX_NUM_CPU_DEVICES")} | {
        "JAX_PLATFORMS": "cpu"
    }
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300)
    assert done.returncode == 1, done.stderr
    assert done.stdout.split() == ["devices", "4" if stage == "pretrain" else "1"]


@pytest.mark.slow
def test_two_devices_score_a_run_as_one_does(tiny_run):
    """The teacher, two plans, refinement and the baselines, 80 noises in batches of 39 that are rounded up."""
    workdir, _ = tiny_run
    before = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
    (workdir / "results.jsonl").unlink()
    words = [f"--workdir={workdir}", "--stage=evaluate", "--config.evaluate.batch=39"]
    env = os.environ | {"JAX_NUM_CPU_DEVICES": "2", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = [sys.executable, "-m", "dd_jax.main", *words]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    after = [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]
    assert [(row["generator"], row["plan"]) for row in after] == [(row["generator"], row["plan"]) for row in before]
    for row, wanted in zip(after, before, strict=True):
        told = [key for key in NEAR if wanted.get(key) is not None]
        np.testing.assert_allclose([row[key] for key in told], [wanted[key] for key in told], rtol=1e-3, atol=1e-3)
