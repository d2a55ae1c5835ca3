"""What temperature does to a flow head's pictures: distance, recall, precision and likelihood against tau."""

import html
from collections.abc import Sequence

from dd_jax.report import svg
from dd_jax.report.rows import METRICS, Row, number

SHOWN = ("fd_teacher", "recall", "precision", "nll")


def sections(results: Sequence[Row], tau: float) -> list[str]:
    """A section of charts for each split of rows that have a `tau`; `tau`: that of all other rows, a larger point."""
    rows = [row for row in results if "tau" in row]
    one_step = [row for row in results if "tau" not in row and (row["generator"], row.get("plan")) == ("student", "S0")]
    rows += [{**row, "tau": tau} for row in one_step if rows and tau not in [row["tau"] for row in rows]]
    rows.sort(key=lambda row: float(row["tau"]))
    names = dict.fromkeys(row.get("split") or "" for row in rows)
    return [_section([row for row in rows if (row.get("split") or "") == name], name, tau) for name in names]


def _section(rows: Sequence[Row], name: str, tau: float) -> str:
    charts = []
    for key in SHOWN:
        points = [(number(row, "tau"), number(row, key)) for row in rows]
        found = [(a, b) for a, b in points if a is not None and b is not None]
        charts.append(svg.line(found, METRICS[key].head, "temperature tau", tau, "student"))
    charts = [chart for chart in charts if chart]
    if not charts:
        return ""
    head = html.escape(f"Temperature of one step{f', {name}' if name else ''}")
    told = (
        "A flow head draws each code from the student's own distribution; its logits are divided by tau first. Lower: "
        "likelier codes, better pictures one by one, less variety. "
        f"All other rows are drawn at tau {tau:g}, the larger point."
    )
    return f'<section><h2>{head}</h2><p class="note">{told}</p><div class="plots">{"".join(charts)}</div></section>'
