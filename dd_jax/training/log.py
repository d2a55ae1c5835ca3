"""What a training tells: its progress, its curves, its speed, and which examples broke it."""

import dataclasses
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np

from dd_jax.data.folder import some
from dd_jax.system import files, processes
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress
from dd_jax.training.sinks import Sinks
from dd_jax.training.throughput import Throughput
from dd_jax.training.waiting import ADVICE, MOST, Waiting


@dataclasses.dataclass(frozen=True)
class Extras:
    """What only some trainings do: sinks by name, a speedometer, a look at the state every so many steps, files."""

    log: tuple[str, ...] = ()
    throughput: Throughput | None = None
    preview: Callable[[int, Any], dict[str, Any]] | None = None  # (step, state) -> numbers for the curve
    preview_every: int = 0
    streamed: bool = False  # batches are read while it runs: are they there in time?
    called: Callable[[int], str] = str  # an example's number -> what messages call it: the file that it is read from


class Log:
    """Collects the metrics of steps that may still be running, and reads them when it is time to.

    `batch_at(step)` gives a step's examples again, `good()` the newest checkpoint, for whoever has to be told.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        steps: int,
        first: int,
        batch_at: Callable[[int], Any],
        good: Callable[[], int | None],
        extras: Extras,
    ) -> None:
        self._name, self._folder, self._extras = name, folder, extras
        self._batch_at, self._good = batch_at, good
        self._pending: list[tuple[int, dict[str, jax.Array]]] = []
        self._steps, self._every = steps, max(steps // 100, 1)
        self._progress = Progress(steps, name, unit="steps", initial=first)
        self._sinks = Sinks(folder, first + 1, extras.log)
        self._waiting, self._warned = Waiting() if extras.streamed else None, False

    def __enter__(self) -> "Log":
        self._progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.__exit__(kind, error, trace)
        self._sinks.close()
        if self._waiting:
            self._waiting.close()

    def take(self, batches: Iterator[Any]) -> Any:
        """The next batch."""
        return self._waiting.take(batches) if self._waiting else next(batches)

    def begin(self, state: Any, batch: Any) -> None:
        """Before the first step."""
        if self._extras.throughput:
            self._extras.throughput.begin(state, batch)

    def note(self, done: int, metrics: dict[str, jax.Array], state: Any) -> None:
        """Step `done` is on its way. A hundred times in a training all metrics are read and the newest ones kept."""
        self._pending.append((done, metrics))
        if self._waiting:
            self._waiting.computing(metrics)
        curve, speed = {}, {}
        if done % self._every == 0 or done == self._steps:
            curve = self.check()
            speed = self._extras.throughput.look(done) if self._extras.throughput else {}
            shown = {key: value for key, value in {**curve, **speed}.items() if "/" not in key}
            self._progress.update(done - self._progress.done, **shown)
            self._pending = []
            speed |= self._waited(done)
        if self._extras.preview and self._extras.preview_every and done % self._extras.preview_every == 0:
            curve |= self._extras.preview(done, state)
        if curve:
            self._sinks.write(done, curve, speed)

    def _waited(self, done: int) -> dict[str, float]:
        """How long steps waited for their input; a line, once, where that is much."""
        found = self._waiting.look(done) if self._waiting else {}
        if found.get("input_wait", 0.0) > MOST and not self._warned:
            self._warned = True
            told = f"{self._name}: for {found['input_wait']:.0%} of the time steps wait for pictures to be read"
            print(f"{told}: {ADVICE}", flush=True)
        return found

    def check(self) -> dict[str, float]:
        """The newest numbers, after a look at all since the last time.

        UserError for a loss that is not finite, or a gradient, which spoils the state before any loss tells.
        """
        numbers: dict[str, float] = {}
        for done, metrics in self._pending:
            numbers = {key: float(value) for key, value in metrics.items()}
            watched = [key for key in numbers if key == "loss" or key.endswith("grad_norm")]
            for key in sorted(watched, reverse=True):
                if not np.isfinite(numbers[key]):
                    raise UserError(self._broken(done, key, numbers))
        return numbers

    def _broken(self, done: int, key: str, numbers: dict[str, float]) -> str:
        """The message; all of the batch's ids, and what they are called, go to a file."""
        batch = self._batch_at(done - 1)
        ids = np.asarray(batch["id"]).tolist() if isinstance(batch, dict) and "id" in batch else []
        share = f"-{processes.index()}" if processes.count() > 1 else ""
        names = [*dict.fromkeys(map(self._extras.called, ids))]
        told = {"step": done, "ids": ids, "names": names, "metrics": {name: str(x) for name, x in numbers.items()}}
        path = files.replace(self._folder / f"not_finite{share}.json", json.dumps(told, indent=1).encode())
        return (
            f"{self._name}: the {key} is {numbers[key]} at step {done} (examples {some(names)}; see {path}); the last "
            f"good checkpoint is step {self._good() or 0}: lower the learning rate or the clipping and run again"
        )
