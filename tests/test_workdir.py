"""A work directory: what binds it, what extends it, who is in it, and parts that another run lends."""

import json
import shutil

import numpy as np
import pytest
from conftest import tiny_config

import dd_jax
from dd_jax import factory, pipeline
from dd_jax.configs import llamagen_l
from dd_jax.stages import checks, lineup
from dd_jax.stages.run import Run, _todo
from dd_jax.stages.workdir import Workdir
from dd_jax.system import files
from dd_jax.system.errors import UserError

pytestmark = pytest.mark.xdist_group("pipeline")


@pytest.fixture
def copy(tiny_run, tmp_path):
    """The finished toy run, to be spoilt."""
    return shutil.copytree(tiny_run[0], tmp_path / "copy")


def work(path, **changes):
    config = factory.settled(tiny_config("llamagen")).to_dict()
    for name, value in changes.items():
        section, _, field = name.rpartition("__")
        (config[section] if section else config)[field] = value
    return Workdir(path, config)


def test_nothing_binds_where_nothing_was_made(tmp_path):
    config = tiny_config("llamagen")
    config.data.name = f"folder:{tmp_path / 'picturs'}"
    with pytest.raises(UserError, match="no folder"):
        pipeline.run(config, tmp_path / "run", "pretrain")
    work(tmp_path / "run", data__name="folder:picturs").begin("pretrain")  # as of a stage that then failed
    work(tmp_path / "run").check("pretrain")
    (tmp_path / "run/tokenizer/5").mkdir(parents=True)
    with pytest.raises(UserError, match=r"config.data.name=folder:.*, now it is digits: choose another --workdir"):
        work(tmp_path / "run").check("pretrain")


def test_more_pairs_and_steps_extend_a_run(copy):
    grown = work(copy, pairs__count=128, train__steps=20)
    grown.check("train")
    assert not grown.done("pairs")
    with pytest.raises(UserError, match=r"config.pairs.count=96, now it is 64: it may grow, not shrink"):
        work(copy, pairs__count=64).check("train")
    with pytest.raises(UserError, match=r"config.train.lr=.*, now it is 1.0: choose another --workdir"):
        work(copy, train__lr=1.0).check("train")


def test_a_stage_that_begins_anew_is_not_done_until_it_ends(copy):
    assert work(copy).done("evaluate")
    work(copy).begin("evaluate")
    assert not work(copy).done("evaluate")


def test_one_process_at_a_time(copy):
    told = r"copy is in use by process \d+ on .* since 2.*: wait for it"
    with work(copy).locked(), pytest.raises(UserError, match=told):
        pipeline.run(tiny_config("llamagen"), copy, "report")
    with work(copy).locked():  # what was held is free again
        pass


