"""Runs, weights, pairs and samples of version 0.1.0, whose folders and settings had other names, open and go on."""

import json
import shutil
import tarfile

import chex
import numpy as np
import pytest
from conftest import tiny_config
from helpers import GOLDENS
from ml_collections import ConfigDict
from safetensors.numpy import load_file

import dd_jax
from dd_jax import overrides, pipeline
from dd_jax.data import pairset
from dd_jax.system import spelling
from dd_jax.system.errors import UserError

pytestmark = pytest.mark.xdist_group("pipeline")


@pytest.fixture
def old(tmp_path):
    """A finished toy run that version 0.1.0 left, without its report."""
    with tarfile.open(GOLDENS / "runs/version_0_1.tgz") as archive:
        archive.extractall(tmp_path / "old", filter="data")
    return tmp_path / "old"


def config_of_then() -> ConfigDict:
    config = tiny_config("llamagen")
    config.classifier = ConfigDict({"patch": 1, "hidden": 8, "widths": (8, 8)})
    config.sample.count = config.sample.batch = 4
    config.evaluate.count = config.evaluate.reference = 40
    config.evaluate.plans = ("S0",)
    return config


def test_a_finished_run_is_finished(old, capsys):
    assert (old / "judge").is_dir()
    pipeline.run(config_of_then(), old, "all")
    out = capsys.readouterr().out
    assert "report: wrote" in out
    assert "pretrain" not in out
    page = (old / "report.html").read_text()
    assert "judge" not in page
    assert "classifier" in page
    assert not (old / "classifier").exists()


def test_an_interrupted_training_goes_on_to_the_same_student(old):
    weights = old / "weights/student/weights.safetensors"
    whole = load_file(weights)
    weights.unlink()
    shutil.rmtree(old / "student/12")
    record = json.loads((old / "stages.json").read_text())
    record["train"]["done"] = False
    (old / "stages.json").write_text(json.dumps(record))
    pipeline.run(config_of_then(), old, "train")
    chex.assert_trees_all_close(load_file(weights), whole, atol=1e-4)


def test_the_library_draws_what_was_sampled(old):
    with np.load(old / "samples/S0.npz") as stored:
        images, label = stored["arr_0"], stored["label"]
    drawn = dd_jax.load(old).sample(label, plan="S0", seed=0)
    assert np.abs(drawn.astype(int) - images).max() <= 1
    exported = dd_jax.load(old / "weights/student").sample(label, plan="S0", seed=0)
    np.testing.assert_array_equal(exported, drawn)


def test_pairs_are_read_and_extended_settings_are_compared(old):
    assert len(pairset.load(old / "pairs")) == 96
    config = config_of_then()
    config.pretrain.teacher.label_dropout = 0.5
    with pytest.raises(UserError, match=r"config.pretrain.teacher.label_dropout=0.1, now it is 0.5"):
        pipeline.run(config, old, "pairs")


def test_names():
    then = {"judge": {"patch": 1}, "pretrain": {"teacher": {"corrupt": 0.1, "steps": 3}}, "pretrain.judge.lr": 1}
    now = {"classifier": {"patch": 1}, "pretrain": {"teacher": {"token_corruption": 0.1, "steps": 3}}}
    assert spelling.newer(then) == now | {"pretrain.classifier.lr": 1}
    assert spelling.newer(now) == now
    assert spelling.same("train.no_decay", ["pos_1LC", "ada_gss"], ["pos_1LC"])
    assert not spelling.same("train.no_decay", ["pos_1LC", "lvl_embed"], ["pos_1LC"])
    assert not spelling.same("train.steps", 1, 2)


def test_earlier_names_are_taken_on_the_command_line(capsys):
    words = ["--config.pretrain.judge.steps=3", "--config.pretrain.teacher.corrupt", "0.1", "--labels=7", "--config=x"]
    assert list(map(overrides.newer, words)) == [
        "--config.pretrain.classifier.steps=3",
        "--config.pretrain.teacher.token_corruption",
        *words[2:],
    ]
    assert "config.pretrain.judge.steps is called config.pretrain.classifier.steps now" in capsys.readouterr().err
