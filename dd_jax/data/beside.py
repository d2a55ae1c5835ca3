"""Captions beside pictures, as people keep them: files of the same name, tables of a folder, cells of a row.

`a.jpg` has those of `a.txt` or `a.caption`, one a line, or of `a.json`, in a field that is called as in
`columns.COLUMNS`; else those of the rows that name it in `metadata.jsonl` or `metadata.csv`, of its folder or one above
(Hugging Face's imagefolder).
"""

import csv
import functools
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from dd_jax.data import columns, lines
from dd_jax.data.threads import each
from dd_jax.system.errors import UserError

SUFFIXES = ("txt", "caption", "json")  # where captions of a file are looked for, in this order
TABLES = ("metadata.jsonl", "metadata.csv")
NAME = "file_name"  # a table's column of pictures
KEPT = frozenset({".txt", ".caption", ".json", ".jsonl", ".csv"})  # suffixes of what has captions
Found = tuple[tuple[str, ...], str]  # a picture's captions, each in one line; or what is wrong, if there is anything
NONE: Found = ((), "")


def of_cell(cell: Any) -> Found:
    """Captions of whatever one cell of a row holds (see `columns.captions`)."""
    good, wrong = dict[str, None](), ""
    try:
        for caption in columns.captions(cell):
            text, fault = columns.decoded(caption)
            if fault := fault or columns.fault(text or ""):
                wrong = wrong or fault
            else:
                good[" ".join((text or "").split())] = None
    except ValueError as error:
        wrong = str(error)
    return tuple(good), "" if good else wrong


def of_file(suffix: str, raw: bytes) -> Found:
    """Captions of one file beside a picture; JSON may hold something else."""
    text = lines.whole(raw)
    if text is None:
        return (), "not UTF-8"
    if suffix != "json":
        found = of_cell([line for line in text.splitlines() if line.strip()])
        return found if any(found) else ((), "empty")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return (), "no JSON"
    return NONE if isinstance(value, dict) and columns.find([*value]) is None else of_cell(value)


def of_files(files: Mapping[str, Any], read: Any) -> Found:
    """Captions of the first of a picture's files that has some; `read(one of them)` gives its bytes."""
    wrong = ""
    for suffix in SUFFIXES:
        if suffix in files:
            found, fault = of_file(suffix, read(files[suffix]))
            if found:
                return found, ""
            wrong = wrong or fault
    return (), wrong


def of_folder(root: Path, files: Sequence[Path]) -> list[Found]:
    """Captions of each of a folder's pictures. UserError for a table that cannot be read."""

    @functools.cache
    def rows(folder: Path) -> dict[str, list[Any]]:
        return {name: cells for kind in TABLES for name, cells in table(folder / kind).items()}

    def one(file: Path) -> Found:
        own = {suffix: path for suffix in SUFFIXES if (path := file.with_suffix(f".{suffix}")).is_file()}
        found = of_files(own, Path.read_bytes)
        above = [folder for folder in file.parents if folder.is_relative_to(root)]
        cells = (rows(folder).get(file.relative_to(folder).as_posix()) for folder in above)
        return found if any(found) else next((of_cell(some) for some in cells if some is not None), NONE)

    return list(each(files, one))


def table(path: Path) -> dict[str, list[Any]]:
    """{a picture's name: the caption cells of its rows}; none where there is no such file. UserError for a bad one."""
    if not path.is_file():
        return {}
    text, found = lines.whole(path.read_bytes()), dict[str, list[Any]]()
    if text is None:
        raise UserError(f"{path} is not UTF-8: save it so")
    for number, row in enumerate(_rows(path, text), 1):
        if not isinstance(row, dict) or NAME not in row:
            raise UserError(f"{path}: row {number:,} has no {NAME}: give each its picture's name and its caption")
        held = [column for column in row if column != NAME]
        column = held[columns.column(path, held)]
        found.setdefault(str(row[NAME]).removeprefix("./"), []).append(row[column])
    return found


def _rows(path: Path, text: str) -> Iterator[Any]:
    if path.suffix == ".csv":
        try:
            yield from csv.DictReader(io.StringIO(text, newline=""), strict=True)
        except csv.Error as error:
            raise UserError(f"{path} is no readable table ({error}): save it again") from error
        return
    for number, line in enumerate(text.splitlines(), 1):
        try:
            yield from [json.loads(line)] if line.strip() else []
        except (ValueError, RecursionError):
            raise UserError(f"{path}: line {number:,} is no JSON: save it again") from None
