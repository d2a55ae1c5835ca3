"""Algorithm 2: distil the teacher's noise-to-image map into a student that needs one forward; or on-policy."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.data.batches import index_batches
from dd_jax.data.conditions import Conditions, assign
from dd_jax.data.pairset import PairSet
from dd_jax.method import distances, losses, objectives
from dd_jax.method.interfaces import Cond, Params, Tokenizer
from dd_jax.method.models import Models
from dd_jax.method.objectives import Objective
from dd_jax.metrics.classifier import Classifier
from dd_jax.metrics.lpips import LPIPS
from dd_jax.stages import scores
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.training.log import Extras
from dd_jax.training.loop import Metrics, Recipe, TrainState, fit, gradients, init_state, update
from dd_jax.training.throughput import Throughput


def distance_of(
    objective: Objective, tokenizer: Tokenizer, classifier: Classifier | None, lpips: LPIPS | None = None
) -> Callable | None:
    """The distance by name: (frozen parameters, token, target, condition) -> distance_B."""
    chosen = distances.named(objective.distance)
    if chosen is None or not objective.weights.embedding:
        return None
    networks = {"classifier": classifier, "lpips": lpips}
    distances.check(objective.distance, {**networks})

    def distance(frozen: dict[str, Params], token: jax.Array, target: jax.Array, cond: Cond) -> jax.Array:
        look: dict[str, Any] = {
            part: functools.partial(network.perceptual, frozen[part])
            for part, network in networks.items()
            if network is not None and part in chosen.needs
        }
        if chosen.joint:
            look["same_BxB"] = cond.alike()
            look["features"] = functools.partial(classifier.pooled, frozen["classifier"]) if classifier else None
        eyes = distances.Eyes(lambda token: tokenizer.decode(frozen["tokenizer"], token), **look)
        batch = objective.distance_batch if chosen.needs and not chosen.joint else 0
        return losses.sliced(lambda token, target: chosen.between(token, target, eyes), batch)(token, target)

    return distance


def frozen_for(objective: Objective, tokenizer: Tokenizer, params: dict[str, Params]) -> dict[str, Params]:
    """What a step reads and does not train."""
    read = ["tokenizer", "classifier", "lpips", *["teacher"] * (objective.fresh > 0)]
    codebook = tokenizer.codebook(params["tokenizer"])
    return {"codebook": codebook, **{part: params[part] for part in read if part in params}}


def train_step(
    state: TrainState,
    batch: dict[str, Any],
    frozen: dict[str, Params],
    *,
    models: Models,
    objective: Objective,
    tx: optax.GradientTransformation,
    ema: float,
    distance: Callable | None,
    seed: int,
    steps: int = 1,
    accumulate: int = 1,
) -> tuple[TrainState, Metrics]:
    """Algorithm 2, lines 3-7, and its on-policy part: one forward over the pairs and the fresh noises of a batch.

    Noise is drawn again from each example's id; boundaries take turns among the pairs. `accumulate`: micro-batches,
    each with as many examples of every boundary. `steps`: the whole training's, which schedules span.
    """
    parts = objectives.rows_of(batch, state.step, frozen["codebook"], models.layout, objective, seed)
    look = functools.partial(distance, frozen) if distance else None

    def loss_fn(params: Params, part: objectives.Parts) -> tuple[jax.Array, Metrics]:
        joined = objectives.join([(rows["cond"], rows["x"], rows["t"]) for rows in part.values()])
        read = models.student.deeply if objective.middle else models.student
        outs = objectives.split(read(params, *joined), [len(rows["t"]) for rows in part.values()])
        loss, seen = jnp.float32(0), dict[str, jax.Array]()
        for (name, rows), out in zip(part.items(), outs, strict=True):
            value, more = objectives.LOSSES[name](out, rows, frozen, state.step / steps, models, objective, look)
            loss, seen = loss + value, seen | more
        return loss, {**seen, "loss": loss}

    grads, metrics = gradients(loss_fn, state.params, parts, accumulate, len(objective.timesteps))
    state, norm = update(state, grads, tx, ema)
    return state, {**metrics, "grad_norm": norm}


def example(batch: int, objective: Objective, models: Models) -> dict[str, Any]:
    """A batch in structure: zeros, with blank conditions."""
    count, fresh = objective.rows(batch)

    def rows(n: int) -> dict[str, Any]:
        return {"id": jnp.zeros(n, jnp.int32), "cond": models.teacher.blank(n)}

    found = {**rows(count), "code": jnp.zeros((count, models.layout.tokens), jnp.int32)} if count else {}
    return found | ({"fresh": rows(fresh)} if fresh else {})


def check_batch(recipe: Recipe, objective: Objective, placement: Placement) -> None:
    """UserError for a batch that does not spread over the micro-batches, their boundaries and the devices.

    Or whose examples are compared with each other, which micro-batches would keep apart.
    """
    placement.check_batch("config.train.batch", recipe.batch, recipe.accumulate)
    chosen = distances.named(objective.distance) if objective.weights.embedding else None
    if recipe.accumulate > 1 and chosen is not None and chosen.joint:
        told = f"{objective.distance} compares the examples of a batch with each other: set it to 1"
        raise UserError(f"config.train.accumulate={recipe.accumulate}: {told}")
    kinds = recipe.accumulate * len(objective.timesteps)
    pairs, fresh = objective.rows(recipe.batch)
    if recipe.accumulate > 1 and pairs % kinds:
        raise UserError(
            f"config.train.accumulate={recipe.accumulate}: each micro-batch takes every one of "
            f"{len(objective.timesteps)} timesteps equally often, so config.train.batch must be a multiple of {kinds}"
            + f" (its pairs are {pairs})"
            * bool(fresh)
        )
    for what, rows in {"fresh noises": fresh, "pairs": pairs}.items():
        if fresh:
            pieces = kinds if recipe.accumulate > 1 else 1
            placement.check_batch(f"config.train.batch={recipe.batch}: its {what}", rows, pieces)


def stepper(
    recipe: Recipe,
    objective: Objective,
    models: Models,
    distance: Callable | None,
    seed: int,
    placement: Placement = ALONE,
) -> Any:
    """`train_step` jitted for one run: (state, which is donated; batch; frozen) -> (state, metrics).

    UserError as `check_batch`.
    """
    check_batch(recipe, objective, placement)
    if objective.csd is not None:
        step: Any = scores.Turns(models, objective.csd, recipe, seed).step
    else:
        step = functools.partial(
            train_step,
            models=models,
            objective=objective,
            tx=recipe.optimizer(),
            ema=recipe.ema,
            distance=distance,
            seed=seed,
            steps=recipe.steps,
            accumulate=recipe.accumulate,
        )
    return placement.step(step)


def begin(
    recipe: Recipe,
    objective: Objective,
    models: Models,
    student: Params,
    params: dict[str, Params],
    seed: int,
    placement: Placement = ALONE,
) -> TrainState:
    """The state at step 0. `params`: tokenizer and teacher, of which CSD's second network is made."""
    if objective.csd is None:
        return init_state(student, recipe.optimizer(), placement)
    return scores.Turns(models, objective.csd, recipe, seed).begin(student, params, placement)


