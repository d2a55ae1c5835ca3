"""A work directory: which stages are done, with which settings, in what time."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dd_jax.method.interfaces import Params
from dd_jax.system import files, processes, spelling
from dd_jax.system.errors import UserError

# The config sections that a stage's output depends on, on top of those of the stages before it.
SECTIONS = {
    "pretrain": ("family", "seed", "smoke", "weights", "data", "tokenizer", "model", "classifier", "pretrain"),
    "pairs": ("guidance", "cfg_interval", "dtype", "cache_chunk", "filter", "flow", "pairs"),
    "train": ("student", "train", "weights.lpips"),
    "sample": ("sample",),
    "evaluate": ("evaluate", "baselines"),
    "speed": ("speed",),
    "report": (),
}
STAGES = tuple(SECTIONS)
# What may change on the way: memory, time and what is told, not the result.
FREE = ("train.remat", "train.scan", "train.accumulate", "train.log", "train.grid_every", "pairs.verify")
KEEP = ("pretrain", "pairs", "train")  # too dear to be thrown away because a setting changed


class Workdir:
    """Paths and the stage record `stages.json` of one run."""

    def __init__(self, path: str | Path, config: dict[str, Any]):
        self.path, self.config = Path(path).absolute(), config
        self.record: dict[str, Any] = {}
        if (self.path / "stages.json").exists():
            try:
                found = json.loads((self.path / "stages.json").read_text())
                self.record = {
                    stage: entry | {"config": spelling.newer(entry["config"])} for stage, entry in found.items()
                }
            except ValueError as error:
                told = f"{self.path}/stages.json is not readable: delete it or use another --workdir"
                raise UserError(told) from error

    def __truediv__(self, name: str) -> Path:
        return spelling.folder(self.path, name)

    def begin(self, stage: str) -> None:
        """Note the stage's settings, or check them against those of the interrupted run."""
        self.check(stage)
        entry = self.record.setdefault(stage, {"done": False, "seconds": 0.0, "matmul_gflop": 0.0})
        entry["config"] = self._settings(stage)
        self._write()

    def check(self, stage: str) -> None:
        """UserError if a costly stage's output was made with other settings."""
        for name in STAGES[: STAGES.index(stage) + 1]:
            before = self.record.get(name, {}).get("config")
            changed = _differences(before, self._settings(name)) if before and name in KEEP else []
            if changed:
                field, old, new = changed[0]
                more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
                raise UserError(
                    f"{self.path} was made with {field}={old}, now it is {new}{more}: "
                    f"choose another --workdir, or set it back"
                )

    def spent(self, stage: str, seconds: float, rate: float, done: bool) -> None:
        """Add the time of a stage, finished or interrupted, and what the machine could have multiplied in it.

        `rate` is its matmul rate in FLOP/s at the time: on a shared machine no two stages see the same one.
        """
        entry = self.record[stage]
        entry["seconds"] = round(entry["seconds"] + seconds, 3)
        entry["matmul_gflop"] = round(entry["matmul_gflop"] + seconds * rate / 1e9, 1)
        entry["done"] = done
        self._write()

    def done(self, stage: str) -> bool:
        """Finished, and with these settings."""
        entry = self.record.get(stage, {})
        return bool(entry.get("done")) and not _differences(entry["config"], self._settings(stage))

    def require(self, stage: str, needed: Sequence[str]) -> None:
        """UserError if a stage before `stage` is missing."""
        for name in needed:
            if not self.record.get(name, {}).get("done"):
                raise UserError(f"--stage={stage} needs --stage={name}, which has not finished in {self.path}")

    def _settings(self, stage: str) -> dict[str, Any]:
        """This stage's sections of the config, flat: {"pretrain.teacher.steps": 900, ...}."""
        flat: dict[str, Any] = {}
        for section in SECTIONS[stage]:
            value: Any = self.config
            for part in section.split("."):
                value = (value or {}).get(part)
            _flatten(section, json.loads(json.dumps(value)), flat)
        elsewhere = {section for name in SECTIONS if name != stage for section in SECTIONS[name]} | {*FREE}
        return {name: value for name, value in flat.items() if name not in elsewhere}

    def _write(self) -> None:
        if processes.is_first():
            files.replace(self.path / "stages.json", json.dumps(self.record, indent=1).encode())


def _flatten(name: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{name}.{key}", item, into)
    else:
        into[name] = value


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    names = sorted({*old, *new})
    return [(f"config.{k}", old.get(k), new.get(k)) for k in names if old.get(k) != new.get(k)]


def digest(params: Params) -> str:
    """sha256 over all arrays and their paths: which weights made this."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        sha.update(jax.tree_util.keystr(path).encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()[:16]
