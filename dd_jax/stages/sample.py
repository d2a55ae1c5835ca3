"""Stage `sample`: images of any plan, by the thousand and resumable; as shards, one .npz and a picture each.

`samples/` holds all classes or captions, `samples/fast/` the few of a quick score, `samples/named/` what `--labels`
or `--prompt` asked for, `samples/prompts/` a file of captions. Pictures of captions and of named classes also lie there
one by one, as <plan>_images/.
"""

import dataclasses
import functools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dd_jax.data import captioned, labels
from dd_jax.data.conditions import Conditions, assign
from dd_jax.data.sampleset import SampleSet, slug
from dd_jax.method import baselines
from dd_jax.method.interfaces import Params
from dd_jax.method.plans import parse
from dd_jax.report import sets as pictures
from dd_jax.stages.parts import System
from dd_jax.stages.sampler import Finish, compile_both, decoder, sampler
from dd_jax.stages.workdir import digest
from dd_jax.system import rng, weights
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.text.prompts import Prompts, read

AHEAD = 2  # batches that devices work on while the host stores earlier ones
FAST = 5000  # images of a quick score


class Sampling:
    """What a config samples, and how: a set of images of every plan or baseline.

    `load` gives the parameters of these parts (see `pipeline.load_params`; for baselines "marginals", of the pairs);
    it is called when they are needed.
    """

    def __init__(
        self,
        system: System,
        config: ConfigDict,
        workdir: Path,
        load: Callable[..., dict[str, Params]],
        placement: Placement = ALONE,
    ) -> None:
        self.system, self.config, self._load, self.placement = system, config, load, placement
        settings = config.sample
        self.plans: tuple[str, ...] = tuple(dict.fromkeys(settings.plans))
        self.asked = asked_for(system, settings)
        named = bool(settings.labels or settings.prompt)
        self.finish = Finish(None if named else settings.resolution, settings.rounding)
        self.count = settings.few if named else FAST if settings.fast else settings.count
        if settings.prompts:
            self.count = len(self.asked or ())
        kind = "named" if named else "prompts" if settings.prompts else "fast" if settings.fast else ""
        self.folder, self._identity = workdir / "samples" / kind, dict[str, dict[str, str]]()
        batch = min(settings.batch, self.count)
        self.batch = batch + -batch % placement.rows
        if min(self.count, settings.batch, settings.shard) < 1:
            raise UserError("config.sample.count, .few, .batch and .shard must be at least 1")
        if settings.scheme not in ("balanced", "uniform"):
            raise UserError(f"config.sample.scheme is {settings.scheme!r}: choose balanced or uniform")

    @property
    def seed(self) -> int:
        """Of the drawing, which may be another one than the run's."""
        own = self.config.sample.get("seed")
        return int(self.config.seed if own is None else own)

    @functools.cached_property
    def params(self) -> dict[str, Params]:
        """Of everything that the plans run, where the mesh wants it: whole along `data`, as pairs have it."""
        parts = dict.fromkeys(part for plan in self.plans for part in self.parts(plan))
        return self.placement.put(self._load(*parts), fsdp=False)

    @functools.cached_property
    def conditions(self) -> Conditions:
        """What may be drawn, by number."""
        return self.system.conditions(self.params, self.asked)

    def parts(self, plan: str) -> list[str]:
        """The networks that a plan runs, and for a baseline the marginals that it draws from."""
        steps, text = self.system.layout.steps, ["text"] * (self.system.text is not None)
        if baselines.known(plan):
            networks = baselines.networks(plan)
            if self.asked and "marginals" in networks:
                raise UserError(f"{plan!r} has marginals of the captions of its pairs, not of given ones: leave it out")
            return ["tokenizer", *text, *networks]
        kinds = {op.kind for op in parse(plan, steps, self.system.objective.timesteps)}
        return ["tokenizer", *text, *["teacher"] * bool(kinds - {"S"}), *["student"] * ("S" in kinds)]

    def identity(self, part: str) -> dict[str, str]:
        """Which weights: what the ported folder says of itself, else a checksum of what was trained here."""
        if part not in self._identity:
            folder = self.config.weights.get(part)
            if folder:
                about = weights.describe(folder)
                self._identity[part] = {"id": str(about.get("id")), "sha256": str(about.get("sha256"))}
            else:
                self._identity[part] = {"id": part, "sha256": digest(self.params[part])}
        return self._identity[part]

    def settings(self, plan: str) -> dict[str, Any]:
        """All that the images of a plan depend on."""
        config, models, sample = self.config, self.system.models.of(plan), self.config.sample
        drawn = models.categorical and "T" in plan
        return {
            "plan": plan,
            "count": self.count,
            "fast": sample.fast and not sample.labels,
            "shard": sample.shard,
            "seed": self.seed,
            "labels": sample.labels or sample.scheme,
            **({"prompts": self.prompts.sha256} if self.prompts else {}),
            "split": models.split,
            "guidance": config.guidance,
            "cfg_interval": config.cfg_interval,
            "dtype": config.dtype.to_dict(),
            "teacher_draws": dataclasses.asdict(models.draw) | {"smooth": models.smooth} if drawn else "by flow",
            "flow": {**config.flow.to_dict(), **config.filter.to_dict()},
            "unmasked_prefix": sample.unmasked_prefix,
            "resolution": self.finish.resolution or config.data.resolution,
            "rounding": sample.rounding,
            "weights": {part: self.identity(part) for part in self.parts(plan)},
        }

    def set_of(self, plan: str) -> SampleSet:
        """The set on disk, begun or not. UserError if another run's is in its place; named classes replace theirs."""
        named = bool(self.config.sample.labels or self.config.sample.prompt)
        return SampleSet(self.folder / slug(plan), self.settings(plan), replace=named)

    def label(self, ids: np.ndarray) -> np.ndarray:
        """What these images show, by number: classes of `sample.labels` or given captions in turn, else by scheme."""
        sample, data = self.config.sample, self.config.data
        if sample.labels:
            found = labels.find(sample.labels, data.name, data.classes, data.get("class_names") or ())
            return np.asarray(found, np.int32)[ids % len(found)]
        if self.asked:
            return (ids % len(self.asked)).astype(np.int32)
        return assign(self.conditions.pool, ids, sample.scheme, self.seed)

    @property
    def prompts(self) -> Prompts | None:
        """The captions that numbers stand for; none where classes are drawn."""
        return self.asked or (self.system.text.prompts if self.system.text else None)

    @property
    def names(self) -> Sequence[str]:
        """What the named classes, or the given prompt, are called, by number; empty where nothing was named."""
        sample, data = self.config.sample, self.config.data
        if sample.labels:
            return labels.short(data.name, data.classes, data.get("class_names") or ())
        return self.asked.captions if self.asked and sample.prompt else ()

    def images(self, plan: str, pieces: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """uint8 images of each piece, which are at most `batch` ids: padded, never dropped, next ones on their way."""
        given = {part: self.params[part] for part in self.parts(plan)}, rng.stream(self.seed, "sample")
        run = sampler(self.system, plan, self.placement), decoder(self.system, self.finish, self.placement)
        if self.placement.mesh is None:
            shape = self.batch, self.system.layout.tokens, self.system.tokenizer.code_dim
            compile_both(*run, (given, *self._rows(np.zeros(1, np.int32))), shape)
        draw, show = run
        drawn = ((draw(given, *self._rows(ids)), len(ids)) for ids in pieces)
        return _ahead((show(given[0]["tokenizer"], token_BxLxC), count) for token_BxLxC, count in drawn)

    def _rows(self, ids: np.ndarray) -> Any:
        padded = np.pad(ids, (0, self.batch - len(ids)))
        return self.placement.batch((jnp.asarray(padded), self.conditions(self.label(padded))))


def asked_for(system: System, settings: ConfigDict) -> Prompts | None:
    """Captions that a user gave. UserError where the model draws classes, or for two wishes at once."""
    if settings.prompt and settings.prompts:
        raise UserError("--prompt and --prompts: give one of them")
    if not (settings.prompt or settings.prompts):
        return None
    if system.text is None:
        raise UserError("this config draws classes, not captions: use --labels")
    return Prompts.of(settings.prompt) if settings.prompt else read(settings.prompts)


def _ahead(batches: Iterable[tuple[jax.Array, int]]) -> Iterator[np.ndarray]:
    """Images on the host, while devices work on the next `AHEAD` batches."""
    waiting = deque[tuple[jax.Array, int]]()
    for batch in batches:
        waiting.append(batch)
        if len(waiting) > AHEAD:
            images, count = waiting.popleft()
            yield np.asarray(images)[:count]
    for images, count in waiting:
        yield np.asarray(images)[:count]


def run(sampling: Sampling) -> list[Path]:
    """Every plan of `config.sample.plans` -> its shards, <plan>.npz (`arr_0` uint8, `label`) and <plan>.png."""
    sets = {plan: sampling.set_of(plan) for plan in sampling.plans}
    todo = {plan: made.missing() for plan, made in sets.items()}
    left = sum(len(ids) for shards in todo.values() for ids in shards.values())
    total = sampling.count * len(sets)
    with Progress(total, "sample", "images", initial=total - left) as progress:
        for plan, missing in todo.items():
            if missing:
                _fill(sampling, plan, sets[plan], missing, progress)
    written = []
    for made in sets.values():
        if sampling.config.sample.npz:
            written.append(made.export())
        names = sampling.names
        written.append(pictures.named_png(made, names) if names else made.picture())
        if sampling.prompts is not None:
            written.append(captioned.write(made, sampling.prompts.captions))
        elif names:
            written.append(captioned.write(made, names, named=True))
    return written


def _fill(sampling: Sampling, plan: str, made: SampleSet, missing: dict[str, np.ndarray], progress: Progress) -> None:
    """Draw and store these shards; a thread stores one while the next is drawn."""
    batch = sampling.batch
    pieces = (ids[i : i + batch] for ids in missing.values() for i in range(0, len(ids), batch))
    images, device = sampling.images(plan, pieces), device_of(sampling.placement)
    images = _timed(images, times := list[float]())
    stored: Future | None = None
    with ThreadPoolExecutor(1) as pool:
        for name, ids in missing.items():
            parts: list[np.ndarray] = []
            while sum(map(len, parts)) < len(ids):
                parts.append(next(images))
                progress.update(len(parts[-1]))
            if stored is not None:
                stored.result()  # at most one shard waits
            ms = 1e3 * float(np.median(times[1:] or times)) / batch  # the first batch was compiled for
            del times[1:]
            stored = pool.submit(made.write, name, np.concatenate(parts), sampling.label(ids), ms, device, batch)
        if stored is not None:
            stored.result()


def _timed(images: Iterator[np.ndarray], times: list[float]) -> Iterator[np.ndarray]:
    """The same, and the seconds from each one to the next."""
    last = time.perf_counter()
    for some in images:
        now = time.perf_counter()
        times.append(now - last)
        last = now
        yield some


def device_of(placement: Placement) -> str:
    """8 x NVIDIA H100."""
    devices = jax.devices()[:1] if placement.mesh is None else list(placement.mesh.devices.flat)
    return f"{len(devices)} x {devices[0].device_kind}"
