"""Tokenizer, teacher and classifier for data of one's own; released teachers need none of it."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.data.batches import shuffled
from dd_jax.data.examples import Pixels
from dd_jax.method.interfaces import Cond, Params
from dd_jax.metrics.classifier import Classifier
from dd_jax.stages.parts import System
from dd_jax.system import rng
from dd_jax.system.runtime import jit_once
from dd_jax.text.captions import drop_words
from dd_jax.training.loop import Metrics, Recipe, Settings, TrainState, fit, init_state, update

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
    after: Callable[[TrainState, Batch], TrainState] | None = None,
) -> Params:
    """Minimise `loss(params, batch, key, frozen)` over shuffled batches of `data` -> averaged parameters."""
    tx = recipe.optimizer()
    root = rng.key(seed)

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: TrainState, batch: Batch, frozen: dict[str, Params]) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(root, state.step)
        grads, metrics = jax.grad(loss, has_aux=True)(state.params, batch, key, frozen)
        state, norm = update(state, grads, tx, recipe.ema)
        if after:
            state = after(state, batch)
        return state, {**metrics, "grad_norm": norm}

    batch_at = shuffled(data, recipe.batch, seed)
    return fit(name, folder, recipe, init_state(start, tx), lambda s, b: step(s, b, frozen), batch_at).ema


def train_classifier(
    classifier: Classifier, folder: Path, recipe: Recipe, img: Pixels, label: np.ndarray, seed: int
) -> Params:
    """The classifier whose features score samples."""

    def loss(params: Params, batch: Batch, key: jax.Array, frozen: Any) -> tuple[jax.Array, Metrics]:
        return classifier.loss(params, batch["img"], batch["label"])

    start = jit_once(classifier.init)(rng.key(seed))
    return _train("classifier", folder, recipe, start, loss, {"img": img, "label": label}, seed, {})


def train_tokenizer(system: System, folder: Path, recipe: Recipe, img: Pixels, seed: int, revive: int) -> Params:
    """Codebook from encoder outputs, then the tokenizer's loss; codes that a batch never used are revived."""
    tokenizer = system.tokenizer
    root = jax.random.fold_in(rng.key(seed), 1)
    start = jit_once(tokenizer.init)(rng.key(seed))
    start = jax.jit(tokenizer.init_codebook)(start, jnp.asarray(img[: 2 * recipe.batch]), root)

    def loss(params: Params, batch: Batch, key: jax.Array, frozen: Any) -> tuple[jax.Array, Metrics]:
        return tokenizer.loss(params, batch["img"])

    def after(state: TrainState, batch: Batch) -> TrainState:
        due = (state.step % revive == 0) & (state.step < 0.7 * recipe.steps)
        key = jax.random.fold_in(root, state.step)

        def with_new_codes(state: TrainState) -> TrainState:
            params = tokenizer.revive(state.params, batch["img"], key)
            ema = tokenizer.with_codebook(state.ema, tokenizer.raw_codebook(params))
            return dataclasses.replace(state, params=params, ema=ema)

        return jax.lax.cond(due, with_new_codes, lambda state: state, state)

    return _train("tokenizer", folder, recipe, start, loss, {"img": img}, seed, {}, after)


def encode(system: System, params: Params, img: Pixels, batch: int = 512) -> np.ndarray:
    """Codes of all images."""
    run = jax.jit(system.tokenizer.encode)

    def codes(part: np.ndarray) -> np.ndarray:
        padded = np.concatenate([part, np.zeros((batch - len(part), *part.shape[1:]), part.dtype)])
        return np.asarray(run(params, padded))[: len(part)]

    return np.concatenate([codes(img[i : i + batch]) for i in range(0, len(img), batch)])


def train_teacher(
    system: System,
    folder: Path,
    recipe: Recipe,
    tokenizer_params: Params,
    code: np.ndarray,
    label: np.ndarray,
    seed: int,
    regularization: Regularization,
) -> Params:
    """Next-step prediction of codes under their classes, or captions, whose encoder learns with the teacher."""
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
        cond = dataclasses.replace(condition(params, batch, keys[1]), drop_B=drop_B)
        weights = system.teacher_params(params["trunk"], frozen["tokenizer"])
        logits = teacher.forward(weights, cond, corrupt(keys[2], batch["code"], regularization.token_corruption))
        nll = jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, batch["code"]))
        return nll, {"loss": nll}

    start = jit_once(system.learned_init)(rng.key(seed), tokenizer_params)
    data = {"code": code.astype(np.int32), **({"label": label} if text is None else text.tokens(label))}
    return _train("teacher", folder, recipe, start, loss, data, seed, {"tokenizer": tokenizer_params})


def corrupt(key: jax.Array, code_BxL: jax.Array, most: float) -> jax.Array:
    """A share, uniform in 0..`most`, of each example's codes replaced by codes of others: what a teacher that walks
    on its own samples has to bear."""
    if not most:
        return code_BxL
    keys = jax.random.split(key, 3)
    rate_Bx1 = most * jax.random.uniform(keys[0], (len(code_BxL), 1), jnp.float32)
    other = jax.random.permutation(keys[1], code_BxL.reshape(-1)).reshape(code_BxL.shape)
    return jnp.where(jax.random.uniform(keys[2], code_BxL.shape, jnp.float32) < rate_Bx1, other, code_BxL)
