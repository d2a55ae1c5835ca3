"""Training a teacher: next-step prediction of codes under their classes, or captions, whose encoder learns with it."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data.examples import Pixels
from dd_jax.method import losses
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Cond, Params
from dd_jax.nn.dropping import Chance
from dd_jax.stages import finetune
from dd_jax.stages.parts import System
from dd_jax.system import rng
from dd_jax.system.runtime import jit_once
from dd_jax.text.captions import drop_words
from dd_jax.training import preview
from dd_jax.training.course import Batch, Course
from dd_jax.training.loop import Metrics, Settings


@dataclasses.dataclass(frozen=True)
class Regularization(Settings):
    """What a teacher's training leaves out or replaces, as shares of it."""

    label_dropout: float = 0.1  # conditions that are left out, for guidance
    word_dropout: float = 0.0  # of a caption's words
    token_corruption: float = 0.0  # of the codes before the next one, at most
    label_smoothing: float = 0.0  # of each target, which all codes have alike
    dropout: float = 0.0  # of embedded tokens, and of what attention and feed-forward layers add
    drop_path: float = 0.0  # of examples, for which the last block adds nothing; less of them for each one before


def train_teacher(
    system: System,
    course: Course,
    tokenizer_params: Params,
    code: np.ndarray,
    label: Pixels,
    regularization: Regularization = Regularization(),
    begin: finetune.Start | None = None,
    pace: finetune.Pace = finetune.Pace(),
    grid_every: int = 0,
    reader: Params | None = None,
) -> Params:
    """`code` (N, L) under `label`, classes (N,) or captions' tokens (N, P) -> {"trunk"}, and "text" where it learns.

    `reader`: parameters of an encoder of captions that does not learn.
    `begin`: weights to go on from, and at what `pace`; none: it begins anew. Every `grid_every` steps it draws.
    """
    seed, text, lesson = course.seed, system.text, Lesson(system, regularization, pace)
    start = {} if begin and text is None else jit_once(system.learned_init)(rng.key(seed), tokenizer_params)
    if begin is not None:
        print(begin.told, flush=True)
        expected = jax.eval_shape(system.teacher_init, rng.key(seed), tokenizer_params)
        start |= {"trunk": begin.load(expected, system.class_table)}
    conditions = {"label" if text is None else "token": label}
    frozen = {"tokenizer": tokenizer_params} | ({"text": reader} if reader else {})
    if grid_every:
        look = _looks(system, course, conditions, frozen)
        told = dataclasses.replace(course.extras, preview=look, preview_every=grid_every)
        course = dataclasses.replace(course, extras=told)
    data, tx = {"code": code, **conditions}, pace.optimizer(course.recipe)
    return course.train(start, lesson.loss, data, frozen, tx, lesson.draw)


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a teacher minimises: the next step's codes are predicted from those before it."""

    system: System
    regularization: Regularization
    pace: finetune.Pace

    def draw(self, batch: Batch, key: jax.Array) -> Batch:
        """A batch, {"code", and "label" or "token"}, and what is left out and replaced of it."""
        keys, share = jax.random.split(key, 3), self.regularization
        rate = jnp.float32(share.label_dropout)
        code = batch["code"].astype(jnp.int32)  # kept in two bytes
        drop_B = jax.random.bernoulli(keys[0], rate, code.shape[:1])
        drawn = {**batch, "code": code, "drop": drop_B, "read": corrupt(keys[2], code, share.token_corruption)}
        if share.dropout or share.drop_path:
            drawn["chance"] = rng.example_keys(jax.random.fold_in(key, len(keys)), jnp.arange(len(code)))
        if self.system.text is not None:
            drawn["valid"] = drop_words(keys[1], batch["token"], share.word_dropout)
        return drawn

    def loss(self, params: Params, drawn: Batch, frozen: Params) -> tuple[jax.Array, Metrics]:
        """The cross-entropy of what `draw` made of a batch."""
        system, params = self.system, self.pace.held(params)
        cond = dataclasses.replace(_condition(system, frozen | params, drawn), drop_B=drawn["drop"])
        weights = system.teacher_params(params["trunk"], frozen["tokenizer"])
        logits = system.teacher.forward(weights, cond, drawn["read"], *self._chance(drawn))
        return losses.prediction(logits, drawn["code"], system.layout, self.regularization.label_smoothing)

    def _chance(self, drawn: Batch) -> tuple[Chance, ...]:
        """What the pass leaves out: nothing where `draw` made no keys for it."""
        share = self.regularization
        path = jnp.float32(share.drop_path) if share.drop_path else None
        return (Chance(drawn["chance"], path, share.dropout),) if "chance" in drawn else ()


def _condition(system: System, params: Params, batch: Batch) -> Cond:
    """Of a batch's "label", or of its "token"s, of which "valid" ones are left."""
    if system.text is None:
        return Cond(batch["label"])
    return system.text.read(params["text"], batch["token"], batch.get("valid"))


def _looks(
    system: System, course: Course, conditions: Mapping[str, Pixels], frozen: Params
) -> Callable[[int, Any], dict[str, float]]:
    """(step, state) -> {}, and grids/step-00000300.png: what the averaged teacher draws of always the same noises.

    Of all classes in turn, or of captions spread over `conditions`.
    """
    place = course.placement
    count = preview.COUNT + -preview.COUNT % place.rows
    mine = place.mine(count)
    if system.text is None:
        shown = {"label": (np.arange(count) % system.classes).astype(np.int32)}
    else:
        at = np.linspace(0, len(conditions["token"]) - 1, count).astype(int)
        shown = {name: x[at] for name, x in conditions.items()}
    rows = place.batch({"id": mine.astype(np.int32), **{name: x[mine] for name, x in shown.items()}})
    generate = generator(f"T0:{system.layout.steps}", system.models)
    root = rng.stream(course.seed, "sample")

    def draw(params: Params, frozen: Params, rows: Batch) -> jax.Array:
        weights = system.teacher_params(params["trunk"], frozen["tokenizer"])
        cond = _condition(system, frozen | params, rows)
        draft = generate({**frozen, "teacher": weights}, cond, rng.example_keys(root, rows["id"]))
        return place.everywhere(system.tokenizer.decode(frozen["tokenizer"], draft.token_BxLxC))

    compiled, read = place.jit(draw), place.whole(frozen)

    def look(step: int, state: Any) -> dict[str, float]:
        preview.keep(course.folder / "grids", step, compiled(state.ema, read, rows))
        return {}

    return look


def corrupt(key: jax.Array, code_BxL: jax.Array, most: float) -> jax.Array:
    """A share, uniform in 0..`most`, of each example's codes replaced by codes of others: what a teacher that walks
    on its own samples has to bear."""
    if not most:
        return code_BxL
    keys = jax.random.split(key, 3)
    rate_Bx1 = most * jax.random.uniform(keys[0], (len(code_BxL), 1), jnp.float32)
    other = jax.random.permutation(keys[1], code_BxL.reshape(-1)).reshape(code_BxL.shape)
    return jnp.where(jax.random.uniform(keys[2], code_BxL.shape, jnp.float32) < rate_Bx1, other, code_BxL)
