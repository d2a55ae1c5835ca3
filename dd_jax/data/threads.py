"""Threads that decode pictures: Pillow lets go of the interpreter while it does."""

import functools
import itertools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

READERS = 8
CHUNK = 128  # pictures that they are given at a time


@functools.cache
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(READERS, "pictures")


def each(items: Iterable[Any], one: Callable[[Any], Any]) -> Iterator[Any]:
    """`one` of each, by several threads, in order. `one` must not call this."""
    left = iter(items)
    while part := list(itertools.islice(left, CHUNK)):
        yield from _pool().map(one, part)
