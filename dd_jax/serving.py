"""Requests that wait are drawn together: `with Queue(pipe) as queue: queue.submit([3, 7], guidance=3.0).result()`."""

import collections
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from dd_jax.calls import Setting
from dd_jax.drawing import BATCH, Drawing, Order
from dd_jax.system.errors import UserError

Waiting = tuple[Order, Future]


class Queue:
    """One thread that draws for all others. Each call takes the request that waits longest, and those that fit to it:

    of the same plan, whatever their seeds, ids and settings. A request's pictures are those of `pipe.sample`, whoever
    else is drawn with it, to the rounding of products in a batch of another size.
    """

    def __init__(self, pipe: Drawing, most: int = BATCH):
        """`most`: pictures of a call, at most, unless one request has more. UserError for no number of pictures."""
        if not isinstance(most, int) or most < 1:
            raise UserError(f"most={most}: give a number of pictures that are drawn together, 1 to {BATCH}")
        self._pipe, self._most = pipe, most
        self._waiting: collections.deque[Waiting] = collections.deque()
        self._changed, self._closed = threading.Condition(), False
        self._worker = threading.Thread(target=self._work, name="dd_jax.serving", daemon=True)
        self._worker.start()

    def submit(
        self,
        labels: ArrayLike | Sequence[str],
        plan: str = "S0",
        seed: int = 0,
        ids: ArrayLike | None = None,
        *,
        smooth: bool | None = None,
        **settings: Setting,
    ) -> "Future[np.ndarray]":
        """A future of what `pipe.sample` returns; arguments are its own, without `noise`.

        UserError, at once, for what cannot be; and when the queue is closed.
        """
        order = self._pipe.order(labels, plan, seed, ids, smooth=smooth, **settings)
        future: Future[np.ndarray] = Future()
        with self._changed:
            if self._closed:
                raise UserError("the queue is closed: open another one")
            self._waiting.append((order, future))
            self._changed.notify()
        return future

    def close(self) -> None:
        """Draw what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._worker.join()

    def __enter__(self) -> "Queue":
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()

    def _work(self) -> None:
        while batch := self._next():
            orders, futures = zip(*batch, strict=True)
            try:
                images = self._pipe.drawn(orders[0].joined(orders[1:]))
                ends = np.cumsum([order.count for order in orders])
                for future, part in zip(futures, np.split(images, ends[:-1]), strict=True):
                    future.set_result(part)
            except Exception as error:  # nobody waits for ever
                for future in futures:
                    if not future.done():
                        future.set_exception(error)

    def _next(self) -> list[Waiting]:
        """What is drawn next, in the order in which it came; nothing when the queue is closed and empty."""
        batch: list[Waiting] = []
        with self._changed:
            while not batch and (self._waiting or not self._closed):
                self._changed.wait_for(lambda: self._waiting or self._closed)
                waiting, self._waiting, room = self._waiting, collections.deque(), self._most
                for order, future in waiting:
                    if batch and (order.kind != batch[0][0].kind or order.count > room):
                        self._waiting.append((order, future))
                    elif future.set_running_or_notify_cancel():
                        batch.append((order, future))
                        room -= order.count
        return batch
