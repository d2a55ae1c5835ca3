"""Score the teacher, every plan and the baselines on shared noises: results.jsonl and the picture grids."""

import dataclasses
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dd_jax.data.conditions import Conditions, assign
from dd_jax.data.examples import Examples, Pixels, at_once
from dd_jax.data.pictures import Pictures
from dd_jax.data.sampleset import to_uint8
from dd_jax.method.interfaces import Cond, Draft, Params
from dd_jax.metrics import scores
from dd_jax.metrics.classified import Captions, References, classified, look
from dd_jax.report.rows import picture_key
from dd_jax.stages.lineup import Row, rows
from dd_jax.stages.pairs import sample_codes
from dd_jax.stages.parts import System
from dd_jax.system import files, rng
from dd_jax.system.progress import Progress
from dd_jax.system.sharding import ALONE, Placement

KEEP = 20  # pictures of a row that are kept


@dataclasses.dataclass(frozen=True)
class Samples:
    """What one generator made of the shared noises."""

    code: np.ndarray  # (M, L)
    exact: np.ndarray  # (M,) certified steps
    sweeps: np.ndarray  # (M,)
    features: np.ndarray  # (M, F) of the classifier; F = 0 without one
    seen: np.ndarray  # (M, K) logits of the classifier; K = 0 without one
    nll: np.ndarray  # (M,) mean over tokens under the guided teacher
    images: np.ndarray  # uint8, the first few
    ms_per_image: float


def sample_rows(
    system: System,
    params: dict[str, Params],
    conditions: Conditions,
    row: Row,
    label: np.ndarray,
    seed: int,
    batch: int,
    keep: int,
    placement: Placement = ALONE,
) -> Samples:
    """Run one generator on noises 0..count-1 of the evaluation stream and look at the results.

    Devices share each batch, rounded up to equal parts; `params` are where `placement` puts them.
    """
    root = rng.stream(seed, "evaluate")
    batch = min(batch, row.count)
    batch += -batch % placement.rows

    def draw(id_B: jax.Array, cond: Cond) -> tuple[Draft, jax.Array]:
        draft = row.generate(params, cond, rng.example_keys(root, id_B))
        return draft, decode(system, params["tokenizer"], draft.token_BxLxC)

    parts, images, times = [], [], []
    for first in range(0, row.count, batch):
        ids = np.arange(first, first + batch, dtype=np.int32)
        ids, cond = placement.batch((jnp.asarray(ids), conditions(np.resize(label[first : row.count], batch))))
        begin = time.perf_counter()
        draft, img = jax.block_until_ready(draw(ids, cond))
        times.append(time.perf_counter() - begin)
        features, seen, nll = inspect(system, params, cond, draft.code_BxL, img)
        parts.append([np.asarray(x) for x in (draft.code_BxL, draft.exact_B, draft.sweeps_B, features, seen, nll)])
        if first < keep:
            images.append(to_uint8(img))
    code, exact, sweeps, features, seen, nll = (
        np.concatenate(column)[: row.count] for column in zip(*parts, strict=True)
    )
    shown, steady = np.concatenate(images)[:keep], times[1:] or times  # the first call compiles
    ms = 1e3 * float(np.median(steady)) / batch
    return Samples(code, exact, sweeps, features, seen, nll, shown, ms)


@functools.partial(jax.jit, static_argnums=0)
def decode(system: System, params: Params, token_BxLxC: jax.Array) -> jax.Array:
    """Pictures, clamped: (B, R, R, channels) in [-1, 1]."""
    return jnp.clip(system.tokenizer.decode(params, token_BxLxC), -1, 1)


