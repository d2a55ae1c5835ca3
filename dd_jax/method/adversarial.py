"""The adversarial loss of a tokenizer (VQGAN, Esser et al., arXiv 2012.09841): hinge losses, and their weight.

And what keeps a discriminator smooth, or from knowing few pictures by heart: R1 and LeCam, each with a weight.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Params = dict[str, Any]
Logits = Callable[[Params, jax.Array], jax.Array]  # (parameters, images) -> (B, h, w)

DECAY = 0.99  # of LeCam's anchors
LEAST, MOST = 1e-4, 1e4  # added to the norm that Eq. 7 divides by, and the largest weight, as released


def hinge(real: jax.Array, fake: jax.Array) -> jax.Array:
    """The discriminator's loss of its logits: real ones above 1 and fake ones below -1 cost nothing."""
    return 0.5 * (jnp.mean(jax.nn.relu(1 - real)) + jnp.mean(jax.nn.relu(1 + fake)))


def fooled(fake: jax.Array) -> jax.Array:
    """The generator's loss of the discriminator's logits."""
    return -jnp.mean(fake)


def balance(reconstruction: jax.Array, adversarial: jax.Array) -> jax.Array:
    """Eq. 7: |gradient of the reconstruction's loss| / |gradient of the adversarial one|, both in the last layer."""
    ratio = jnp.linalg.norm(reconstruction.reshape(-1)) / (jnp.linalg.norm(adversarial.reshape(-1)) + LEAST)
    return jax.lax.stop_gradient(jnp.clip(ratio, 0, MOST))


class Anchors(NamedTuple):
    """LeCam's moving averages of the discriminator's logits; they begin at 0, where its logits do."""

    real: jax.Array
    fake: jax.Array

    @classmethod
    def zero(cls) -> "Anchors":
        return cls(jnp.float32(0), jnp.float32(0))

    def moved(self, real: jax.Array, fake: jax.Array) -> "Anchors":
        """A step on towards these means (LeCam, Tseng et al., arXiv 2104.03310, Eq. 7)."""
        return Anchors(*(old + (1 - DECAY) * (new - old) for old, new in zip(self, (real, fake), strict=True)))


def r1(logits: Logits, params: Params, real_BxRxRxc: jax.Array) -> jax.Array:
    """Half the mean squared gradient at real images (Mescheder et al., arXiv 1801.04406, Eq. 9; its gamma the weight).

    Of the sum of an image's logits, of which the paper has one.
    """
    slope = jax.grad(lambda img: jnp.sum(logits(params, img)))(real_BxRxRxc)
    return jnp.mean(jnp.sum(slope**2, (1, 2, 3))) / 2


def lecam(real: jax.Array, fake: jax.Array, anchors: Anchors) -> jax.Array:
    """How far logits are from the other kind's anchor (arXiv 2104.03310, Eq. 5)."""
    return jnp.mean((real - anchors.fake) ** 2) + jnp.mean((fake - anchors.real) ** 2)


class Smooth(NamedTuple):
    """Weights of both in the discriminator's loss, and LeCam's anchors where it has one."""

    r1: float = 0.0
    lecam: float = 0.0
    anchors: Anchors | None = None


class Match(NamedTuple):
    """Both players' losses and gradients: the generator's in its images, the discriminator's in its parameters.

    `terms`: what the discriminator's loss has besides `hinge`, weighted, and with LeCam the mean logits `real`, `fake`.
    """

    fooled: jax.Array
    hinge: jax.Array
    by_img_BxRxRxc: jax.Array
    by_params: Params
    terms: dict[str, jax.Array]


def match(
    logits: Logits, params: Params, real_BxRxRxc: jax.Array, fake_BxRxRxc: jax.Array, smooth: Smooth = Smooth()
) -> Match:
    """One look of the discriminator at images and their reconstructions; neither loss reaches the other's network."""

    def judged(params: Params) -> tuple[jax.Array, tuple[jax.Array, dict[str, jax.Array]]]:
        real, fake = logits(params, real_BxRxRxc), logits(params, fake_BxRxRxc)
        total, terms = (loss := hinge(real, fake)), {}
        if smooth.r1:
            terms["r1"] = smooth.r1 * r1(logits, params, real_BxRxRxc)
            total = total + terms["r1"]
        if smooth.anchors is not None:
            terms["lecam"] = smooth.lecam * lecam(real, fake, smooth.anchors)
            total = total + terms["lecam"]
            terms |= {"real": jnp.mean(real), "fake": jnp.mean(fake)}
        return total, (loss, terms)

    loss, by_img = jax.value_and_grad(lambda fake: fooled(logits(params, fake)))(fake_BxRxRxc)
    by_params, (hinged, terms) = jax.grad(judged, has_aux=True)(params)
    return Match(loss, hinged, by_img, by_params, terms)
