"""Tables with a header: .csv and .tsv, by whatever delimiter, quoted as RFC 4180 has it or not at all."""

import functools
import re
from collections import deque
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from dd_jax.data import columns
from dd_jax.data.lines import Found, Row, lines
from dd_jax.system.errors import UserError

DELIMITERS = "\t,;|"
NONE = "\x1f"  # the delimiter of a table with a single column: one that nobody writes
SPAN = 50  # lines of one quoted field; a longer one is a quote that nobody closed
OPEN = re.compile(r' *"(?:[^"]++|"")*+\Z')  # a quoted field that goes on in the next line

Field = tuple[str, int, int]  # its text, and where it begins and ends in the record


def table(path: Path) -> Iterator[Found]:
    """Captions of a table whose header tells the delimiter, whatever the file's name says."""
    rows = lines(path)
    names, delimiter = _header(path, rows)
    column = columns.column(path, names)
    for number, record, fields, fault in _records(rows, delimiter):
        while len(fields) > len(names) and not fields[-1][0]:
            fields.pop()  # delimiters behind the last column
        if fault or not any(text for text, _, _ in fields):
            yield number, None, fault or "empty"
        elif len(fields) > len(names) == column + 1:  # the caption comes last, and nobody quoted its commas
            yield number, record[fields[column][1] : fields[-1][2]], ""
        elif column >= len(fields) or len(fields) > len(names):
            yield number, None, f"{len(fields)} columns, not {len(names)}"
        else:
            yield number, fields[column][0], ""


def is_table(path: Path) -> bool:
    """Does the first line name a column of captions beside others, and has the next one as many?"""
    first, second, *_ = [*islice((line for _, line in lines(path) if line is None or line.strip()), 2), "", ""]
    for delimiter in DELIMITERS:
        names = (first or "").split(delimiter)
        if len(names) > 1 and columns.find(names) is not None and len((second or "").split(delimiter)) >= len(names):
            return all(len(name.split()) < 2 for name in names)
    return False


def _header(path: Path, rows: Iterator[Row]) -> tuple[list[str], str]:
    """(columns, delimiter): the delimiter by which one is a caption's; Excel's first line may say it ("sep=;")."""
    header = next((line for _, line in rows if line is None or line.strip()), "")
    if header is None:
        raise UserError(f"{path}: its header is not UTF-8; save it as UTF-8")
    if said := re.fullmatch(r'"?sep=(.)"?', header, re.IGNORECASE):
        header = next((line for _, line in rows), "") or ""
    split: dict[str, list[str]] = {}
    for delimiter in said[1] if said else DELIMITERS:
        fields: list[Field] = []
        _parse(header, delimiter, fields, 0)
        split[delimiter] = [text for text, _, _ in fields]
    good = [delimiter for delimiter, names in split.items() if columns.find(names) is not None]
    best = good[0] if good else max(split, key=lambda delimiter: len(split[delimiter]))
    return split[best], (best if len(split[best]) > 1 else NONE)


def _records(rows: Iterator[Row], delimiter: str) -> Iterator[tuple[int, str, list[Field], str]]:
    """(line, record, fields, fault) of every row."""
    waiting: deque[Row] = deque()
    while row := (waiting.popleft() if waiting else next(rows, None)):
        number, line = row
        if line is None:
            yield number, "", [], "not UTF-8"
            continue
        taken, record, fields = [row], line, list[Field]()
        opened = _parse(record, delimiter, fields, 0)
        while opened is not None and len(taken) <= SPAN:
            more = waiting.popleft() if waiting else next(rows, None)
            taken += [more] if more else []
            if more is None or more[1] is None:
                break
            record = f"{record}\n{more[1]}"
            if OPEN.match(record, opened):
                continue
            if not _quoted(delimiter).match(record, opened):
                break
            opened = _parse(record, delimiter, fields, opened)
        if opened is not None:  # a quote that nobody closes: this row is bad, those behind it are read again
            waiting.extendleft(reversed(taken[1:]))
        yield number, record, fields, "" if opened is None else "a quote is not closed"


def _parse(record: str, delimiter: str, fields: list[Field], at: int) -> int | None:
    """Add the fields from `at` on; where one begins that ends in no quote yet, or None.

    Only a field that ends with a quote, too, is quoted: '"Head shot" of a zebra' is a caption as it stands.
    """
    quotes = '"' in record
    while True:
        quoted = _quoted(delimiter).match(record, at) if quotes else None
        if quotes and not quoted and OPEN.match(record, at):
            return at
        end = quoted.end() if quoted else record.find(delimiter, at)
        end = end if end >= 0 else len(record)
        fields.append((quoted[1].replace('""', '"') if quoted else record[at:end], at, end))
        if end == len(record):
            return None
        at = end + 1


@functools.cache
def _quoted(delimiter: str) -> re.Pattern[str]:
    """A field in quotes, up to its delimiter; a quote in it is doubled."""
    return re.compile(rf' *"((?:[^"]++|"")*+)" *(?={re.escape(delimiter)}|\Z)')
