"""Two students on the same noises, whatever their heads; and a flow head's other temperatures, which are a curve's."""

import json
import shutil

import numpy as np
import pytest
from conftest import tiny_config

from dd_jax import pipeline
from dd_jax.report import build, rows
from dd_jax.scripts import compare
from dd_jax.stages import lineup
from dd_jax.system.errors import UserError

pytestmark = pytest.mark.xdist_group("pipeline")


def flow_config():
    """A student behind a flow head, two steps of fresh noises."""
    config = tiny_config("llamagen")
    config.student.head = "flow"
    config.baselines.update({"onestep": False, "skip": (), "skip_drop": ()})
    config.train.update({"objective": "on_policy", "embedding": 0.0, "distance": "none", "steps": 2, "batch": 4})
    config.train.update({"timesteps": (0,), "grid_every": 0})
    config.evaluate.update({"plans": ("S0",), "check": "", "taus": (0.5,)})
    return config


def test_another_student_draws_the_same_noises(tiny_run, tmp_path):
    """Its row is the one that its own run has; the page shows both, and the curve of temperatures."""
    source, config = tiny_run[0], flow_config()
    config.evaluate.beside = (str(source),)
    for stage in ("train", "evaluate", "report"):
        pipeline.run(config, tmp_path / "run", stage, source)
    found, theirs = (build.read_results(path / "results.jsonl") for path in (tmp_path / "run", source))
    assert [row["generator"] for row in found] == ["teacher", "student", "student of run", "student"]
    (own,) = [row for row in theirs if (row["generator"], row["plan"]) == ("student", "S0")]
    for key in ("nll", "agreement", "fd_teacher", "recall"):
        assert found[2][key] == pytest.approx(own[key], rel=1e-4), key
    with np.load(tmp_path / "run/grids.npz") as mine, np.load(source / "grids.npz") as other:
        np.testing.assert_array_equal(mine[rows.picture_key(found[2])], other[rows.picture_key(own)])
    grid = build._grid(tmp_path / "run/grids.npz", rows.drawn(found), ["a", "b"])
    assert grid.columns == ["Teacher\n16 steps", "One step\nS0", "One step\nrun"]
    page = (tmp_path / "run/report.html").read_text()
    assert "student of run" in page
    assert "Temperature of one step" in page


def test_what_cannot_stand_beside_is_refused_before_anything_is_trained(tiny_run, tmp_path):
    config = flow_config()
    for name, told in (("/no/such", "no/such"), (str(tiny_run[0] / "weights/teacher"), "holds a teacher")):
        config.evaluate.beside = (name,)
        with pytest.raises(UserError, match=told):
            pipeline.run(config, tmp_path / "run", "all", tiny_run[0])
    assert not (tmp_path / "run/student").exists()


def test_names_of_runs():
    given = ("runs/a", "runs/a/weights/student", "hf://owner/b", "weights/var_d16_dd", "weights")
    assert [lineup.called(name) for name in given] == ["a", "a", "b", "var_d16_dd", "weights"]


def test_rows_of_other_temperatures_and_students_are_not_the_run_s(tiny_run, tmp_path):
    run = shutil.copytree(tiny_run[0], tmp_path / "run")
    before, found = compare.ratios(run), build.read_results(run / "results.jsonl")
    (one,) = [row for row in found if (row["generator"], row["plan"]) == ("student", "S0")]
    more = [one | {"tau": 2.0, "fd": 999.0, "nll": 99.0}, one | {"generator": "student of b", "fd": 777.0, "nll": 9.0}]
    with (run / "results.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in more)
    assert compare.ratios(run) == before
    assert rows.roles([more[1], *found]).one == one
