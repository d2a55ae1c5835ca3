"""Stage `report`: what a finished work directory won, as one self-contained HTML page."""

import html
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.data import emoji, labels
from dd_jax.report import pretrained, rivals, sets, tables, taus, words
from dd_jax.report.page import render, table
from dd_jax.report.picture import Grid, grid_png
from dd_jax.report.rows import Row, comparable, drawn, kind, number, other, picture_key
from dd_jax.system import files, spelling
from dd_jax.system.errors import UserError
from dd_jax.training.curves import read

__all__ = ["Grid", "from_workdir", "grid_png", "render", "write"]

CAPTIONS = 14  # rows of a picture
# At most so many of each in the picture.
COLUMNS = {"other": 2, "teacher": 1, "student": 3, "refined": 2, "baseline": 2}
CURVES = ("classifier", "tokenizer", "teacher", "student")


def from_workdir(workdir: str | os.PathLike, config: Mapping[str, Any], record: Mapping[str, Any]) -> Path:
    """results.jsonl, grids.npz, scores/, the curves and speed.json -> report.html, and its picture as grid.png.

    `record` is the stage record, {stage: {"done": ..., "seconds": ...}}. What is missing is left out, except
    results.jsonl where there are no scores either: a UserError.
    """
    workdir = Path(workdir)
    scores, speed = tables.read_scores(workdir / "scores"), _json(workdir / "speed.json")
    results = read_results(workdir / "results.jsonl", optional=bool(scores))
    classes = (config.get("data") or {}).get("classes") or 10
    first, others = _by_split(_timed(drawn(results), config))
    names = _names(config, classes)
    grid = _grid(workdir / "grids.npz", first, names)
    curves = {name: read(spelling.folder(workdir, name) / "curve.jsonl") for name in CURVES}
    model = str(config.get("published") or "")
    more = tables.sections(scores, model or str(config.get("family"))) if model or scores else []
    if model and rivals.fit(config):
        more.append(rivals.section(scores))
    named = sets.grid(workdir / "samples" / "named", names, "Samples of named classes")
    shown = [grid, named, *(_by_class(workdir / "samples", names) if more else [])]
    shown += [_grid(workdir / "grids.npz", rows, names) for rows in others]
    more += taus.sections(results, float((config.get("sample") or {}).get("tau", 1.0)))
    more += [table(rows, f"Captions {rows[0]['split']}") for rows in others]
    learnt = _json(workdir / "pictures.json"), _json(workdir / "tokenizer" / "scores.json")
    looked = workdir / "tokenizer" / "grids" / "last.png"
    more += pretrained.sections(*learnt, curves["tokenizer"], looked, curves["teacher"])
    if (config.get("data") or {}).get("name") == "emoji":
        more.insert(0, f'<p class="note">{html.escape(emoji.ATTRIBUTION)}</p>')
    told = facts(config, record, speed) | {"glossary": words.section(results, scores, bool(model))}
    page = render(first, [one for one in shown if one], curves, config, told, more)
    if grid:
        picture = grid_png(grid.images, grid.scale, grid.columns, grid.rows, grid.noises)
        files.replace(workdir / "grid.png", picture)
        if more and "emoji" in str(config.get("data")):
            files.replace(workdir / "grid.png.license", f"{emoji.ATTRIBUTION}\n".encode())
    return write(workdir / "report.html", page)


def write(path: str | os.PathLike, page: str) -> Path:
    """Write the page in one step; returns where it is."""
    return files.replace(path, page.encode())


def facts(config: Mapping[str, Any], record: Mapping[str, Any], speed: Mapping[str, Any]) -> dict[str, Any]:
    """What `render` tells about the run."""
    machine, training = dict(speed.get("machine") or {}), dict(speed.get("training") or {})
    name, family = (config.get("data") or {}).get("name"), config.get("family")
    share = training.get("share_of_matmul")
    rate = training.get("matmul_gflops") or machine.get("matmul_gflops")
    done = {k: v for k, v in record.items() if v.get("done") and k != "report"}
    found = {
        "title": " · ".join(str(x) for x in ("Distilled Decoding", name, family) if x),
        "stages": {k: v["seconds"] for k, v in done.items()},
        "matmul_gflop": sum(v["matmul_gflop"] for v in done.values()),
        "matmul_gflops": rate,
        "train_share": {"student": share} if share else {},
        "speed": speed.get("plans") or [],
        "versions": {k: machine.pop(k) for k in ("jax", "python") if k in machine},
    }
    if speed.get("random_weights"):
        found["drawn at random"] = f"weights of {', '.join(speed['random_weights'])}"
    machine.pop("matmul_gflops", None)
    return found | machine


