"""Captions in JSON: one value a line, an array, or a document such as COCO's annotations."""

import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from dd_jax.data import columns
from dd_jax.data.lines import Found, Row, lines
from dd_jax.system.errors import UserError


def document(path: Path) -> Iterator[Found]:
    """Captions of .json and .jsonl alike, since each is found under the other's name.

    A file whose first line is a whole value with others behind it is one of lines; every other one is a single value.
    """
    rows = lines(path)
    head = [*itertools.islice((row for row in rows if row[1] is None or row[1].strip()), 2)]
    if len(head) == 2 and _is_value(head[0][1]):
        return _rows(path, _parsed(itertools.chain(head, rows)))
    try:
        whole = json.loads("\n".join(line or "" for _, line in itertools.chain(head, rows)))
    except (ValueError, RecursionError) as error:
        if path.suffix.lower() == ".json" or len(head) < 2:
            raise UserError(f"{path} is no readable JSON ({error}): save it again") from error
        return _rows(path, _parsed(lines(path)))  # lines, the first of which is a bad one
    return _rows(path, ((number, row, "") for number, row in enumerate(_list(path, whole), 1)))


def _is_value(line: str | None) -> bool:
    try:
        json.loads(line or "")
    except (ValueError, RecursionError):
        return False
    return True


def _parsed(rows: Iterable[Row]) -> Iterator[tuple[int, Any, str]]:
    """(line, value, what is wrong)."""
    for number, line in rows:
        if not line or not line.strip():
            yield number, None, "not UTF-8" if line is None else "empty"
            continue
        try:
            yield number, json.loads(line), ""
        except (ValueError, RecursionError):
            yield number, None, "no JSON"


def _rows(path: Path, rows: Iterable[tuple[int, Any, str]]) -> Iterator[Found]:
    """Captions of objects, by the column that the first of them has, and of plain strings."""
    key: str | None = None
    for number, row, fault in rows:
        if isinstance(row, dict) and not fault:
            if key is None:
                key = list(row)[columns.column(path, list(row))]
            fault = "" if key in row else f"no {key!r}"
            row = row.get(key)
        elif not isinstance(row, str) and not fault:
            fault = "no JSON object"
        try:
            found = [] if fault else [*columns.captions(row)]
        except ValueError as error:
            found, fault = [], f"{error} in {key!r}"
        if not found:
            yield number, None, fault or f"no text in {key!r}"
        for caption in found:
            yield number, *columns.decoded(caption)


def _list(path: Path, whole: Any) -> list[Any]:
    """The rows of a document: an array; the array in it that has captions (COCO's annotations, the images of
    Karpathy's splits); a table by columns; or captions by name."""
    if isinstance(whole, list):
        return whole
    if not isinstance(whole, dict):
        return [whole]
    for rows in whole.values():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and columns.find(list(rows[0])) is not None:
            return rows
    if (at := columns.find(list(whole))) is not None:
        column = whole[list(whole)[at]]
        by_row = isinstance(column, dict) and columns.find(list(column), columns.NESTED) is None
        return [*column.values()] if by_row else [whole]
    rows = [row for one in whole.values() for row in (one if isinstance(one, list) else [one])]
    if all(isinstance(one, str) or (isinstance(one, dict) and columns.find(list(one)) is not None) for one in rows):
        return rows
    raise columns.missing(path, list(whole))
