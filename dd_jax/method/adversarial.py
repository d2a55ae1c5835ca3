"""The adversarial loss of a tokenizer (VQGAN, Esser et al., arXiv 2012.09841): hinge losses, and their weight."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

Params = dict[str, Any]

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


class Match(NamedTuple):
    """Both players' losses and gradients: the generator's in its images, the discriminator's in its parameters."""

    fooled: jax.Array
    hinge: jax.Array
    by_img_BxRxRxc: jax.Array
    by_params: Params


def match(
    logits: Callable[[Params, jax.Array], jax.Array], params: Params, real_BxRxRxc: jax.Array, fake_BxRxRxc: jax.Array
) -> Match:
    """One look of the discriminator at images and their reconstructions; neither loss reaches the other's network."""
    loss, by_img = jax.value_and_grad(lambda fake: fooled(logits(params, fake)))(fake_BxRxRxc)
    both = jax.value_and_grad(lambda params: hinge(logits(params, real_BxRxRxc), logits(params, fake_BxRxRxc)))(params)
    return Match(loss, both[0], by_img, both[1])
