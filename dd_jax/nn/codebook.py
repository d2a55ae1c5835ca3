"""What keeps a small codebook alive while it trains, and the straight-through step."""

import jax
import jax.numpy as jnp


def straight_through(x: jax.Array, quantised: jax.Array) -> jax.Array:
    """The value of `quantised` with the gradient of x."""
    return x + jax.lax.stop_gradient(quantised - x)


def usage(code: jax.Array, vocab: int) -> jax.Array:
    """(V,) how often each code occurs."""
    return jnp.bincount(code.reshape(-1), length=vocab)


def perplexity(code: jax.Array, vocab: int) -> jax.Array:
    """exp(entropy) of the code histogram: how many codes are in use, in effect."""
    p = usage(code, vocab) / code.size
    return jnp.exp(-jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1.0)), 0.0)))


def entropy(logits_MxV: jax.Array) -> jax.Array:
    """Entropy of a choice less that of all choices together, in nats: low where choices are clear and codes balanced.

    As in LlamaGen's VQ (arXiv 2406.06525), from MAGVIT-v2 (arXiv 2310.05737).
    """
    log_p = jax.nn.log_softmax(logits_MxV)
    p = jnp.exp(log_p)
    mean = jnp.mean(p, 0)
    return jnp.sum(mean * jnp.log(mean + 1e-5)) - jnp.mean(jnp.sum(p * log_p, 1))


def draw(vectors_MxC: jax.Array, count: int, key: jax.Array) -> jax.Array:
    """`count` of the vectors, without repeats as long as there are enough."""
    rows = jax.random.choice(key, len(vectors_MxC), (count,), replace=count > len(vectors_MxC))
    return vectors_MxC[rows]


def revive(codebook_VxC: jax.Array, usage_V: jax.Array, vectors_MxC: jax.Array, key: jax.Array) -> jax.Array:
    """Rows that were never used become encoder vectors drawn at random."""
    fresh = draw(vectors_MxC, len(codebook_VxC), key).astype(codebook_VxC.dtype)
    return jnp.where(usage_V[:, None] > 0, codebook_VxC, fresh)
