"""The stages of a run, in order: what each reads, does and writes."""

import functools
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from dd_jax.data import pairset
from dd_jax.data.conditions import Conditions
from dd_jax.data.pictures import Pictures, known
from dd_jax.method import baselines, losses
from dd_jax.method.interfaces import Params
from dd_jax.report import build
from dd_jax.stages import evaluate, fid, pairs, pretrain, publish, sample, speed, train, verify
from dd_jax.stages.parts import PARTS, System, load_params, missing
from dd_jax.stages.sample import Sampling
from dd_jax.stages.workdir import STAGES, Workdir, digest
from dd_jax.system import files, flops, processes, stopping
from dd_jax.system.errors import UserError
from dd_jax.system.rng import stream
from dd_jax.system.sharding import ALONE, Placement, make_mesh
from dd_jax.training import preview
from dd_jax.training.log import Extras
from dd_jax.training.loop import Recipe

# What must be there before a stage can run.
NEEDS = {
    "pretrain": (),
    "pairs": ("pretrain",),
    "train": ("pretrain", "pairs"),
    "sample": ("pretrain", "train"),
    "evaluate": ("pretrain", "pairs", "train"),
    "speed": (),
    "report": ("evaluate",),
}


class Run:
    """One config in one work directory."""

    def __init__(self, system: System, config: ConfigDict, workdir: str | Path):
        self.system, self.config = system, config
        self.work = Workdir(workdir, config.to_dict())
        self._loaded: dict[str, Params] = {}

    @functools.cached_property
    def placement(self) -> Placement:
        """Where pairs, train and sample keep their arrays. UserError if config.mesh does not fit the devices."""
        mesh = make_mesh(self.config.mesh)
        return Placement(mesh, self.system.rules) if mesh.size > 1 else ALONE

    @functools.cached_property
    def own_placement(self) -> Placement:
        """The same over this process's devices alone, for what processes do without each other."""
        if processes.count() == 1:
            return self.placement
        mesh = make_mesh((-1, max(self.config.mesh[1], 1)), jax.local_devices())
        return Placement(mesh, self.system.rules) if mesh.size > 1 else ALONE

    def stage(self, name: str) -> None:
        """Run one stage and record its time."""
        self.work.require(name, self.needs(name))
        self.work.begin(name)
        begin, done = time.perf_counter(), False
        try:
            wrote = getattr(self, name)()
            done = True
        finally:
            seconds = time.perf_counter() - begin
            self.work.spent(name, seconds, flops.matmul_rate(repeats=5), done)
        print(f"{name}: wrote {wrote}", flush=True)

    def needs(self, name: str) -> list[str]:
        """The stages that must be done before `name`; ready weights stand for those that would train them."""
        ready = {"pretrain"} if self.ready else set()
        ready |= {"train"} if self.config.weights.student else set()
        scored = name == "evaluate" and bool(self.config.evaluate.inception)
        if (name == "sample" or scored) and self.config.weights.tokenizer and self.config.weights.student:
            ready |= {"pretrain"}
        return [stage for stage in NEEDS["sample" if scored else name] if stage not in ready]

    def check_distance(self) -> None:
        """UserError, before hours of work, if training could not compute its distance."""
        ported = self.config.weights
        losses.slices(self.config.train.batch, self.system.objective.distance_batch)
        if self.system.lpips is not None:
            self.system.lpips.check(self.config.data.resolution)
            if not (ported.lpips or ported.random or ported.student):
                raise UserError(missing("lpips"))

    @property
    def ready(self) -> str:
        """What tokenizer and teacher there are without training any, in words."""
        ported = self.config.weights
        if bool(ported.tokenizer) and bool(ported.teacher):
            return f"{ported.tokenizer} and {ported.teacher} are ready"
        return "tokenizer and teacher are random" if ported.random else ""

    def pretrain(self) -> Any:
        """Classifier, tokenizer, teacher on augmented pictures."""
        if self.ready:
            return f"nothing: {self.ready}"
        if not known(self.config.data.name):
            raise UserError(
                f"no tokenizer and teacher for {self.config.data.name}: port published ones (python -m port_weights "
                "list) and name both folders, --config.weights.tokenizer=... --config.weights.teacher=...; or try the "
                "path with random ones, --config.smoke=true"
            )
        settings, seed = self.config.pretrain, self.config.seed
        img, label = self.pictures.training()
        classifier, tokenizer, teacher = (Recipe.of(settings[k]) for k in ("classifier", "tokenizer", "teacher"))
        if self.system.classifier is not None:
            seen = self.pictures.for_classifier(self.system.text is not None)
            pretrain.train_classifier(self.system.classifier, self.work / "classifier", classifier, *seen, seed)
        codes = pretrain.train_tokenizer(
            self.system, self.work / "tokenizer", tokenizer, img, seed, settings.tokenizer.revive_every
        )
        code = pretrain.encode(self.system, codes, img)
        regularization = pretrain.Regularization.of(settings.teacher)
        pretrain.train_teacher(self.system, self.work / "teacher", teacher, codes, code, label, seed, regularization)
        return f"{self.work / 'classifier'}, tokenizer, teacher"

    def pairs(self) -> Any:
        """Algorithm 1."""
        settings, params = self.config.pairs, self.params("tokenizer", "text", "teacher")
        facts = {
            "teacher": digest(params["teacher"]),
            "guidance": self.config.guidance,
            "cfg_interval": self.config.cfg_interval,
            "dtype": self.config.dtype.teacher,
            "filter": self.config.filter.to_dict(),
            "flow": self.config.flow.to_dict(),
        }
        if self.system.text is not None:
            facts["prompts"] = self.system.text.prompts.sha256
        first, conditions = settings.first or 0, self.system.conditions(params)
        folder, models, seed = self.work / "pairs", self.system.models, self.config.seed
        if settings.verify:
            facts |= {"seed": seed, "labels": settings.labels, "first": first}
            vocab = self.system.tokenizer.vocab
            return verify.verify(folder, models, params, conditions, vocab, settings.batch, facts)
        pairs.generate(
            folder,
            models,
            params,
            settings.count,
            settings.shard,
            settings.batch,
            seed,
            conditions,
            settings.labels,
            facts,
            self.own_placement,
            first,
        )
        return folder / pairset.MANIFEST

    def train(self) -> Any:
        """Algorithm 2."""
        if self.config.weights.student:
            return f"nothing: {self.config.weights.student} is ready"
        system, params = (
            self.system,
            self.params("classifier", "lpips", "tokenizer", "text", "teacher", dtype="float32"),
        )
        start = system.student.init_from_teacher(stream(self.config.seed, "init"), params["teacher"]["trunk"])
        frozen = train.frozen_for(system.tokenizer, params)
        distance = train.distance_of(system.objective, system.tokenizer, system.classifier, system.lpips)
        found = pairset.load(self.work / "pairs")
        settings, conditions = Recipe.of(self.config.train), system.conditions(params)
        train.run(
            self.work / "student",
            settings,
            system.objective,
            system.student,
            start,
            frozen,
            distance,
            found,
            conditions,
            self.config.seed,
            self.placement,
            self._extras(params, conditions),
        )
        return f"{self.work / 'student'} and {publish.run(self.config, self.work.path, self.params)}"

    def _extras(self, params: dict[str, Params], conditions: Conditions) -> Extras:
        """What training tells besides its curve."""
        settings, folder = self.config.train, self.work / "student" / "grids"
        look = None
        if settings.grid_every:
            look = preview.previewer(
                folder, self.system.models, params, self.system.conditions(params), self.config.seed, self.placement
            )
        return Extras(tuple(settings.log), preview=look, preview_every=settings.grid_every)

    def sample(self) -> Any:
        """Pictures."""
        return ", ".join(map(str, sample.run(self.sampling())))

    def sampling(self) -> Sampling:
        """What `config.sample` describes."""
        return Sampling(self.system, self.config, self.work.path, self.params, self.placement)

    def evaluate(self) -> Any:
        """scores/*.json of what was sampled, where an Inception is named; results.jsonl, where there is a teacher."""
        wrote = []
        if self.config.evaluate.inception:
            wrote += fid.run(self.sampling(), self.config.evaluate, self.work.path)
        elif self.system.classifier is None:
            print(f"evaluate: {fid.HINT}", flush=True)
        teacher = self.ready or self.work.done("pretrain")
        if not wrote or (teacher and not (self.work / "results.jsonl").exists()):
            wrote.append(self._beside_teacher())
        return ", ".join(map(str, wrote))

    def _beside_teacher(self) -> Path:
        """results.jsonl: all rows on shared noises."""
        given = self.config.baselines
        params = self.params(*PARTS, *["marginals"] * bool(given.onestep or given.skip or given.skip_drop))
        conditions = self.system.conditions(params)
        held = None if self.system.classifier is None else self.pictures.held_out()[0]
        splits = [evaluate.Split("", conditions.pool, held)]
        if self.system.text is not None and len(conditions.held_out):
            splits = evaluate.splits_of_captions(conditions, self.pictures, self.system.text.prompts.captions)
        evaluate.run(self.system, params, conditions, self.config, self.work.path, splits, self.config.seed)
        return self.work / "results.jsonl"

    def speed(self) -> Any:
        """speed.json."""
        ported, random = self.config.weights, [part for part in PARTS if not (self.work / part).exists()]
        parts = (*PARTS, "lpips") if self.config.speed.training else PARTS
        params = self.params(*parts, random=[*random, "lpips"])
        random = [part for part in random if not ported.get(part) and part in params]
        print(speed.run(self.system, params, self.config, self.work.path, random), flush=True)
        return self.work / "speed.json"

    def report(self) -> Any:
        """report.html."""
        return build.from_workdir(self.work.path, self.config.to_dict(), self.work.record)

    def params(self, *parts: str, random: Sequence[str] = (), dtype: str | None = None) -> dict[str, Params]:
        """What the finished stages have left, all of it or these parts (see `pipeline.load_params`).

        "marginals" are those of the pairs, for baselines.
        """
        random = random or ((*PARTS[:-1], "lpips") if self.config.weights.random else ())
        networks = [part for part in parts or PARTS if part != "marginals"]
        params = load_params(self.system, self.config, self.work.path, networks, random, dtype, self._loaded)
        self._loaded |= {
            part: params[part] for part in ("classifier", "tokenizer") if part in params
        }  # small ones stay
        if "marginals" in parts:
            found, pool = pairset.load(self.work / "pairs"), self.system.conditions(params).pool
            params["marginals"] = baselines.marginals(found.code, found.label, pool)
        return params

    @functools.cached_property
    def pictures(self) -> Pictures:
        """What this config trains tokenizer and teacher on."""
        return Pictures(self.config.data, self.config.seed)


def run(system: System, config: ConfigDict, workdir: str | Path, stage: str) -> None:
    """One stage, or all that are not done."""
    here = Run(system, config, workdir)
    here.work.check("train")
    todo: list[str] = [stage]
    if stage == "all":
        first = next((name for name in STAGES if not here.work.done(name)), None)
        # A stage that ran again makes the later ones stale.
        todo = list(STAGES[STAGES.index(first) :]) if first else ["report"]
    if {"pairs", "train", "sample"} & {*todo}:
        _ = here.placement  # now, not hours later
    if processes.count() > 1 and not {*todo} <= {"pairs", "train"}:
        raise UserError(f"--stage={stage} runs in one process; several share the work of --stage=pairs or train")
    if processes.is_first():
        files.replace(here.work / "config.json", json.dumps(config.to_dict(), indent=1).encode())
    if "train" in todo:
        here.check_distance()
    for name in todo:
        if stopping.asked():
            raise stopping.Stopped(f"stopped before --stage={name}")
        here.stage(name)
