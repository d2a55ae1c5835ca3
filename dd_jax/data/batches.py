"""A training's input: a pure function of (seed, step), which Grain reads ahead and whose place goes into checkpoints.

Whoever knows the step knows the batch: nothing depends on how often a run was interrupted, or on how many read it.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from dd_jax.data.examples import Examples, Pixels
from dd_jax.system.errors import UserError


def index_batches(count: int, batch: int, seed: int) -> Callable[[int], np.ndarray]:
    """step -> indices of its batch: an endless shuffle without gaps, a pure function of the step."""
    if count < batch:
        raise UserError(f"a batch of {batch} needs at least as many examples, there are {count}")

    @functools.lru_cache(maxsize=2)
    def order(epoch: int) -> np.ndarray:
        return np.random.default_rng([seed, epoch]).permutation(count)

    def at(step: int) -> np.ndarray:
        epoch, first = divmod(step * batch, count)
        whole = order(epoch)[first : first + batch]
        return np.concatenate([whole, order(epoch + 1)[: batch - len(whole)]])

    return at


def shuffled(
    data: Mapping[str, Pixels], batch: int, seed: int, mine: np.ndarray | slice = slice(None)
) -> Callable[[int], dict[str, np.ndarray]]:
    """step -> its batch of examples of `data`, shuffled, and their numbers, "id"; `mine`: the rows this process takes.

    Numbers count on from epoch to epoch where a part of `data` is endless, whose pictures are others each time.
    """
    count = len(next(iter(data.values())))
    indices = index_batches(count, batch, seed)
    endless = {key for key, values in data.items() if isinstance(values, Examples) and values.endless}

    def at(step: int) -> dict[str, np.ndarray]:
        number = indices(step)[mine]
        epoch = ((step * batch + np.arange(batch)) // count)[mine]
        id = number + count * epoch if endless else number
        return {"id": id} | {key: values[id if key in endless else number] for key, values in data.items()}

    return at


@dataclasses.dataclass(frozen=True)
class Source:
    """Grain's random-access source, one element a step: shuffling whole batches at once costs microseconds."""

    batch_at: Callable[[int], Any]
    steps: int

    def __len__(self) -> int:
        return self.steps

    def __getitem__(self, step: int) -> Any:
        return self.batch_at(int(step))

    def __repr__(self) -> str:
        return f"Source({self.steps} steps)"


def stream(batch_at: Callable[[int], Any], steps: int, first: int = 0, place: dict[str, Any] | None = None) -> Any:
    """Grain's iterator over the batches from step `first`, or from a `place` that its `get_state` gave.

    A thread reads two batches ahead. UserError where the two contradict each other.
    """
    import grain  # a second to import: only training pays it

    options = grain.ReadOptions(num_threads=1, prefetch_buffer_size=2)
    found = iter(grain.MapDataset.source(Source(batch_at, steps)).to_iter_dataset(options))
    place = place or {"next_index": first}
    if place != {"next_index": first}:
        raise UserError(f"the checkpoint of step {first} has its input at {place}: delete it, to go on from another")
    found.set_state(place)
    return found
