"""Files of captions: text, tables with a caption column, JSON lines, parquet, or a TFDS data set.

Rows that are no captions (empty, not UTF-8, too short for the column) are left out, counted and named: a run over
millions of them does not end for one. The order of the others is kept, so a caption's index means the same for ever.
"""

import codecs
import csv
import dataclasses
import hashlib
import json
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from dd_jax.system import weights
from dd_jax.system.errors import UserError

COLUMNS = ("caption", "prompt", "text")  # the first of them that a file has, in whatever case
DELIMITERS = "\t,;|"
SHOWN = 5  # bad rows that are named
SPAN = 50  # lines of one quoted field; a longer one is a quote that nobody closed

Row = tuple[int, str | None]  # line or row number, and its text; None: it is not UTF-8
Found = tuple[int, str | None, str]  # number, caption or None, and what is wrong then


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
    """All captions of a file (.txt, .csv, .tsv, .jsonl, .parquet) or of `tfds:NAME[:SPLIT]`; bad rows are printed.

    UserError for a file that is missing, of another kind, without a caption column, or without any caption.
    """
    name = str(source)
    if name.startswith("tfds:"):
        captions, bad = _keep(_tfds(name.removeprefix("tfds:")))
        sha256 = _digest(captions)
    else:
        path = Path(source)
        if path.suffix.lower() not in READERS:
            raise UserError(f"{path}: prompts are read from {', '.join(READERS)} files, or tfds:NAME")
        if not path.is_file():
            raise UserError(f"{path} does not exist: --prompts takes a file of captions, or tfds:NAME")
        captions, bad = _keep(READERS[path.suffix.lower()](path))
        sha256 = weights.sha256(path)
    if bad:
        told = ", ".join(f"{number} ({fault})" for number, _, fault in bad.first)
        more = f" and {bad.count - SHOWN} more" if bad.count > SHOWN else ""
        print(f"{name}: left out {bad.count} bad rows: {told}{more}", flush=True)
    if not captions:
        raise UserError(f"{name} has no captions" + (f": all {bad.count} rows are bad" if bad else ""))
    return Prompts(tuple(captions), sha256, bad.count, name)


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
        if text and not fault:
            captions.append(text)
        else:
            bad.count += 1
            bad.first += [(number, None, fault or "empty")] if bad.count <= SHOWN else []
    return captions, bad


def _digest(captions: Any) -> str:
    sha = hashlib.sha256()
    for caption in captions:
        sha.update(caption.encode("utf-8", "surrogatepass") + b"\n")
    return sha.hexdigest()


def _lines(path: Path) -> Iterator[Row]:
    """Lines of a UTF-8 file, with or without a byte-order mark."""
    with path.open("rb") as file:
        for number, raw in enumerate(file, 1):
            raw = raw.removeprefix(codecs.BOM_UTF8) if number == 1 else raw
            try:
                yield number, raw.decode().rstrip("\r\n")
            except UnicodeDecodeError:
                yield number, None


def _plain(path: Path) -> Iterator[Found]:
    for number, line in _lines(path):
        yield number, line, "not UTF-8" if line is None else ""


def _column(path: str | Path, columns: list[str]) -> int:
    """Where the captions are. UserError that lists the columns if they are nowhere."""
    names = [name.strip().strip('"').lower() for name in columns]
    for wanted in COLUMNS:
        if wanted in names:
            return names.index(wanted)
    raise UserError(f"{path} has the columns {', '.join(columns) or 'none'}: none of them is {', '.join(COLUMNS)}")


def _table(path: Path) -> Iterator[Found]:
    """A table whose header tells the delimiter, whatever the file's name says."""
    lines = _lines(path)
    header = next((line for _, line in lines if line is None or line.strip()), "")
    if header is None:
        raise UserError(f"{path}: its header is not UTF-8; save it as UTF-8")
    delimiter, columns = _header(header)
    column = _column(path, columns)
    for number, fields, fault in _records(lines, delimiter):
        if fault or not any(fields):
            yield number, None, fault or "empty"
        elif column >= len(fields) or any(fields[len(columns) :]):
            yield number, None, f"{len(fields)} columns, not {len(columns)}"
        else:
            yield number, fields[column], ""


def _header(line: str) -> tuple[str, list[str]]:
    """(delimiter, columns): the delimiter by which one is a caption's; of a single column, one that nobody writes."""
    split = {delimiter: next(csv.reader([line], delimiter=delimiter)) for delimiter in DELIMITERS}
    good = [d for d, columns in split.items() if {*COLUMNS} & {name.strip().lower() for name in columns}]
    best = good[0] if good else max(split, key=lambda delimiter: len(split[delimiter]))
    return (best if len(split[best]) > 1 else "\x1f"), split[best]