@functools.partial(jax.jit, static_argnums=0)
def inspect(
    system: System, params: dict[str, Params], cond: Cond, code_BxL: jax.Array, img: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Judge's features and logits of the images, and the codes' NLL per token under the guided teacher."""
    features, seen = jnp.zeros((len(img), 0)), jnp.zeros((len(img), 0))
    if system.classifier is not None:
        features = system.classifier.features(params["classifier"], img)
        seen = system.classifier.logits(params["classifier"], img)
    logits = system.models.teacher.parallel(params["teacher"], cond, code_BxL)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits, code_BxL)
    return features, seen, nll.mean(-1)


def teacher_reference(
    system: System,
    params: dict[str, Params],
    conditions: Conditions,
    label: np.ndarray,
    batch: int,
    seed: int,
    placement: Placement = ALONE,
) -> np.ndarray:
    """Features of teacher samples of other noises: the reference of `fd_teacher`."""
    ids = np.arange(len(label), dtype=np.int32)
    root, codebook = rng.stream(seed, "reference"), system.tokenizer.codebook(params["tokenizer"])
    parts = []
    batch += -batch % placement.rows
    for code in sample_codes(system.models, params, root, ids, label, batch, conditions, placement):
        token = placement.batch(codebook[np.pad(code, ((0, batch - len(code)), (0, 0)))])
        parts.append(np.asarray(decode(system, params["tokenizer"], token))[: len(code)])
    assert system.classifier is not None
    return look(system.classifier, params["classifier"], np.concatenate(parts))[0]


def score(row: Row, made: Samples, teacher: Samples, label: np.ndarray, references: References | None) -> dict:
    """One object of results.jsonl."""
    count = len(made.code)
    agree = made.code == teacher.code[:count]
    result: dict[str, Any] = {
        "generator": row.name,
        "plan": row.plan,
        "steps": row.steps,
        **classified(made.features, made.seen, label, references),
        "nll": float(np.mean(made.nll)),
        "agreement": float(np.mean(agree)),
        "ms_per_image": made.ms_per_image,
        "n": count,
    }
    if references is not None:
        own, theirs = (scores.within_class(x.features[:count], label[:count]) for x in (made, teacher))
        result["spread"] = own / theirs if own is not None and theirs else None  # below 1: pictures of a class alike
    if row.tau is not None:
        result["tau"] = row.tau
    if made.sweeps.any():
        result |= {
            "sweeps": float(np.mean(made.sweeps)),
            "exact": float(np.mean(made.exact)),
            "identical": float(np.mean(agree.all(-1))),
        }
    if row.steps is None:
        result["steps"] = round(1 + float(np.mean(made.sweeps)), 2)
    return result


@dataclasses.dataclass(frozen=True)
class Split:
    """Conditions that are scored together; `name` is empty where there is only one split."""

    name: str
    pool: np.ndarray  # numbers of the conditions
    real: Pixels | None  # pictures that no model was trained on; without them nothing is judged
    example: Callable[[np.ndarray], np.ndarray] | None = None  # numbers -> a real picture of each
    names: Sequence[str] = ()  # of all conditions by number, where a picture says more with one
    classes: Callable[[np.ndarray], np.ndarray] | None = None  # numbers -> classes of the classifier; none: the same


def splits_of_captions(conditions: Conditions, pictures: Pictures) -> list[Split]:
    """Captions that were trained on, and those that were not, if any; the example of each is its first picture."""
    seen, other = pictures.references()
    classes = pictures.classes_of if pictures.own else None
    split = functools.partial(Split, example=pictures.example, names=pictures.captions, classes=classes)
    if not len(conditions.held_out):
        return [split("", conditions.pool, seen)]
    return [split("seen", conditions.pool, seen), split("held out", conditions.held_out, other)]


def run(
    system: System,
    params: dict[str, Params],
    conditions: Conditions,
    config: ConfigDict,
    workdir: Path,
    splits: Sequence[Split],
    seed: int,
    placement: Placement = ALONE,
) -> list[dict]:
    """All rows of all splits -> results.jsonl and grids.npz; returns the rows. Baselines are of the first split."""
    params = placement.put(params, fsdp=False)
    todo = list(rows(system, config, workdir))
    trained = [row for row in todo if row.name in ("teacher", "student")]
    results: list[dict] = []
    grids: dict[str, np.ndarray] = {}
    shown = sum(2 for split in splits if split.example)  # real pictures, reconstructions
    total = len(todo) + (len(splits) - 1) * len(trained) + len(splits) + shown
    with Progress(total, "evaluate", unit="rows") as progress:
        for i, split in enumerate(splits):
            given = system, params, conditions, config, split, trained if i else todo, seed
            for result, images in run_split(*given, placement=placement):
                if result is not None:
                    results.append(result)
                    grids[picture_key(result)] = images
                numbers = {key: (result or {}).get(key) for key in ("fd", "fd_teacher", "nll", "agreement")}
                progress.update(**{key: value for key, value in numbers.items() if value is not None})
    for split in splits:
        if split.names:
            first = assign(split.pool, np.arange(KEEP), "balanced", seed)
            grids[f"names|{split.name}"] = np.array([split.names[i] for i in first])
    files.replace(workdir / "results.jsonl", "".join(json.dumps(r) + "\n" for r in results).encode())
    save_grids(workdir / "grids.npz", grids)
    return results


def run_split(
    system: System,
    params: dict[str, Params],
    conditions: Conditions,
    config: ConfigDict,
    split: Split,
    todo: Sequence[Row],
    seed: int,
    keep: int = KEEP,
    placement: Placement = ALONE,
) -> Iterator[tuple[dict | None, np.ndarray]]:
    """(result, the first pictures) of every row; before them, once the references are there, (None, none)."""
    settings, classifier = config.evaluate, system.classifier
    references: References | None = None
    teacher: Samples | None = None
    label = assign(split.pool, np.arange(settings.count), "balanced", seed)
    classes = split.classes(label) if split.classes else label
    if split.real is not None and classifier is not None:
        other = assign(split.pool, np.arange(settings.reference), "balanced", seed)
        references = References(
            look(classifier, params["classifier"], split.real)[0],
            teacher_reference(system, params, conditions, other, settings.batch, seed, placement),
            _captions(system, params, split, label),
        )
    yield None, np.zeros(0)
    name = {"split": split.name} if split.name else {}
    for kind, img in _shown_to(system, params, split, label):
        seen = (
            look(classifier, params["classifier"], img) if classifier and references else (np.zeros((len(img), 0)),) * 2
        )
        given = {"generator": kind, "plan": "", **classified(seen[0], seen[1], classes, references), "n": len(img)}
        if kind == "reconstruction":
            error = np.mean((img - split.example(label)) ** 2, (1, 2, 3)) if split.example else np.ones(1)
            given["psnr"] = float(np.mean(10 * np.log10(4 / error)))  # of pictures in [-1, 1]
        yield name | given, to_uint8(jnp.asarray(img[:keep]))
    for row in todo:
        made = sample_rows(system, params, conditions, row, label, seed, settings.batch, keep, placement)
        teacher = teacher or made
        result = score(row, made, teacher, classes, references)
        yield name | result, made.images


def _captions(system: System, params: dict[str, Params], split: Split, label: np.ndarray) -> Captions | None:
    """Where captions are no classes: a real picture of each, as the classifier sees it."""
    if split.example is None or split.classes is None or system.classifier is None:
        return None
    example, (different, place) = split.example, np.unique(label, return_inverse=True)
    real = Examples(lambda at: example(different[at]), len(different), ())
    return Captions(look(system.classifier, params["classifier"], real)[0], place)


def _shown_to(
    system: System, params: dict[str, Params], split: Split, label: np.ndarray
) -> Iterator[tuple[str, np.ndarray]]:
    """What the teacher learnt from: a real picture of each condition, and what the tokenizer leaves of it."""
    if split.example is None:
        return
    real = split.example(label)
    yield "real", real
    yield "reconstruction", np.concatenate(list(_reconstructions(system, params["tokenizer"], real)))


def _reconstructions(system: System, params: Params, img: np.ndarray) -> Iterator[np.ndarray]:
    """Of as many pictures at once as their size allows."""
    encode, codebook, batch = jax.jit(system.tokenizer.encode), system.tokenizer.codebook(params), at_once(img)
    for first in range(0, len(img), batch):
        yield np.asarray(decode(system, params, codebook[encode(params, img[first : first + batch])]))


def save_grids(path: Path, grids: dict[str, np.ndarray]) -> None:
    """Sample pictures by row, for the report."""
    import io

    buffer = io.BytesIO()
    np.savez_compressed(buffer, **grids)  # type: ignore[arg-type]
    files.replace(path, buffer.getvalue())
