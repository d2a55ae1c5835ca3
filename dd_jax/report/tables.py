"""The paper's tables with our rows beside them, all scores with their protocols, and quality against cost."""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

from dd_jax.report import svg
from dd_jax.report.published import ROWS, TITLES, Published
from dd_jax.report.rows import Row, number
from dd_jax.system import files
from dd_jax.system.errors import UserError

DASH = "\N{EN DASH}"
SCORES = ("fid", "inception_score", "precision", "recall")
HEADS = {"fid": "FID", "sfid": "sFID", "inception_score": "IS", "precision": "precision", "recall": "recall"}
FORMS = {"fid": "{:.2f}", "sfid": "{:.2f}", "inception_score": "{:.1f}", "precision": "{:.3f}", "recall": "{:.3f}"}
COMPARABLE = {1: "adm", 2: "adm", 3: "clean", 4: "adm"}  # the protocol that a table's numbers stand beside
FACTS = ("guidance", "labels", "seed", "reference", "weights", "sampled on")
WRAPPED = FACTS[3:]  # long ones
KINDS = {"Ours": "DD, as published"}  # what a reader might take for this run's
CHARTS = (("fid", "FID", True), ("inception_score", "Inception score", False))


def read_scores(folder: Path) -> list[Row]:
    """scores/*.json, the oldest first; one that cannot be read is left out."""
    found = []
    for path in sorted(folder.glob("*.json"), key=lambda path: (path.stat().st_mtime_ns, path.name)):
        try:
            found.append(files.read_json(path))
        except UserError:
            continue
    return found


def sections(results: Sequence[Row], model: str) -> list[str]:
    """HTML of a run of `model`, as the paper names it: the tables, all scores, charts."""
    full = [row for row in results if not row.get("fast")]
    fast = [row for row in results if row.get("fast")]
    note = (
        "Left: as published, ADM's protocol and 50,000 samples (captions: 5,000), seconds on the authors' machine. "
        "Right: this run, full counts under the same protocol (captions: clean) alone; FID as pytorch-fid has it in a "
        "column of its own."
    )
    parts = [f'<h2>Beside the published tables</h2><p class="note">{note}</p>']
    parts += [_published(table, full, model) for table in TITLES]
    parts.append(_charts(full, model, "Quality against steps and time", published=True))
    parts.append(_scores(full, "All scores", ""))
    warning = "From few samples: FID falls as they become more. Compare only rows of one count, never with a full one."
    parts.append(_scores(fast, "Quick scores", warning))
    parts.append(_charts(fast, model, "Quick scores against steps and time", published=False))
    return [part for part in parts if part]


def _latest(results: Sequence[Row], model: str, plan: str, protocol: str) -> Row:
    """The newest full result of a plan, or nothing."""
    wanted = {"model": model, "plan": plan, "protocol": protocol}
    found = [row for row in results if model and all(row.get(key) == value for key, value in wanted.items())]
    return found[-1] if found else {}


def _published(table: int, results: Sequence[Row], model: str) -> str:
    head = "".join(f"<th>{HEADS[key]}</th>" for key in SCORES)
    top = f'<tr><th></th><th></th><th></th><th colspan="7">published</th><th colspan="7">here: {_text(model)}</th></tr>'
    names = '<th>type</th><th class="text">model</th><th class="text">plan</th>'
    ours = f"{head}<th>FID, pytorch-fid</th><th>n</th><th>s</th>"
    columns = f"<tr>{names}{head}<th>#para</th><th>steps</th><th>s</th>{ours}</tr>"
    lines = "".join(_line(row, results, model) for row in ROWS if row.table == table)
    return f'<h3>{TITLES[table]}</h3><div class="scroll"><table class="published">{top}{columns}{lines}</table></div>'


