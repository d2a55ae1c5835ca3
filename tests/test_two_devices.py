"""Two devices that a CPU stands for score a run as one does."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

NEAR = ("fd", "fd_teacher", "class_accuracy", "precision", "recall", "nll", "agreement", "spread", "sweeps", "exact")


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
