"""Algorithm 1 at scale: sharded (id, label, codes) sets, resumable; noise is never stored, the id gives it back."""

import dataclasses
import functools
import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax import files, rng
from dd_jax.conditions import Conditions, assign
from dd_jax.errors import UserError
from dd_jax.fewstep import Models, generator, noise_for
from dd_jax.interfaces import Cond, Params
from dd_jax.progress import Progress
from dd_jax.sharding import ALONE, Placement


@dataclasses.dataclass(frozen=True)
class PairSet:
    """All pairs in memory: ids (M,), labels (M,), codes (M, L)."""

    id: np.ndarray
    label: np.ndarray
    code: np.ndarray


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

    Under a mesh a batch is rounded up, so that all devices have equal shares. `params` are where `placement` puts them.
    """
    sample = sampler(models, placement)
    batch += -batch % placement.rows
    for first in range(0, len(id_M), batch):
        ids, label = id_M[first : first + batch], label_M[first : first + batch]
        pad = batch - len(ids)
        rows = placement.batch((jnp.asarray(np.pad(ids, (0, pad))), conditions(np.pad(label, (0, pad), "edge"))))
        code = sample((params, root), *rows)
        yield np.asarray(code)[: len(ids)]


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
) -> PairSet:
    """Write the shards that are not there yet, then the manifest; -> the set. Torn shards are made again."""
    root = rng.stream(seed, "pairs")
    manifest = {"count": count, "shard": shard, "seed": seed, "labels": label_scheme, **facts}
    manifest["noise"] = _noise_check(models, params, root)
    _check_manifest(folder, manifest)
    params = placement.put(params, fsdp=False)  # 256 steps would gather the weights 256 times
    hashes = {}
    with Progress(count, "pairs", unit="pairs") as progress:
        for first in range(0, count, shard):
            path = folder / f"shard-{first // shard:05d}.npz"
            ids = np.arange(first, min(first + shard, count), dtype=np.int32)
            if not _whole(path, ids):
                label = assign(conditions.pool, ids, label_scheme, seed)
                codes = []
                for code in sample_codes(models, params, root, ids, label, batch, conditions, placement):
                    codes.append(_checked(code, folder))
                    progress.update(len(code))
                buffer = io.BytesIO()
                np.savez(buffer, id=ids, label=label, code=np.concatenate(codes))
                files.replace(path, buffer.getvalue())
            else:
                progress.update(len(ids))
            hashes[path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
    files.replace(folder / "manifest.json", json.dumps({**manifest, "shards": hashes}, indent=1).encode())
    return load(folder)


def _checked(code: np.ndarray, folder: Path) -> np.ndarray:
    """Codes as stored. The flow marks a token that it could not map with -1."""
    if code.min() < 0:
        raise UserError(f"{folder}: {int((code < 0).sum())} tokens have no code: the teacher's logits are not finite")
    return code.astype(np.uint16)


def load(folder: Path) -> PairSet:
    """Read a finished set and verify every shard. UserError names what is missing or damaged."""
    path = folder / "manifest.json"
    if not path.exists():
        raise UserError(f"no pair set in {folder}: run --stage=pairs first")
    shards = []
    for name, digest in json.loads(path.read_text())["shards"].items():
        shard = folder / name
        if not shard.exists() or hashlib.sha256(shard.read_bytes()).hexdigest() != digest:
            state = "damaged" if shard.exists() else "missing"
            raise UserError(f"pair shard {shard} is {state}: run --stage=pairs again, it makes only that one anew")
        with np.load(shard) as data:
            shards.append({key: data[key] for key in ("id", "label", "code")})
    return PairSet(*(np.concatenate([s[key] for s in shards]) for key in ("id", "label", "code")))


def _whole(path: Path, ids: np.ndarray) -> bool:
    """Is this shard complete? (The zip's own CRCs are checked by reading it.) A bad one is removed."""
    if not path.exists():
        return False
    manifest = path.parent / "manifest.json"
    if manifest.exists():
        digest = json.loads(manifest.read_text())["shards"].get(path.name)
        if digest != hashlib.sha256(path.read_bytes()).hexdigest():
            return False
    try:
        with np.load(path) as data:
            return np.array_equal(data["id"], ids) and len(data["code"]) == len(ids) == len(data["label"])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False


def _noise_check(models: Models, params: dict[str, Params], root: jax.Array) -> list[float]:
    """A few noise values: a set made elsewhere must see the same noise here."""
    codebook = models.tokenizer.codebook(params["tokenizer"])
    keys = rng.example_keys(root, jnp.arange(2))
    noise = noise_for(keys, models.layout.tokens, codebook.shape[-1])
    return [round(float(value), 4) for value in noise[:, 0, :2].ravel()]


def _check_manifest(folder: Path, wanted: dict[str, Any]) -> None:
    """A set begun under other settings must not be mixed with this one."""
    path = folder / "settings.json"
    text = json.dumps(wanted, indent=1, sort_keys=True)
    if not path.exists():
        files.replace(path, text.encode())
        return
    found = json.loads(path.read_text())
    for key in sorted({*found, *wanted}):
        a, b = found.get(key), json.loads(text).get(key)
        same = np.allclose(a, b, atol=2e-4) if key == "noise" else a == b
        if not same:
            raise UserError(f"pairs in {folder} were begun with {key}={a}, now it is {b}: use another --workdir")
