"""Alg. 2's distance d between the student's prediction and the pair's codes."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax

from dd_jax.method.layout import Layout
from dd_jax.system.errors import UserError

# (token_BxLxC, target_BxLxC) -> distance_B
Distance = Callable[[jax.Array, jax.Array], jax.Array]


GROUPS = 4  # quarters of the AR steps, whose agreement is logged apart


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weight of each head's loss (the paper: 0.1 and 1)."""

    ce: float = 0.1
    embedding: float = 1.0


def mse(token_BxLxC: jax.Array, target_BxLxC: jax.Array) -> jax.Array:
    """Mean squared distance of code vectors; blurs where a noise allows several codes."""
    return jnp.mean((token_BxLxC - target_BxLxC) ** 2, (1, 2))


def perceptual(decode: Callable, distance: Callable, batch: int = 0) -> Distance:
    """`distance` between the decoded images, e.g. LPIPS or a classifier's features; `batch` at a time, 0: all."""

    def between(token_BxLxC: jax.Array, target_BxLxC: jax.Array) -> jax.Array:
        return distance(decode(token_BxLxC), jax.lax.stop_gradient(decode(target_BxLxC)))

    return sliced(between, batch) if batch else between


def sliced(distance: Distance, batch: int) -> Distance:
    """`distance`, `batch` examples at a time: equal value and gradient in the memory of one slice.

    A distance concerns its own example alone, so its gradient is taken right after its value and nothing is
    computed twice. XLA on CPUs is half as fast at convolutions inside a loop. UserError as `slices`.
    """

    def one(pair: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        token, target = pair
        far_B, pull = jax.vjp(lambda token: distance(token, target), token)
        return far_B, pull(jnp.ones_like(far_B))[0]

    def between(token_BxLxC: jax.Array, target_BxLxC: jax.Array) -> jax.Array:
        if slices(len(token_BxLxC), batch) == 1:
            return distance(token_BxLxC, target_BxLxC)
        still = jax.lax.stop_gradient(token_BxLxC)
        dealt = jax.tree.map(lambda x: _deal(x, batch), (still, target_BxLxC))
        far_B, grad_BxLxC = jax.tree.map(_collect, jax.lax.map(one, dealt))
        return far_B + jnp.sum(grad_BxLxC * (token_BxLxC - still), (1, 2))

    return between


def slices(count: int, batch: int) -> int:
    """How many slices of `batch` examples (0: any number) make `count`. UserError where none do."""
    if not batch or count <= batch:
        return 1
    if count % batch:
        raise UserError(f"config.train.distance_batch={batch} does not divide a batch of {count}: choose one that does")
    return count // batch


def _deal(x: jax.Array, batch: int) -> jax.Array:
    """(B, ...) -> (B / batch, batch, ...). Every slice has examples of every device, if they hold neighbours."""
    return x.reshape(batch, -1, *x.shape[1:]).swapaxes(0, 1)


def _collect(x: jax.Array) -> jax.Array:
    """The inverse of `_deal`."""
    return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])


def straight_through(logits_BxLxV: jax.Array, code_BxL: jax.Array, codebook_VxC: jax.Array) -> jax.Array:
    """The vectors (B, L, C) of `code`, with the gradient of the mean code vector (arXiv 1308.3432, sec. 4)."""
    mean = jax.nn.softmax(logits_BxLxV) @ codebook_VxC
    return codebook_VxC[code_BxL] + mean - jax.lax.stop_gradient(mean)


