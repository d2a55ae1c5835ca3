"""Training curves as JSON lines. A resumed run leaves the same file as one that was never interrupted."""

import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from dd_jax.system import files

Row = dict[str, Any]


class Writer:
    """Appends one row a call; a row is handed to the system at once, so a killed process loses none.

    `resume` is the first step that will be written (again): rows from there on are dropped, and so is a torn
    last line. The default, 0, starts the curve afresh.
    """

    def __init__(self, path: str | os.PathLike, resume: int = 0) -> None:
        self.path = Path(path)
        kept = [row for row in read(self.path) if row["step"] < resume]
        files.replace(self.path, "".join(map(_line, kept)).encode())
        self._file = open(self.path, "ab", buffering=0)  # noqa: SIM115

    def write(self, step: int, **scalars: Any) -> None:
        """Add the row of `step`; arrays of one element welcome, NaN and infinities become null."""
        row = {"step": int(step)} | {name: _number(value) for name, value in scalars.items()}
        try:
            self._file.write(_line(row).encode())
        except OSError as error:
            raise files.write_error(self.path, error) from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> "Writer":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read(path: str | os.PathLike) -> list[Row]:
    """All whole rows; an absent file has none."""
    try:
        text = Path(path).read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return []
    return list(_rows(text))


def _rows(text: str) -> Iterator[Row]:
    for line in text.splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue  # torn by a kill or a full disk
        if isinstance(row, dict) and isinstance(row.get("step"), int):
            yield row


def _line(row: Row) -> str:
    return json.dumps(row) + "\n"


def _number(value: Any) -> float | int | None:
    if isinstance(value, int):
        return value
    number = float(value)
    return float(f"{number:.6g}") if math.isfinite(number) else None
