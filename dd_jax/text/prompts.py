"""Files of captions: text, tables with a caption column, JSON, parquet and Arrow, or a TFDS data set.

Rows that are no captions (empty, not UTF-8, with control characters, too short for the column) are left out, counted
and named: a run over millions of them does not end for one. The order of the others is kept, so a caption's index
means the same for ever.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dd_jax.data import columns, tfds
from dd_jax.data.lines import Found, lines
from dd_jax.system import files, weights
from dd_jax.system.errors import UserError
from dd_jax.text import arrow, tables
from dd_jax.text.documents import document

SHOWN = 5  # bad rows that are named
BREAKS = str.maketrans(dict.fromkeys("\r\v\f\x85\u2028\u2029", " "))


@dataclasses.dataclass(frozen=True)
class Prompts:
    """Captions in the file's order, and which file that was."""

    captions: tuple[str, ...]
    sha256: str  # of the file, or of the captions themselves where there is no file
    skipped: int = 0
    name: str = ""

    def __len__(self) -> int:
        return len(self.captions)

    @classmethod
    def of(cls, *captions: str) -> "Prompts":
        """Captions that are at hand."""
        return cls(captions, _digest(captions), name="given")


def read(source: str | Path) -> Prompts:
    """All captions of a file (one of `READERS`) or of `tfds:NAME[:VERSION][:SPLIT]`; bad rows are printed.

    UserError for a file that is missing, of another kind, without a caption column, or without any caption.
    """
    name = str(source)
    if name.startswith("tfds:"):
        captions, bad = _keep(_tfds(name.removeprefix("tfds:")))
        sha256 = _digest(captions)
    else:
        path = files.local(source)
        _check(path)
        captions, bad = _keep(READERS[path.suffix.lower()](path))
        sha256 = weights.sha256(path)
    if bad:
        told = ", ".join(f"{number} ({fault})" for number, _, fault in bad.first)
        more = f" and {bad.count - SHOWN} more" if bad.count > SHOWN else ""
        print(f"{name}: left out {bad.count} bad rows: {told}{more}", flush=True)
    if not captions:
        raise UserError(f"{name} has no captions" + (f": all {bad.count} rows are bad" if bad else ""))
    return Prompts(tuple(captions), sha256, bad.count, name)


def _check(path: Path) -> None:
    """UserError for what is no file of a kind that is read."""
    kinds = f"prompts are read from {', '.join(READERS)} files, or tfds:NAME"
    if path.is_dir():
        found = sorted(one.name for one in path.rglob("*") if one.suffix.lower() in READERS)
        raise UserError(f"{path} is a folder: name a file in it" + (f", such as {found[0]}" if found else f"; {kinds}"))
    if path.suffix.lower() not in READERS:
        packed = path.suffix.lower() in (".gz", ".bz2", ".xz", ".zst", ".zip", ".tar")
        raise UserError(f"{path}: {kinds}" + ("; unpack it" if packed else ""))
    if not path.is_file():
        raise UserError(f"{path} does not exist: --prompts takes a file of captions, or tfds:NAME")


@dataclasses.dataclass
class _Bad:
    """Rows that were left out; the first few are kept to be named."""

    count: int = 0
    first: list[Found] = dataclasses.field(default_factory=list)

    def __bool__(self) -> bool:
        return self.count > 0


def _keep(found: Iterator[Found]) -> tuple[list[str], _Bad]:
    """(captions, the other rows)."""
    captions, bad = [], _Bad()
    for number, caption, fault in found:
        text = "" if caption is None else caption.strip()
        fault = fault or columns.fault(text)
        if not fault:
            captions.append(text.translate(BREAKS).strip())
        else:
            bad.count += 1
            bad.first += [(number, None, fault)] if bad.count <= SHOWN else []
    return captions, bad


def _digest(captions: Any) -> str:
    sha = hashlib.sha256()
    for caption in captions:
        sha.update(caption.encode("utf-8", "surrogatepass") + b"\n")
    return sha.hexdigest()


def _text(path: Path) -> Iterator[Found]:
    """A caption a line; a table under this name (Flickr8k's captions.txt) is read as one."""
    if tables.is_table(path):
        print(f"{path}: its first line names columns, so it is read as a table", flush=True)
        yield from tables.table(path)
        return
    for number, line in lines(path):
        yield number, line, "not UTF-8" if line is None else ""


def _tfds(name: str) -> Iterator[Found]:
    """Captions of a tensorflow-datasets set; nested ones, as those of coco_captions, one after another."""
    for number, example in enumerate(tfds.open_source(name), 1):
        key = list(example)[columns.column(f"tfds:{name}", list(example))]
        try:
            found = [*columns.captions(example[key])]
        except ValueError as error:
            raise UserError(f"tfds:{name}: feature {key!r} holds {error}, and captions are strings") from error
        for caption in found:
            yield number, *columns.decoded(caption)


READERS: dict[str, Callable[[Path], Iterator[Found]]] = {
    ".txt": _text,
    ".csv": tables.table,
    ".tsv": tables.table,
    ".json": document,
    ".jsonl": document,
    ".ndjson": document,
    ".parquet": arrow.parquet,
    ".arrow": arrow.ipc,
    ".feather": arrow.ipc,
    ".ipc": arrow.ipc,
}