def distill_loss(
    logits_BxLxV: jax.Array,
    token_BxLxC: jax.Array | None,
    code_BxL: jax.Array,
    t_B: jax.Array,
    codebook_VxC: jax.Array,
    layout: Layout,
    split: int,
    weights: Weights,
    distance: Distance | None,
    timesteps: tuple[int, ...] = (),
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Eq. 7 with lambda(t) = 1: cross-entropy of the logits head plus a distance of the embedding head.

    Known tokens cost nothing. The embedding head is compared as it will be decoded: behind the split, with
    the likeliest codes (no gradient) before it. Where the split leaves it nothing, or there is no such head, the
    likeliest codes are compared, straight through.
    What to log comes along, also for each of `timesteps`.
    """
    known_BxL = layout.known(t_B)
    unknown = jnp.sum(~known_BxL)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, code_BxL)
    ce = jnp.sum(jnp.where(known_BxL, 0.0, nll)) / unknown
    likeliest = jnp.argmax(logits_BxLxV, -1)
    hit_BxL = ~known_BxL & (likeliest == code_BxL)
    loss, seen = weights.ce * ce, {"ce": ce, "agreement": jnp.sum(hit_BxL) / unknown}
    seen |= _by_part(~known_BxL, jnp.where(known_BxL, 0.0, nll), hit_BxL, t_B, layout, timesteps)
    if distance is not None and weights.embedding:
        target = codebook_VxC[code_BxL]
        if token_BxLxC is None or split >= layout.steps:
            token_BxLxC, split = straight_through(logits_BxLxV, likeliest, codebook_VxC), 0
        spliced = jnp.where(layout.known(split)[..., None], codebook_VxC[likeliest], token_BxLxC)
        spliced = jnp.where(known_BxL[..., None], target, spliced)
        far_B = distance(spliced, target)
        far = jnp.mean(far_B)
        loss, seen = loss + weights.embedding * far, {**seen, "embedding": far}
        seen |= {f"embedding/t{t}": _share(far_B, t_B == t) for t in timesteps}
    return loss, {"loss": loss, **seen}


def prediction(
    logits_BxLxV: jax.Array, code_BxL: jax.Array, layout: Layout, smoothing: float = 0.0
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Next-step prediction, a teacher's loss: mean nll in nats a token; with its accuracy, both also by band.

    `smoothing`: share of each target that all codes have alike (label smoothing, arXiv 1512.00567, sec. 7). That is the
    loss; nll and accuracy stay those of the codes.
    """
    nll_BxL = optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, code_BxL)
    hit_BxL = (jnp.argmax(logits_BxLxV, -1) == code_BxL).astype(jnp.float32)
    loss, seen = jnp.mean(nll_BxL), {}
    if smoothing:
        seen["nll"] = loss
        uniform_BxL = jax.nn.logsumexp(logits_BxLxV, -1) - jnp.mean(logits_BxLxV, -1)
        loss = (1 - smoothing) * loss + smoothing * jnp.mean(uniform_BxL)
    seen |= {"loss": loss, "accuracy": jnp.mean(hit_BxL)}
    for name, band in layout.bands.items():
        seen |= {f"nll/{name}": jnp.mean(nll_BxL[:, band]), f"accuracy/{name}": jnp.mean(hit_BxL[:, band])}
    return loss, seen


def _by_part(
    unknown_BxL: jax.Array,
    nll_BxL: jax.Array,
    hit_BxL: jax.Array,
    t_B: jax.Array,
    layout: Layout,
    timesteps: tuple[int, ...],
) -> dict[str, jax.Array]:
    """Cross-entropy and agreement for each timestep, agreement for each quarter of the AR steps."""
    seen: dict[str, jax.Array] = {}
    if not timesteps:
        return seen
    for t in timesteps:
        mask_BxL = unknown_BxL & (t_B == t)[:, None]
        seen |= {f"ce/t{t}": _share(nll_BxL, mask_BxL), f"agreement/t{t}": _share(hit_BxL, mask_BxL)}
    for group in np.array_split(np.arange(layout.steps), min(GROUPS, layout.steps)):
        mask_BxL = unknown_BxL & np.isin(layout.step_L, group)
        seen[f"agreement/steps_{group[0]}-{group[-1]}"] = _share(hit_BxL, mask_BxL)
    return seen


def _share(x: jax.Array, mask: jax.Array) -> jax.Array:
    """Mean of `x` where `mask` is true; 0 where it is nowhere."""
    return jnp.sum(jnp.where(mask, x, 0.0)) / jnp.maximum(jnp.sum(mask), 1)
