"""Programs and what they cost before they run: XLA compiles anew for every shape that it meets."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import numpy as np


def compile_together(*planned: tuple[Any, tuple[Any, ...]]) -> None:
    """Compile jitted functions for their arguments, arrays or only shapes, side by side: [(function, arguments)].

    The first ones are compiled while Python traces the next: the slowest to compile goes first. The calls that follow
    find what was compiled (as of JAX 0.10).
    """
    with ThreadPoolExecutor(len(planned)) as pool:
        for compiling in [pool.submit(fn.lower(*args).compile) for fn, args in planned]:
            compiling.result()


def in_programs(run: Callable[..., Any], rows: tuple[Any, ...], most: int) -> Any:
    """`run(*rows)`, in which example i depends on row i alone, for at least one row, in parts of `most` rows.

    The last part is padded to a power of two. `rows` and what `run` returns are pytrees of arrays (B, ...), which are
    cut and joined on the host: there a new size compiles nothing.
    """
    rows = jax.tree.map(np.asarray, rows)
    count = len(jax.tree.leaves(rows)[0])
    parts = []
    for first in range(0, count, most):
        held = min(count - first, most)
        size = min(1 << (held - 1).bit_length(), most)
        at = np.minimum(np.arange(first, first + size), count - 1)  # more of the last one, thrown away again
        found = run(*jax.tree.map(lambda x, at=at: x[at], rows))
        parts.append(jax.tree.map(lambda x, held=held: np.asarray(x)[:held], found))
    return parts[0] if len(parts) == 1 else jax.tree.map(lambda *x: np.concatenate(x), *parts)