def _by_class(folder: Path, names: Sequence[str]) -> list[Grid | None]:
    """Pictures of the full sets and of the quick ones."""
    return [sets.grid(folder, names), sets.grid(folder / "fast", names, "Quick samples by class")]


def _names(config: Mapping[str, Any], classes: int) -> Sequence[str]:
    data = config.get("data") or {}
    return labels.short(str(data.get("name")), classes, data.get("class_names") or ())


def _timed(results: Sequence[Row], config: Mapping[str, Any]) -> list[Row]:
    """Rows with the number of pictures that stage `evaluate` draws at once, as `batch`."""
    batch = (config.get("evaluate") or {}).get("batch")
    if not batch:
        return list(results)
    timed = [{"batch": int(min(batch, number(row, "n") or batch))} if "ms_per_image" in row else {} for row in results]
    return [{**row, **more} for row, more in zip(results, timed, strict=True)]


def read_results(path: Path, optional: bool = False) -> list[Row]:
    """results.jsonl, [] where it is `optional` and not there. UserError for one that is damaged, or missing."""
    try:
        rows = [json.loads(line) for line in path.read_text().splitlines()]
    except FileNotFoundError as error:
        if optional:
            return []
        raise UserError(f"no {path}: run --stage=evaluate first") from error
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}): run --stage=evaluate again") from error
    if not rows or not all(isinstance(row, dict) and "generator" in row for row in rows):
        raise UserError(f"{path} is damaged (a line is no row, or none is left): run --stage=evaluate again")
    return rows


def _by_split(results: Sequence[Row]) -> tuple[list[Row], list[list[Row]]]:
    """Rows of the first split, which the page is about, and those of each other one."""
    names = list(dict.fromkeys(row.get("split") for row in results))
    parts = [comparable([row for row in results if row.get("split") == name]) for name in names]
    return (parts[0], parts[1:]) if parts else ([], [])


def _json(path: Path) -> dict[str, Any]:
    """Of a stage; {} where there is none, or what is left of it cannot be read."""
    try:
        return files.read_json(path, default={})
    except UserError:
        return {}


def _grid(path: Path, results: Sequence[Row], class_names: Sequence[str]) -> Grid | None:
    """The first pictures of every method, example i of class i % classes, as rows of classes."""
    classes = len(class_names)
    if not path.exists():
        return None
    with _stored(path) as stored:
        shown = [(row, stored[key]) for row in _shown(results) if (key := picture_key(row)) in stored.files]
        split = str(results[0].get("split") or "") if results else ""
        captions = stored[f"names|{split}"].tolist() if f"names|{split}" in stored.files else []
    if not shown:
        return None
    count = min(len(images) for _, images in shown)
    classes = min(CAPTIONS if captions else classes, count)
    noises = count // classes
    order = np.arange(noises * classes).reshape(noises, classes).T.reshape(-1)
    if captions:
        noises, order = 1, np.arange(classes)
    stacked = np.stack([images[order] for _, images in shown], 1)
    names = captions[:classes] or list(class_names[:classes])
    return Grid(stacked, [_heading(row) for row, _ in shown], names, noises, f"Captions {split}" if split else "")


def _stored(path: Path) -> Any:
    try:
        return np.load(path)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(f"{path} is damaged ({error}): run --stage=evaluate again") from error


def _shown(results: Sequence[Row]) -> list[Row]:
    """Rows for the picture: a few of each kind, teacher first."""
    rows = []
    for wanted, most in COLUMNS.items():
        found = [row for row in results if kind(row) == wanted]
        if wanted == "baseline":  # the extreme one first
            found.sort(key=lambda row: row.get("steps") or 0)
        rows += found[:most] if wanted != "refined" else found[-most:]
    return rows


def _heading(row: Row) -> str:
    """ "One step" over "S0", or over whose; baselines and real pictures under their own names."""
    steps, plan = number(row, "steps"), str(row.get("plan") or "")
    words = {1.0: "One step", 2.0: "Two steps"}
    count = "" if steps is None else words.get(steps, f"{steps:.4g} steps")
    own = str(row.get("generator"))
    names = {"teacher": "Teacher", "baseline": own, "other": own.capitalize()}
    if kind(row) == "student":
        return f"{count or 'Student'}\n{other(row) or plan}"
    if kind(row) == "refined":
        sweeps = plan.rpartition("J")[2]
        how = "Certified" if sweeps == "*" else f"Refined {sweeps}x"  # the picture's font has no multiplication sign
        return f"{how}\n{plan}"
    second = count.lower()
    return f"{names[kind(row)]}\n{second}".rstrip()
