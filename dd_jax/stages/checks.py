"""What has to be there before a stage does anything, all that is missing said at once and before hours of work."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from ml_collections import ConfigDict

from dd_jax.data import cuts, pictures
from dd_jax.method import losses
from dd_jax.stages import fid
from dd_jax.stages.lineup import other_student
from dd_jax.stages.parts import System, going_on, missing, named, pace, tokenizer_trainer
from dd_jax.stages.sample import Sampling
from dd_jax.stages.train import check_batch
from dd_jax.stages.workdir import Workdir
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.training.loop import Recipe

LAST = 2**31 - 1  # ids are int32
# The stage that makes a part; "pairs" and the marginals of baselines come from Alg. 1.
MAKER = {"classifier": "pretrain", "tokenizer": "pretrain", "text": "pretrain", "teacher": "pretrain"}
MAKER |= {"pairs": "pairs", "marginals": "pairs", "student": "train"}
NEEDS: dict[str, tuple[str, ...]] = {
    "pretrain": ("tokenizer", "teacher"),  # given, or pictures to train them on
    "pairs": ("tokenizer", "text", "teacher"),
    "train": ("classifier", "tokenizer", "text", "teacher", "pairs", "lpips"),
    "evaluate": ("classifier", "tokenizer", "text", "teacher", "student"),
    "speed": (),
    "report": (),
}


def ready(config: ConfigDict, part: str) -> bool:
    """Is a part there without training any: ported weights, or random ones?"""
    given = config.weights.get(part)
    return bool(given) or (config.weights.random and part not in ("pairs", "marginals", "student"))


def unused(system: System, part: str) -> bool:
    """Has this config no such part?"""
    return part in ("classifier", "text", "lpips") and getattr(system, part) is None


def absent(system: System, config: ConfigDict, work: Workdir, parts: Iterable[str]) -> list[str]:
    """Those of these parts that are not ready and that no stage can make from the pictures of this config."""
    trained = [part for part, maker in MAKER.items() if maker == "pretrain"]
    untrained = {"lpips", *(trained if not (work.source or pictures.known(config.data.name)) else ())}
    return [p for p in dict.fromkeys(parts) if p in untrained and not (unused(system, p) or ready(config, p))]


def stages(system: System, config: ConfigDict, work: Workdir, todo: Mapping[str, Sequence[str]]) -> None:
    """UserError unless the parts that these stages read, {stage: parts}, are ready, were made, or are made before them.

    The message names every model to port, with the command, or the stage to run first.
    """
    lacking = absent(system, config, work, [part for parts in todo.values() for part in parts])
    if lacking:
        raise UserError(missing(config, lacking))
    before: list[str] = []
    for name, parts in todo.items():
        before.append(name)
        wanted = [part for part in parts if not (unused(system, part) or ready(config, part)) and part in MAKER]
        work.require(name, [maker for maker in dict.fromkeys(MAKER[part] for part in wanted) if maker not in before])


def folders(system: System, config: ConfigDict, work: Workdir, todo: Sequence[str]) -> None:
    """UserError for a folder of `config.weights` that holds no weights, or those of another part.

    And for one that a training in `todo` could not go on from, or no row of results could be drawn by.
    """
    for part in config.weights:
        folder = named(config, part, work.path) if part != "random" else None
        wanted = "student" if part == "start" else part
        if folder and (found := weights.describe(folder).get("part", wanted)) != wanted:
            raise UserError(f"config.weights.{part}={folder} holds a {found}: name it as --config.weights.{found}")
    if "pretrain" in todo and "pretrain" in config and not work.source:
        section = config.pretrain.teacher
        if section.get("from") and config.weights.teacher:
            given = f"config.weights.teacher={config.weights.teacher} is finished"
            raise UserError(f"{given}, config.pretrain.teacher.from={section['from']} goes on: leave one of them out")
        if not ready(config, "teacher"):
            pace(system, config)
            going_on(config, "teacher", work.path)
    if "train" in todo and not config.weights.student:
        going_on(config, "student", work.path)
    for name in config.evaluate.get("beside", ()) if "evaluate" in todo else ():
        other_student(system, config, name, work.path)


def values(
    system: System,
    config: ConfigDict,
    todo: Sequence[str],
    placement: Callable[[], Placement],
    sampling: Callable[[], Sampling],
) -> None:
    """UserError for settings of these stages that do not go together, or name what there is not."""
    for name, check in {
        "pretrain": lambda: pretraining(system, config, placement),
        "pairs": lambda: pairs(system, config, todo),
        "train": lambda: training(system, config, placement()),
        "sample": lambda: drawing(sampling()),
        "evaluate": lambda: evaluating(system, config),
        "speed": lambda: timing(system, config),
    }.items():
        if name in todo:
            check()


def pretraining(system: System, config: ConfigDict, placement: Callable[[], Placement]) -> None:
    """UserError if a training of tokenizer, teacher or classifier could not be dealt out or compared."""
    if "pretrain" not in config:
        return
    parts = [part for part in ("tokenizer", "teacher") if not ready(config, part)]
    if parts and not (unused(system, "classifier") or ready(config, "classifier")):
        parts.append("classifier")
    for part in parts:
        recipe = Recipe.of(config.pretrain[part])
        placement().check_batch(f"config.pretrain.{part}.batch", recipe.batch, recipe.accumulate)
    if "teacher" in parts:
        cuts.check_views(config.pretrain.teacher.get("views", 0), config.data)
        if system.text is not None and not pictures.captioned(config.data):
            told = f"config.data.name={config.data.name} has no captions for a teacher that reads them (config.text)"
            way = "--config.data.captions=any, where there are some beside the pictures"
            raise UserError(f"{told}: {way}, or a config of classes, or a finished teacher, --config.weights.teacher")
    if "tokenizer" not in parts:
        return
    if config.evaluate.inception:
        fid.check_network(config.evaluate)
    trainer = tokenizer_trainer(system, config)
    if trainer.aims.perceptual == "lpips" and system.lpips is not None:
        system.lpips.check(config.data.resolution)
        if not config.weights.lpips:
            raise UserError(
                "config.pretrain.tokenizer.perceptual=lpips looks through published weights: python -m port_weights "
                "lpips_vgg --out weights, then add --config.weights.lpips=weights/lpips_vgg; or choose classifier"
            )


def training(system: System, config: ConfigDict, placement: Placement) -> None:
    """UserError if a batch of training could not be drawn, dealt out or compared."""
    check_batch(Recipe.of(config.train), system.objective, placement)
    losses.slices(config.train.batch, system.objective.distance_batch)
    if system.lpips is not None:
        system.lpips.check(config.data.resolution)


def drawing(sampling: Sampling) -> None:
    """UserError for plans or labels that there are not. A file of captions is read."""
    for plan in sampling.plans:
        sampling.parts(plan)
    if sampling.config.sample.labels:
        sampling.label(np.arange(1))
    _ = sampling.prompts


def pairs(system: System, config: ConfigDict, todo: Sequence[str]) -> None:
    """UserError for shards that would overlap those of other machines, or fewer pairs than a batch of training."""
    first, shard = config.pairs.first or 0, config.pairs.shard
    if first % shard:
        raise UserError(f"config.pairs.first={first} is not a multiple of config.pairs.shard={shard}: shards overlap")
    if first + config.pairs.count > LAST:
        raise UserError(f"config.pairs.first={first} and .count={config.pairs.count}: ids end at {LAST}")
    paired, _ = system.objective.rows(config.train.batch)
    if "train" in todo and config.pairs.count < paired:
        told = f"config.pairs.count={config.pairs.count}, and a batch of config.train.batch={config.train.batch}"
        raise UserError(f"{told} has {paired} of them: more pairs, or a smaller batch")


def evaluating(system: System, config: ConfigDict) -> None:
    """UserError for rows without noises, or a network or a reference that FID cannot use."""
    settings = config.evaluate
    if settings.check and not settings.check_count:
        raise UserError("config.evaluate.check_count=0: the plan of config.evaluate.check needs noises; '' checks none")
    if system.classifier is not None and not settings.reference:
        raise UserError("config.evaluate.reference=0: the distance to the teacher needs independent samples of it")
    if settings.inception:
        fid.Scorer(settings).check()


def timing(system: System, config: ConfigDict) -> None:
    """UserError for a training that could not run."""
    if config.speed.training:
        check_batch(Recipe.of(config.train), system.objective, ALONE)
