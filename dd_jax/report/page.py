"""The page itself: one section a function, from the headline down to the configuration."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.report import svg
from dd_jax.report.picture import Grid, grid_html
from dd_jax.report.rows import METRICS, Roles, Row, cell, kind, number, ratio, roles, steps_of
from dd_jax.report.style import style_sheet
from dd_jax.system.progress import duration

REFERENCE_RATE = 170.0  # GFLOP/s: the machine whose wall times the project's limits are written for
KINDS = {
    "student": "few-step student",
    "refined": "refined",
    "teacher": "teacher",
    "baseline": "not distilled",
}


def render(
    results: Sequence[Row],
    grids: Sequence[Grid],
    curves: Mapping[str, Sequence[Row]],
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
    more: Sequence[str] = (),
) -> str:
    """The whole page as a string.

    `results`: rows of results.jsonl. `curves`: stage -> rows of its metrics file ("step", "loss", ...).
    `facts`: "title", "stages" {name: seconds}, "matmul_gflops", "train_share" {stage: share}, "device",
    "versions" {package: version}, "speed" [{"plan", "batch", "ms_per_image", ...}]; whatever else
    it holds is listed as it is. `more`: further sections, as HTML.
    """
    who = roles(results)
    title = str(facts.get("title") or "Distilled Decoding")
    sections = [
        _headline(who, title),
        _tiles(who),
        _pictures(grids),
        *more,
        table(results),
        _plots(results),
        _curves(curves),
        _speed(facts.get("speed") or ()),
        _facts(facts),
        _config(config),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style_sheet()}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _headline(who: Roles, title: str) -> str:
    teacher, one = who.teacher, who.one
    if teacher is None or one is None:
        return f"<header><h1>{html.escape(title)}</h1></header>"
    before, after = steps_of(teacher), steps_of(one)
    lead = " ".join(_sentences(who))
    return (
        f'<header><p class="eyebrow">{html.escape(title)}</p><h1>{before} <span class="to">→</span> '
        f'<span class="new">{after}</span></h1><p class="lead">{html.escape(lead)}</p></header>'
    )


def _sentences(who: Roles) -> list[str]:
    """What was won and what it cost, from the rows alone."""
    teacher, one, two, baseline = who
    if teacher is None or one is None:
        return []
    out = [f"The teacher draws a picture in {steps_of(teacher)}; the distilled student needs {steps_of(one)}."]
    fast = ratio(teacher, one, "ms_per_image")
    times = f"{cell(teacher, 'ms_per_image')} to {cell(one, 'ms_per_image')} ms a picture"
    if fast is not None and fast >= 1:
        out[0] = out[0][:-1] + f" and is {fast:.1f}\N{MULTIPLICATION SIGN} faster ({times})."
    elif fast is not None:
        out[0] = out[0][:-1] + f", yet takes {1 / fast:.1f}\N{MULTIPLICATION SIGN} the time ({times})."
    pairs = [("class accuracy", "class_accuracy"), ("Frechet distance to real pictures", "fd")]
    known = [(name, key) for name, key in pairs if number(teacher, key) is not None and number(one, key) is not None]
    if known:
        parts = [f"{name} {cell(teacher, key)} → {cell(one, key)}" for name, key in known]
        if two is not None:
            parts[-1] += f" ({cell(two, known[-1][1])} with two steps)"
        sentence = ", ".join(parts) + "."
        out.append(sentence[0].upper() + sentence[1:])
    if baseline is not None and known:
        parts = [f"{name} {cell(baseline, key)}" for name, key in known]
        out.append(f"One step without distillation ({baseline.get('generator')}): {', '.join(parts)}.")
    return out


def _tiles(who: Roles) -> str:
    """Four small bar charts: time, accuracy and the two distances."""
    wanted = [
        ("ms_per_image", "Time per picture, ms", "shorter is better"),
        ("class_accuracy", "Class accuracy", "longer is better"),
        ("fd", "Distance to real pictures", "Frechet; shorter is better"),
        ("fd_teacher", "Distance to the teacher's", "Frechet; shorter is better"),
    ]
    tiles = [_tile(who, *one) for one in wanted]
    return f'<div class="tiles">{"".join(tiles)}</div>' if any(tiles) else ""


def _tile(who: Roles, key: str, title: str, hint: str) -> str:
    named = zip(("teacher", "one step", "two steps", "onestep*"), who, strict=True)
    rows = [(name, row, value) for name, row in named if row and (value := number(row, key)) is not None]
    if len(rows) < 2:
        return ""
    longest = max(value for _, _, value in rows) or 1.0
    bars = "".join(
        f'<div class="bar"><span>{name}</span>'
        f'<i class="{kind(row)}" style="width:{max(value, 0) / longest:.1%}"></i>'
        f"<b>{cell(row, key)}</b></div>"
        for name, row, value in rows
    )
    return f'<section class="tile"><h3>{title}</h3><p>{hint}</p>{bars}</section>'


def _pictures(grids: Sequence[Grid]) -> str:
    if not grids:
        return ""
    note = "Along a row, every method starts from the same noise: compare across."
    return f'<h2>Samples</h2><p class="note">{note}</p>' + "".join(grid_html(grid) for grid in grids)


def table(results: Sequence[Row], title: str = "All rows") -> str:
    """All numbers of these rows, as HTML."""
    if not results:
        return ""
    keys = [key for key in list(METRICS)[:11] if key != "caption_found" or any(key in row for row in results)]
    skip = {"generator", "plan", "split", *keys}
    keys += list(dict.fromkeys(key for row in results for key in row if key not in skip))
    head = "".join(f"<th>{html.escape(METRICS[k].head if k in METRICS else k)}</th>" for k in keys)
    one = roles(results).one
    lines = []
    for row in results:
        name = f'<span class="dot {kind(row)}"></span>{html.escape(str(row.get("generator", "")))}'
        plan = f"<code>{html.escape(str(row.get('plan') or ''))}</code>"
        cells = "".join(f"<td>{cell(row, key)}</td>" for key in keys)
        mark = ' class="first"' if row is one else ""
        lines.append(f'<tr{mark}><td>{name}</td><td class="text">{plan}</td>{cells}</tr>')
    explain = "".join(
        f"<li><b>{html.escape(METRICS[k].head)}</b>: {html.escape(METRICS[k].explain)}</li>"
        for k in keys
        if k in METRICS
    )
    plans = (
        "<li><b>plan</b>: <code>S t</code> the student predicts all tokens from step t on; "
        "<code>T a:b</code> the teacher does steps a to b-1; <code>J n</code> n parallel refinement "
        "sweeps through the teacher, <code>J*</code> until nothing changes.</li>"
    )
    return (
        f'<h2>{html.escape(title)}</h2><div class="scroll"><table><tr><th>method</th>'
        f'<th style="text-align:left">plan</th>{head}</tr>{"".join(lines)}</table></div>'
        f'<ul class="explain">{plans}{explain}</ul>'
    )


def _plots(results: Sequence[Row]) -> str:
    shown = [row for row in results if kind(row) != "other"]
    by_steps = [_scatter(shown, "steps", key, "steps, one after another") for key in ("fd", "fd_teacher", "nll")]
    by_time = [_scatter(shown, "ms_per_image", key, "ms a picture") for key in ("fd", "fd_teacher", "nll")]
    if not any(by_steps + by_time):
        return ""
    kinds = dict.fromkeys(kind(row) for row in shown)
    legend = "".join(f'<span><i class="dot {k}"></i>{KINDS[k]}</span>' for k in kinds)
    parts = [f'<h2>Quality against steps and time</h2><p class="legend">{legend}lower left is better</p>']
    for plots in (by_steps, by_time):
        if any(plots):
            parts.append(f'<div class="plots">{"".join(plots)}</div><p></p>')
    return "".join(parts)


def _scatter(rows: Sequence[Row], x_key: str, y_key: str, x_label: str) -> str:
    points = []
    for row in rows:
        x, y = number(row, x_key), number(row, y_key)
        if x is not None and y is not None:
            label = str(row.get("generator" if kind(row) in ("teacher", "baseline") else "plan"))
            points.append(svg.Point(x, y, label, kind(row)))
    heights = [p.y for p in points if p.y > 0] or [1.0]
    title = {"fd": "FD to real pictures", "fd_teacher": "FD to teacher", "nll": "NLL, nats a token"}[y_key]
    return svg.scatter(points, title, x_label, log_y=max(heights) > 12 * min(heights))


def _curves(curves: Mapping[str, Sequence[Row]]) -> str:
    plots = []
    for stage, rows in curves.items():
        for key in ("loss", "agreement"):
            data = [(row["step"], value) for row in rows if (value := number(row, key)) is not None]
            name = "student" if stage == "student" or key == "agreement" else "teacher"
            plots.append(svg.curve(data, f"{stage}: {key}", "training step", key == "loss", name))
    return f'<h2>Training</h2><div class="plots">{"".join(plots)}</div>' if any(plots) else ""


def _speed(rows: Sequence[Row]) -> str:
    """Times of every plan at every batch size, when nothing else was going on."""
    if not rows:
        return ""
    keys = list(dict.fromkeys(key for row in rows for key in row if key != "plan"))
    head = "".join(f"<th>{html.escape(key.replace('_', ' '))}</th>" for key in keys)
    lines = "".join(
        f"<tr><td><code>{html.escape(str(row.get('plan')))}</code></td>"
        + "".join(f"<td>{cell(row, key)}</td>" for key in keys)
        + "</tr>"
        for row in rows
    )
    note = "From noise to decoded pictures, compiled and warm."
    table = f'<table class="facts"><tr><th>plan</th>{head}</tr>{lines}</table>'
    return f'<h2>Speed</h2><p class="note">{note}</p><div class="scroll">{table}</div>'


def _facts(facts: Mapping[str, Any]) -> str:
    stages: Mapping[str, float] = facts.get("stages") or {}
    rate = facts.get("matmul_gflops")
    rows: list[tuple[str, str]] = [(f"{name}", duration(seconds)) for name, seconds in stages.items()]
    if stages:
        total = sum(stages.values())
        rows.append(("wall time, all stages", duration(total)))
        work = facts.get("matmul_gflop")
        if work and total:
            formula = f"wall time \N{MULTIPLICATION SIGN} {work / total:.0f} / {REFERENCE_RATE:.0f} GFLOP/s"
            scaled = f"{duration(work / REFERENCE_RATE)} ({formula}, each stage by its own rate)"
            rows.append(("the same on the reference machine", scaled))
    if rate:
        rows.append(("float32 matrix product, 2048 \N{MULTIPLICATION SIGN} 2048", f"{rate:.0f} GFLOP/s, measured"))
    for stage, share in (facts.get("train_share") or {}).items():
        rows.append((f"{stage} training step", f"{share:.0%} of that rate"))
    rows.append(("versions", ", ".join(f"{k} {v}" for k, v in (facts.get("versions") or {}).items())))
    known = {"title", "stages", "matmul_gflop", "matmul_gflops", "train_share", "versions", "speed"}
    rows += [(str(key), str(value)) for key, value in facts.items() if key not in known]
    body = "".join(f"<tr><td>{html.escape(a)}</td><td>{html.escape(b)}</td></tr>" for a, b in rows if b)
    return f'<h2>The run</h2><table class="facts run">{body}</table>' if body else ""


def _config(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, indent=2, default=str)
    return f"<details><summary>Configuration</summary><pre>{html.escape(text)}</pre></details>" if config else ""
