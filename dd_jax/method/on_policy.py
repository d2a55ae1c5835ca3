"""On-policy training of the flow head, not in the paper: the student's own codes, judged by the teacher.

p_i, behind the flow head, depends on the noises of earlier steps alone, and token i's own noise is independent of them:
so p_i is the student's conditional distribution of token i, and its divergence from the teacher's on the same prefix is
exact. No second network and no score is needed, and the noises may be fresh in every step. Along a whole image the sum
of KL(p_i || p_T) over tokens is that of the two distributions of images, by the chain rule, where the prefixes are the
student's own; the prefixes themselves are constants here.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from dd_jax.method import flow
from dd_jax.method.interfaces import Cond, Params
from dd_jax.method.models import Models
from dd_jax.method.student import AHEAD

FLOOR = -12.0  # least log probability of the teacher's that a student is held to


def at(schedule: Sequence[float], progress: jax.Array) -> jax.Array:
    """A weight at `progress` in [0, 1] of the training: these values, evenly spaced, joined by lines."""
    return jnp.interp(progress, jnp.linspace(0.0, 1.0, len(schedule)), jnp.asarray(schedule, jnp.float32))


def drawn(
    models: Models, codebook_VxC: jax.Array, noise_BxLxC: jax.Array, logits_BxLxV: jax.Array, tau: float
) -> jax.Array:
    """The student's codes (B, L): those that the flow head's logits / tau draw, another head's likeliest."""
    logits = jax.lax.stop_gradient(logits_BxLxV)
    if models.student.head in AHEAD:
        return flow.transport(noise_BxLxC, logits / tau, codebook_VxC, models.solver)
    return jnp.argmax(logits, -1)


def judged(
    models: Models, params: dict[str, Params], cond: Cond, noise_BxLxC: jax.Array, logits_BxLxV: jax.Array, tau: float
) -> tuple[jax.Array, jax.Array]:
    """(the student's codes (B, L), the teacher's filtered logits (B, L, V) behind them).

    One guided pass over all positions, without a gradient. `params`: tokenizer and teacher.
    """
    code = drawn(models, models.tokenizer.codebook(params["tokenizer"]), noise_BxLxC, logits_BxLxV, tau)
    return code, jax.lax.stop_gradient(models.filter(models.teacher.parallel(params["teacher"], cond, code)))


def divergences(logits_BxLxV: jax.Array, teacher_BxLxV: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(KL(teacher || student), KL(student || teacher)), each (B, L) in nats; the teacher's log p is at least FLOOR.

    The floor keeps the second finite where the teacher's filter rules codes out.
    """
    log_p, log_t = jax.nn.log_softmax(logits_BxLxV), jax.nn.log_softmax(teacher_BxLxV)
    floored = jnp.maximum(log_t, FLOOR)
    forward = jnp.sum(jnp.exp(log_t) * (floored - log_p), -1)
    return forward, jnp.sum(jnp.exp(log_p) * (log_p - floored), -1)
