"""Alg. 2's distance d between the student's prediction and the pair's codes."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax

from dd_jax.layout import Layout

# (token_BxLxC, target_BxLxC) -> distance_B
Distance = Callable[[jax.Array, jax.Array], jax.Array]


@dataclasses.dataclass(frozen=True)
class Weights:
    """Weight of each head's loss (the paper: 0.1 and 1)."""

    ce: float = 0.1
    embedding: float = 1.0


def mse(token_BxLxC: jax.Array, target_BxLxC: jax.Array) -> jax.Array:
    """Mean squared distance of code vectors; blurs where a noise allows several codes."""
    return jnp.mean((token_BxLxC - target_BxLxC) ** 2, (1, 2))


def perceptual(decode: Callable, distance: Callable) -> Distance:
    """`distance` between the decoded images, e.g. LPIPS or a judge's features."""

    def between(token_BxLxC: jax.Array, target_BxLxC: jax.Array) -> jax.Array:
        return distance(decode(token_BxLxC), jax.lax.stop_gradient(decode(target_BxLxC)))

    return between


def distill_loss(
    logits_BxLxV: jax.Array,
    token_BxLxC: jax.Array,
    code_BxL: jax.Array,
    t_B: jax.Array,
    codebook_VxC: jax.Array,
    layout: Layout,
    split: int,
    weights: Weights,
    distance: Distance | None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Eq. 7 with lambda(t) = 1: cross-entropy of the logits head plus a distance of the embedding head.

    Known tokens cost nothing. The embedding head is compared as it will be decoded: behind the split, with
    the likeliest codes (no gradient) before it.
    """
    known_BxL = layout.known(t_B)
    unknown = jnp.sum(~known_BxL)
    nll = optax.softmax_cross_entropy_with_integer_labels(logits_BxLxV, code_BxL)
    ce = jnp.sum(jnp.where(known_BxL, 0.0, nll)) / unknown
    likeliest = jnp.argmax(logits_BxLxV, -1)
    agreement = jnp.sum(~known_BxL & (likeliest == code_BxL)) / unknown
    loss, seen = weights.ce * ce, {"ce": ce, "agreement": agreement}
    if distance is not None and weights.embedding:
        target = codebook_VxC[code_BxL]
        early = jnp.where(known_BxL, code_BxL, likeliest)
        spliced = jnp.where(known_BxL[..., None], target, token_BxLxC)
        spliced = jnp.where(layout.known(split)[..., None], codebook_VxC[early], spliced)
        far = jnp.mean(distance(spliced, target))
        loss, seen = loss + weights.embedding * far, {**seen, "embedding": far}
    return loss, {"loss": loss, **seen}
