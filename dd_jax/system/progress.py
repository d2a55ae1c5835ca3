"""How far a long job is: a bar on a terminal, a plain line every ten seconds in a log."""

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn
from rich.progress import Progress as Bar
from rich.table import Column

LINE_EVERY = 10.0  # seconds between lines in a log
DRAW_EVERY = 0.2  # seconds between redraws on a terminal
WINDOW = 30.0  # seconds that the rate looks back


class Progress:
    """`with Progress(total, "pairs", "images") as bar: ... bar.update(256, loss=loss)`.

    A resumed job passes what is already done as `initial`; it counts as done but not as speed. Nor does what the first
    update tells of, which compiling was a part of. An update costs a clock reading; the figures, which may be device
    arrays, are only looked at when they are shown.
    """

    def __init__(
        self,
        total: int,
        name: str,
        unit: str = "steps",
        initial: int = 0,
        file: TextIO | None = None,
        clock: Any = time.monotonic,
    ) -> None:
        self.total, self.name, self.unit = total, name, unit
        self.done = self.initial = initial
        self.numbers: dict[str, Any] = {}
        self._file = file or sys.stdout
        self._clock = clock
        self._bar: Bar | None = None
        self._task = TaskID(0)

    def __enter__(self) -> "Progress":
        self._begin = self._shown = self._clock()
        self._seen = deque[tuple[float, int]]()  # (time, done), from the first update on
        self._first: tuple[float, int] | None = None
        console = Console(file=self._file)
        if console.is_terminal and not console.is_dumb_terminal:
            status = TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True, overflow="ellipsis"))
            columns = (TextColumn("{task.description}"), BarColumn(24), status)
            self._bar = Bar(*columns, console=console, auto_refresh=False)
            self._task = self._bar.add_task(self.name, total=self.total, status="")
            self._bar.start()
            self._show()
        return self

    def update(self, n: int = 1, **numbers: Any) -> None:
        """Count `n` more units done; `numbers` (loss=...) are shown until they change."""
        self.done += n
        if numbers:
            self.numbers.update(numbers)
        now = self._clock()
        if self._first is None:
            self._first = now, self.done
            self._seen.append(self._first)
        if now - self._shown >= (DRAW_EVERY if self._bar else LINE_EVERY):
            self._shown = now
            self._show()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        note = ""
        if kind is not None:
            note = ", interrupted" if issubclass(kind, KeyboardInterrupt) else ", stopped"
        self._show(note, last=True)
        if self._bar:
            self._bar.stop()

    def rate(self) -> float:
        """Units a second over the last half minute; 0 where nobody knows yet."""
        if not self._seen:
            return 0.0
        now = self._clock()
        if now > self._seen[-1][0]:
            self._seen.append((now, self.done))
        while len(self._seen) > 2 and now - self._seen[1][0] >= WINDOW:
            self._seen.popleft()
        (then, before), (last, done) = self._seen[0], self._seen[-1]
        return (done - before) / (last - then) if last > then else 0.0

    def _show(self, note: str = "", last: bool = False) -> None:
        status = self._last_status() if last else self._status()
        if self._bar:
            self._bar.update(self._task, completed=self.done, status=_escape(status + note))
            self._bar.refresh()
        else:
            print(f"{self.name}: {status}{note}", file=self._file, flush=True)

    def _status(self) -> str:
        rate = self.rate()
        if rate <= 0:
            return ", ".join([f"{self.done}/{self.total} {self.unit}", *self._figures()])
        left = duration((self.total - self.done) / rate)
        return ", ".join([f"{self.done}/{self.total}", self._speed(rate), f"{left} left", *self._figures()])

    def _last_status(self) -> str:
        if self._first is None and self.done >= self.total:
            return f"{self.done}/{self.total}, {'done already' if self.total else 'nothing to do'}"
        now = self._clock()
        then, before = self._first or (now, self.done)
        if before == self.done:  # all of it in one update
            then, before = self._begin, self.initial
        rate = (self.done - before) / (now - then) if now > then else 0.0
        took = f"took {duration(now - self._begin)}"
        return ", ".join([f"{self.done}/{self.total}", self._speed(rate), took, *self._figures()])

    def _speed(self, rate: float) -> str:
        return f"{_short(rate)} {self.unit}/s" if rate > 0 else self.unit

    def _figures(self) -> list[str]:
        return [f"{name} {_short(float(value))}" for name, value in self.numbers.items()]


def track(items: Iterable[Any], name: str, unit: str = "steps", total: int | None = None) -> Iterator[Any]:
    """Yield `items` behind a progress bar; `total` where they have no length."""
    with Progress(len(items) if total is None else total, name, unit) as bar:  # type: ignore[arg-type]
        for item in items:
            yield item
            bar.update()


def duration(seconds: float) -> str:
    """5.2 s, 3 min 20 s, 2 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _short(number: float) -> str:
    """Three digits, without an exponent where people expect none."""
    return f"{number:.0f}" if 1000 <= abs(number) < 1e7 else f"{number:.3g}"


def _escape(text: str) -> str:
    return text.replace("[", r"\[")
