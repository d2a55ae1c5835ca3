"""Told to stop (SIGTERM: preemption, a time limit): save, say so, and leave with a status of its own.

Loops listen while they run, note the signal, and look at it where their state is whole.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

from jax.experimental import multihost_utils

from dd_jax.system import processes

STATUS = 75  # EX_TEMPFAIL: the same command goes on
_asked = False


class Stopped(Exception):  # noqa: N818
    """Everything is saved, and the message says where; `main` prints it and exits with `STATUS`."""


@contextlib.contextmanager
def listening(together: bool = False) -> Iterator[None]:
    """Note SIGTERM instead of dying. `together`: where there are several processes, JAX's own service notes it."""
    if threading.current_thread() is not threading.main_thread() or (together and processes.count() > 1):
        yield
        return
    before = signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)


def _note(number: int, frame: Any) -> None:
    global _asked
    _asked = True


def asked() -> bool:
    """Was this process told to stop?"""
    return _asked


def due(step: int) -> bool:
    """Is `step`, which every process passes, the one to stop at? They agree by JAX's preemption service."""
    return multihost_utils.reached_preemption_sync_point(step) if processes.count() > 1 else _asked
