"""Training a tokenizer as VQGAN (arXiv 2012.09841) and LlamaGen (arXiv 2406.06525) do, on one device or over a mesh.

It minimises its own loss (squared error of pixels, codes), and where they have a weight an L1 error, a perceptual
distance and, from some step on, the loss of an adversary: a discriminator, trained in the same step on the same images.
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import flax.struct
import jax
import jax.numpy as jnp
import optax

from dd_jax.data.batches import shuffled
from dd_jax.data.examples import Pixels, at_once, streamed
from dd_jax.method import adversarial
from dd_jax.method.adversarial import Anchors, Smooth
from dd_jax.method.interfaces import Params
from dd_jax.nn import codebook
from dd_jax.nn.discriminator import Discriminator, least_side
from dd_jax.system import rng
from dd_jax.system.checkpoint import Checkpoints
from dd_jax.system.errors import UserError
from dd_jax.system.runtime import jit_once
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.training.log import Extras
from dd_jax.training.loop import Metrics, Recipe, Settings, TrainState, averaged, fit, gradients, init_state, update

Batch = dict[str, jax.Array]
Compare = Callable[[Params, jax.Array, jax.Array], jax.Array]  # (frozen parameters, img, img) -> distance_B
ALIVE = 0.7  # share of the steps behind which codes are left alone
ENOUGH = 4  # codes of a batch for each that there is, from which on it tells which are dead: of even use it misses e^-4


@dataclasses.dataclass(frozen=True)
class Aims(Settings):
    """What is minimised besides the tokenizer's own loss, and how codes are kept alive."""

    revive_every: int = 30
    dtype: str = "float32"  # in which encoder, decoder and discriminator compute
    l1: float = 0.0
    perceptual: str = "none"  # what looks at both images: "classifier", "lpips"
    perceptual_weight: float = 1.0
    perceptual_every: int = 1  # of how many pictures of a batch it looks at one
    gan_weight: float = 0.0  # 0: no discriminator
    gan_adaptive: bool = True  # times Eq. 7's ratio of gradients
    gan_start: int = 0
    gan_lr: float = 1e-4
    gan_width: int = 64
    gan_layers: int = 3
    gan_r1: float = 0.0  # weights in the discriminator's loss (see `adversarial`)
    gan_lecam: float = 0.0

    def check(self, side: int) -> None:
        """UserError for images that the discriminator could not judge."""
        if self.gan_weight and side < (least := least_side(self.gan_layers)):
            raise UserError(
                f"config.pretrain.tokenizer.gan_layers={self.gan_layers} judges {least} px or more, and "
                f"config.data.resolution={side}: set fewer layers"
            )


@flax.struct.dataclass
class Learning(TrainState):
    """The tokenizer's state, and its adversary's: no average, for nobody uses it. What there is none of is None."""

    discriminator: Any = None  # its parameters
    discriminator_opt: optax.OptState = None
    anchors: Anchors | None = None  # where LeCam's term has a weight
    used_V: jax.Array | None = None  # codes in use since the last revival, where a batch alone does not tell

    LATER: ClassVar[tuple[str, ...]] = ("used_V",)


