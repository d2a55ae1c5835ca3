"""One training of a network by a loss over shuffled batches: what trainings with plain losses share."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dd_jax.data.batches import shuffled
from dd_jax.data.examples import Pixels, streamed
from dd_jax.system import rng
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.training.log import Extras
from dd_jax.training.loop import Metrics, Recipe, TrainState, fit, gradients, init_state, update

Params = dict[str, Any]
Batch = dict[str, jax.Array]
Loss = Callable[[Params, Batch, Params], tuple[jax.Array, Metrics]]  # (params, batch, frozen)
Draw = Callable[[Batch, jax.Array], Batch]  # (batch, key): what chance does to a batch, before it is cut into pieces


@dataclasses.dataclass(frozen=True)
class Course:
    """What is trained, where its checkpoints and curve are, how long, on which devices, and what it tells besides."""

    name: str
    folder: Path
    recipe: Recipe
    seed: int = 0
    placement: Placement = ALONE
    extras: Extras = dataclasses.field(default_factory=Extras)

    def train(
        self,
        start: Params,
        loss: Loss,
        data: Mapping[str, Pixels],
        frozen: Params | None = None,
        tx: optax.GradientTransformation | None = None,
        draw: Draw | None = None,
    ) -> Params:
        """Minimise `loss(params, draw(batch, key), frozen)` over shuffled batches of `data` -> averaged parameters.

        `tx`: another optimizer than the recipe's.
        """
        recipe, placement = self.recipe, self.placement
        tx = tx or recipe.optimizer()
        run, read = self.step(loss, tx, draw), placement.whole(frozen or {})
        batch_at = shuffled(data, recipe.batch, self.seed, placement.mine(recipe.batch))
        state, extras = init_state(start, tx, placement), dataclasses.replace(self.extras, streamed=streamed(data))
        state = fit(self.name, self.folder, recipe, state, lambda s, b: run(s, b, read), batch_at, placement, extras)
        return gathered(state.ema, placement)

    def step(self, loss: Loss, tx: optax.GradientTransformation, draw: Draw | None = None) -> Any:
        """One update, jitted: (state, which is donated; batch; frozen) -> (state, metrics)."""
        recipe, root = self.recipe, rng.key(self.seed)

        def step(state: TrainState, batch: Batch, frozen: Params) -> tuple[TrainState, Metrics]:
            if draw is not None:
                batch = draw(batch, jax.random.fold_in(root, state.step))
            grads, metrics = gradients(lambda p, b: loss(p, b, frozen), state.params, batch, recipe.accumulate)
            state, norm = update(state, grads, tx, recipe.ema)
            return state, {**metrics, "grad_norm": norm}

        return self.placement.step(step)


def gathered(params: Params, placement: Placement) -> Params:
    """Parameters that were trained on a mesh, on one device of every process again."""
    whole = params if placement.mesh is None else jax.device_get(placement.jit(placement.everywhere)(params))
    return jax.tree.map(jnp.asarray, whole)