def _line(row: Published, results: Sequence[Row], model: str) -> str:
    ours = _latest(results, model, row.plan, COMPARABLE[row.table]) if row.model == model else {}
    other = _latest(results, model, row.plan, "pytorch_fid") if row.model == model else {}
    theirs = [row.fid, row.inception_score, row.precision, row.recall, row.parameters, row.steps, row.seconds]
    seconds = number(ours or other, "ms_per_image")
    cells = [_text(x) for x in theirs] + [cell(ours, key) for key in SCORES] + [cell(other, "fid")]
    cells += [cell(ours or other, "n"), DASH if seconds is None else f"{seconds / 1e3:.3g}"]
    plan = f"<code>{_text(row.plan)}</code>" if row.plan else ""
    mark = ' class="first"' if ours or other else ""
    kind = _text(KINDS.get(row.kind, row.kind))
    names = f'<td>{kind}</td><td class="text">{_text(row.name)}</td><td class="text">{plan}</td>'
    return f"<tr{mark}>{names}{''.join(f'<td>{x}</td>' for x in cells)}</tr>"


def cell(row: Row, key: str) -> str:
    """A number of a result, or a dash."""
    value = number(row, key)
    return DASH if value is None else FORMS.get(key, "{:.6g}").format(value)


def _text(value: object) -> str:
    return DASH if value is None else html.escape(f"{value:g}" if isinstance(value, float) else str(value))


def _scores(results: Sequence[Row], title: str, note: str) -> str:
    """Every result with what it depends on."""
    if not results:
        return ""
    head = "".join(f"<th>{HEADS[key]}</th>" for key in HEADS) + "".join(f'<th class="text">{x}</th>' for x in FACTS)
    lines = []
    for row in results:
        told = "".join(
            f'<td class="text{" wrap" * (x in WRAPPED)}">{_text(value)}</td>'
            for x, value in zip(FACTS, _facts(row), strict=True)
        )
        numbers = "".join(f"<td>{cell(row, key)}</td>" for key in ("n", "ms_per_image", "batch", *HEADS))
        plan = f"<td><code>{_text(row.get('plan'))}</code></td>"
        lines.append(f'<tr>{plan}<td class="text">{_text(row.get("protocol"))}</td>{numbers}{told}</tr>')
    names = '<th>plan</th><th class="text">protocol</th><th>n</th><th>ms / picture</th><th>at once</th>'
    table = f'<div class="scroll"><table><tr>{names}{head}</tr>{"".join(lines)}</table></div>'
    return f"<h3>{title}</h3>{f'<p class=note>{note}</p>' if note else ''}{table}"


def _facts(row: Row) -> list[object]:
    reference, sampling = row.get("reference") or {}, row.get("sampling") or {}
    made = (sampling.get("weights") or {}) | {"inception": row.get("weights") or {}}
    hashes = ", ".join(f"{part} {str(about.get('sha256'))[:8]}" for part, about in made.items())
    source = f"{reference.get('file')} {str(reference.get('sha256'))[:8]}"
    place = ", ".join(row.get("sampled_on") or ())
    return [row.get("guidance"), row.get("label_scheme"), row.get("seed"), source, hashes, place]


def _charts(results: Sequence[Row], model: str, title: str, published: bool) -> str:
    """Each score against steps and against seconds; published points are hollow."""
    ours = [row for row in results if row.get("protocol") in COMPARABLE.values()]
    theirs: list[Mapping] = []
    if published:
        theirs = [row._asdict() for row in ROWS if row.model == model and model]
        theirs = list({(row["plan"], row["fid"]): row for row in theirs}.values())
    plots = []
    for key, name, log in CHARTS:
        for x, label in (
            ("steps", "steps, one after another"),
            ("seconds", "s a picture, published on another machine"),
        ):
            points = [_point(row, x, key, row["name"], "published") for row in theirs]
            points += [_point(row | _seconds(row), x, key, str(row["plan"]), "student") for row in map(dict, ours)]
            plots.append(svg.scatter([p for p in points if p], name, label, log_y=log))
    if not any(plots):
        return ""
    legend = '<span><i class="dot student"></i>this run</span>'
    legend = '<span><i class="dot published"></i>published</span>' * bool(theirs) + legend * bool(ours)
    return f'<h3>{title}</h3><p class="legend">{legend}</p><div class="plots">{"".join(plots)}</div>'


def _seconds(row: Row) -> dict[str, float]:
    ms = number(row, "ms_per_image")
    return {} if ms is None else {"seconds": ms / 1e3}


def _point(row: Row, x_key: str, y_key: str, label: str, kind: str) -> svg.Point | None:
    x, y = number(row, x_key), number(row, y_key)
    return None if x is None or y is None else svg.Point(x, y, label, kind)
