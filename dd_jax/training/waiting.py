"""Does a training's input keep up? The share of its time in which no batch was there and nothing left to compute."""

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import jax

STEPS = 20  # that a share is taken over, at least
MOST = 0.1  # share that nobody is told of
ADVICE = (
    "keep more of them, --config.data.cache=MIB, decode them by more threads, --config.data.readers=N, or augment "
    "less, --config.data.rotate=0 and so on"
)


class Waiting:
    """Steps are handed over before they are computed, so a batch is late only if it comes after the step before it.

    A thread notes when steps are done; nothing waits for it.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._pool = clock, ThreadPoolExecutor(1, "steps")
        self._before: Future[float] | None = None  # when the newest step is done
        self._taken: list[tuple[Future[float], float, float]] = []  # (that, a batch was asked for, it came)
        self._seen: tuple[int, float] | None = None

    def take(self, batches: Iterator[Any]) -> Any:
        """The next batch."""
        asked = self._clock()
        batch = next(batches)
        if self._before:
            self._taken.append((self._before, asked, self._clock()))
        return batch

    def computing(self, metrics: Any) -> None:
        """A step, of which these are on their way, was handed over."""
        self._before = self._pool.submit(self._done, metrics)

    def _done(self, metrics: Any) -> float:
        jax.block_until_ready(metrics)
        return self._clock()

    def look(self, done: int) -> dict[str, float]:
        """The share, {"input_wait": 0 to 1}, since the last one, now that `done` steps are finished.

        None before `STEPS` of them, nor at first, since that saw compiling.
        """
        now, seen = self._clock(), self._seen
        if seen and done - seen[0] < STEPS:
            return {}
        taken, self._taken, self._seen = self._taken, [], (done, now)
        if not seen:
            return {}
        waited = sum(max(0.0, came - max(asked, before.result())) for before, asked, came in taken)
        return {"input_wait": waited / (now - seen[1])}

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
