"""Which column of a file holds the captions, and the captions in whatever one cell of it holds."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

from dd_jax.system.errors import UserError

COLUMNS = ("caption", "prompt", "text", "sentence", "comment")  # the first that a file has, in whatever case or number
NESTED = (*COLUMNS, "raw")  # names within a cell: COCO's splits have {"sentences": [{"raw": ..}]}
SHOWN = 12  # columns that a message names
CONTROL = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff]")  # in no caption


def column(name: object, columns: Sequence[Any]) -> int:
    """Where the captions of `name` are. UserError that lists the columns if they are nowhere."""
    if (found := find(columns)) is None:
        raise missing(name, columns)
    return found


def missing(name: object, columns: Sequence[Any]) -> UserError:
    """What to do about a file without a column of captions."""
    told = ", ".join(str(one)[:40] for one in columns[:SHOWN]) + (" ..." if len(columns) > SHOWN else "")
    way = "give the one with the captions such a name"
    return UserError(f"{name} has the columns {told or 'none'}: none of them is {', '.join(COLUMNS)}; {way}")


def find(columns: Sequence[Any], wanted: Sequence[str] = COLUMNS) -> int | None:
    """Index of the first of the wanted names that there is; "Captions" is a `caption` too, where no other one is."""
    names = [str(one).strip().strip("\"'").strip().lower() for one in columns]
    for name in wanted:
        for form in (name, f"{name}s"):
            if form in names:
                return names.index(form)
    return None


def captions(cell: Any) -> Iterator[str | bytes]:
    """The captions of a cell in order: text, a list of them, or a dict with a field that has such a name.

    ValueError, with what is there instead, for anything else. Cells of nothing (None) hold no caption.
    """
    if isinstance(cell, str | bytes):
        yield cell
    elif isinstance(cell, dict):
        keys = list(cell)
        if (at := find(keys, NESTED)) is None:
            raise ValueError(f"fields {', '.join(map(str, keys))[:60]}" if keys else "no text")
        yield from captions(cell[keys[at]])
    elif hasattr(cell, "tolist"):
        yield from captions(cell.tolist())
    elif isinstance(cell, list | tuple):
        for one in cell:
            yield from captions(one)
    elif cell is not None:
        raise ValueError("no text")


def decoded(caption: str | bytes) -> tuple[str | None, str]:
    """(text, what is wrong with it): an escape in JSON may be half a character."""
    try:
        raw = caption.encode("utf-8", "surrogatepass") if isinstance(caption, str) else bytes(caption)
        return raw.decode(), ""
    except UnicodeDecodeError:
        return None, "not UTF-8"


def fault(text: str) -> str:
    """Why this is no caption; "" where it may be one."""
    if odd := CONTROL.search(text):
        return "half a character" if odd[0] >= "\ud800" else f"a control character, U+{ord(odd[0]):04X}"
    return "" if text.strip() else "empty"
