"""Config -> objects. The only place that knows which family is meant; below it are dataclasses and arrays."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ml_collections import ConfigDict

from dd_jax.data import pictures
from dd_jax.families import tokenizer
from dd_jax.families.llamagen import build as llamagen
from dd_jax.families.var import build as var
from dd_jax.method import baselines, distances
from dd_jax.method.csd import SHORTEST, Csd
from dd_jax.method.filtering import Filter
from dd_jax.method.flow import FlowSolver
from dd_jax.method.interfaces import Family
from dd_jax.method.layout import Layout
from dd_jax.method.losses import Weights
from dd_jax.method.models import Knobs, Models, Special
from dd_jax.method.objectives import OBJECTIVES, Objective
from dd_jax.method.plans import parse, spelled
from dd_jax.method.student import AHEAD, split_of
from dd_jax.metrics.classifier import Classifier
from dd_jax.metrics.lpips import LPIPS
from dd_jax.stages import speed
from dd_jax.stages.parts import System
from dd_jax.stages.workdir import located
from dd_jax.system import plugins, spelling
from dd_jax.system.errors import UserError
from dd_jax.text import build as text
from dd_jax.text.noted import NOTED
from dd_jax.training import sinks

# From outside the package: `config.family = "package.module:build"`.
FAMILIES = {"llamagen": llamagen.build, "var": var.build}


def settled(config: ConfigDict, earlier: Mapping[str, Any] = MappingProxyType({})) -> ConfigDict:
    """A copy with what the config leaves to its pictures (classes, names, words) or resolution (side, sides).

    `earlier`: what the run noted already (see `pictures.settled`). UserError for a set that says nothing of itself.
    """
    config = copy.deepcopy(config)
    pictures.check_captions(config.data, "text" in config)
    with config.unlocked():  # not every config has names of classes
        config.data.update(pictures.settled(config.data, earlier))
        if config.get("text") and config.text.words and not config.text.get("vocabulary"):
            config.text.vocabulary = text.vocabulary(config, earlier)
    tokenizer.settle(config)
    return config


def build(config: ConfigDict, workdir: Path | None = None) -> System:
    """All objects of a config. UserError for names that stand for nothing, or a value that cannot be.

    `workdir`: of a run, which notes the captions of its pictures there.
    """
    config = settled(config)
    family = plugins.find(config.family, FAMILIES, f"config.family is {config.family!r}: choose one of")(config)
    if not isinstance(family, Family):
        raise UserError(f"config.family={config.family} built a {type(family).__name__}: it must return a Family")
    steps = family.teacher.layout.steps
    split = _split(config, steps)
    for t in config.train.timesteps:
        if not 0 <= t < steps:
            raise UserError(f"config.train.timesteps has {t}: the steps are 0..{steps - 1}")
    _check_sample(config, family.teacher.layout)
    for name in filter(plugins.outside, (*config.sample.plans, *config.evaluate.plans)):
        baselines.cost(name, steps)
    models = Models(
        teacher=family.teacher,
        student=family.student,
        tokenizer=family.tokenizer,
        filter=Filter(**config.filter),
        solver=FlowSolver(**config.flow),
        split=split,
        categorical=config.sample.categorical,
        smooth=config.sample.smooth,
        draw=Filter(**config.sample.filter),
        knobs=Knobs(config.sample.get("tau", 1.0)),
        special=tuple(_special(plan, own, config, steps, split) for plan, own in by_plan(config)),
    )
    objective = _objective(config, split, steps)
    classifier, lpips = _networks(config)
    return System(
        tokenizer=family.tokenizer,
        teacher=family.teacher,
        student=family.student,
        classifier=classifier,
        lpips=lpips,
        text=text.build(config, located(workdir, NOTED) if workdir else None),
        models=models,
        objective=objective,
        classes=config.data.classes,
        names=(config.data.name, tuple(config.data.get("class_names") or ())),
        teacher_init=family.teacher_init,
        teacher_params=family.teacher_params,
        rules=family.rules,
        class_table=family.class_table,
        background=config.data.get("background"),
    )


def _split(config: ConfigDict, steps: int) -> int:
    """The AR step from which on vectors are regressed. UserError where the head and its settings contradict."""
    head, split = config.student.get("head", "both"), config.student.split
    if head == "velocity" and config.train.embedding:
        raise UserError(f"config.student.head={head} has no vectors to compare: set --config.train.embedding=0")
    if head in ("logits", "flow", "velocity") and split is not None:
        raise UserError(f"config.student.head={head} regresses no vectors: set --config.student.split=None")
    if head == "embedding" and split:
        raise UserError(f"config.student.split={split}: head=embedding regresses all vectors: set it to 0 or None")
    return split_of(head, split, steps)


def _objective(config: ConfigDict, split: int, steps: int) -> Objective:
    """What training minimises. UserError for an objective that the head cannot have."""
    train, head = config.train, config.student.get("head", "both")
    name = train.get("objective", "pairs")
    share = OBJECTIVES[name]
    if (name == "csd") != (head == "velocity"):
        raise UserError(
            f"config.train.objective={name} and config.student.head={head}: csd trains the velocity head, and nothing "
            "else does"
        )
    if name == "refined" and split < steps:
        told = "needs a code of every token: set config.student.split=None, and a head with logits"
        raise UserError(f"config.train.objective=refined {told} (it is {head})")
    if share != 0 and name != "refined" and head not in AHEAD:
        raise UserError(
            f"config.train.objective={name} needs the distribution of each token, which the flow head alone has: "
            f"set config.student.head=flow (it is {head})"
        )
    fresh = train.get("fresh", 0.5) if share is None else share
    if fresh == 1 and train.embedding:
        told = f"config.train.objective={name} has no pairs for config.train.distance={train.distance} to compare"
        raise UserError(f"{told}: set --config.train.embedding=0, or mix some in (objective=mixed)")
    if name == "csd":
        return Objective((0,), split, Weights(0.0, 0.0), fresh=1.0, csd=Csd.of(train))
    given: dict[str, Any] = {key: train[key] for key in ("tau", "pairs", "middle", "distance_batch") if key in train}
    given |= {key: train[f"{key}_kl"] for key in ("forward", "reverse") if f"{key}_kl" in train}
    given |= {key: tuple(value) for key, value in given.items() if isinstance(value, list | tuple)}
    return Objective(
        timesteps=tuple(train.timesteps),
        split=split,
        weights=Weights(train.ce, train.embedding),
        distance=train.distance,
        fresh=fresh,
        refined=name == "refined",
        **given,
    )


def _networks(config: ConfigDict) -> tuple[Classifier | None, LPIPS | None]:
    """What looks at pictures. UserError for an unknown distance, or one that needs what is not there."""
    data, train = config.data, config.train
    size = data.resolution, data.channels, data.classes
    classifier = Classifier(*size, **config.classifier) if config.classifier is not None else None
    distance = distances.named(train.distance)
    needs = distance.needs if distance is not None and train.embedding else ()
    lpips = LPIPS() if "lpips" in needs or _tokenizer_by_lpips(config) else None
    if needs:
        distances.check(train.distance, {"classifier": classifier, "lpips": lpips}, "text" not in config)
    return classifier, lpips


def _tokenizer_by_lpips(config: ConfigDict) -> bool:
    """Is a tokenizer trained here, and compared by LPIPS?"""
    section = config.get("pretrain", {}).get("tokenizer", {})
    return section.get("perceptual") == "lpips" and not (config.weights.tokenizer or config.weights.random)


def by_plan(config: ConfigDict) -> list[tuple[str, dict[str, Any]]]:
    """What `config.sample.by_plan` says of each plan."""
    return [(plan, dict(own)) for plan, own in config.sample.by_plan.items()]


def _check_sample(config: ConfigDict, layout: Layout) -> None:
    settings, steps = config.sample, layout.steps
    splits = {"student": config.student.split}
    splits |= {f"sample.by_plan of {plan}": own.get("split") for plan, own in by_plan(config)}
    for where, split in splits.items():
        if split is not None and not 0 <= split <= steps:
            raise UserError(f"config.{where}: split={split}, and the steps are 0..{steps - 1}: choose 0..{steps}")
    if layout.uniform and (settings.smooth or settings.unmasked_prefix):
        raise UserError("config.sample.smooth and .unmasked_prefix are for next-scale models: set both to false")
    if settings.smooth and not settings.categorical:
        raise UserError("config.sample.smooth mixes categorical draws: set config.sample.categorical=true too")


def check_names(config: ConfigDict, steps: int, stage: str) -> None:
    """UserError for a name, in any list of them that this stage (or "all") reads, that stands for nothing."""
    drawn, scored, timed, trained = (stage in ("all", name) for name in ("sample", "evaluate", "speed", "train"))
    for plan in config.sample.plans if drawn else ():
        _ = baselines.cost(plan, steps) if baselines.known(plan) else parse(plan, steps)
    for plan in (*config.evaluate.plans, *[config.evaluate.check] * bool(config.evaluate.check)) if scored else ():
        parse(plan, steps)
    for plan in config.speed.plans if timed else ():
        _ = plan == speed.DECODE or parse(plan, steps)
    for n in (*config.baselines.skip, *config.baselines.skip_drop) if scored else ():
        if not isinstance(n, int) or not 0 <= n < steps:
            raise UserError(f"config.baselines has skip {n!r}: whole numbers less than {steps} are steps to skip")
    sinks.check(config.train.log if trained else ())


def listed(config: ConfigDict) -> ConfigDict:
    """The config, with every list of names in it as it was meant (see `spelling.apart`)."""
    for name, value in config.items():
        if isinstance(value, ConfigDict):
            listed(value)
        elif (meant := spelling.apart(value)) != value:
            config[name] = meant
    return config


def _special(plan: str, own: ConfigDict, config: ConfigDict, steps: int, split: int) -> tuple[str, Special]:
    """What `config.sample.by_plan` says of one plan; what it leaves out is as everywhere. Checks the plan."""
    parse(plan, steps)
    fields = {**config.sample.filter, **{key: value for key, value in own.items() if key != "split"}}
    return spelled(plan), Special(own.get("split", split), Filter(**fields))


def shrink(config: ConfigDict) -> ConfigDict:
    """`config.smoke`: the same path at full width, one layer deep, with random weights and a handful of everything."""
    config.weights.update(
        {
            "tokenizer": None,
            "teacher": None,
            "student": None,
            "start": None,
            "text": None,
            "lpips": None,
            "classifier": None,
            "random": True,
        }
    )
    config.model.depth = 1
    if "text" in config:  # nobody's captions, by a vocabulary of their own words
        config.text.update({"prompts": None, "words": True})
        config.data.update({"captions": "none"} if "captions" in config.data else {})
        config.text.sizes.depth = 1
    config.mesh = (1, 1)  # so little does not spread
    config.pairs.update({"count": 8, "shard": 4, "batch": 4})
    # A gradient through the decoder and LPIPS takes about 2 GB an image of 256 px, more of larger ones.
    few = 2 if config.data.resolution <= 256 else 1
    config.train.update({"steps": 4, "batch": few, "accumulate": 1, "checkpoint_every": 2})
    if config.train.get("objective") == "csd":
        config.train.update({"steps": SHORTEST["steps"], "csd": SHORTEST["csd"]})
    if config.train.get("distance_batch"):
        config.train.distance_batch = 0  # CPUs are slow at convolutions inside loops
    config.sample.update({"count": 4, "few": 4, "batch": 4})
    config.evaluate.update({"count": 4, "batch": 4})
    config.speed.update({"batches": (1,), "repeats": 2})
    return config


def frozen(settings: Mapping[str, Any], trust: Sequence[str] = ()) -> ConfigDict:
    """A config as JSON kept it, under today's names, with tuples for its lists.

    Models are static arguments of jit, so they must hash. UserError if it names code outside the package, in a module
    that is not in `trust`: who opens a folder does not know what is in it.
    """

    def freeze(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: freeze(item) for key, item in value.items()}
        return tuple(map(freeze, value)) if isinstance(value, list) else value

    config = ConfigDict(freeze(spelling.newer(settings)))
    plugins.check_trust(_named(config), trust)
    return config


def _named(config: ConfigDict) -> Iterator[tuple[str, str]]:
    """Every setting that may name code outside the package, and the name."""
    for part, field in (
        ("", "family"),
        ("flow", "name"),
        ("train", "distance"),
        ("sample", "plans"),
        ("evaluate", "plans"),
    ):
        value = (config.get(part, {}) if part else config).get(field, ())
        for name in (value,) if isinstance(value, str) else value:
            yield f"{part}.{field}".lstrip("."), name
