"""A work directory: which stages are done, with which settings, in what time, and which run it takes parts from."""

import contextlib
import hashlib
import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import filelock
import jax
import numpy as np

from dd_jax.method.interfaces import Params
from dd_jax.system import files, processes, spelling
from dd_jax.system.errors import UserError
from dd_jax.text.noted import NOTED

# The config sections that a stage's output depends on, on top of those of the stages before it.
SECTIONS = {
    "pretrain": (
        *("family", "seed", "smoke", "weights", "data", "tokenizer", "model", "classifier", "pretrain"),
        "text.vocabulary",
    ),
    "pairs": ("guidance", "cfg_interval", "dtype", "cache_chunk", "filter", "flow", "pairs"),
    "train": ("student", "train", "weights.lpips", "weights.start"),
    "sample": ("sample",),
    "evaluate": ("evaluate", "baselines"),
    "speed": ("speed",),
    "report": (),
}
STAGES = tuple(SECTIONS)
Folder = str | os.PathLike[str]
RECORD, SOURCE, LOCK = "stages.json", "from.json", "lock"
BORROWED = ("classifier", "tokenizer", "teacher", "pairs", NOTED)  # what may be another run's
# What may change on the way: memory, time and what is told, not the result.
FREE: tuple[str, ...] = (
    "train.remat",
    "train.scan",
    "train.accumulate",
    "train.log",
    "train.grid_every",
    "pairs.verify",
)
FREE += ("data.cache", "data.readers")
FREE += ("tokenizer.stack.remat", "pretrain.tokenizer.grid_every", "pretrain.teacher.grid_every")
FREE += ("pretrain.teacher.remat", "pretrain.teacher.scan", "pretrain.teacher.accumulate")
KEEP = ("pretrain", "pairs", "train")  # too dear to be thrown away because a setting changed
# What a finished training or a whole shard looks like, in the folders that a costly stage fills.
MADE = {"pretrain": ("classifier", "tokenizer", "teacher"), "pairs": ("pairs",), "train": ("student",)}
GROWS = ("pairs.count", "train.steps")  # more of them extend what is there


class Workdir:
    """Paths and the stage record `stages.json` of one run, which may take parts of another one by reference.

    `source`: a run whose tokenizer, teacher, classifier and pairs stand for those that are not here; it is remembered.
    """

    def __init__(self, path: Folder, config: dict[str, Any], source: Folder | None = None):
        self.path, self.config = files.expand(path), config
        self.record = _record(self.path)
        self.source = self._source(source)

    def _source(self, given: Folder | None) -> "Workdir | None":
        """The run that parts are taken from: `given` now, or the one that was given before."""
        path = source_of(self.path) if given is None else files.expand(given)
        if path is None:
            return None
        if path == self.path:
            raise UserError(f"--from={given} is the work directory itself: name another one, --workdir=DIR")
        if not (path / RECORD).exists():
            raise UserError(f"--from: {path} holds no run (no {RECORD})")
        own = [name for name in BORROWED if (self.path / name).exists()]
        if own and source_of(self.path) != path:
            raise UserError(f"{self.path} has a {own[0]} of its own: give --from={path} to a new --workdir")
        found = Workdir(path, self.config)
        if not any(found._entry(stage).get("done") for stage in ("pretrain", "pairs")):
            raise UserError(f"--from: {path} has finished neither --stage=pretrain nor pairs: there is nothing to take")
        return found

    def __truediv__(self, name: str) -> Path:
        return located(self.path, name)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """For this process alone (of several of one run: the first). A process that was killed holds nothing.

        UserError where another one works here.
        """
        if not processes.is_first():
            yield
            return
        holder = self.path / f"{LOCK}.json"
        told = {"host": platform.node(), "pid": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.path / LOCK, timeout=0)
            lock.acquire()
        except filelock.Timeout:
            other = files.read_json(holder, default=told)
            who = f"process {other.get('pid')} on {other.get('host')} since {other.get('since')}"
            raise UserError(f"{self.path} is in use by {who}: wait for it, or choose another --workdir") from None
        except OSError as error:
            raise files.write_error(self.path, error) from error
        with lock:
            files.replace(holder, json.dumps(told).encode())
            if self.source:
                files.replace(self.path / SOURCE, json.dumps({"from": str(self.source.path)}).encode())
            yield

    def begin(self, stage: str) -> None:
        """Note the stage's settings, or check them against those of before. It is not done until it ends."""
        self.check(stage)
        entry = self.record.setdefault(stage, {"seconds": 0.0, "matmul_gflop": 0.0})
        entry |= {"done": False, "config": self._settings(stage)}
        self._write()

    def check(self, stage: str) -> None:
        """UserError if a costly stage's output was made with other settings. More pairs or steps extend it."""
        for name in KEEP:
            where, entry = self._where(name), self._entry(name)
            bound = entry.get("done") or (entry and where._made(name))  # nothing binds where nothing was made
            if STAGES.index(name) > STAGES.index(stage) or not bound:
                continue
            changed = _differences(entry["config"], self._settings(name))
            changed = [(key, old, new) for key, old, new in changed if where is not self or not _grown(key, old, new)]
            if changed:
                field, old, new = changed[0]
                more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
                grow = "it may grow, not shrink; " if field in GROWS and where is self else ""
                other = "choose another --workdir" if where is self else "leave --from out"
                back = "set it back" if len(changed) == 1 else "set them back: is --config that of before?"
                raise UserError(
                    f"{where.path} was made with config.{field}={old}, now it is {new}{more}: {grow}{other}, or {back}"
                )

    def _where(self, stage: str) -> "Workdir":
        """The run whose record and files count for a stage: a source lends what it has trained, and pairs that fit."""
        if self.source and stage == "pretrain":
            return self.source._where(stage)
        if self.source and stage == "pairs" and stage not in self.record and self.source.done(stage):
            return self.source._where(stage)
        return self

    def borrowed(self, stage: str) -> Path | None:
        """Where a stage's results come from, if another run made them."""
        where = self._where(stage)
        return None if where is self else where.path

    def _entry(self, stage: str) -> dict[str, Any]:
        return self._where(stage).record.get(stage, {})

    def noted(self, stage: str) -> dict[str, Any]:
        """The settings, flat, that a stage has made something with, here or where parts are taken from."""
        where, entry = self._where(stage), self._entry(stage)
        return dict(entry["config"]) if entry.get("done") or (entry and where._made(stage)) else {}

    def _made(self, stage: str) -> bool:
        """Has a costly stage left anything: a checkpoint, or a shard?"""
        places = [spelling.folder(self.path, name) for name in MADE[stage]]
        found = (one for place in places if place.is_dir() for one in place.iterdir())
        return any(one.name.isdigit() or one.suffix == ".npz" for one in found)

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
        """Finished, here or where parts are taken from, and with these settings."""
        entry = self._entry(stage)
        return bool(entry.get("done")) and not _differences(entry["config"], self._settings(stage))

    def finished(self, stage: str) -> bool:
        """With whatever settings."""
        return bool(self._entry(stage).get("done"))

    def require(self, stage: str, needed: Sequence[str]) -> None:
        """UserError if a stage before `stage` is missing."""
        for name in needed:
            if not self.finished(name):
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
            files.replace(self.path / RECORD, json.dumps(self.record, indent=1).encode())


