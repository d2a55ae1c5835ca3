"""Algorithm 2: distil the teacher's noise-to-image map into a student that needs one forward."""

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
from dd_jax.data.conditions import Conditions
from dd_jax.data.pairset import PairSet
from dd_jax.method import distances, losses
from dd_jax.method.fewstep import noise_for
from dd_jax.method.interfaces import Params, Tokenizer
from dd_jax.method.student import Student
from dd_jax.metrics.classifier import Classifier
from dd_jax.metrics.lpips import LPIPS
from dd_jax.system.errors import UserError
from dd_jax.system.rng import example_keys, stream
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.training.log import Extras
from dd_jax.training.loop import Metrics, Recipe, TrainState, fit, gradients, init_state, update
from dd_jax.training.throughput import Throughput


@dataclasses.dataclass(frozen=True)
class Objective:
    """What Alg. 2 minimises: the boundaries that it draws from, each head's part, and the distance."""

    timesteps: tuple[int, ...]
    split: int
    weights: losses.Weights
    distance: str = "none"  # of the embedding head, by name (see `distances`)
    distance_batch: int = 0  # images that are decoded and compared at a time; 0: all


def distance_of(
    objective: Objective, tokenizer: Tokenizer, classifier: Classifier | None, lpips: LPIPS | None = None
) -> Callable | None:
    """The embedding head's distance by name: (frozen parameters, token, target) -> distance_B."""
    chosen = distances.named(objective.distance)
    if chosen is None or not objective.weights.embedding:
        return None
    networks = {"classifier": classifier, "lpips": lpips}
    distances.check(objective.distance, {**networks})

    def distance(frozen: dict[str, Params], token: jax.Array, target: jax.Array) -> jax.Array:
        look = {
            part: functools.partial(network.perceptual, frozen[part])
            for part, network in networks.items()
            if network is not None and part in chosen.needs
        }
        eyes = distances.Eyes(lambda token: tokenizer.decode(frozen["tokenizer"], token), **look)
        batch = objective.distance_batch if chosen.needs else 0
        return losses.sliced(lambda token, target: chosen.between(token, target, eyes), batch)(token, target)

    return distance


def frozen_for(tokenizer: Tokenizer, params: dict[str, Params]) -> dict[str, Params]:
    """What a step reads and does not train."""
    codebook = tokenizer.codebook(params["tokenizer"])
    return {
        "codebook": codebook,
        **{part: params[part] for part in ("tokenizer", "classifier", "lpips") if part in params},
    }


def train_step(
    state: TrainState,
    batch: dict[str, Any],
    frozen: dict[str, Params],
    *,
    student: Student,
    objective: Objective,
    tx: optax.GradientTransformation,
    ema: float,
    distance: Callable | None,
    seed: int,
    accumulate: int = 1,
) -> tuple[TrainState, Metrics]:
    """Algorithm 2, lines 3-7. The noise is drawn again from each pair's id; boundaries take turns in a batch.

    `accumulate`: micro-batches, each with as many examples of every boundary.
    """
    layout, codebook, code_BxL = student.layout, frozen["codebook"], batch["code"]
    noise = noise_for(example_keys(stream(seed, "pairs"), batch["id"]), layout.tokens, codebook.shape[-1])
    turn_B = (jnp.arange(len(code_BxL)) + state.step) % len(objective.timesteps)
    t_B = jnp.asarray(objective.timesteps)[turn_B]
    x_t = layout.mix(t_B, codebook[code_BxL], noise)

    def loss_fn(params: Params, part: dict[str, Any]) -> tuple[jax.Array, Metrics]:
        logits, token = student(params, part["cond"], part["x"], part["t"])
        far = functools.partial(distance, frozen) if distance else None
        return losses.distill_loss(
            logits,
            token,
            part["code"],
            part["t"],
            codebook,
            layout,
            objective.split,
            objective.weights,
            far,
            objective.timesteps,
        )

    parts = {"cond": batch["cond"], "code": code_BxL, "x": x_t, "t": t_B}
    grads, metrics = gradients(loss_fn, state.params, parts, accumulate, len(objective.timesteps))
    state, norm = update(state, grads, tx, ema)
    return state, {**metrics, "grad_norm": norm}


def check_batch(recipe: Recipe, objective: Objective, placement: Placement) -> None:
    """UserError for a batch that does not spread over the micro-batches, their boundaries and the devices."""
    placement.check_batch("config.train.batch", recipe.batch, recipe.accumulate)
    kinds = recipe.accumulate * len(objective.timesteps)
    if recipe.accumulate > 1 and recipe.batch % kinds:
        raise UserError(
            f"config.train.accumulate={recipe.accumulate}: each micro-batch takes every one of "
            f"{len(objective.timesteps)} timesteps equally often, so config.train.batch must be a multiple of {kinds}"
        )


def stepper(
    recipe: Recipe,
    objective: Objective,
    student: Student,
    distance: Callable | None,
    seed: int,
    placement: Placement = ALONE,
) -> Any:
    """`train_step` jitted for one run: (state, which is donated; batch; frozen) -> (state, metrics).

    UserError as `check_batch`.
    """
    check_batch(recipe, objective, placement)
    step = functools.partial(
        train_step,
        student=student,
        objective=objective,
        tx=recipe.optimizer(),
        ema=recipe.ema,
        distance=distance,
        seed=seed,
        accumulate=recipe.accumulate,
    )

    def placed(state: TrainState, batch: dict, frozen: dict) -> tuple[TrainState, Metrics]:
        state, metrics = step(state, batch, frozen)
        return placement.keep(state), metrics

    return placement.jit(placed, donate_argnums=0)


def run(
    folder: Path,
    recipe: Recipe,
    objective: Objective,
    student: Student,
    start: Params,
    frozen: dict[str, Params],
    distance: Callable | None,
    pairs: PairSet,
    conditions: Conditions,
    seed: int,
    placement: Placement = ALONE,
    extras: Extras | None = None,
) -> Params:
    """Train to the end (or resume) -> the averaged parameters. Each process reads its own share of every batch."""
    step = stepper(recipe, objective, student, distance, seed, placement)
    indices, mine = index_batches(len(pairs), recipe.batch, seed), placement.mine(recipe.batch)

    def batch_at(step: int) -> dict[str, Any]:
        rows = pairs.rows(indices(step)[mine])
        return {"id": rows["id"], "cond": conditions(rows["label"]), "code": rows["code"].astype(np.int32)}

    state, frozen = init_state(start, recipe.optimizer(), placement), placement.whole(frozen)
    devices = 1 if placement.mesh is None else placement.mesh.size
    throughput = Throughput(
        lambda s, b: step.trace(s, b, frozen).jaxpr.jaxpr, recipe.batch * student.layout.tokens, devices
    )
    extras = dataclasses.replace(extras or Extras(), throughput=throughput)
    return fit("student", folder, recipe, state, lambda s, b: step(s, b, frozen), batch_at, placement, extras).ema
