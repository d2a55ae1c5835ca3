"""Figures of other papers beside ours, for ImageNet at 256 px: charts by number, a legend of sources and protocols."""

import functools
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from dd_jax.report import svg
from dd_jax.report.published import ROWS
from dd_jax.report.rows import Row, number

DASH = "\N{EN DASH}"
PAPER = "DD, arXiv 2412.17153, Tables 1 and 4"
PROTOCOL = "as Distilled Decoding evaluates (VAR: guidance 2.0, top-k 900, top-p .95)"
HEIGHT = 340
HEADS = ("", "system", "model", "steps", "FID", "IS", "parameters", "s / picture", "speed as published")


class Rival(NamedTuple):
    """A system of one source; its `figures` are models, {"model", "steps", "fid", "seconds", ...}, as far as known.

    "seconds" are those of a picture, "speed" what the source says instead where it says something else.
    """

    system: str
    kind: str
    source: str
    protocol: str
    figures: tuple[Mapping[str, Any], ...]


@functools.lru_cache
def rivals() -> tuple[Rival, ...]:
    """All of them, in the order of their numbers 1, 2, ...: those of the paper first, which `published` holds."""
    kinds = {"AR": ("DD's teachers", "teacher, many steps"), "Ours": ("DD", "distilled, one step")}
    found = []
    for kind, (system, told) in kinds.items():
        rows = (row for row in ROWS if row.table in (1, 4) and row.kind == kind and row.model)
        figures = tuple(row._asdict() for row in rows if kind == "AR" or row.steps == 1)
        found.append(Rival(system, told, PAPER, PROTOCOL, figures))
    stored = json.loads((Path(__file__).parent / "rivals.json").read_text())
    return (*found, *(Rival(**{**one, "figures": tuple(one["figures"])}) for one in stored))


def fit(config: Mapping[str, Any]) -> bool:
    """Does a run stand beside them? One of ImageNet's classes at 256 px, whose model has been published."""
    data = config.get("data") or {}
    return bool(config.get("published")) and data.get("name") == "imagenet2012" and not config.get("text")


def section(results: Sequence[Row]) -> str:
    """HTML; `results` are the run's scores, of which full ones are drawn."""
    note = (
        "Figures of other papers, measured on other machines and by other protocols: no race, and no ranking. Class-"
        "conditional ImageNet, 256 px. Numbers in the charts are those of the list; points without a time are left out "
        "of the second. Lower left is better."
    )
    ours = [row for row in results if not row.get("fast") and row.get("protocol") in ("adm", "pytorch_fid")]
    charts = [
        _chart(ours, "steps", "steps, one after another"),
        _chart(ours, "seconds", "s a picture, each on its own machine"),
    ]
    legend = "".join(
        f"<li><b>{html.escape(one.system)}</b>: {html.escape(one.kind)}. <i>{html.escape(one.source)}; protocol: "
        f"{html.escape(one.protocol)}.</i></li>"
        for one in rivals()
    )
    dots = '<span><i class="dot published"></i>other papers</span>'
    dots += '<span><i class="dot student"></i>this run</span>' * bool(ours)
    return (
        f'<section class="apart"><h2>Beside other papers</h2><p class="note">{note}</p><p class="legend">{dots}</p>'
        f'<div class="plots two">{"".join(charts)}</div><ol class="sources">{legend}</ol>'
        f"<details><summary>All their figures</summary>{_table()}</details></section>"
    )


def _chart(ours: Sequence[Row], x_key: str, x_label: str) -> str:
    title = f"FID against {'time' if x_key == 'seconds' else x_key}"
    points = []
    for i, one in enumerate(rivals(), 1):
        for figure in one.figures:
            x, y = number(figure, x_key), number(figure, "fid")
            if x is not None and y is not None:
                told = f"{one.system} {figure.get('name') or figure['model']}"
                points.append(svg.Point(x, y, str(i), "published", told))
    for row in ours:
        ms = number(row, "ms_per_image")
        x = number(row, "steps") if x_key == "steps" else ms / 1e3 if ms is not None else None
        y = number(row, "fid")
        if x is not None and y is not None:
            points.append(svg.Point(x, y, str(row.get("plan")), "student", f"{row.get('plan')}, {row.get('protocol')}"))
    return svg.scatter(points, title, x_label, log_y=True, height=HEIGHT)


def _table() -> str:
    lines = []
    for i, one in enumerate(rivals(), 1):
        for figure in one.figures:
            cells = [figure.get(key) for key in ("steps", "fid", "inception_score", "parameters", "seconds", "speed")]
            told = "".join(f"<td>{_text(x)}</td>" for x in cells)
            name = _text(figure.get("name") or figure.get("model") or None)
            lines.append(
                f'<tr><td>{i}</td><td class="text">{_text(one.system)}</td><td class="text">{name}</td>{told}</tr>'
            )
    head = "".join(f'<th class="text">{x}</th>' if x in ("system", "model") else f"<th>{x}</th>" for x in HEADS)
    return f'<div class="scroll"><table class="published"><tr>{head}</tr>{"".join(lines)}</table></div>'


def _text(value: object) -> str:
    return DASH if value in (None, "") else html.escape(f"{value:g}" if isinstance(value, float) else str(value))