@pytest.mark.parametrize("name", ["stages.json", "from.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "\0\0"])
def test_a_torn_record_is_named(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name} is damaged \(.+\): \w+"):
        work(tmp_path)


def test_what_is_drawn_by_the_way_is_not_the_runs(copy, capsys):
    config = tiny_config("llamagen")
    before = {name: (copy / name).read_bytes() for name in ("stages.json", "config.json")}
    config.sample.labels, config.sample.few, config.sample.batch, config.sample.seed = "7", 3, 3, 5
    pipeline.run(config, copy, "sample")
    assert {name: (copy / name).read_bytes() for name in before} == before
    with np.load(copy / "samples/named/S0.npz") as drawn:
        assert drawn["label"].tolist() == [7, 7, 7]
        wanted = dd_jax.load(copy).sample([7, 7, 7], seed=5)
        assert np.abs(wanted.astype(int) - drawn["arr_0"]).max() <= 1
    plain = factory.settled(tiny_config("llamagen"))
    assert _todo(Run(factory.build(plain), plain, Workdir(copy, plain.to_dict())), "all") == ["report"]


def test_an_idea_takes_what_a_run_has(tiny_run, tmp_path):
    source, config = tiny_run[0], tiny_config("llamagen")
    before = {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.is_file()}
    config.train.steps, config.train.ce = 4, 2.0
    pipeline.run(config, tmp_path / "idea", "train", source)
    assert {path.name for path in (tmp_path / "idea").iterdir()} >= {"student", "weights", "from.json"}
    assert not (tmp_path / "idea/tokenizer").exists()
    assert {path: path.stat().st_mtime_ns for path in source.rglob("*") if path.is_file()} == before
    parts = {path.name for path in (tmp_path / "idea/weights").iterdir()}
    assert parts == {"classifier", "tokenizer", "teacher", "student"}
    images = dd_jax.load(tmp_path / "idea").sample([3], plan="S0")
    np.testing.assert_array_equal(dd_jax.load(tmp_path / "idea/weights/student").sample([3], plan="S0"), images)
    config = factory.settled(config)
    again = Workdir(tmp_path / "idea", config.to_dict())  # it is remembered
    assert again.borrowed("pairs") == source
    config.guidance = 3.0
    assert Workdir(tmp_path / "idea", config.to_dict()).borrowed("pairs") is None  # pairs that do not fit


def test_a_run_that_lends_nothing(tiny_run, tmp_path):
    source, config = tiny_run[0], factory.settled(tiny_config("llamagen")).to_dict()
    with pytest.raises(UserError, match="is the work directory itself"):
        Workdir(source, config, source)
    with pytest.raises(UserError, match="holds no run"):
        Workdir(tmp_path / "idea", config, tmp_path)
    config["model"]["width"] = 64
    with pytest.raises(UserError, match=r"config.model.width=32, now it is 64: leave --from out, or set it back"):
        Workdir(tmp_path / "idea", config, source).check("train")
    config["model"]["depth"] = 7
    with pytest.raises(
        UserError, match=r"\(and 1 more\): leave --from out, or set them back: is --config that of before\?"
    ):
        Workdir(tmp_path / "idea", config, source).check("train")
    (tmp_path / "own/teacher").mkdir(parents=True)
    with pytest.raises(UserError, match="has a teacher of its own"):
        Workdir(tmp_path / "own", config, source)


def test_a_teacher_alone_draws(tiny_run, tmp_path):
    config, weights = tiny_config("llamagen"), tiny_run[0] / "weights"
    config.weights.update({"tokenizer": str(weights / "tokenizer"), "teacher": str(weights / "teacher")})
    config.sample.update({"plans": ("T0:16",), "labels": "3", "few": 1, "batch": 1})
    pipeline.run(config, tmp_path, "sample")
    assert (tmp_path / "samples/named/T0-16.png").exists()
    config.sample.plans = ("S0",)
    with pytest.raises(UserError, match="--stage=sample needs --stage=train"):
        pipeline.run(config, tmp_path, "sample")


def test_weights_are_looked_for_beside_the_run(tiny_run, tmp_path, monkeypatch):
    shutil.copytree(tiny_run[0] / "weights", tmp_path / "weights")
    config = tiny_config("llamagen")
    config.weights.teacher = "weights/teacher"
    monkeypatch.chdir("/")
    here = factory.build(config), config, Workdir(tmp_path / "runs/one", config.to_dict()), ("sample",)
    checks.folders(*here)
    config.weights.student = "weights/teacher"
    with pytest.raises(
        UserError, match=r"config.weights.student=.* holds a teacher: name it as --config.weights.teacher"
    ):
        checks.folders(*here)
    config.weights.student = "weights/absent"
    with pytest.raises(UserError, match="no weights in"):
        checks.folders(*here)


def test_all_that_is_missing_is_said_at_once(tmp_path):
    with pytest.raises(
        UserError, match=r"weights vq16 llamagen_l lpips_vgg .*--config.weights.lpips=weights/lpips_vgg"
    ):
        pipeline.run(llamagen_l.get_config(), tmp_path, "all")
    assert not (tmp_path / "config.json").exists()


def test_paths(monkeypatch):
    monkeypatch.setenv("HOME", "/somewhere")
    assert str(files.expand("~/run")) == "/somewhere/run"
    with pytest.raises(UserError, match="gs://bucket/run is a URL"):
        files.expand("gs://bucket/run")


def test_settings_recorded_are_those_of_the_run(tiny_run):
    record = json.loads((tiny_run[0] / "stages.json").read_text())
    assert record["train"]["config"]["train.steps"] == 12


def test_a_check_takes_no_more_noises_than_there_are():
    config = factory.settled(tiny_config("llamagen"))
    config.evaluate.count, config.evaluate.check_count = 20, 250
    assert {row.count for row in lineup.rows(factory.build(config), config)} == {20}
