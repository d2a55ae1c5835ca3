"""Stage `evaluate` by the network that FID is defined by: scores/*.json of what `--stage=sample` wrote.

A result's name ends in a digest of all that it depends on, so that one that is there is never computed again and
those of other settings lie beside it: scores/S0.adm.50000.1a2b3c4d.json.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from dd_jax.data.images import Images
from dd_jax.data.sampleset import rgb, slug
from dd_jax.method import baselines, plans
from dd_jax.metrics import inception, protocols
from dd_jax.metrics.features import Extractor
from dd_jax.metrics.reference import Reference, read
from dd_jax.metrics.score import Options, features_of, score, table
from dd_jax.stages.sample import Sampling, device_of
from dd_jax.system import files, weights
from dd_jax.system.errors import UserError

FOLDER = "scores"
HINT = (
    "no FID without the network and a reference: python -m port_weights inception --out weights, then --stage=evaluate "
    "--config.evaluate.inception=weights/inception --config.evaluate.reference_statistics=REFERENCE.npz, which is "
    "ADM's VIRTUAL_imagenet256_labeled.npz or what python -m dd_jax.metrics.reference writes"
)


def check_network(settings: ConfigDict) -> None:
    """UserError for a folder `config.evaluate.inception` that does not hold the network of FID."""
    folder = settings.inception
    inception.check_folder(folder)
    if (found := weights.describe(folder).get("part", "inception")) != "inception":
        raise UserError(f"config.evaluate.inception={folder} holds a {found}, not the network of FID: {HINT}")


def extractor(settings: ConfigDict) -> Extractor:
    """That network under the protocol of `config.evaluate`."""
    network, protocol = inception.load(settings.inception), protocols.find(settings.protocol)
    return Extractor(network, protocol, settings.features_batch, settings.products)


@dataclasses.dataclass
class Scorer:
    """The network under a protocol, and what samples are compared with; both read when first needed."""

    settings: ConfigDict

    def __post_init__(self) -> None:
        self.protocol = protocols.find(self.settings.protocol)
        self.options = Options(self.settings.distances, self.settings.extras, self.settings.force)
        if not self.settings.reference_statistics:
            raise UserError(
                f"config.evaluate.inception is named and config.evaluate.reference_statistics is not: {HINT}"
            )
        self._ready: tuple[Extractor, Reference] | None = None

    def identity(self) -> dict[str, Any]:
        """All that a score depends on besides the samples."""
        return {
            "protocol": self.protocol.name,
            "reference": weights.sha256(self._file),
            "inception": weights.describe(self.settings.inception).get("sha256"),
            "products": self.settings.products,
            **dataclasses.asdict(self.options),
        }

    def check(self) -> None:
        """UserError, before anything is drawn or computed, for a network or a reference that cannot be used."""
        check_network(self.settings)
        self.reference()

    @property
    def _file(self) -> Path:
        path = Path(self.settings.reference_statistics)
        if not path.is_file():
            raise UserError(f"config.evaluate.reference_statistics: no file {path}: {HINT}")
        return path

    def reference(self) -> Reference:
        """What samples are compared with, as it lies in its file."""
        found = read(self._file)
        if not self.options.forced:
            found.refuse(self.protocol.name)
        return found

    def __call__(self, samples: Images) -> dict[str, Any]:
        """`metrics.score.score`; features of reference images are made once for all plans."""
        if self._ready is None:
            reference, network = self.reference(), extractor(self.settings)
            if "precision" in self.protocol.scores:
                reference = dataclasses.replace(reference, features=features_of(reference, network))
            self._ready = network, reference
        network, reference = self._ready
        return score(network, samples, reference, self.options)


def run(sampling: Sampling, settings: ConfigDict, workdir: Path) -> list[Path]:
    """Scores of every plan of `config.sample.plans` -> their files. UserError for a plan without samples."""
    scorer, written = Scorer(settings), []
    identity = scorer.identity()
    found = {plan: _samples(sampling, plan, settings.memory) for plan in sampling.plans}  # all, before one is scored
    for plan, (images, more) in found.items():
        facts = {"sampling": sampling.settings(plan), **identity}
        path = workdir / FOLDER / f"{slug(plan)}.{scorer.protocol.name}.{sampling.count}.{_short(facts | more)}.json"
        if not path.exists():
            result = described(sampling, plan) | scorer(images)
            if not settings.memory:
                made = sampling.set_of(plan)
                batches = made.manifest.get("batches") or [None]  # earlier sets do not tell
                result |= {"ms_per_image": made.ms_per_image, "batch": batches[0] if len(batches) == 1 else None}
                result["sampled_on"] = made.manifest["devices"]
            files.replace(path, json.dumps(result | {"of": _short(facts | more)}, indent=1).encode())
            print(f"{plan}: {table(result, scorer.protocol)}", flush=True)
        written.append(path)
    return written


def described(sampling: Sampling, plan: str) -> dict[str, Any]:
    """What a result says of its samples."""
    settings, cost = sampling.settings(plan), (baselines if baselines.known(plan) else plans).cost
    return {
        "model": sampling.config.published or sampling.config.family,
        "plan": plan,
        "steps": cost(plan, sampling.system.layout.steps),
        "split": settings["split"],
        "guidance": settings["guidance"],
        "label_scheme": settings["labels"],
        "seed": settings["seed"],
        "sampling": settings,
        "ms_per_image": None,
        "sampled_on": [device_of(sampling.placement)],
    }


def _samples(sampling: Sampling, plan: str, memory: bool) -> tuple[Images, dict[str, Any]]:
    """The images of a plan, and what is known of them: those on disk, or drawn as they are looked at."""
    if memory:
        return Images(plan, sampling.count, lambda size: _drawn(sampling, plan, size)), {"memory": True}
    made = sampling.set_of(plan)
    if not made.finished:
        raise UserError(
            f"plan {plan!r} has no finished samples in {made.folder}: run --stage=sample first, with the same "
            "settings, or score without storing them, --config.evaluate.memory=true"
        )
    return made.images(), {"images": made.digest}


def _drawn(sampling: Sampling, plan: str, size: int) -> Iterator[np.ndarray]:
    """Images of a plan in order, `size` at a time, made on the way."""
    ids = np.arange(sampling.count, dtype=np.int32)
    pieces = (ids[i : i + sampling.batch] for i in range(0, len(ids), sampling.batch))
    rest: list[np.ndarray] = []
    for images in sampling.images(plan, pieces):
        rest.append(rgb(images))
        while sum(map(len, rest)) >= size:
            joined = np.concatenate(rest)
            yield joined[:size]
            rest = [joined[size:]]
    if sum(map(len, rest)):
        yield np.concatenate(rest)


def _short(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:8]