@dataclasses.dataclass(frozen=True)
class Trainer:
    """One run's training. `eyes`: what the perceptual distance looks with, where there is one.

    `counts`: codes are dead that no batch has used since the last revival, not those that its own batch does not use.
    """

    tokenizer: Any
    recipe: Recipe
    aims: Aims
    seed: int
    eyes: Compare | None = None
    counts: bool = False

    @classmethod
    def of(
        cls, tokenizer: Any, section: Any, seed: int, eyes: Compare | None = None, tokens: int | None = None
    ) -> "Trainer":
        """By `config.pretrain.tokenizer`. `tokens`: codes of an image; it counts where a batch has few of them."""
        aims, recipe = Aims.of(section), Recipe.of(section)
        counts = tokens is not None and tokens * recipe.batch < ENOUGH * tokenizer.vocab
        kind = jnp.dtype(aims.dtype)
        cast = tokenizer if kind == jnp.float32 else dataclasses.replace(tokenizer, dtype=kind)
        return cls(cast, recipe, aims, seed, eyes, counts)

    @property
    def discriminator(self) -> Discriminator:
        return Discriminator(self.aims.gan_width, self.aims.gan_layers)

    @functools.cached_property
    def tx(self) -> optax.GradientTransformation:
        return self.recipe.optimizer()

    @functools.cached_property
    def gan_tx(self) -> optax.GradientTransformation:
        """The discriminator's: the same recipe at its own rate, over the steps that it plays."""
        steps = max(self.recipe.steps - self.aims.gan_start, 1)
        return dataclasses.replace(self.recipe, steps=steps, lr=self.aims.gan_lr, muon=False, no_decay=()).optimizer()

    def start(self, img: Pixels) -> Params:
        """The tokenizer's first parameters, its codebook made of these images."""
        tokenizer, count, some = self.tokenizer, min(2 * self.recipe.batch, len(img)), at_once(img)
        params, run = jit_once(tokenizer.init)(rng.key(self.seed)), jax.jit(tokenizer.vectors)
        pieces = [run(params, img[i : min(i + some, count)]) for i in range(0, count, some)]
        return jax.jit(tokenizer.init_codebook)(params, jnp.concatenate(pieces), self._root)

    def begin(self, params: Params, placement: Placement = ALONE) -> Learning:
        """The state at step 0."""
        aims, used = self.aims, placement.put(jnp.zeros(self.tokenizer.vocab, bool)) if self.counts else None
        state = Learning(**vars(init_state(params, self.tx, placement)), used_V=used)
        if not aims.gan_weight:
            return state
        img = jnp.zeros((1, *(least_side(aims.gan_layers),) * 2, self.tokenizer.stack.channels))

        def init(key: jax.Array) -> tuple[Params, optax.OptState, Anchors | None]:
            fresh = rng.fresh(self.discriminator, key, img)
            return placement.keep((fresh, self.gan_tx.init(fresh), Anchors.zero() if aims.gan_lecam else None))

        rival, opt, anchors = jax.jit(init)(jax.random.fold_in(self._root, 0))
        return dataclasses.replace(state, discriminator=rival, discriminator_opt=opt, anchors=anchors)

    @property
    def _root(self) -> jax.Array:
        return jax.random.fold_in(rng.key(self.seed), 1)

    def step(self, state: Learning, batch: Batch, frozen: Params, plays: bool = True) -> tuple[Learning, Metrics]:
        """One update of the tokenizer and, if there is one and it `plays`, of the discriminator by the same images."""
        img, pieces = batch["img"], self.recipe.accumulate
        if state.discriminator is not None and plays:
            play = functools.partial(self._play, state, frozen)
            grads, rival, metrics = averaged(play, img, pieces)
            state, metrics["discriminator_grad_norm"] = self._answered(state, rival)
            if state.anchors is not None:
                moved = state.anchors.moved(metrics["discriminator_real"], metrics["discriminator_fake"])
                state = dataclasses.replace(state, anchors=moved)
        else:
            grads, metrics = gradients(lambda p, img: self._loss(p, img, frozen)[:2], state.params, img, pieces)
        if state.used_V is not None:
            state = dataclasses.replace(state, used_V=state.used_V | (metrics.pop("used_V") > 0))
        state, norm = update(state, grads, self.tx, self.recipe.ema)
        return self._revived(state, img), {**metrics, "grad_norm": norm}

    def _loss(self, params: Params, img: jax.Array, frozen: Params) -> tuple[jax.Array, Metrics, jax.Array]:
        """All but the adversary's share, what to log, and the reconstructions."""
        made, aims = self.tokenizer.reconstruct(params, img), self.aims
        total, metrics = self.tokenizer.weigh(made, img)
        if aims.l1:
            metrics |= {"l1": aims.l1 * jnp.mean(jnp.abs(made.img_BxRxRxc - img))}
            total = total + metrics["l1"]
        if self.eyes and aims.perceptual_weight:
            shown = slice(None, None, aims.perceptual_every)
            far = jnp.mean(self.eyes(frozen, made.img_BxRxRxc[shown], img[shown]))
            metrics |= {"perceptual": aims.perceptual_weight * far}
            total = total + metrics["perceptual"]
        if self.counts:
            metrics |= {"used_V": codebook.usage(made.code_BxL, self.tokenizer.vocab).astype(jnp.float32)}
        return total, {**metrics, "loss": total}, made.img_BxRxRxc

    def _play(self, state: Learning, frozen: Params, img: jax.Array) -> tuple[Params, Params, Metrics]:
        """Gradients of the tokenizer and of the discriminator, and what to log.

        Both losses reach the tokenizer through its images alone: one pass back through it with the sum of their
        gradients there, and for Eq. 7 two that end in its last layer (XLA leaves out the rest).
        """

        def forward(params: Params) -> tuple[tuple[jax.Array, jax.Array], Metrics]:
            total, metrics, made = self._loss(params, img, frozen)
            return (total, made), metrics

        (total, made), pull, metrics = jax.vjp(forward, state.params, has_aux=True)
        one, none = jnp.ones_like(total), jnp.zeros_like(total)
        smooth = Smooth(self.aims.gan_r1, self.aims.gan_lecam, state.anchors)
        match = adversarial.match(self._logits, state.discriminator, img, made, smooth)
        weight = jnp.float32(self.aims.gan_weight)
        if self.aims.gan_adaptive:
            sides = (one, jnp.zeros_like(made)), (none, match.by_img_BxRxRxc)
            weight = weight * adversarial.balance(*(self.tokenizer.last_kernel(pull(side)[0]) for side in sides))
        (grads,) = pull((one, weight * match.by_img_BxRxRxc))
        seen = {"gan": match.fooled, "gan_weight": weight, "discriminator": match.hinge}
        seen |= {f"discriminator_{name}": term for name, term in match.terms.items()}
        return grads, match.by_params, {**metrics, **seen, "loss": total + weight * match.fooled}

    def _logits(self, params: Params, img: jax.Array) -> jax.Array:
        """The discriminator's, in float32."""
        given = img.astype(self.tokenizer.dtype)
        return jnp.asarray(self.discriminator.apply({"params": params}, given)).astype(jnp.float32)

    def _answered(self, state: Learning, grads: Params) -> tuple[Learning, jax.Array]:
        """The discriminator's update -> (state, gradient norm)."""
        change, opt = self.gan_tx.update(grads, state.discriminator_opt, state.discriminator)
        params = optax.apply_updates(state.discriminator, change)
        return dataclasses.replace(state, discriminator=params, discriminator_opt=opt), optax.global_norm(grads)

    def _revived(self, state: Learning, img: jax.Array) -> Learning:
        """Every so many steps, codes that were not used begin again: by the batch, or since the last time."""
        due = (state.step % self.aims.revive_every == 0) & (state.step < ALIVE * self.recipe.steps)
        key = jax.random.fold_in(self._root, state.step)

        def with_new_codes(state: Learning) -> Learning:
            params = self.tokenizer.revive(state.params, img, key, state.used_V)
            ema = self.tokenizer.with_codebook(state.ema, self.tokenizer.raw_codebook(params))
            unused = None if state.used_V is None else jnp.zeros_like(state.used_V)
            return dataclasses.replace(state, params=params, ema=ema, used_V=unused)

        return jax.lax.cond(due, with_new_codes, lambda state: state, state)


