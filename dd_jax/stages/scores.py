"""Conditional score distillation's training: student and score network in turns, one of them a step (see `method.csd`).

First the start, then score updates with one of the student behind every few of them; between the two halves the
average becomes the student, and the score network catches up with it. Each network has an optimizer of its own, whose
schedule counts its own updates; the average is the student's.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax

from dd_jax.method.csd import GENERATOR, HEAD, SEEN, START, Csd, Distiller
from dd_jax.method.interfaces import Params
from dd_jax.method.models import Models
from dd_jax.system import rng
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.training.loop import Metrics, Recipe, TrainState, gradients, update


@dataclasses.dataclass(frozen=True)
class Turns:
    """One run's training: `begin`, then `step` for every step."""

    models: Models
    plan: Csd
    recipe: Recipe
    seed: int = 0

    @property
    def distiller(self) -> Distiller:
        return Distiller(self.models, self.plan, self.seed)

    @functools.cached_property
    def optimizers(self) -> dict[str, optax.GradientTransformation]:
        """Of the start, of the score network and of the student behind it."""
        recipe, plan = self.recipe, self.plan
        scores, students = plan.counts(recipe.steps)
        first = dataclasses.replace(recipe, lr=plan.start_lr, steps=max(plan.first, 1), warmup=plan.first // 50)
        score = dataclasses.replace(recipe, lr=plan.score_lr, steps=scores)
        student = dataclasses.replace(recipe, steps=students, warmup=recipe.warmup // plan.updates[0])
        return {"start": first.optimizer(), "score": score.optimizer(), "student": student.optimizer()}

    def begin(self, student: Params, params: dict[str, Params], placement: Placement = ALONE) -> TrainState:
        """The state at step 0, its average the student's alone. `params`: tokenizer and teacher."""
        key = jax.random.fold_in(rng.stream(self.seed, "init"), 1)

        def init(student: Params, params: dict[str, Params]) -> TrainState:
            codebook = self.models.tokenizer.codebook(params["tokenizer"])
            both = {"student": student, "score": self.distiller.init(key, params["teacher"], codebook)}
            seen = dict.fromkeys(SEEN, jnp.float32(0))
            return placement.keep(TrainState(jnp.int32(0), both, student, {**self._fresh(both), "seen": seen}))

        read = {part: params[part] for part in ("tokenizer", "teacher")}
        return jax.jit(init)(placement.put(student), placement.put(read))

    def _fresh(self, both: Params) -> dict[str, Any]:
        """Optimizers' states, and the number of the student's updates."""
        moments = {name: self.optimizers[name].init(both[name]) for name in ("student", "score")}
        return {**moments, "count": jnp.int32(0)}

    def step(self, state: TrainState, batch: dict[str, Any], frozen: Params) -> tuple[TrainState, Metrics]:
        """One network's update, whosever turn it is, and what it and the other one saw last."""
        plan = self.plan
        state = self._passed(state)
        turn, turns = plan.turn(state.step), plan.turns
        branches = [functools.partial(self.turn, one, frozen) for one in turns]
        state, loss, norm = jax.lax.switch(jnp.argmax(jnp.asarray(turns) == turn), branches, state, batch)
        state = dataclasses.replace(state, step=state.step + 1)
        return state, {**state.opt["seen"], "loss": loss, "grad_norm": norm}

    def _passed(self, state: TrainState) -> TrainState:
        """The end of the start, and the alignment, where the next step is the first behind them."""
        plan, student = self.plan, self.distiller.student

        def started(state: TrainState) -> TrainState:
            both = dict(state.params)
            if not plan.residual:
                both["student"] = student.init_from_score(both["student"], both["score"])
            opt = {**self._fresh(both), "seen": state.opt["seen"]}
            return dataclasses.replace(state, params=both, ema=both["student"], opt=opt)

        def aligned(state: TrainState) -> TrainState:
            return dataclasses.replace(state, params={**state.params, "student": state.ema})

        def same(state: TrainState) -> TrainState:
            return state

        if plan.first:
            state = jax.lax.cond(state.step == plan.first, started, same, state)
        if plan.align:
            state = jax.lax.cond(state.step == plan.first + plan.align_at, aligned, same, state)
        return state

    def turn(
        self, turn: int, frozen: Params, state: TrainState, batch: dict[str, Any]
    ) -> tuple[TrainState, jax.Array, jax.Array]:
        """An update in one kind of turn -> (state, loss, gradient norm)."""
        plan, way, early = self.plan, self.distiller, turn in (HEAD, START)
        rows = way.rows({key: x for key, x in batch.items() if key != "fresh"} if early else batch["fresh"], state.step)
        student, score = state.params["student"], state.params["score"]
        mine = "student" if turn == GENERATOR or (early and plan.residual) else "score"

        def loss_fn(params: Params, rows: Any) -> tuple[jax.Array, Metrics]:
            if turn == GENERATOR:
                loss, seen = way.csd(params, rows, frozen, score)
            elif not early:
                loss, seen = way.fcs(params, rows, frozen, student)
            elif plan.residual:
                loss, seen = way.regression(params, rows, frozen)
            else:
                loss, seen = way.gts(params, rows, frozen, turn == HEAD)
            return loss, {**seen, "loss": loss}

        grads, seen = gradients(loss_fn, state.params[mine], rows, self.recipe.accumulate)
        loss, seen = seen["loss"], {key: x for key, x in seen.items() if key != "loss"}
        tx = self.optimizers["start" if early else mine]
        opt = {**state.opt, "seen": {**state.opt["seen"], **seen}}
        if mine == "student":
            one = TrainState(opt["count"], student, state.ema, opt[mine])
            one, norm = update(one, grads, tx, self.recipe.ema)
            params, ema, opt = {**state.params, mine: one.params}, one.ema, {**opt, mine: one.opt, "count": one.step}
        else:
            change, moments = tx.update(grads, state.opt[mine], score)
            if turn == HEAD:  # decay neither
                change = {**change, "trunk": jax.tree.map(jnp.zeros_like, change["trunk"])}
            params, norm = {**state.params, mine: optax.apply_updates(score, change)}, optax.global_norm(grads)
            ema, opt = state.ema, {**opt, mine: moments}
        return dataclasses.replace(state, params=params, ema=ema, opt=opt), loss, norm
