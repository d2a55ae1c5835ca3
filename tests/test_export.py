"""A plan as a program that needs no dd_jax: the same bytes, and what a person meets when something is wrong."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import dd_jax
from dd_jax import export
from dd_jax.system.errors import UserError

PAGE = Path(__file__).parents[1] / "docs" / "hub.md"
ALONE = "import sys; sys.modules['dd_jax'] = None\n"  # importing it fails


def command(monkeypatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", ["dd_jax.export", *map(str, words)])
    export.main()


def test_ten_lines_without_the_package_draw_the_same(tiny_run, tmp_path, monkeypatch, capsys):
    pipe = dd_jax.load(tiny_run[0] / "weights", teacher=None)
    (lines,) = re.findall(r"^```\n(import jax\n.*?)^```$", PAGE.read_text(), re.M | re.S)
    assert len([line for line in lines.splitlines() if line]) <= 11
    out = tmp_path / "one_step.stablehlo"
    command(monkeypatch, tiny_run[0], "--batch", 8, "--out", out, "--platforms", "cpu,cuda,tpu")
    assert capsys.readouterr().out.count("wrote ") == 2
    assert out.stat().st_size < out.with_suffix(".safetensors").stat().st_size
    np.save(tmp_path / "noise.npy", pipe.noise(8, seed=5))
    env = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}  # as in these tests
    done = subprocess.run(
        [sys.executable, "-c", ALONE + lines], cwd=tmp_path, env=os.environ | env, capture_output=True
    )
    assert not done.returncode, done.stderr.decode()
    images = np.load(tmp_path / "images.npy")
    np.testing.assert_array_equal(images, pipe.sample(np.arange(8), seed=5))
    assert images.dtype == np.uint8


def test_several_sizes_share_their_weights(tiny_run, tmp_path):
    pipe = dd_jax.load(tiny_run[0], teacher=None)
    made = export.export(pipe, tmp_path / "a.stablehlo", batches=(1, 2))
    assert [path.name for path in made] == ["a_1.stablehlo", "a_2.stablehlo", "a.safetensors"]


def test_what_cannot_be_exported_is_one_line(tiny_run, tmp_path, monkeypatch, capsys):
    student = tiny_run[0] / "weights/student"
    cases = {
        ("--plan", "S0 S3"): "the student was trained for steps [0, 5], not 3",
        ("--plan", "S0 X"): "cannot read 'X'",
        ("--batch", "0"): "batch sizes are 0: give whole numbers",
        ("--batch", "x"): "--batch x: give batch sizes, as 1,8",
        ("--platforms", "cpu,gpu"): "there is no platform 'gpu': choose of cpu, cuda, rocm, tpu",
        ("--out", tmp_path): "is a folder: name a file in it",
        ("--out", student / "config.json/x"): "cannot write into",
    }
    for words, told in cases.items():
        with pytest.raises(SystemExit) as ended:
            command(monkeypatch, student, *words)
        assert str(ended.value).startswith("error: "), words
        assert told in str(ended.value), words
        assert "\n" not in str(ended.value)
    pipe = dd_jax.load(student, teacher=None)
    with pytest.raises(UserError, match="plan 'S0 J2' needs a teacher"):
        export.check(pipe, "S0 J2", [1], [])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'dd_jax\[export\]'"):
        export.check(pipe, "S0", [1], [])
