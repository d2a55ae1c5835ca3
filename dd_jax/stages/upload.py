"""A run as a repository of the Hub: its trained parts, its figures and its model card, in a folder to upload."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

from ml_collections import ConfigDict

from dd_jax.report import build, card, tables
from dd_jax.report.rows import drawn
from dd_jax.stages.parts import named
from dd_jax.system import files, hub, spelling, weights
from dd_jax.system.errors import UserError

PARTS = ("tokenizer", "text", "teacher", "student")
PICTURE = "grid.png"


def arrange(workdir: Path, repo: str, folder: Path, licence: str = "", with_ported: bool = False) -> list[Path]:
    """Fill `folder` with what the repository will hold -> its files. Weights are links.

    UserError for a work directory that has trained nothing, or parts that are damaged.
    """
    made = [part for part in PARTS if (workdir / "weights" / part / weights.CONFIG).exists()]
    if not made:
        raise UserError(f"{workdir} has no trained weights to publish: run python -m dd_jax.main --workdir={workdir}")
    again = "run --stage=report with the settings of this run"
    config = ConfigDict(spelling.newer(files.read_json(workdir / "config.json", again, {})))
    ported = {}
    for part in ("tokenizer", "text", "teacher"):
        if part not in made and (config.get("weights") or {}).get(part):
            ported[part] = _ported(config, part, workdir, folder if with_ported else None)
    for part in made:
        about = weights.describe(workdir / "weights" / part)
        names = {name: _name(where) for name, where in (about.get("companions") or {}).items()}
        _copy(workdir / "weights" / part, folder / part, about | {"companions": names})
    for path in [workdir / "results.jsonl", workdir / PICTURE, workdir / f"{PICTURE}.license"]:
        if path.exists():
            shutil.copyfile(path, folder / path.name)
    scores = [portable(row) for row in tables.read_scores(workdir / "scores")]
    for path in sorted((workdir / "scores").glob("*.json")):
        files.replace(folder / "scores" / path.name, json.dumps(portable(files.read_json(path)), indent=1).encode())
    results = drawn(build.read_results(workdir / "results.jsonl", optional=True))
    teacher = [row.get("steps") for row in results if row.get("generator") == "teacher"]
    licence = licence or ("cc-by-sa-4.0" if config.data.name == "emoji" else "")
    told = card.Published(
        repo=repo,
        config=portable(config.to_dict()),
        steps=int(teacher[0]) if teacher and teacher[0] else None,
        parts=made,
        ported=ported,
        results=results,
        scores=scores,
        picture=PICTURE if (folder / PICTURE).exists() else "",
        licence=licence,
    )
    card.build(told).save(folder / "README.md")
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _ported(config: ConfigDict, part: str, workdir: Path, folder: Path | None) -> dict[str, Any]:
    """What is known of a part that others trained; copied into `folder`, if there is one."""
    given = config.weights[part]
    about = weights.describe(place) if (place := named(config, part, workdir)) else {}
    if folder is not None and place is not None and not hub.named(given):
        _copy(place, folder / _name(given), about)
    origin = given if hub.named(given) else about.get("origin")
    return {"id": _name(given), "origin": origin, "licence": about.get("licence"), "here": folder is not None}


def _name(where: str) -> str:
    """How a companion is named in the repository: what is on the Hub already stays there."""
    return where if hub.named(where) else PurePath(where).name


def _copy(source: Path, target: Path, about: Mapping[str, Any]) -> None:
    """A folder of weights, as a link, with what is said of them made portable."""
    files.replace(target / weights.CONFIG, json.dumps(portable(about), indent=1).encode())
    for name in (weights.WEIGHTS, *weights.BESIDE):
        if (source / name).exists():
            (target / name).symlink_to((source / name).resolve())


def portable(value: Any) -> Any:
    """Settings without the paths of this machine: of a path its name is left, and of ported weights nothing."""
    if isinstance(value, Mapping):
        own = {key: portable(item) for key, item in value.items()}
        if isinstance(own.get("weights"), dict) and "tokenizer" in own["weights"]:
            own["weights"] = {key: item if key == "random" else None for key, item in own["weights"].items()}
        return own
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, str) and ("/" in value or "\\" in value) and "://" not in value:
        kind, colon, path = value.partition(":") if value.startswith(files.PATHS) else ("", "", value)
        return f"{kind}{colon}{PurePath(path.replace(chr(92), '/')).name}"
    return value
