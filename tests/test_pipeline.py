"""Every stage of both families at toy size, the library, and what a person meets when something is wrong."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config

import dd_jax
from dd_jax import factory, pipeline
from dd_jax.configs import common
from dd_jax.data import pairset
from dd_jax.method import csd
from dd_jax.stages.run import Run, _todo
from dd_jax.stages.workdir import Workdir
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


@pytest.fixture(scope="module")
def pipe(tiny_run):
    """The finished run, opened: tests that only draw share its programs."""
    return dd_jax.load(tiny_run[0])


def test_library_images_belong_to_their_noise(pipe):
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


def test_library_names_what_is_wrong(pipe, tmp_path):
    with pytest.raises(UserError, match=r"labels must lie in 0\.\.9"):
        pipe.sample([10])
    with pytest.raises(UserError, match="noise must be"):
        pipe.sample([1], noise=np.zeros((2, 16, 4)))
    with pytest.raises(UserError, match="cannot read"):
        pipe.sample([1], plan="S0 X3")
    with pytest.raises(UserError, match=r"no config\.json"):
        dd_jax.load(tmp_path)


def test_what_is_given_in_other_ways_is_the_same(pipe, tiny_run):
    three = pipe.sample([1, 2, 3], seed=7)
    np.testing.assert_array_equal(dd_jax.load(str(tiny_run[0])).noise(3, seed=7), pipe.noise(3, seed=7))
    noise = np.asarray(pipe.noise(3, seed=7))
    for given in (np.array([1, 2, 3], np.uint8), np.float32([1, 2, 3]), jnp.array([1, 2, 3]), (1, 2, 3)):
        np.testing.assert_array_equal(pipe.sample(given, seed=np.int64(7)), three)
    np.testing.assert_array_equal(pipe.sample([1, 2, 3], noise=noise.tolist()), three)
    np.testing.assert_array_equal(pipe.sample([1, 2, 3], noise=noise.astype(np.float64)), three)
    np.testing.assert_array_equal(pipe.sample([1, 2, 3], ids=[0, 1, 2], seed=7), three)
    np.testing.assert_array_equal(pipe.noise(np.int32(3), seed=7), noise)
    np.testing.assert_array_equal(pipe.noise([2, 0], seed=7), noise[[2, 0]])
    assert pipe.sample(3).shape == (1, 8, 8, 1)
    assert pipe.sample([], plan="S0 J2").shape == (0, 8, 8, 1)
    assert pipe.sample([]).dtype == np.uint8
    assert pipe.tokens(np.zeros(0, int)).code_BxL.shape == (0, 16)
    assert pipe.noise(0).shape == pipe.noise([]).shape == (0, 16, pipe.system.tokenizer.code_dim)


LABELS = ([10], [-1], [2**32], 10**30, [3.7], [np.nan], [True], [None], [[1], [2, 3]], {"a": 1}, ["dog"], "", [1j])


def test_library_refuses_in_one_line_what_cannot_be(pipe, tiny_run):
    good = np.zeros((1, 16, pipe.system.tokenizer.code_dim), np.float32)
    cases = [
        *[(lambda label=label: pipe.sample(label), "labels|no class is called") for label in LABELS],
        (lambda: pipe.sample([1], ids=[0, 1]), "there are 2 ids for 1 labels"),
        (lambda: pipe.sample([], ids=[0]), "there are 1 ids for 0 labels"),
        (lambda: pipe.sample([1], ids=[-1]), "ids must lie in"),
        (lambda: pipe.sample([1], ids=["a"]), "ids must lie in"),
        (lambda: pipe.sample([1], noise=good[:, :3]), "noise must be"),
        (lambda: pipe.sample([1], noise=[[1.0], [2.0, 3.0]]), "noise are no array"),
        (lambda: pipe.sample([1], noise=good * np.nan), "not finite"),
        (lambda: pipe.sample([1], noise=good + 1j), "real numbers"),
        (lambda: pipe.sample([1], noise=good.astype(str)), "real numbers"),
        (lambda: pipe.sample([1], seed=-1), "the seed is -1"),
        (lambda: pipe.sample([1], seed=0.5), "the seed is 0.5"),
        (lambda: pipe.sample([1], plan=0), "a plan is a string"),
        (lambda: pipe.sample([], plan="S0 X"), "cannot read 'X'"),
        (lambda: pipe.noise(-1), "a number of images must lie in"),
        (lambda: pipe.noise(1.5), "a number of images must lie in"),
        (lambda: dd_jax.load(tiny_run[0], techer="x"), r"no techer=: did you mean teacher="),
        (lambda: dd_jax.load(tiny_run[0], dtyp="bfloat16"), r"no dtyp=: it takes tokenizer=, text="),
        (lambda: dd_jax.load(tiny_run[0], dtype="half"), r"dtype='half': choose from float32, bfloat16, int8"),
        (lambda: dd_jax.load(tiny_run[0], parts=("students",)), r"parts has 'students'"),
        (lambda: pipe.sample([1], tau=0.0), r"tau=0.0: give one number, above 0"),
        (lambda: pipe.sample([1, 2], guidance=[1.0, 2.0, 3.0]), r"guidance=float64 \(3,\): give one number or 2"),
        (lambda: pipe.sample([1], top_k=2.5), r"top_k=2.5"),
        (lambda: pipe.sample([1], top_p=1.5), r"top_p=1.5: give one number, in \(0, 1\]"),
        (lambda: pipe.sample([1], temperature="hot"), r"temperature=hot"),
        (lambda: pipe.sample([1], smooth=True), r"smooth=True is for next-scale models"),
        (lambda: pipe.compile("S0", 0), r"batches=0"),
        (lambda: dd_jax.load(tiny_run[0], teacher=3), "3 is no folder"),
        (lambda: dd_jax.load(tiny_run[0], teacher=tiny_run[0] / "none"), "no weights in"),
        (lambda: dd_jax.load(None), "None is no folder"),
        (lambda: dd_jax.load(tiny_run[0] / "weights/student", student="x"), "is the student itself"),
        (lambda: dd_jax.load(tiny_run[0] / "weights/student", tokenizer=None), "needs its tokenizer"),
    ]
    for call, told in cases:
        with pytest.raises(UserError, match=told) as error:
            call()
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 400
    img = np.zeros((1, 8, 8, 1), np.uint8)
    for wrong in (img, img[0].astype(np.float32)):
        with pytest.raises(UserError, match=r"images are (uint8|float32) of shape .*floats in \[-1, 1\]"):
            pipe.system.tokenizer.encode(pipe.params["tokenizer"], wrong)


def test_one_step_needs_no_teacher(pipe, tiny_run):
    whole = pipe.sample([3, 7])
    for folder in (tiny_run[0], tiny_run[0] / "weights/student"):
        alone = dd_jax.load(folder, teacher=None)
        assert "teacher" not in alone.params
        np.testing.assert_array_equal(alone.sample([3, 7]), whole)
        with pytest.raises(UserError, match="'S0 J2' needs a teacher"):
            alone.sample([3], plan="S0 J2")
    given = dd_jax.load(tiny_run[0], student=tiny_run[0] / "weights/student", teacher=None)
    np.testing.assert_array_equal(given.sample([3, 7]), whole)


def test_settings_of_a_call_compile_nothing(tiny_run):
    pipe = dd_jax.load(tiny_run[0])
    pipe.compile(("T0:16", "S0"), batches=(1, 3))
    assert [program._cache_size() for program in pipe._compiled.values()] == [2, 2]
    plain = pipe.sample([1, 2, 3], plan="T0:16")
    draws = [
        pipe.sample([1, 2, 3], plan="T0:16", **{name: value})
        for name, values in {
            "guidance": (0.0, 1.0, 5.0),
            "temperature": (0.1, 2.0),
            "top_k": (1, 3, 999),
            "top_p": (0.1, 0.9),
            "tau": (0.5,),
        }.items()
        for value in values
    ]
    for count in (1, 2, 3, 4):
        np.testing.assert_array_equal(pipe.sample([1, 2, 3, 4][:count], plan="T0:16")[:3], plain[:count])
    again = sorted(program._cache_size() for program in pipe._compiled.values())
    assert again == [2, 3]  # two images are a size of their own, of one plan
    assert any((drawn != plain).any() for drawn in draws)
    np.testing.assert_array_equal(draws[-1], plain)  # no flow head there
    own = pipe.sample([1, 2, 3], plan="T0:16", guidance=[0.0, pipe.system.teacher.guidance, 5.0])
    np.testing.assert_array_equal(own, np.stack([draws[0][0], plain[1], draws[2][2]]))


def test_classes_by_name(pipe):
    np.testing.assert_array_equal(pipe.sample(["3", "7-8"]), pipe.sample([3, 7, 8]))


def test_loading_a_part_or_another_type(tiny_run):
    pipe = dd_jax.load(tiny_run[0], parts=("student",), dtype="bfloat16")
    assert "teacher" not in pipe.params
    assert pipe.system.student.net.trunk.cfg.dtype == jnp.bfloat16
    assert pipe.sample([3]).shape == (1, 8, 8, 1)


def test_a_teachers_weights_in_int8(tiny_run, pipe):
    low = dd_jax.load(tiny_run[0], dtype="int8")
    kinds = {x.dtype for x in jax.tree.leaves(low.params["teacher"])}
    assert kinds == {jnp.dtype("int8"), jnp.dtype("float32")}
    assert {x.dtype for x in jax.tree.leaves(low.params["student"])} == {jnp.dtype("float32")}
    np.testing.assert_array_equal(low.sample([3, 7]), pipe.sample([3, 7]))  # the student's own
    assert low.sample([3, 7], plan="S0 J2").shape == (2, 8, 8, 1)
    assert np.mean(low.tokens([3, 7], plan="T0:16").code_BxL == pipe.tokens([3, 7], plan="T0:16").code_BxL) > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("objective", ["mixed", "csd"])
def test_a_run_with_an_int8_teacher(objective, tiny_run, tmp_path):
    """Pairs say so, a student learns from them and from its distributions, or scores, and it draws."""
    config = common.flow(tiny_config("llamagen"), two=8)
    config.train.timesteps, config.dtype.teacher = (0,), "int8"
    config.sample.plans = ("T0:16", "S0 T8:9")
    if objective == "csd":
        config.student.head, config.train.objective, config.train.grid_every = "velocity", "csd", 0
        config.train.steps, config.train.batch = csd.SHORTEST["steps"], 8
        config.train.csd.update(csd.SHORTEST["csd"])
    for stage in ("pairs", "train", "sample"):
        pipeline.run(config, tmp_path / "run", stage, source=tiny_run[0])
    assert json.loads((tmp_path / "run/pairs/manifest.json").read_text())["dtype"] == "int8"
    curve = (tmp_path / "run/student/curve.jsonl").read_text().splitlines()
    assert np.isfinite(json.loads(curve[-1])["loss"])
    assert {path.stem for path in (tmp_path / "run/samples").glob("*.npz")} == {"T0-16", "S0_T8-9"}


def test_numbers_of_sweeps_are_one_program(tiny_run):
    pipe = dd_jax.load(tiny_run[0])
    drafts = [pipe.tokens([1, 2], plan=f"S0 J{n}") for n in ("1", "4", "*", "9999999999")]
    assert len(pipe._compiled) == 1
    assert next(iter(pipe._compiled.values()))._cache_size() == 1
    np.testing.assert_array_equal(drafts[2].code_BxL, drafts[3].code_BxL)
    np.testing.assert_array_equal(drafts[0].sweeps_B, [1, 1])
    assert (np.asarray(drafts[2].exact_B) == 16).all()
    np.testing.assert_array_equal(drafts[2].code_BxL, pipe.tokens([1, 2], plan="T0:16").code_BxL)


def test_the_top_exports_what_people_need():
    assert set(dd_jax.__all__) <= set(dir(dd_jax))
    assert (dd_jax.Pipeline, dd_jax.load, dd_jax.run) == (pipeline.Pipeline, pipeline.load, pipeline.run)
    assert dd_jax.UserError is UserError
    assert (Path(dd_jax.__file__).parent / "py.typed").exists()
    with pytest.raises(AttributeError, match="no attribute 'Pipelin'"):
        _ = dd_jax.Pipelin
    program = "import sys, dd_jax; dd_jax.UserError; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


@pytest.mark.parametrize("stage", ["train", "sample", "evaluate"])
def test_pairs_of_other_noise_stop_every_stage(tiny_run, copy, stage):
    manifest = json.loads((copy / "pairs/manifest.json").read_text())
    manifest["noise"][1] += 0.5
    (copy / "pairs/manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UserError, match="pairs was made from other noise"):
        pipeline.run(tiny_run[1], copy, stage)
    with pytest.raises(UserError, match="pairs was made from other noise"):
        dd_jax.load(copy)


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
    config.pretrain.classifier.lr = 1e9
    config.pretrain.classifier.clip = 1e9
    with pytest.raises(UserError, match=r"classifier: the loss is (nan|inf) at step \d+ \(examples \d+, "):
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


def test_on_policy_training_needs_no_pairs_and_resumes_to_the_same_bits(tiny_run, tmp_path):
    source, config = tiny_run[0], tiny_config("llamagen")
    config.student.head = "flow"
    config.baselines.update({"onestep": False, "skip": (), "skip_drop": ()})
    config.train.update({"objective": "on_policy", "embedding": 0.0, "distance": "none", "steps": 4, "batch": 4})
    config.train.update({"checkpoint_every": 2, "timesteps": (0,), "grid_every": 0})
    work = tmp_path / "flow"
    here = Run(factory.build(config), config, Workdir(work, config.to_dict(), source))
    assert "pairs" not in here.reads("train")
    assert "pairs" not in _todo(here, "all")
    pipeline.run(config, work, "train", source)
    before = dd_jax.load(work).params["student"]
    shutil.rmtree(work / "student/4")
    pipeline.run(config, work, "train", source)
    jax.tree.map(np.testing.assert_array_equal, dd_jax.load(work).params["student"], before)
    config.train.objective, config.student.head = "mixed", "both"
    with pytest.raises(UserError, match=r"objective=mixed needs .*: set config.student.head=flow"):
        pipeline.run(config, tmp_path / "other", "train", source)
