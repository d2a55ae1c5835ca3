"""The drifting loss (arXiv 2602.04770): pictures drift towards the teacher's of their class and away from each other.

In a space of features. Nothing pairs a picture with its target, so a student is not asked for the one picture that its
noise has, but for pictures that lie as the teacher's do. The field is antisymmetric: where both lie alike it vanishes.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

TAUS = (0.02, 0.05, 0.2)  # temperatures of the kernel exp(-|x - y| / tau), for features that lie 1 apart (the paper's)
FAR = 1e9  # the distance of what is not compared


def field(x_BxF: jax.Array, y_PxF: jax.Array, same_BxP: jax.Array, same_BxB: jax.Array, tau: float) -> jax.Array:
    """V(x) (B, F), the paper's Algorithm 2: attraction by `y`, repulsion by the other `x`, as far as `same` is true.

    The kernel is normalised over what a picture is compared with, and over the pictures (their geometric mean). A
    picture that is compared with no other one, or with no `y`, stays where it is.
    """
    batch = len(x_BxF)
    others_BxB = same_BxB & ~jnp.eye(batch, dtype=bool)
    near = jnp.concatenate([same_BxP, others_BxB], 1)
    far = jnp.concatenate([distances(x_BxF, y_PxF), distances(x_BxF, x_BxF)], 1)
    logit = jnp.where(near, -far / tau, -FAR)
    weight = jnp.sqrt(jax.nn.softmax(logit, 1) * jax.nn.softmax(logit, 0)) * near
    to, off = weight[:, : len(y_PxF)], weight[:, len(y_PxF) :]
    pull, push = to * jnp.sum(off, 1, keepdims=True), off * jnp.sum(to, 1, keepdims=True)
    return pull @ y_PxF - push @ x_BxF


def distances(x_BxF: jax.Array, y_PxF: jax.Array) -> jax.Array:
    """|x - y| (B, P)."""
    return jnp.sqrt(jnp.maximum(jnp.sum((x_BxF[:, None] - y_PxF[None]) ** 2, -1), 0.0))


def loss(x_BxF: jax.Array, y_BxF: jax.Array, same_BxB: jax.Array, taus: Sequence[float] = TAUS) -> jax.Array:
    """Mean squared distance (B,) of each `x` to where it drifts, which is held still; y: the teacher's, as `same`.

    Features are scaled so that those compared lie 1 apart on average, the field of each temperature so that it is 1
    long (root mean square): neither the features' size nor how near the end is says how fast to go.
    """
    x, y = jax.lax.stop_gradient((x_BxF, y_BxF))
    count = jnp.maximum(jnp.sum(same_BxB), 1)
    scale = jnp.sum(jnp.where(same_BxB, distances(x, y), 0.0)) / count + 1e-8
    to = jnp.zeros_like(x)
    for tau in taus:
        drift = field(x / scale, y / scale, same_BxB, same_BxB, tau)
        to += drift / jnp.sqrt(jnp.mean(jnp.sum(drift**2, -1)) + 1e-12)
    return jnp.sum(((x_BxF - x) / scale - to) ** 2, -1)
