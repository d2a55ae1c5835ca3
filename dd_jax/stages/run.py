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
from dd_jax.data.pictures import Pictures, captioned
from dd_jax.method import baselines
from dd_jax.method.interfaces import Params
from dd_jax.nn.stored import stored
from dd_jax.report import build
from dd_jax.stages import checks, evaluate, fid, lineup, pairs, parts, pretrain, publish, sample, speed, train, verify
from dd_jax.stages.parts import PARTS, System, load_params, trained_in
from dd_jax.stages.sample import Sampling
from dd_jax.stages.workdir import KEEP, STAGES, Folder, Workdir, digest
from dd_jax.system import files, flops, processes, stopping
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE, Placement, make_mesh
from dd_jax.text import noted
from dd_jax.training import preview
from dd_jax.training.log import Extras
from dd_jax.training.loop import Recipe


class Run:
    """One config in one work directory."""

    def __init__(self, system: System, config: ConfigDict, work: Workdir):
        self.system, self.config, self.work = system, config, work
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

    def stage(self, name: str, aside: bool = False) -> None:
        """Run one stage and record its time; `aside`: what a person draws by the way is not the run's."""
        if not aside:
            self.work.begin(name)
        begin, rate, done = time.perf_counter(), 0.0, False
        try:
            wrote = getattr(self, name)()
            done = True
        except (stopping.Stopped, KeyboardInterrupt):
            rate = flops.matmul_rate(repeats=5)
            raise
        finally:
            seconds = time.perf_counter() - begin
            if not aside:
                self.work.spent(name, seconds, flops.matmul_rate(repeats=5) if done else rate, done)
        print(f"{name}: wrote {wrote}", flush=True)

    def reads(self, stage: str) -> list[str]:
        """The parts that a stage reads: of `sample`, and of scores of samples, those that the plans run."""
        if stage == "sample" or (stage == "evaluate" and self.config.evaluate.inception):
            sampling = self.sampling
            return [part for plan in sampling.plans for part in sampling.parts(plan)]
        paired, _ = self.system.objective.rows(self.config.train.batch)
        needs = [part for part in checks.NEEDS[stage] if part != "pairs" or paired]
        return [*needs, *(self._marginals if stage == "evaluate" else ())]

    @property
    def _marginals(self) -> list[str]:
        """["marginals"] where a row of results draws from them."""
        return ["marginals"] * any("marginals" in baselines.networks(name) for name in lineup.samplers(self.config))

    @property
    def given(self) -> str:
        """Tokenizer and teacher that there are without training any, in words."""
        ported = self.config.weights
        if ported.random:
            return "tokenizer and teacher are random"
        both = ported.tokenizer and ported.teacher
        return f"{ported.tokenizer} and {ported.teacher} are ready" if both else ""

    def pretrain(self) -> Any:
        """Feature classifier, tokenizer, teacher on augmented pictures: those that are not given."""
        if self.given or self.work.source:
            return f"nothing: {self.given or self.work.borrowed('pretrain')}"
        pretrain.run(self.system, self.config, self.work.path, self.pictures, self.params, self.placement)
        return publish.run(self.config, self.work.path, self.params, publish.PRETRAINED)

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
        folder, models, seed = self.work.path / "pairs", self.system.models, self.config.seed
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
        """Algorithm 2, or on-policy."""
        if self.config.weights.student:
            return f"nothing: {self.config.weights.student} is ready"
        system, recipe = self.system, Recipe.of(self.config.train)
        params = self.params("classifier", "lpips", "tokenizer", "text", "teacher", dtype="float32")
        start = parts.start(system, self.config, self.work.path, params["teacher"])
        params["teacher"] |= {"trunk": stored(params["teacher"]["trunk"], self.config.dtype.teacher)}
        paired, _ = system.objective.rows(recipe.batch)
        conditions = system.conditions(params)
        train.run(
            self.work / "student",
            recipe,
            system.objective,
            system.models,
            start,
            train.frozen_for(system.objective, system.tokenizer, params),
            train.distance_of(system.objective, system.tokenizer, system.classifier, system.lpips),
            pairset.load(self.work / "pairs") if paired else None,
            conditions,
            self.config.pairs.labels,
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
        return ", ".join(map(str, sample.run(self.sampling)))

    @functools.cached_property
    def sampling(self) -> Sampling:
        """What `config.sample` describes."""
        return Sampling(self.system, self.config, self.work.path, self.params, self.placement)

    def evaluate(self) -> Any:
        """scores/*.json of what was sampled, where an Inception is named; results.jsonl, where there is a teacher."""
        wrote = []
        if self.config.evaluate.inception:
            wrote += fid.run(self.sampling, self.config.evaluate, self.work.path)
        elif self.system.classifier is None:
            print(f"evaluate: {fid.HINT}", flush=True)
        teacher = self.given or self.work.done("pretrain")
        if not wrote or (teacher and not (self.work / "results.jsonl").exists()):
            wrote.append(self._beside_teacher())
        return ", ".join(map(str, wrote))

    def _beside_teacher(self) -> Path:
        """results.jsonl: all rows on shared noises."""
        params = self.params(*PARTS, *self._marginals)
        conditions = self.system.conditions(params)
        held = None if self.system.classifier is None else self.pictures.held_out()[0]
        splits = [evaluate.Split("", conditions.pool, held)]
        if self.system.text is not None and captioned(self.config.data) and not self.config.text.prompts:
            if self.system.text.prompts.captions != self.pictures.captions:
                name = self.config.data.name
                raise UserError(f"{name} has other captions than this run noted when it began: put those back")
            splits = evaluate.splits_of_captions(conditions, self.pictures)
        seed, place = self.config.seed, self.placement
        evaluate.run(self.system, params, conditions, self.config, self.work.path, splits, seed, place)
        return self.work / "results.jsonl"

    def speed(self) -> Any:
        """speed.json."""
        ported, random = self.config.weights, [part for part in PARTS if not (self.work / trained_in(part)).exists()]
        parts = (*PARTS, "lpips") if self.config.speed.training else PARTS
        params = self.params(*parts, random=[*random, "lpips"])
        random = [part for part in random if not ported.get(part) and part in params]
        print(speed.run(self.system, params, self.config, self.work.path, random, self.placement), flush=True)
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

    def note_captions(self, todo: Sequence[str]) -> None:
        """captions.jsonl, those of the pictures, before what reads it; of pictures that are trained on anew."""
        path = self.system.text.noted if self.system.text else None
        if not path or not {*todo} & {*KEEP} or (path.exists() and ("pretrain" not in todo or self.work.source)):
            return
        self.work.check(todo[-1])
        if processes.is_first():
            noted.write(path, self.pictures.captions, self.pictures.unseen)
        processes.meet("captions are noted")


def run(system: System, config: ConfigDict, workdir: Folder, stage: str, source: Folder | None = None) -> None:
    """One stage, or all that are not done. `source`: a run that lends its tokenizer, teacher, classifier and pairs.

    UserError, before anything is computed, for what is missing or does not fit.
    """
    here = Run(system, config, Workdir(workdir, config.to_dict(), source))
    with here.work.locked():
        todo = _todo(here, stage)
        here.note_captions(todo)
        _check(here, stage, todo)
        # What a person draws by the way, of named classes or after the run's own samples, is not the run's.
        asked = bool(config.sample.labels or config.sample.prompt or config.sample.prompts)
        aside = stage == "sample" and (asked or here.work.finished("sample")) and not here.work.done("sample")
        kept = here.work.path / "config.json"
        if processes.is_first() and ({*todo} & {*KEEP} or not kept.exists()):
            files.replace(kept, json.dumps(config.to_dict(), indent=1).encode())
        for name in todo:
            if stopping.asked():
                raise stopping.Stopped(f"stopped before --stage={name}")
            here.stage(name, aside)


def _todo(here: Run, stage: str) -> list[str]:
    """The stages to run, in order."""
    if stage != "all":
        return [stage]
    paired = {"pairs", "marginals"} & {*here.reads("train"), *here.reads("evaluate")}
    stages = [name for name in STAGES if name != "pairs" or paired]
    first = next((name for name in stages if not here.work.done(name)), "report")
    return stages[stages.index(first) :]  # a stage that ran again makes the later ones stale


def _check(here: Run, stage: str, todo: Sequence[str]) -> None:
    """UserError for what would stop the run later."""
    if processes.count() > 1 and not {*todo} <= {*KEEP}:
        raise UserError(f"--stage={stage} runs in one process; several share the work of {', '.join(KEEP)}")
    checks.values(here.system, here.config, todo, lambda: here.placement, lambda: here.sampling)
    checks.folders(here.system, here.config, here.work, todo)
    here.work.check(todo[-1])
    checks.stages(here.system, here.config, here.work, {name: here.reads(name) for name in todo})
    if {"pairs", "train", "sample"} & {*todo}:
        _ = here.placement, here.system.text and here.system.text.prompts
