"""Is a pair set what its manifest says, and what this teacher would draw again?"""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from dd_jax.data import pairset
from dd_jax.data.conditions import Conditions
from dd_jax.method.fewstep import advance, noise_for
from dd_jax.method.interfaces import Draft, Params
from dd_jax.method.models import Models
from dd_jax.method.plans import Op
from dd_jax.stages.pairs import noise_check
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.system.progress import track

AGREE = 0.99  # of the tokens; other hardware may decide near ties in another way


def verify(
    folder: Path,
    models: Models,
    params: dict[str, Params],
    conditions: Conditions,
    vocab: int,
    batch: int,
    facts: dict[str, Any],
) -> str:
    """What was found, in words. UserError for the first thing that is wrong.

    Shards: checksums, ids (each once, in their shard), ranges of labels and codes. Settings and noise: those of this
    config. And `batch` pairs from all over the set go through teacher and flow again, all positions at once: a pair
    is the fixed point of that (`refine.refine`), so a token that differs is wrong by itself.
    """
    manifest, found = pairset.manifest_of(folder), pairset.load(folder)
    noise = noise_check(models, params, rng.stream(manifest["seed"], "pairs"))
    for key, there, here in pairset.differences(manifest, {**manifest, **facts, "noise": noise}):
        raise UserError(f"{folder} was made with {key}={there}, here it is {here}")
    for name, shard in track(list(zip(manifest["shards"], found.shards, strict=True)), "verify", "shards"):
        _check_shard(folder / name, shard, manifest["shard"], conditions.pool, vocab, models.layout.tokens)
    if len(found) != manifest["count"] or len(np.unique(found.id)) != len(found):
        raise UserError(f"{folder} holds {len(found)} pairs, its manifest says {manifest['count']}, each once")
    same = agreement(found, models, params, conditions, manifest["seed"], batch)
    if same < AGREE:
        raise UserError(f"{folder}: teacher and flow give {same:.2%} of its tokens again, less than {AGREE:.0%}")
    return f"{len(found)} pairs in {len(found.shards)} shards are whole; {same:.4%} of sampled tokens come again"


def _check_shard(path: Path, shard: pairset.Shard, size: int, pool: np.ndarray, vocab: int, tokens: int) -> None:
    ids, label, code = (np.asarray(shard[name]) for name in pairset.FIELDS)
    wrong = {
        "ids of another shard": pairset.name_of(int(ids[0]), size) != path.name,
        "ids with gaps": not np.array_equal(ids, np.arange(ids[0], ids[0] + len(ids))),
        "labels that this run does not draw": not np.isin(label, pool).all(),
        f"codes outside 0..{vocab - 1}": not (code < vocab).all(),
        f"codes of another shape than ({len(ids)}, {tokens})": code.shape != (len(ids), tokens),
    }
    for what, is_wrong in wrong.items():
        if is_wrong:
            raise UserError(f"pair shard {path} has {what}: delete it and run --stage=pairs again")


def agreement(
    found: pairset.PairSet,
    models: Models,
    params: dict[str, Params],
    conditions: Conditions,
    seed: int,
    batch: int,
) -> float:
    """Share of tokens that one parallel pass of teacher and flow gives again, in `batch` pairs spread over the set."""
    rows = found.rows(np.linspace(0, len(found) - 1, min(batch, len(found))).astype(int))
    code = jnp.asarray(rows["code"].astype(np.int32))
    codebook = models.tokenizer.codebook(params["tokenizer"])
    keys = rng.example_keys(rng.stream(seed, "pairs"), jnp.asarray(rows["id"]))
    noise = noise_for(keys, models.layout.tokens, codebook.shape[-1])
    none = jnp.zeros(len(code), jnp.int32)
    draft = Draft(codebook[code], code, none, none)
    again = advance(Op("J"), models, params, conditions(rows["label"]), noise, keys, draft, 1, models.knobs)
    return float(jnp.mean(again.code_BxL == code))
