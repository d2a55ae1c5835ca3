"""Progress lines and training curves."""

import io
import json

import pytest

from dd_jax.system import files
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress, duration, track
from dd_jax.training import curves


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


def test_a_log_gets_a_line_every_ten_seconds():
    out, clock = io.StringIO(), Clock()
    with Progress(100, "train", "steps", file=out, clock=clock) as bar:
        for step in range(100):
            clock.now += 0.5
            bar.update(loss=1.0 / (step + 1))
    lines = out.getvalue().splitlines()
    assert len(lines) == 6
    assert lines[0] == "train: 20/100, 2 steps/s, 40 s left, loss 0.05"
    assert lines[-1] == "train: 100/100, 2 steps/s, took 50 s, loss 0.01"


def test_resumed_work_counts_as_done_but_not_as_speed():
    out, clock = io.StringIO(), Clock()
    with Progress(1000, "pairs", "images", initial=900, file=out, clock=clock) as bar:
        clock.now += 5
        bar.update(25)
        clock.now += 5
        bar.update(25)
    assert out.getvalue().splitlines()[0] == "pairs: 950/1000, 5 images/s, 10 s left"


def test_compiling_in_the_first_step_is_no_speed():
    out, clock = io.StringIO(), Clock()
    with Progress(100, "train", "steps", file=out, clock=clock) as bar:
        clock.now += 60
        bar.update()
        for _ in range(99):
            clock.now += 0.5
            bar.update()
    lines = out.getvalue().splitlines()
    assert lines[0] == "train: 1/100 steps"
    assert lines[1] == "train: 21/100, 2 steps/s, 40 s left"
    assert lines[-1] == "train: 100/100, 2 steps/s, took 1 min 50 s"


def test_what_was_done_before_says_so():
    out = io.StringIO()
    with Progress(60, "student", initial=60, file=out):
        pass
    assert out.getvalue() == "student: 60/60, done already\n"


def test_a_failure_says_where_it_stopped():
    out = io.StringIO()

    def fail():
        with Progress(5, "train", file=out) as bar:
            bar.update(2)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert out.getvalue().startswith("train: 2/5")
    assert out.getvalue().rstrip().endswith("stopped")


def test_a_terminal_gets_a_bar():
    out = io.StringIO()
    out.isatty = lambda: True  # type: ignore[method-assign]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "100")
        with Progress(3, "train", file=out) as bar:
            bar.update(3, loss=0.5)
    assert "━" in out.getvalue()
    assert "loss 0.5" in out.getvalue()


def test_nothing_to_do(capsys):
    assert list(track([], "pairs")) == []
    assert list(track(iter("ab"), "pairs", total=2)) == ["a", "b"]
    assert capsys.readouterr().out.count("pairs:") == 2


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.96, "10 s"), (59.7, "1 min 00 s"), (3599.8, "1 h 00 min")]
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def test_a_resumed_curve_is_the_uninterrupted_one(tmp_path):
    whole, cut = tmp_path / "whole.jsonl", tmp_path / "cut.jsonl"
    with curves.Writer(whole) as writer:
        for step in range(10):
            writer.write(step, loss=1 / 3**step)
    writer = curves.Writer(cut)
    for step in range(7):
        writer.write(step, loss=1 / 3**step)
    with open(cut, "ab") as file:
        file.write(b'{"step": 7, "lo')  # killed here; the last checkpoint was of step 5
    with curves.Writer(cut, resume=5) as writer:
        for step in range(5, 10):
            writer.write(step, loss=1 / 3**step)
    assert cut.read_bytes() == whole.read_bytes()
    assert [row["step"] for row in curves.read(cut)] == list(range(10))


def test_curves_are_plain_json(tmp_path):
    with curves.Writer(tmp_path / "new" / "a.jsonl") as writer:
        writer.write(1, loss=float("nan"), step_time=0.123456789, count=3)
    row = json.loads((tmp_path / "new" / "a.jsonl").read_text())
    assert row == {"step": 1, "loss": None, "step_time": 0.123457, "count": 3}
    assert curves.read(tmp_path / "absent") == []


def test_a_failed_write_keeps_the_old_file(tmp_path, monkeypatch):
    path = files.replace(tmp_path / "a", b"old")

    def full(*_):
        raise OSError(files.errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(UserError, match=r"cannot write .*a: No space left on device; free some space"):
        files.replace(path, b"new")
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]