def _records(lines: Iterator[Row], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """(line, fields, fault) by the rules of the `csv` module; most rows have no quotes and need none of it."""
    waiting: deque[Row] = deque()
    while row := (waiting.popleft() if waiting else next(lines, None)):
        number, line = row
        if line is None:
            yield number, [], "not UTF-8"
        elif '"' not in line:
            yield number, line.split(delimiter), ""
        else:
            taken = _Pull(row, waiting, lines)
            try:
                fields, fault = next(csv.reader(taken, delimiter=delimiter), []), ""
            except csv.Error as error:
                fields, fault = [], str(error)
            if taken.ended:  # a quote that nobody closes: this row is bad, those behind it are read again
                waiting.extendleft(reversed(taken.rows[1:]))
                fault = "a quote is not closed"
            yield number, fields, fault


class _Pull:
    """Lines for one record, noting which were taken and whether it wanted more than it may have."""

    def __init__(self, first: Row, waiting: deque[Row], lines: Iterator[Row]):
        self.rows, self.ended = [first], False
        self._waiting, self._lines, self._fresh = waiting, lines, True

    def __iter__(self) -> "_Pull":
        return self

    def __next__(self) -> str:
        if self._fresh:
            self._fresh = False
            return f"{self.rows[0][1]}\n"
        row = self._waiting.popleft() if self._waiting else next(self._lines, None)
        if row is not None:
            self.rows.append(row)
        if row is None or row[1] is None or len(self.rows) > SPAN:
            self.ended = True
            raise StopIteration
        return f"{row[1]}\n"


def _jsonl(path: Path) -> Iterator[Found]:
    """One JSON object a line."""
    key: str | None = None
    for number, line in _lines(path):
        try:
            row = None if line is None else json.loads(line) if line.strip() else ""
        except ValueError:
            yield number, None, "no JSON"
            continue
        if not isinstance(row, dict):
            yield number, None, "not UTF-8" if row is None else "empty" if row == "" else "no JSON object"
            continue
        if key is None:
            key = list(row)[_column(path, list(row))]
        caption = row.get(key)
        if not isinstance(caption, str):
            yield number, None, f"no text in {key!r}"
        else:
            yield number, *_decode(caption.encode("utf-8", "surrogatepass"))  # an escape may be half a character


def _parquet(path: Path) -> Iterator[Found]:
    try:
        import pyarrow as pa  # only here: nothing else needs it
        import pyarrow.parquet as pq
    except ImportError:
        raise UserError(f"reading {path} needs pyarrow: pip install pyarrow, or save the captions as .jsonl") from None
    try:
        file = pq.ParquetFile(path)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is no readable parquet file: {error}") from error
    name, number = file.schema_arrow.names[_column(path, file.schema_arrow.names)], 0
    kind = file.schema_arrow.field(name).type
    if not any(test(kind) for test in (pa.types.is_string, pa.types.is_large_string, pa.types.is_binary)):
        raise UserError(f"{path}: column {name} is {kind}, and captions are strings")
    for batch in file.iter_batches(columns=[name]):
        for raw in batch.column(0).cast(pa.large_binary()).to_pylist():
            number += 1
            yield number, *_decode(raw or b"")


def _tfds(name: str) -> Iterator[Found]:
    """`NAME` or `NAME:SPLIT` (train by default); nested captions, as those of coco_captions, one after another."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError(f"reading tfds:{name} needs tensorflow-datasets: pip install 'dd_jax[data]'") from None
    dataset, _, split = name.partition(":")
    number = 0
    for example in tfds.data_source(dataset, split=split or "train"):
        for raw in _captions(f"tfds:{name}", example):
            number += 1
            yield number, *_decode(raw.encode() if isinstance(raw, str) else bytes(raw))


def _captions(name: str, example: dict[str, Any]) -> list[Any]:
    """The captions of one TFDS example: a string, several, or a nested feature with a `text` of its own."""
    names = {key.lower().removesuffix("s"): key for key in example}
    wanted = next((wanted for wanted in COLUMNS if wanted in names), None)
    found = example[names[wanted] if wanted else list(example)[_column(name, list(example))]]
    if isinstance(found, dict):
        return _captions(name, found)
    if isinstance(found, str | bytes):
        return [found]
    return [caption for one in found for caption in (_captions(name, one) if isinstance(one, dict) else [one])]


def _decode(raw: bytes) -> tuple[str | None, str]:
    try:
        return raw.decode(), ""
    except UnicodeDecodeError:
        return None, "not UTF-8"


READERS: dict[str, Callable[[Path], Iterator[Found]]] = {
    ".txt": _plain,
    ".csv": _table,
    ".tsv": _table,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
