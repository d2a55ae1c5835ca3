"""Temperature, top-k and top-p: which codes a teacher's distribution keeps."""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from dd_jax.system.errors import UserError


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
        return logits if not k and self.top_p == 1 else _kept(logits, k, self.top_p)


@flax.struct.dataclass
class TracedFilter:
    """The same of numbers that are arrays, one for all or one an image (B,): other values need no compilation."""

    temperature: jax.Array
    top_k: jax.Array
    top_p: jax.Array

    def __call__(self, logits: jax.Array) -> jax.Array:
        def of(x: jax.Array) -> jax.Array:
            return jnp.reshape(x, (-1, *(1,) * (logits.ndim - 1)))

        logits = logits / of(self.temperature)
        k, p = jnp.minimum(of(self.top_k), logits.shape[-1]), of(self.top_p)
        off = jnp.all((k == 0) & (p >= 1))
        return jax.lax.cond(off, lambda logits: logits, lambda logits: _kept(logits, k, p), logits)


AnyFilter = Filter | TracedFilter


def _kept(logits: jax.Array, k: Any, p: Any) -> jax.Array:
    """Logits with dropped codes at -inf; k, p: numbers, or arrays that broadcast against them."""
    rank = _rank(logits)
    lowest = jnp.min(rank, -1, keepdims=True)
    if not (isinstance(k, int) and k == 0):
        least = _largest(lambda t: jnp.sum(rank >= t, -1, keepdims=True) >= k, rank)
        lowest = jnp.where(k == 0, lowest, least)
    drop = rank < lowest
    if not (isinstance(p, float | int) and p == 1):
        drop |= _outside(logits, rank, drop, p) & (p < 1)
    return jnp.where(drop, -jnp.inf, logits)  # a NaN is never dropped: `flow.transport` reports it


def _rank(x: jax.Array) -> jax.Array:
    """Integers in the order of float32 numbers, NaN last: halving finds a threshold among them without a sort."""
    bits = jax.lax.bitcast_convert_type(x.astype(jnp.float32), jnp.int32)
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _largest(holds: Callable[[jax.Array], jax.Array], rank: jax.Array) -> jax.Array:
    """(..., 1) the largest integer of which `holds` is true, which it is up to some point: 32 passes over the codes.

    On CPUs that is 15 times faster than sorting them.
    """

    def halve(i: jax.Array, low: jax.Array) -> jax.Array:
        middle = jnp.where(i == 0, 0, low + jnp.left_shift(1, 31 - i))
        return jnp.where(holds(middle), middle, low)

    return jax.lax.fori_loop(0, 32, halve, jnp.full_like(rank[..., :1], -(2**31)))


def _outside(logits: jax.Array, rank: jax.Array, drop: jax.Array, top_p: Any) -> jax.Array:
    """What top-p drops of the codes that are not dropped yet."""
    prob = jax.nn.softmax(jnp.where(drop, -jnp.inf, logits).astype(jnp.float32), -1)

    def mass(among: jax.Array) -> jax.Array:
        return jnp.sum(jnp.where(among, prob, 0), -1, keepdims=True)

    last = _largest(lambda t: mass(rank >= t) >= top_p, rank)
    tied = rank == last
    each = jnp.max(jnp.where(tied, prob, 0), -1, keepdims=True)
    room = jnp.maximum(jnp.ceil((top_p - mass(rank > last)) / each), 1)  # of the tied codes, the last ones stay
    from_end = jnp.flip(jnp.cumsum(jnp.flip(tied, -1), -1), -1)
    return (rank < last) | (tied & (from_end > room))
