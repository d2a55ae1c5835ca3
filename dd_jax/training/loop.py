"""The training loop that tokenizer, teacher, classifier and student share: optimizer, EMA, resume, curves."""

import contextlib
import dataclasses
import difflib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import flax.struct
import jax
import jax.numpy as jnp
import optax
import optax.contrib

from dd_jax.data.batches import stream
from dd_jax.method.interfaces import Params
from dd_jax.system import spelling, stopping
from dd_jax.system.checkpoint import Checkpoints
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.training.log import Extras, Log

Metrics = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True)
class Settings:
    """A dataclass that a section of a config fills."""

    @classmethod
    def of(cls, section: Mapping[str, Any]) -> Self:
        """These fields of the section; it may have others, for others. "a,b" in a list of names is two of them."""
        names = {field.name for field in dataclasses.fields(cls)}
        given = {key: spelling.apart(value) for key, value in section.items() if key in names}
        return cls(**given)


@dataclasses.dataclass(frozen=True)
class Recipe(Settings):
    """How long and with what optimizer to train."""

    steps: int
    batch: int
    lr: float
    warmup: int = 50
    final_lr: float = 0.1  # share of `lr` left at the end of the linear decay
    clip: float = 1.0
    b1: float = 0.9
    b2: float = 0.95
    weight_decay: float = 0.0
    no_decay: tuple[str, ...] = ()  # names in the paths of parameters that it leaves alone, besides all vectors
    muon: bool = False  # orthogonalised momentum for the matrices of numbered layers: fewer steps for small models
    ema: float = 0.99
    checkpoint_every: int = 250
    accumulate: int = 1  # micro-batches that a step's batch is cut into

    def optimizer(self) -> optax.GradientTransformation:
        """AdamW with clipping, warm-up and linear decay; no decay of vectors (gains, biases) and of `no_decay`.

        Its `init` raises a UserError for a name in `no_decay` that no parameter has.
        """
        tail = max(self.steps - self.warmup, 1)
        rate = optax.join_schedules(
            [
                optax.linear_schedule(0.0, self.lr, self.warmup),
                optax.linear_schedule(self.lr, self.lr * self.final_lr, tail),
            ],
            [self.warmup],
        )
        inner = (
            self._muon(rate)
            if self.muon
            else optax.adamw(rate, self.b1, self.b2, weight_decay=self.weight_decay, mask=self._decayed)
        )
        whole = optax.chain(optax.clip_by_global_norm(self.clip), inner)

        def init(params: Params) -> Any:
            self.check(params)
            return whole.init(params)

        return optax.GradientTransformationExtraArgs(init, whole.update)

    def _muon(self, rate: optax.Schedule) -> optax.GradientTransformation:
        """Muon for `_layer_matrices`, Adam for the others, both with the same decay."""
        inner = optax.contrib.muon(
            rate,
            ns_steps=3,  # of the usual five: Schatten's norm, nearer to the largest singular value, saves one, and
            preconditioning="schatten",  # three meet the demos' bars (a twelfth less time a step)
            consistent_rms=0.2,  # updates as large as Adam's, so that one rate serves both
            adam_b1=self.b1,
            adam_b2=self.b2,
            muon_weight_dimension_numbers=_layer_matrices,
            weight_decay=self.weight_decay,
            weight_decay_mask=self._decayed,  # also a part of the state that earlier checkpoints hold
            adam_weight_decay=self.weight_decay,  # its own: `weight_decay` stops at Muon's share
        )
        if not self.weight_decay:
            return inner

        def update(grads: Params, state: Any, params: Params) -> tuple[Params, Any]:
            # Adam's share takes no mask. Decay is all that parameters are read for: zeros do not decay.
            shown = jax.tree.map(lambda p, yes: p if yes else jnp.zeros_like(p), params, self._decayed(params))
            return inner.update(grads, state, shown)

        return optax.GradientTransformation(inner.init, update)

    def check(self, params: Params) -> None:
        """UserError for a name in `no_decay` that none of `params` (or of their shapes) has."""
        paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        there = {key.key for path in paths for key in path}
        for name in self.no_decay:
            if name not in there:
                told = ", ".join(difflib.get_close_matches(name, there, 4, 0.4) or sorted(there)[:8])
                raise UserError(f"no_decay has {name!r}, and no parameter is called so: there are {told}, ...")

    def _decayed(self, params: Params) -> Params:
        def decayed(path: tuple, p: jax.Array) -> bool:
            return p.ndim > 1 and not any(key.key in self.no_decay for key in path)

        return jax.tree_util.tree_map_with_path(decayed, params)


def _layer_matrices(params: Params) -> Params:
    """Muon's share: kernels of numbered layers (not embeddings, modulation or heads); None: Adam's."""

    def pick(path: tuple, p: jax.Array) -> Any:
        names = [key.key for key in path]
        numbered = any(name.rpartition("_")[2].isdigit() for name in names)
        return optax.contrib.MuonDimensionNumbers() if numbered and names[-1] == "kernel" and p.ndim == 2 else None

    return jax.tree_util.tree_map_with_path(pick, params)


@flax.struct.dataclass
class TrainState:
    """All that a resumed run needs."""

    step: jax.Array
    params: Params
    ema: Params
    opt: optax.OptState


State = TypeVar("State", bound=TrainState)


