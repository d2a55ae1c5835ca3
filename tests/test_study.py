"""Ways of training at equal charged time: every one of them can be timed and trained, and the table hides no zero."""

import json

import pytest

from dd_jax.configs import studies
from dd_jax.scripts import study

pytestmark = pytest.mark.xdist_group("pipeline")


@pytest.mark.parametrize("name", ["dd1 + drift", pytest.param("mixed + middle", marks=pytest.mark.slow)])
def test_a_line_is_charged_trained_and_scored(name, tiny_run, tmp_path):
    run, more = tiny_run[0], {**studies.METHODS[name], "train.batch": 8, "evaluate.taus": ()}
    took = study.charge(run, more)
    assert took["seconds"] > 0
    (row,) = study.rows(run, name, more, tmp_path, 2.4 * took["seconds"], took["seconds"])
    assert (row["method"], row["steps_trained"]) == (name, 2)
    curve = (tmp_path / f"{run.name}-{name}/student/curve.jsonl").read_text().splitlines()
    assert json.loads(curve[-1])["step"] == 2


def test_a_recall_of_zero_is_shown():
    """A collapsed student's: what the table is there to show."""
    row = {"method": "a", "tau": 1.0, "fd_teacher": 90.0, "recall": 0.0, "nll": None}
    _, line = study.table([row]).splitlines()
    shown = dict(zip(study.SHOWN, line.split()[2:], strict=False))
    assert (shown["fd_teacher"], shown["recall"], shown["nll"]) == ("90.000", "0.000", "nan")