def _flatten(name: str, value: Any, into: dict[str, Any]) -> None:
    if isinstance(value, dict):
        for key, item in value.items():
            _flatten(f"{name}.{key}", item, into)
    else:
        into[name] = value


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    keys, old, new = sorted({*old, *new}), spelling.MEANT | old, spelling.MEANT | new
    return [(key, old.get(key), new.get(key)) for key in keys if not spelling.same(key, old.get(key), new.get(key))]


def _grown(key: str, old: Any, new: Any) -> bool:
    return key in GROWS and isinstance(old, int) and isinstance(new, int) and new > old


def _record(path: Path) -> dict[str, Any]:
    """stages.json, under today's names."""
    way_out = "delete it (finished stages then run again, and find their results)"
    found = files.read_json(path / RECORD, way_out, {})
    for entry in found.values():
        whole = isinstance(entry, dict) and isinstance(entry.get("config") or {}, dict)
        if not whole or not all(isinstance(entry.get(key, 0), int | float) for key in ("seconds", "matmul_gflop")):
            raise UserError(f"{path / RECORD} is damaged (it is no record of stages): {way_out}")
    return {name: entry | {"config": spelling.newer(entry.get("config") or {})} for name, entry in found.items()}


def source_of(path: Path) -> Path | None:
    """The run that a work directory takes parts from."""
    found = files.read_json(path / SOURCE, "give --from=RUN again", {}).get("from")
    if found is not None and not isinstance(found, str):
        raise UserError(f"{path / SOURCE} is damaged (it names no folder): give --from=RUN again, or delete it")
    return Path(found) if found else None


def located(path: Path, name: str) -> Path:
    """`name` in a work directory: its own, also under an earlier name, else that of the run that lends it parts."""
    own = spelling.folder(path, name)
    source = source_of(path) if name in BORROWED and not own.exists() else None
    return located(source, name) if source else own


def digest(params: Params) -> str:
    """sha256 over all arrays and their paths: which weights made this."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        sha.update(jax.tree_util.keystr(path).encode())
        sha.update(np.ascontiguousarray(leaf).tobytes())
    return sha.hexdigest()[:16]
