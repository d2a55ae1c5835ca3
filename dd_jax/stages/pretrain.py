"""Tokenizer, teacher and classifier for data of one's own; released teachers need none of it."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dd_jax.data.examples import Pixels
from dd_jax.data.pictures import Pictures
from dd_jax.method.interfaces import Params
from dd_jax.metrics.classifier import Classifier
from dd_jax.stages import fid, parts, tokenizing
from dd_jax.stages.codes import encode
from dd_jax.stages.parts import System, tokenizer_trainer
from dd_jax.stages.teaching import Regularization, train_teacher
from dd_jax.stages.workdir import located
from dd_jax.system import files, processes, rng
from dd_jax.system.runtime import jit_once
from dd_jax.system.sharding import Placement
from dd_jax.training.course import Batch, Course, gathered
from dd_jax.training.log import Extras
from dd_jax.training.loop import Metrics, Recipe
from dd_jax.training.reconstructions import Reconstructions


def run(
    system: System,
    config: ConfigDict,
    folder: Path,
    pictures: Pictures,
    load: Callable[..., dict[str, Params]],
    placement: Placement,
) -> None:
    """Feature classifier, tokenizer and teacher on augmented pictures: those that `config.weights` does not name.

    `load(*parts)`: the parameters of what is there. What the pictures are is kept in pictures.json.
    """
    settings, ported = config.pretrain, config.weights
    img, told = pictures.training()[0], Extras(called=pictures.called)
    if processes.is_first():
        files.replace(folder / "pictures.json", json.dumps(pictures.told(), indent=1).encode())

    def course(name: str, extras: Extras = told) -> Course:
        return Course(name, located(folder, name), Recipe.of(settings[name]), config.seed, placement, extras)

    if system.classifier is not None and not ported.classifier:
        captioned = system.text is not None and not pictures.own  # then it reads others, counted otherwise
        seen = pictures.for_classifier(captioned)
        train_classifier(system.classifier, course("classifier", Extras() if captioned else told), *seen)
    if ported.tokenizer:
        codes = load("tokenizer")["tokenizer"]
    else:
        held, eyes = pictures.held_out()[0], load("classifier", "lpips")
        codes = train_tokenizer(system, config, course("tokenizer"), img, held, eyes)
    if not ported.teacher:
        views = settings.teacher.get("views", 0)
        img, shown = pictures.encoded(views)
        data = {key: value for key, value in config.data.items() if key != "readers"}  # who reads changes no code
        about = {"data": ConfigDict(data).to_dict(), "seed": config.seed, "views": views, "told": pictures.told()}
        code = encode(folder / "codes", system, codes, img, about, placement)
        dropped = Regularization.of(settings.teacher)
        begin, pace = parts.going_on(config, "teacher", folder), parts.pace(system, config)
        every = settings.teacher.get("grid_every", 0)
        shown = system.text.tokens(pictures.captions, shown) if system.text else shown
        reader = load("text").get("text") if ported.text else None
        train_teacher(system, course("teacher"), codes, code, shown, dropped, begin, pace, every, reader)
    if skipped := pictures.skipped():
        print(f"pretrain: {skipped}", flush=True)


def train_classifier(classifier: Classifier, course: Course, img: Pixels, label: np.ndarray) -> Params:
    """The classifier whose features score samples."""

    def loss(params: Params, batch: Batch, frozen: Any) -> tuple[jax.Array, Metrics]:
        return classifier.loss(params, batch["img"], batch["label"])

    start = jit_once(classifier.init)(rng.key(course.seed))
    return _plain(course).train(start, loss, {"img": img, "label": label})


def train_tokenizer(
    system: System, config: ConfigDict, course: Course, img: Pixels, held: Pixels, frozen: Params
) -> Params:
    """See `tokenizing`. Reconstructions of held-out pictures are drawn on the way, and scored at the end.

    `frozen`: networks that look at pictures.
    """
    folder, placement = course.folder, _plain(course).placement
    maps, vocab = system.layout.maps, system.tokenizer.vocab
    looks = Reconstructions(folder, system.tokenizer, maps, vocab, img, held, placement)
    every = config.pretrain.tokenizer.get("grid_every", 0)
    extras = dataclasses.replace(course.extras, preview=looks, preview_every=every)
    trainer = tokenizer_trainer(system, config)
    read = {trainer.aims.perceptual: frozen[trainer.aims.perceptual]} if trainer.eyes else {}
    params = tokenizing.run(folder, trainer, img, read, placement, extras)
    extractor = fid.extractor(config.evaluate) if config.evaluate.inception else None
    looks.finish(params, system.classifier, frozen.get("classifier"), extractor)
    return gathered(params, placement)


def _plain(course: Course) -> Course:
    """Without rules for arrays: those are the transformers'."""
    return dataclasses.replace(course, placement=dataclasses.replace(course.placement, rules=()))
