"""The page itself: one section a function, from the headline down to the configuration."""

import html
import json
from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.report import machine, svg, words
from dd_jax.report.picture import Grid, grid_html
from dd_jax.report.rows import (
    METRICS,
    UNSHOWN,
    Roles,
    Row,
    at_once,
    cell,
    few,
    kind,
    number,
    other,
    ratio,
    roles,
    shared_batch,
    steps_of,
)
from dd_jax.report.style import style_sheet

NAMES = {"classifier": "feature classifier"}  # of what is trained, where the stage has another
KINDS = {
    "student": "few-step student",
    "refined": "refined by the teacher",
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
    it holds is listed as it is. `more`: further sections, as HTML; `facts["glossary"]`: what explains the page's words,
    if not those of `results` alone. A row's "batch" says how many pictures were drawn at once when it was timed.
    """
    facts = dict(facts)
    glossary = facts.pop("glossary", None)
    who = roles(results)
    title = str(facts.get("title") or "Distilled Decoding")
    split = str(results[0].get("split") or "") if results else ""
    sections = [
        _headline(who, title, facts.get("speed") or ()),
        _tiles(who),
        _pictures(grids),
        *more,
        table(results, f"Captions {split}" if split else "All results"),
        words.section(results) if glossary is None else glossary,
        _plots(results),
        _curves(curves),
        machine.speed(facts.get("speed") or ()),
        machine.facts(facts),
        _config(config),
    ]
    body = "\n".join(section for section in sections if section)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{html.escape(title)}</title><style>{style_sheet()}</style></head>\n<body><main>\n{body}\n</main></body></html>\n"
    )


def _headline(who: Roles, title: str, speed: Sequence[Row]) -> str:
    teacher, one = who.teacher, who.one
    about = f'<p class="note">{words.ABOUT} <a href="#words">All words of this page</a>.</p>'
    if teacher is None or one is None:
        return f"<header><h1>{html.escape(title)}</h1>{about}</header>"
    before, after = steps_of(teacher), steps_of(one)
    lead = " ".join(_sentences(who, speed))
    return (
        f'<header><p class="eyebrow">{html.escape(title)}</p><h1>{before} <span class="to">→</span> '
        f'<span class="new">{after}</span></h1><p class="lead">{html.escape(lead)}</p>{about}</header>'
    )


def _sentences(who: Roles, speed: Sequence[Row]) -> list[str]:
    """What was won and what it cost, from the rows alone."""
    teacher, one, two, baseline = who
    if teacher is None or one is None:
        return []
    out = [f"The teacher draws a picture in {steps_of(teacher)}; the distilled student needs {steps_of(one)}."]
    fast = ratio(teacher, one, "ms_per_image")
    batch = shared_batch([teacher, one])
    times = f"{cell(teacher, 'ms_per_image')} to {cell(one, 'ms_per_image')} ms a picture" + f", {batch}" * bool(batch)
    if fast is not None and fast >= 1:
        out[0] = out[0][:-1] + f" and is {fast:.1f}\N{MULTIPLICATION SIGN} faster ({times})."
    elif fast is not None:
        out[0] = out[0][:-1] + f", yet takes {1 / fast:.1f}\N{MULTIPLICATION SIGN} the time ({times})."
    out += _more_times(teacher, one, speed, batch)
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


def _more_times(teacher: Row, one: Row, speed: Sequence[Row], told: str) -> list[str]:
    """The same two plans as stage `speed` timed them, at every other batch size."""
    out = []
    for batch in dict.fromkeys(at_once(row) for row in speed if at_once(row) and at_once(row) != told):
        timed = {row.get("plan"): row for row in speed if at_once(row) == batch}
        a, b = timed.get(teacher.get("plan")), timed.get(one.get("plan"))
        if a and b and (times := ratio(a, b, "ms_per_image")):
            change = f"{cell(a, 'ms_per_image')} to {cell(b, 'ms_per_image')} ms"
            out.append(f"{batch[0].upper()}{batch[1:]}: {change} a picture, {times:.1f}\N{MULTIPLICATION SIGN}.")
    return out


def _tiles(who: Roles) -> str:
    """Four small bar charts: time, accuracy and the two distances."""
    batch = shared_batch([row for row in who if row])
    wanted = [
        ("ms_per_image", "Time per picture, ms", f"{batch}; shorter is better" if batch else "shorter is better"),
        ("class_accuracy", "Class accuracy", "as the feature classifier sees it; longer is better"),
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


def table(results: Sequence[Row], title: str) -> str:
    """All numbers of these rows, as HTML."""
    if not results:
        return ""
    keys = [key for key in list(METRICS)[:11] if key != "caption_found" or any(key in row for row in results)]
    skip = {*UNSHOWN, *keys}
    keys += list(dict.fromkeys(key for row in results for key in row if key not in skip))
    heads = {key: METRICS[key].head if key in METRICS else key for key in keys}
    batch = shared_batch(results)
    heads["ms_per_image"] = heads["ms_per_image"].replace(" ↓", f", {batch} ↓" if batch else " ↓")
    head = "".join(f"<th>{html.escape(heads[key])}</th>" for key in keys)
    one = roles(results).one
    lines = []
    for row in results:
        name = f'<span class="dot {kind(row)}"></span>{html.escape(str(row.get("generator", "")))}'
        plan = f"<code>{html.escape(str(row.get('plan') or ''))}</code>"
        cells = "".join(f"<td>{cell(row, key)}</td>" for key in keys)
        mark = ' class="first"' if row is one else ""
        lines.append(f'<tr{mark}><td>{name}</td><td class="text">{plan}</td>{cells}</tr>')
    note = f'<p class="note">{told}</p>' if (told := few(results)) else ""
    return (
        f'<h2>{html.escape(title)}</h2>{note}<div class="scroll"><table class="wide"><tr><th>method</th>'
        f'<th class="text">plan</th>{head}</tr>{"".join(lines)}</table></div>'
    )


def _plots(results: Sequence[Row]) -> str:
    shown = [row for row in results if kind(row) != "other"]
    by_steps = [_scatter(shown, "steps", key, "steps, one after another") for key in ("fd", "fd_teacher", "nll")]
    batch = shared_batch(shown)
    told = f"ms a picture, {batch}" if batch else "ms a picture"
    by_time = [_scatter(shown, "ms_per_image", key, told) for key in ("fd", "fd_teacher", "nll")]
    if not any(by_steps + by_time):
        return ""
    kinds = dict.fromkeys(kind(row) for row in shown)
    legend = "".join(f'<span><i class="dot {k}"></i>{KINDS[k]}</span>' for k in kinds)
    parts = [f'<h2>Quality against steps and time</h2><p class="legend">{legend}lower left is better</p>']
    for plots in (by_steps, by_time):
        if any(plots):
            parts.append(f'<div class="plots">{"".join(plots)}</div>')
    return "".join(parts)


def _scatter(rows: Sequence[Row], x_key: str, y_key: str, x_label: str) -> str:
    points = []
    for row in rows:
        x, y = number(row, x_key), number(row, y_key)
        if x is not None and y is not None:
            label = other(row) or str(row.get("generator" if kind(row) in ("teacher", "baseline") else "plan"))
            points.append(svg.Point(x, y, label, kind(row)))
    heights = [p.y for p in points if p.y > 0] or [1.0]
    titles = {
        "fd": "Distance to real pictures (FD)",
        "fd_teacher": "Distance to the teacher's (FD)",
        "nll": "NLL, nats a token",
    }
    return svg.scatter(points, titles[y_key], x_label, log_y=max(heights) > 12 * min(heights))


def _curves(curves: Mapping[str, Sequence[Row]]) -> str:
    plots = []
    for stage, rows in curves.items():
        for key in ("loss", "accuracy", "agreement"):
            data = [(row["step"], value) for row in rows if (value := number(row, key)) is not None]
            name = "student" if stage == "student" or key == "agreement" else "teacher"
            plots.append(svg.curve(data, f"{NAMES.get(stage, stage)}: {key}", "training step", key == "loss", name))
    note = (
        "Faint: every logged value; bold: a running mean. Accuracy: share of classes or codes "
        "found in a batch; agreement: of codes guessed as the teacher drew them."
    )
    return f'<h2>Training</h2><p class="note">{note}</p><div class="plots">{"".join(plots)}</div>' if any(plots) else ""


def _config(config: Mapping[str, Any]) -> str:
    text = json.dumps(config, indent=2, default=str)
    return f"<details><summary>Configuration</summary><pre>{html.escape(text)}</pre></details>" if config else ""