def run(
    folder: Path,
    recipe: Recipe,
    objective: Objective,
    models: Models,
    start: Params,
    frozen: dict[str, Params],
    distance: Callable | None,
    pairs: PairSet | None,
    conditions: Conditions,
    labels: str,
    seed: int,
    placement: Placement = ALONE,
    extras: Extras | None = None,
) -> Params:
    """Train to the end (or resume) -> the averaged parameters. Each process reads its own share of every batch.

    `labels`: how fresh noises get their conditions (see `conditions.assign`). `pairs` may be None where all are fresh.
    """
    step = stepper(recipe, objective, models, distance, seed, placement)
    batch_at = batches(recipe, objective, pairs, conditions, labels, seed, placement)
    state = begin(recipe, objective, models, start, frozen, seed, placement)
    frozen = placement.whole(frozen)
    devices = 1 if placement.mesh is None else placement.mesh.size
    throughput = Throughput(
        lambda s, b: step.trace(s, b, frozen).jaxpr.jaxpr, recipe.batch * models.layout.tokens, devices
    )
    extras = dataclasses.replace(extras or Extras(), throughput=throughput)
    return fit("student", folder, recipe, state, lambda s, b: step(s, b, frozen), batch_at, placement, extras).ema


def batches(
    recipe: Recipe,
    objective: Objective,
    pairs: PairSet | None,
    conditions: Conditions,
    labels: str,
    seed: int,
    placement: Placement = ALONE,
) -> Callable[[int], dict[str, Any]]:
    """step -> this process's share of its batch. Fresh noises are numbered on from step to step, none comes twice."""
    count, fresh = objective.rows(recipe.batch)
    indices = index_batches(len(pairs), count, seed) if count and pairs is not None else None

    def batch_at(step: int) -> dict[str, Any]:
        batch: dict[str, Any] = {}
        if indices is not None and pairs is not None:
            rows = pairs.rows(indices(step)[placement.mine(count)])
            batch = {"id": rows["id"], "cond": conditions(rows["label"]), "code": rows["code"].astype(np.int32)}
        if fresh:
            ids = np.arange(step * fresh, (step + 1) * fresh, dtype=np.int32)[placement.mine(fresh)]
            number = assign(conditions.pool, ids, labels, seed)
            batch["fresh"] = {"id": ids, "cond": conditions(number)}
        return batch

    return batch_at
