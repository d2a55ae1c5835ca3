"""Tokenizer, teacher and classifier for data of one's own; released teachers need none of it."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dd_jax.data.batches import shuffled
from dd_jax.data.examples import Pixels
from dd_jax.method import losses
from dd_jax.method.interfaces import Cond, Params
from dd_jax.metrics.classifier import Classifier
from dd_jax.stages import finetune, tokenizing
from dd_jax.stages.parts import System, tokenizer_trainer
from dd_jax.system import rng
from dd_jax.system.runtime import jit_once
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.text.captions import drop_words
from dd_jax.training.log import Extras
from dd_jax.training.loop import Metrics, Recipe, Settings, TrainState, fit, init_state, update
from dd_jax.training.reconstructions import Reconstructions

Batch = dict[str, jax.Array]
Loss = Callable[[Params, Batch, jax.Array, dict[str, Params]], tuple[jax.Array, Metrics]]


@dataclasses.dataclass(frozen=True)
class Regularization(Settings):
    """Dropout and corruption of what a teacher reads in training, as shares of it."""

    label_dropout: float = 0.1  # conditions that are left out, for guidance
    word_dropout: float = 0.0  # of a caption's words
    token_corruption: float = 0.0  # of the codes before the next one, at most


def _train(
    name: str,
    folder: Path,
    recipe: Recipe,
    start: Params,
    loss: Loss,
    data: Mapping[str, Pixels],
    seed: int,
    frozen: dict[str, Params],
    placement: Placement = ALONE,
    extras: Extras | None = None,
    tx: optax.GradientTransformation | None = None,
) -> Params:
    """Minimise `loss(params, batch, key, frozen)` over shuffled batches of `data` -> averaged parameters.

    `tx`: another optimizer than the recipe's.
    """
    tx = tx or recipe.optimizer()
    root = rng.key(seed)

    def step(state: TrainState, batch: Batch, frozen: dict[str, Params]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root, state.step)
        grads, metrics = jax.grad(loss, has_aux=True)(state.params, batch, key, frozen)
        state, norm = update(state, grads, tx, recipe.ema)
        return state, {**metrics, "grad_norm": norm}

    run, frozen = placement.step(step), placement.whole(frozen)
    batch_at = shuffled(data, recipe.batch, seed, placement.mine(recipe.batch))
    state = init_state(start, tx, placement)
    state = fit(name, folder, recipe, state, lambda s, b: run(s, b, frozen), batch_at, placement, extras)
    return _gathered(state.ema, placement)


def _gathered(params: Params, placement: Placement) -> Params:
    """Parameters that were trained on a mesh, on one device of every process again."""
    whole = params if placement.mesh is None else jax.device_get(placement.jit(placement.everywhere)(params))
    return jax.tree.map(jnp.asarray, whole)


def train_classifier(
    classifier: Classifier,
    folder: Path,
    recipe: Recipe,
    img: Pixels,
    label: np.ndarray,
    seed: int,
    placement: Placement = ALONE,
    extras: Extras | None = None,
) -> Params:
    """The classifier whose features score samples."""
    placement = dataclasses.replace(placement, rules=())  # those are the transformers'

    def loss(params: Params, batch: Batch, key: jax.Array, frozen: Any) -> tuple[jax.Array, Metrics]:
        return classifier.loss(params, batch["img"], batch["label"])

    start = jit_once(classifier.init)(rng.key(seed))
    return _train("classifier", folder, recipe, start, loss, {"img": img, "label": label}, seed, {}, placement, extras)


def train_tokenizer(
    system: System,
    config: ConfigDict,
    folder: Path,
    img: Pixels,
    held: Pixels,
    frozen: Params,
    placement: Placement = ALONE,
    extras: Extras | None = None,
) -> Params:
    """See `tokenizing`. Reconstructions of held-out pictures are drawn on the way, and scored at the end.

    `frozen`: networks that look at pictures.
    """
    placement = dataclasses.replace(placement, rules=())  # those are the transformers'
    maps, vocab = system.layout.maps, system.tokenizer.vocab
    looks = Reconstructions(folder, system.tokenizer, maps, vocab, img, held, placement)
    every = config.pretrain.tokenizer.get("grid_every", 0)
    extras = dataclasses.replace(extras or Extras(), preview=looks, preview_every=every)
    trainer = tokenizer_trainer(system, config)
    read = {trainer.aims.perceptual: frozen[trainer.aims.perceptual]} if trainer.eyes else {}
    params = tokenizing.run(folder, trainer, img, read, placement, extras)
    looks.finish(params, system.classifier, frozen.get("classifier"))
    return _gathered(params, placement)


def encode(system: System, params: Params, img: Pixels, placement: Placement = ALONE, batch: int = 512) -> np.ndarray:
    """Codes of all images; each process reads its own share of them."""
    run = placement.jit(lambda params, img: placement.everywhere(system.tokenizer.encode(params, img)))
    batch, last, params = batch + -batch % placement.rows, len(img) - 1, placement.whole(params)

    def codes(first: int) -> np.ndarray:
        part = img[np.minimum(first + placement.mine(batch), last)]
        return np.asarray(run(params, placement.batch(part)))[: len(img) - first]

    return np.concatenate([codes(first) for first in range(0, len(img), batch)])


def train_teacher(
    system: System,
    folder: Path,
    recipe: Recipe,
    tokenizer_params: Params,
    code: np.ndarray,
    label: np.ndarray,
    seed: int,
    regularization: Regularization,
    placement: Placement = ALONE,
    extras: Extras | None = None,
    begin: finetune.Start | None = None,
    pace: finetune.Pace = finetune.Pace(),
) -> Params:
    """Next-step prediction of codes under their classes, or captions, whose encoder learns with the teacher.

    `begin`: weights to go on from, and at what `pace`; none: it begins anew.
    """
    teacher, text = system.teacher, system.text

    def condition(params: Params, batch: Batch, key: jax.Array) -> Cond:
        if text is None:
            return Cond(batch["label"])
        valid_BxP = drop_words(key, batch["token"], batch["valid"], regularization.word_dropout)
        return text.read(params["text"], batch["token"], valid_BxP)

    def loss(params: Params, batch: Batch, key: jax.Array, frozen: Any) -> tuple[jax.Array, Metrics]:
        keys = jax.random.split(key, 3)
        rate = jnp.float32(regularization.label_dropout)
        drop_B = jax.random.bernoulli(keys[0], rate, batch["code"].shape[:1])
        params = pace.held(params)
        cond = dataclasses.replace(condition(params, batch, keys[1]), drop_B=drop_B)
        weights = system.teacher_params(params["trunk"], frozen["tokenizer"])
        logits = teacher.forward(weights, cond, corrupt(keys[2], batch["code"], regularization.token_corruption))
        return losses.prediction(logits, batch["code"], system.layout)

    start = {} if begin and text is None else jit_once(system.learned_init)(rng.key(seed), tokenizer_params)
    if begin is not None:
        print(begin.told, flush=True)
        expected = jax.eval_shape(system.teacher_init, rng.key(seed), tokenizer_params)
        start |= {"trunk": begin.load(expected, system.class_table)}
    data = {"code": code.astype(np.int32), **({"label": label} if text is None else text.tokens(label))}
    read, tx = {"tokenizer": tokenizer_params}, pace.optimizer(recipe)
    return _train("teacher", folder, recipe, start, loss, data, seed, read, placement, extras, tx)


def corrupt(key: jax.Array, code_BxL: jax.Array, most: float) -> jax.Array:
    """A share, uniform in 0..`most`, of each example's codes replaced by codes of others: what a teacher that walks
    on its own samples has to bear."""
    if not most:
        return code_BxL
    keys = jax.random.split(key, 3)
    rate_Bx1 = most * jax.random.uniform(keys[0], (len(code_BxL), 1), jnp.float32)
    other = jax.random.permutation(keys[1], code_BxL.reshape(-1)).reshape(code_BxL.shape)
    return jnp.where(jax.random.uniform(keys[2], code_BxL.shape, jnp.float32) < rate_Bx1, other, code_BxL)
