"""Temperature, top-k and top-p: which codes a teacher's distribution keeps."""

import dataclasses

import jax
import jax.numpy as jnp

from dd_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Filter:
    """logits (..., V) -> filtered logits: divided by the temperature, dropped codes at -inf.

    Top-k first, then top-p on what is left. Logits that tie with the k-th largest all stay. Top-p keeps the
    most likely codes up to and including the one whose cumulative probability crosses `top_p`; of tied codes
    it keeps the last ones. `top_k=0` and `top_p=1.0` switch the two off. At least one code always stays.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not self.temperature > 0:
            raise UserError(f"temperature={self.temperature} must be > 0; top_k=1 gives the most likely code")
        if self.top_k < 0:
            raise UserError(f"top_k={self.top_k} must be >= 0; 0 keeps every code")
        if not 0 < self.top_p <= 1:
            raise UserError(f"top_p={self.top_p} must be in (0, 1]; 1.0 keeps every code")

    def __call__(self, logits: jax.Array) -> jax.Array:
        logits = logits / self.temperature
        k = min(self.top_k, logits.shape[-1])
        if self.top_p < 1:
            drop = _outside(logits, k, self.top_p)
        elif k:
            drop = logits < jax.lax.top_k(logits, k)[0][..., -1:]
        else:
            return logits
        return jnp.where(drop, -jnp.inf, logits)  # a NaN is never dropped: `flow.transport` reports it


def _outside(logits: jax.Array, k: int, top_p: float) -> jax.Array:
    """What top-k, then top-p drop. One sort of values serves both; ties are counted, no index is sorted."""
    descending = -jnp.sort(-logits, axis=-1)
    if k:
        descending = jnp.where(descending >= descending[..., k - 1 : k], descending, -jnp.inf)
    prob = jax.nn.softmax(descending.astype(jnp.float32), -1)
    before = jnp.cumsum(prob, -1) - prob
    count = jnp.maximum(jnp.sum((before < top_p) & (descending > -jnp.inf), -1, keepdims=True), 1)
    last = jnp.take_along_axis(descending, count - 1, -1)
    tied = logits == last
    room = count - jnp.sum(logits > last, -1, keepdims=True)
    from_end = jnp.flip(jnp.cumsum(jnp.flip(tied, -1), -1), -1)
    return (logits < last) | (tied & (from_end > room))
