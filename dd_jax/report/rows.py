"""Rows of results.jsonl: which method each is, and how its numbers are shown."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

Row = Mapping[str, Any]


class Metric(NamedTuple):
    """How a key of a results row is shown."""

    head: str
    form: str
    explain: str = ""


METRICS = {
    "steps": Metric("steps", "{:.4g}", "model evaluations one after another, for one picture; fewer is better."),
    "fd": Metric(
        "FD\N{NO-BREAK SPACE}↓",
        "{:.1f}",
        "Frechet distance between the classifier's features of these pictures and of held-out real ones: how far "
        "apart the two clouds are, in quality and in variety. Lower is better.",
    ),
    "fd_teacher": Metric(
        "FD to teacher\N{NO-BREAK SPACE}↓",
        "{:.2f}",
        "the same distance to pictures that the teacher drew from other noise: what the distillation itself "
        "lost. Lower is better; the teacher's own row is the floor.",
    ),
    "class_accuracy": Metric(
        "class accuracy\N{NO-BREAK SPACE}↑",
        "{:.1%}",
        "share of pictures in which the classifier sees the class that was asked for. Higher is better.",
    ),
    "caption_found": Metric(
        "caption found\N{NO-BREAK SPACE}↑",
        "{:.1%}",
        "share of pictures whose caption the classifier prefers to 50 others. Higher is better.",
    ),
    "precision": Metric(
        "precision\N{NO-BREAK SPACE}↑",
        "{:.3f}",
        "share of pictures that lie among the real ones: quality. Higher is better.",
    ),
    "recall": Metric(
        "recall\N{NO-BREAK SPACE}↑",
        "{:.3f}",
        "share of the real pictures that lie among these: variety. Higher is better.",
    ),
    "nll": Metric(
        "NLL\N{NO-BREAK SPACE}↓",
        "{:.2f}",
        "nats a token by which the teacher is surprised by these tokens. Lower is closer to the teacher's "
        "distribution (too little variety lowers it too: read it beside recall).",
    ),
    "agreement": Metric(
        "agreement\N{NO-BREAK SPACE}↑",
        "{:.1%}",
        "share of tokens equal to the teacher's own for the same noise. Higher is more faithful.",
    ),
    "ms_per_image": Metric(
        "ms\N{NO-BREAK SPACE}/ image\N{NO-BREAK SPACE}↓",
        "{:.3g}",
        "time to draw one picture on this machine, decoder included. Lower is better.",
    ),
    "n": Metric(
        "n",
        "{:.0f}",
        "pictures that the row's scores were measured on. Distances, precision and recall depend on it: they are "
        "left out of rows that have fewer.",
    ),
    "psnr": Metric("PSNR, dB\N{NO-BREAK SPACE}↑", "{:.2f}", "of the tokenizer's reconstructions of real pictures."),
    "sweeps": Metric("sweeps", "{:.3g}", "mean refinement sweeps until the picture is certified."),
    "exact": Metric("certified", "{:.3g}", "mean number of leading steps certified to be the teacher's own."),
    "identical": Metric(
        "identical\N{NO-BREAK SPACE}↑",
        "{:.1%}",
        "share of pictures whose tokens all equal the teacher's for the same noise.",
    ),
}


OF_CLOUDS = ("fd", "fd_teacher", "precision", "recall")  # few pictures look far from any others


class Roles(NamedTuple):
    """The rows that the headline is about; any may be missing."""

    teacher: Row | None
    one: Row | None
    two: Row | None
    baseline: Row | None


def kind(row: Row) -> str:
    """Colour class of a row: student, refined, teacher, baseline; or other, such as real pictures."""
    generator, plan = str(row.get("generator") or ""), str(row.get("plan") or "")
    if generator.startswith(("onestep", "skip")):
        return "baseline"
    if generator == "teacher" or (plan.startswith("T") and "S" not in plan and "J" not in plan):
        return "teacher"
    if "J" in plan:
        return "refined"
    return "student" if "S" in plan else "other"


def roles(results: Sequence[Row]) -> Roles:
    """Pick teacher, one-step, two-step and onestep* rows out of the results."""

    def first(wanted: str, steps: int | None = None) -> Row | None:
        rows = (r for r in results if kind(r) == wanted and steps in (None, r.get("steps")))
        return next(rows, None)

    one_step = (r for r in results if str(r.get("generator") or "").startswith("onestep"))
    return Roles(first("teacher"), first("student", 1), first("student", 2), next(one_step, None))


def comparable(results: Sequence[Row]) -> list[Row]:
    """Rows of fewer pictures than the others without the scores that depend on how many there are."""
    most = max((number(row, "n") or 0 for row in results), default=0)
    return [
        {k: v for k, v in row.items() if k not in OF_CLOUDS} if (number(row, "n") or most) < most else row
        for row in results
    ]


def picture_key(row: Row) -> str:
    """Name of a row's pictures in grids.npz."""
    split = row.get("split")
    return f"{row.get('generator')}|{row.get('plan')}" + (f"|{split}" if split else "")


def number(row: Row, key: str) -> float | None:
    """A finite number, or None."""
    value = row.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def cell(row: Row, key: str) -> str:
    """How a value is shown, as HTML; what is not there is an en dash."""
    value = number(row, key)
    if value is not None:
        return METRICS[key].form.format(value) if key in METRICS else f"{value:.4g}"
    other = row.get(key)
    return html.escape(str(other)) if isinstance(other, str | bool) else "\N{EN DASH}"


def ratio(a: Row, b: Row, key: str) -> float | None:
    """a's value over b's, where both have one."""
    first, second = number(a, key), number(b, key)
    return first / second if first is not None and second else None


def steps_of(row: Row) -> str:
    """1 step, 49 steps."""
    count = number(row, "steps")
    if count is None:
        return "an unknown number of steps"
    return f"{count:.4g} step{'' if count == 1 else 's'}"
