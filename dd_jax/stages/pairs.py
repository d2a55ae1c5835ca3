"""Algorithm 1 at scale: sharded (id, label, codes) sets, resumable; noise is never stored, the id gives it back.

Processes share no work: each draws its own shards on its own devices, and the first one closes the set.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data import pairset
from dd_jax.data.conditions import Conditions, assign
from dd_jax.data.pairset import PairSet, load
from dd_jax.method.fewstep import generator, noise_for
from dd_jax.method.interfaces import Cond, Params
from dd_jax.method.models import Models
from dd_jax.system import processes, rng, stopping
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress
from dd_jax.system.runtime import jit_once
from dd_jax.system.sharding import ALONE, Placement


@functools.lru_cache
def sampler(models: Models, placement: Placement = ALONE) -> Callable[..., jax.Array]:
    """Algorithm 1's loop body: ((params, root key), id_B, cond) -> code_BxL, always through the flow.

    Under a mesh it is one program, compiled once for all shards: every device draws its own share of the batch.
    """
    generate = generator(f"T0:{models.layout.steps}", dataclasses.replace(models, categorical=False))

    def sample(given: tuple[dict[str, Params], jax.Array], id_B: jax.Array, cond: Cond) -> jax.Array:
        params, root = given
        return generate(params, cond, rng.example_keys(root, id_B)).code_BxL

    return placement.each(sample)


def sample_codes(
    models: Models,
    params: dict[str, Params],
    root: jax.Array,
    id_M: np.ndarray,
    label_M: np.ndarray,
    batch: int,
    conditions: Conditions,
    placement: Placement = ALONE,
) -> Iterator[np.ndarray]:
    """Teacher samples of these ids, batch by batch; the last batch is padded for the compiler and cut again.

    The next batch is on its way before one is read.

    Under a mesh a batch is rounded up, so that all devices have equal shares. `params` are where `placement` puts them.
    """
    sample = sampler(models, placement)
    batch += -batch % placement.rows
    running: list[tuple[jax.Array, int]] = []
    for first in range(0, len(id_M), batch):
        ids, label = id_M[first : first + batch], label_M[first : first + batch]
        pad = batch - len(ids)
        rows = placement.batch((jnp.asarray(np.pad(ids, (0, pad))), conditions(np.pad(label, (0, pad), "edge"))))
        running.append((sample((params, root), *rows), len(ids)))
        if len(running) > 1:
            yield _host(*running.pop(0))
    for code, count in running:
        yield _host(code, count)


def _host(code: jax.Array, count: int) -> np.ndarray:
    return np.asarray(code)[:count]


def generate(
    folder: Path,
    models: Models,
    params: dict[str, Params],
    count: int,
    shard: int,
    batch: int,
    seed: int,
    conditions: Conditions,
    label_scheme: str,
    facts: dict[str, Any],
    placement: Placement = ALONE,
    first: int = 0,
) -> PairSet:
    """Write the shards of ids first..first+count-1 that are not there yet, then the manifest; -> the set.

    Torn shards are made again. A shard is written while the next one is drawn. SIGTERM raises Stopped.
    """
    root = rng.stream(seed, "pairs")
    facts = {"shard": shard, "seed": seed, "labels": label_scheme, **facts}
    facts["noise"] = noise_check(models, params, root)
    if first % shard:
        raise UserError(
            f"config.pairs.first={first} is not a multiple of config.pairs.shard={shard}: shards would overlap"
        )
    pairset.check_settings(folder, facts)
    params = placement.put(params, fsdp=False)  # 256 steps would gather the weights 256 times
    parts = [np.arange(i, min(i + shard, first + count), dtype=np.int32) for i in range(first, first + count, shard)]
    todo = {pairset.name_of(int(ids[0]), shard): ids for ids in parts}

    def draw(ids: np.ndarray, tell: Callable[[int], None]) -> pairset.Shard:
        label, codes = assign(conditions.pool, ids, label_scheme, seed), []
        for code in sample_codes(models, params, root, ids, label, batch, conditions, placement):
            codes.append(_checked(code, folder))
            tell(len(code))
        return {"id": ids, "label": label, "code": np.concatenate(codes)}

    _write(folder, todo, draw)
    processes.meet("pairs are written")
    if processes.is_first():
        hashes = {name: pairset.sha256(folder / name) for name in todo}
        pairset.close(folder, {"first": first, "count": count, **facts}, hashes)
    processes.meet("pairs are closed")
    return load(folder)


def _write(folder: Path, todo: dict[str, np.ndarray], draw: Callable) -> None:
    """This process's shards, {name: ids}, those that are not whole; one is written while the next is drawn."""
    mine = dict(list(todo.items())[processes.index() :: processes.count()])
    known = _known(folder)
    total = sum(map(len, mine.values()))
    mine = {name: ids for name, ids in mine.items() if not pairset.whole(folder / name, ids, known.get(name))}
    progress = Progress(total, "pairs", unit="pairs", initial=total - sum(map(len, mine.values())))
    with stopping.listening(), progress, ThreadPoolExecutor(1) as writer:

        def tell(count: int) -> None:
            progress.update(count)
            if stopping.asked():
                raise stopping.Stopped(f"pairs: stopped at {progress.done} of {progress.total}, whole shards are saved")

        writing: Future = writer.submit(bool)
        for name, ids in mine.items():
            shard = draw(ids, tell)
            writing.result()  # what went wrong there is raised here
            writing = writer.submit(pairset.write, folder / name, shard)
        writing.result()


def _known(folder: Path) -> dict[str, str]:
    """Checksums of an earlier manifest."""
    try:
        return pairset.manifest_of(folder)["shards"]
    except UserError:  # none yet, or a torn one: shards are looked at one by one, and it is written again
        return {}


def _checked(code: np.ndarray, folder: Path) -> np.ndarray:
    """Codes as stored. The flow marks a token that it could not map with -1."""
    if code.min() < 0:
        raise UserError(f"{folder}: {int((code < 0).sum())} tokens have no code: the teacher's logits are not finite")
    return code.astype(np.uint16)


def noise_check(models: Models, params: dict[str, Params], root: jax.Array) -> list[float]:
    """A few noise values: a set made elsewhere must see the same noise here."""
    codebook = models.tokenizer.codebook(params["tokenizer"])
    keys = rng.example_keys(root, jnp.arange(2))
    noise = jit_once(lambda key_B: noise_for(key_B, models.layout.tokens, codebook.shape[-1]))(keys)
    return [round(float(value), 4) for value in noise[:, 0, :2].ravel()]