def stepper(trainer: Trainer, placement: Placement = ALONE, plays: bool = True) -> Any:
    """`Trainer.step` jitted: (state, which is donated; batch; frozen) -> (state, metrics)."""
    return placement.step(functools.partial(trainer.step, plays=plays))


def run(
    folder: Path,
    trainer: Trainer,
    img: Pixels,
    frozen: Params,
    placement: Placement = ALONE,
    extras: Extras | None = None,
) -> Params:
    """Train to the end (or resume) -> the averaged parameters. Each process reads its own share of every batch."""
    recipe = trainer.recipe
    placement.check_batch("config.pretrain.tokenizer.batch", recipe.batch, recipe.accumulate)
    data = {"img": img}
    batch_at = shuffled(data, recipe.batch, trainer.seed, placement.mine(recipe.batch))
    extras = dataclasses.replace(extras or Extras(), streamed=streamed(data))
    # Two programs, not a conditional in one: on CPUs a convolution's gradient is far slower in a branch.
    early, late = (stepper(trainer, placement, plays) for plays in (False, True))
    with Checkpoints(folder) as checkpoints:
        steps = itertools.count(checkpoints.latest() or 0)
    state, frozen = trainer.begin(trainer.start(img), placement), placement.whole(frozen)

    def step(state: Any, batch: Batch) -> tuple[Learning, Metrics]:
        return (late if next(steps) >= trainer.aims.gan_start else early)(state, batch, frozen)

    return fit("tokenizer", folder, recipe, state, step, batch_at, placement, extras).ema
