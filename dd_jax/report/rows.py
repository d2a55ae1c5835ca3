"""Rows of results.jsonl: which method each is, and how its numbers are shown."""

import html
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

Row = Mapping[str, Any]
AnyRow = TypeVar("AnyRow", bound=Row)


class Metric(NamedTuple):
    """How a key of a results row is shown."""

    head: str
    form: str
    explain: str = ""


METRICS = {
    "steps": Metric(
        "steps",
        "{:.4g}",
        "passes of a network, one after another, for one picture: the teacher takes one for each token, or for each "
        "scale of tokens. Fewer is better.",
    ),
    "fd": Metric(
        "FD ↓",
        "{:.1f}",
        "Frechet distance between the feature classifier's features of these pictures and of held-out real ones: how "
        "far apart the two clouds are, in quality and in variety. Lower is better.",
    ),
    "fd_teacher": Metric(
        "FD to teacher ↓",
        "{:.2f}",
        "the same distance to pictures that the teacher drew from other noise: what the distillation itself "
        "lost. Lower is better; the teacher's own row is the floor.",
    ),
    "class_accuracy": Metric(
        "class accuracy ↑",
        "{:.1%}",
        "share of pictures in which the feature classifier sees the class that was asked for. Higher is better.",
    ),
    "caption_found": Metric(
        "caption found ↑",
        "{:.1%}",
        "share of pictures whose caption the feature classifier prefers to 50 others. Higher is better.",
    ),
    "precision": Metric(
        "precision ↑",
        "{:.3f}",
        "share of pictures that lie among the real ones: quality. Higher is better.",
    ),
    "recall": Metric(
        "recall ↑",
        "{:.3f}",
        "share of the real pictures that lie among these: variety. Higher is better.",
    ),
    "nll": Metric(
        "NLL ↓",
        "{:.2f}",
        "negative log-likelihood of these tokens under the teacher, in nats a token. Lower is closer to what it would "
        "draw (too little variety lowers it too: read it beside recall).",
    ),
    "agreement": Metric(
        "agreement ↑",
        "{:.1%}",
        "share of tokens that equal the teacher's for the same noise. Higher is more faithful.",
    ),
    "ms_per_image": Metric(
        "ms\N{NO-BREAK SPACE}/ picture ↓",
        "{:.3g}",
        "wall time over the number of pictures drawn at once, decoder included. Lower is better.",
    ),
    "n": Metric(
        "pictures",
        "{:.0f}",
        "how many the row's scores were measured on. Distances, precision and recall depend on it: they are left "
        "out of rows that have fewer.",
    ),
    "psnr": Metric(
        "PSNR, dB ↑",
        "{:.2f}",
        "how well the tokenizer gives real pictures back (peak signal-to-noise ratio). Higher is better.",
    ),
    "sweeps": Metric(
        "sweeps", "{:.3g}", "how often all tokens were refined until the picture was certified, on average."
    ),
    "exact": Metric(
        "certified",
        "{:.3g}",
        "how many steps, from the first on, are proven to be the teacher's own for the same noise (a sweep left them "
        "as they were), on average.",
    ),
    "identical": Metric(
        "identical ↑",
        "{:.1%}",
        "share of pictures whose tokens all equal the teacher's for the same noise. Higher is more faithful.",
    ),
}


ENOUGH = 10  # pictures a dimension of the features: with fewer a covariance is mostly noise, and distances too high
UNSHOWN = ("generator", "plan", "split", "batch", "held_out", "feature_dim")  # no columns of a table
OF_CLOUDS = ("fd", "fd_teacher", "precision", "recall")  # few pictures look far from any others


OTHER = "student of "  # how the generator of another run's student is called, its name behind


def other(row: Row) -> str:
    """The run that a row's student is of; nothing where it is this one's."""
    name = str(row.get("generator") or "")
    return name.removeprefix(OTHER) if name.startswith(OTHER) else ""


def drawn(results: Sequence[AnyRow]) -> list[AnyRow]:
    """Rows at the run's own temperature: a flow head's are scored at others too, for a curve."""
    return [row for row in results if "tau" not in row]


class Roles(NamedTuple):
    """The rows that the headline is about; any may be missing."""

    teacher: Row | None
    one: Row | None
    two: Row | None
    baseline: Row | None


def kind(row: Row) -> str:
    """Colour class of a row: student, refined, teacher, baseline; or other, such as real pictures."""
    generator, plan = str(row.get("generator") or ""), str(row.get("plan") or "")
    if generator.startswith(("onestep", "skip")) or ":" in generator:  # a sampler from outside the package
        return "baseline"
    if generator == "teacher" or (plan.startswith("T") and "S" not in plan and "J" not in plan):
        return "teacher"
    if "J" in plan:
        return "refined"
    return "student" if "S" in plan else "other"


def roles(results: Sequence[Row]) -> Roles:
    """Pick teacher, one-step, two-step and onestep* rows out of the results."""

    def first(wanted: str, steps: int | None = None) -> Row | None:
        rows = (r for r in results if kind(r) == wanted and steps in (None, r.get("steps")) and not other(r))
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


def few(results: Sequence[Row]) -> str:
    """A sentence where distances are of too few pictures for what they measure; else nothing."""
    for row in results:
        real, drawn, dim = (number(row, key) for key in ("held_out", "n", "feature_dim"))
        if real and drawn and dim and number(row, "fd") is not None and min(real, drawn) < ENOUGH * dim:
            return (
                f"FD is uncertain here, and too high: {real:.0f} held-out pictures and {drawn:.0f} drawn ones, "
                f"where {dim:.0f} features want {ENOUGH * dim:.0f} of both. Compare rows of this table only."
            )
    return ""


def picture_key(row: Row) -> str:
    """Name of a row's pictures in grids.npz."""
    more = [str(row["tau"])] if "tau" in row else []
    more += [row["split"]] if row.get("split") else []
    return "|".join([f"{row.get('generator')}|{row.get('plan')}", *more])


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


def at_once(row: Row | None) -> str:
    """How many pictures were drawn together when a row was timed: at batch 1, 64 at once; nothing if unknown."""
    batch = number(row, "batch") if row else None
    return "" if batch is None else "at batch 1" if batch == 1 else f"{batch:.0f} at once"


def shared_batch(rows: Sequence[Row]) -> str:
    """The same of several timed rows, if they agree."""
    told = {at_once(row) for row in rows if number(row, "ms_per_image") is not None}
    return told.pop() if len(told) == 1 else ""