def init_state(params: Params, tx: optax.GradientTransformation, placement: Placement = ALONE) -> TrainState:
    """A state at step 0; the average starts at the parameters (a copy: buffers are donated)."""

    def init(params: Params) -> TrainState:
        return TrainState(jnp.int32(0), params, params, tx.init(params))

    return jax.jit(lambda params: placement.keep(init(params)))(placement.put(params))


def gradients(
    loss: Callable[[Params, Any], tuple[jax.Array, Metrics]], params: Params, batch: Any, pieces: int = 1, run: int = 1
) -> tuple[Params, Metrics]:
    """Gradient and metrics of `loss(params, batch)`, the mean over `pieces` micro-batches (see `averaged`)."""
    grad = jax.grad(loss, has_aux=True)
    found: tuple[Params, Metrics] = averaged(lambda piece: grad(params, piece), batch, pieces, run)
    return found


def averaged(fn: Callable[[Any], Any], batch: Any, pieces: int = 1, run: int = 1) -> Any:
    """`fn(batch)`, a tree of arrays: the mean over `pieces` micro-batches, one after another.

    Runs of `run` neighbours stay together and are dealt out in turns: every piece then has as many examples of each
    of `run` kinds that take turns in the batch, and examples stay on the device that has them. The batch is a
    multiple of pieces x run.
    """
    if pieces == 1:
        return fn(batch)

    def deal(x: jax.Array) -> jax.Array:
        dealt = jnp.moveaxis(x.reshape(-1, pieces, run, *x.shape[1:]), 1, 0)
        return dealt.reshape(pieces, -1, *x.shape[1:])

    def add(total: Any, piece: Any) -> tuple[Any, None]:
        return jax.tree.map(jnp.add, total, fn(piece)), None

    dealt = jax.tree.map(deal, batch)
    shapes = jax.eval_shape(fn, jax.tree.map(lambda x: x[0], dealt))
    total, _ = jax.lax.scan(add, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes), dealt)
    return jax.tree.map(lambda x: x / pieces, total)


def update(state: State, grads: Params, tx: optax.GradientTransformation, decay: float) -> tuple[State, jax.Array]:
    """One optimizer step and one EMA step, its decay warmed up; -> (state, gradient norm)."""
    change, opt = tx.update(grads, state.opt, state.params)
    params = optax.apply_updates(state.params, change)
    step = state.step + 1
    rate = jnp.minimum(decay, step / (step + 10.0))
    ema = jax.tree.map(lambda e, p: e + (1 - rate) * (p - e), state.ema, params)
    return dataclasses.replace(state, step=step, params=params, ema=ema, opt=opt), optax.global_norm(grads)


def fit(
    name: str,
    folder: Path,
    recipe: Recipe,
    state: TrainState,
    step_fn: Callable[[TrainState, Any], tuple[TrainState, Metrics]],
    batch_at: Callable[[int], Any],
    placement: Placement = ALONE,
    extras: Extras | None = None,
) -> TrainState:
    """Run `step_fn` to `recipe.steps` from the newest checkpoint in `folder`; curves go to curve.jsonl there.

    A checkpoint is restored to where `state` is, whatever mesh it was saved on. The state is donated. Metrics are
    read when they are logged, so the next steps are already on their way.
    A loss that is not finite raises a UserError and leaves the last good checkpoint; SIGTERM saves and raises Stopped.
    """
    with contextlib.ExitStack() as stack:
        checkpoints = stack.enter_context(Checkpoints(folder))
        checkpoints.check(state)
        first, place = int(checkpoints.latest() or 0), None
        if first:
            state, place = checkpoints.restore(state)
        # Committed to its devices as what a step returns is; else the second step would be another program.
        state = jax.tree.map(lambda x: jax.device_put(x, x.sharding), state)
        data = stream(batch_at, recipe.steps, first, place)
        log = Log(name, folder, recipe.steps, first, batch_at, checkpoints.latest, extras or Extras())
        stack.enter_context(log)
        stack.enter_context(stopping.listening(together=True))
        for step in range(first, recipe.steps):
            batch, done = placement.batch(log.take(data)), step + 1
            if step == first:
                log.begin(state, batch)
            state, metrics = step_fn(state, batch)
            checkpoints.flush()
            log.note(done, metrics, state)
            stop = stopping.due(done) and done < recipe.steps
            if stop or done % recipe.checkpoint_every == 0 or done == recipe.steps:
                log.check()
                checkpoints.save(done, state, data.get_state())
            if stop:
                raise stopping.Stopped(f"{name}: stopped at step {done} of {recipe.steps}, which is saved")
    return state


def load_ema(
    folder: Path, recipe: Recipe, init: Callable[[], Params], begin: Callable[[Params], TrainState] | None = None
) -> Params:
    """The averaged parameters of a finished run that began at `init()`. UserError if it is not finished.

    `begin(init())`: its state then, where it was not `init_state`'s.
    """
    begin = begin or (lambda params: init_state(params, recipe.optimizer()))
    with Checkpoints(folder) as checkpoints:
        if checkpoints.latest() != recipe.steps:
            raise UserError(f"{folder} is at step {checkpoints.latest()} of {recipe.steps}: run its stage first")
        state, _ = checkpoints.restore(jax.eval_shape(lambda: begin(init())))
    return state.ema
