"""Residual quantisation over growing scales: every scale adds what it knows to one feature map, f_hat.

Maps of a scale are flat (B, G, C), row by row; f_hat is (B, h, w, C) at the side of the last scale. Both
resizings are linear, so each is one constant matrix made in float64.
"""

import dataclasses
import functools
from fractions import Fraction

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method import flow
from dd_jax.method.interfaces import Params
from dd_jax.method.layout import Layout
from dd_jax.nn.conv import convolve
from dd_jax.system.errors import UserError

HIGHEST = jax.lax.Precision.HIGHEST
A = -0.75  # of the cubic kernel; `jax.image.resize` has -0.5 and other borders


def cubic(d: np.ndarray) -> np.ndarray:
    """Keys' kernel at distances d."""
    d = np.abs(d)
    near = ((A + 2) * d - (A + 3)) * d * d + 1
    far = A * (((d - 5) * d + 8) * d - 4)
    return np.where(d <= 1, near, np.where(d < 2, far, 0.0))


def up_matrix(small: int, big: int) -> np.ndarray:
    """(big, small) bicubic weights of one axis: half-pixel centres, taps beyond the border fall on it."""
    centre = (np.arange(big) + 0.5) * small / big - 0.5
    first = np.floor(centre).astype(int)
    weights = np.zeros((big, small))
    for tap in range(-1, 3):
        source = np.clip(first + tap, 0, small - 1)
        np.add.at(weights, (np.arange(big), source), cubic(centre - (first + tap)))
    return weights


def down_matrix(big: int, small: int) -> np.ndarray:
    """(small, big) means over bins [floor(i big / small), ceil((i + 1) big / small)), which may overlap."""
    weights = np.zeros((small, big))
    for i in range(small):
        first, last = i * big // small, -(-(i + 1) * big // small)
        weights[i, first:last] = 1 / (last - first)
    return weights


@functools.cache
def _plane(kind: str, source: int, target: int) -> np.ndarray:
    """(target^2, source^2): the same for both axes of a flattened map."""
    axis = (up_matrix if kind == "up" else down_matrix)(source, target)
    return np.kron(axis, axis).astype(np.float32)


def resize(kind: str, x_BxGxC: jax.Array, source: int, target: int) -> jax.Array:
    """Flat maps of side `source` -> flat maps of side `target`; kind: up (bicubic) or down (area)."""
    if source == target:
        return x_BxGxC
    return jnp.einsum("hg,bgc->bhc", _plane(kind, source, target), x_BxGxC, precision=HIGHEST)


def phi_of_step(steps: int, phis: int) -> tuple[int, ...]:
    """Which of the shared convolutions each step uses: that of the nearest tick, the upper one of two.

    Ticks lie at 1/(3 phis) ... 1 - 1/(3 phis), step s at s / (steps - 1). Exact fractions, because the
    published sizes (10 steps, 4 phis) hit two ties.
    """
    if phis == 1:
        return (0,) * steps
    first = Fraction(1, 3 * phis)
    gap = (1 - 2 * first) / (phis - 1)
    index = [((Fraction(s, max(steps - 1, 1)) - first) / gap + Fraction(1, 2)).__floor__() for s in range(steps)]
    return tuple(min(max(i, 0), phis - 1) for i in index)


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """Params: `embedding` (V, C) and the convolutions `phi0`..., shared between neighbouring scales."""

    sides: tuple[int, ...]
    vocab: int
    code_dim: int
    phis: int = 4

    def __post_init__(self) -> None:
        if list(self.sides) != sorted(set(self.sides)):
            raise UserError(f"tokenizer.sides={self.sides}: scales must grow, for example (1, 2, 3, 5, 7)")

    @functools.cached_property
    def layout(self) -> Layout:
        return Layout.scales(self.sides)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters; phis start as the identity, so that no scale adds noise of its own."""
        shape = (3, 3, self.code_dim, self.code_dim)
        params = {}
        for i in range(self.phis):  # arrays of their own: a shared one could not be donated
            kernel = jnp.zeros(shape).at[1, 1].set(jnp.eye(self.code_dim))
            params[f"phi{i}"] = {"kernel": kernel, "bias": jnp.zeros(self.code_dim)}
        return {**params, "embedding": jax.random.normal(key, (self.vocab, self.code_dim), jnp.float32)}

    def codebook(self, params: Params) -> jax.Array:
        """(V, C), as it is: nothing is normalised."""
        return params["embedding"]

    def zeros(self, batch: int) -> jax.Array:
        """f_hat before the first scale."""
        return jnp.zeros((batch, self.sides[-1], self.sides[-1], self.code_dim))

    def contribution(self, params: Params, s: int, token_BxGxC: jax.Array) -> jax.Array:
        """What the tokens of scale s, quantised or not, add to f_hat."""
        side = self.sides[-1]
        h = resize("up", token_BxGxC, self.sides[s], side).reshape(-1, side, side, self.code_dim)
        phi = params[f"phi{phi_of_step(len(self.sides), self.phis)[s]}"]
        return 0.5 * h + 0.5 * convolve(h, phi["kernel"], phi["bias"])

    def accumulate(self, params: Params, s: int, token_BxGxC: jax.Array, f_hat: jax.Array) -> jax.Array:
        """f_hat with scale s added."""
        return f_hat + self.contribution(params, s, token_BxGxC)

    def shrink(self, map_BxhxwxC: jax.Array, s: int) -> jax.Array:
        """A full map at the size of scale s: (B, G, C)."""
        flat = map_BxhxwxC.reshape(len(map_BxhxwxC), -1, self.code_dim)
        return resize("down", flat, self.sides[-1], self.sides[s])

    def next_input(self, f_hat: jax.Array, s: int) -> jax.Array:
        """What scale s + 1 is predicted from, once scale s is in f_hat: (B, G, C)."""
        return self.shrink(f_hat, s + 1)

    def teacher_input(self, params: Params, code_BxL: jax.Array) -> jax.Array:
        """`next_input` of all scales but the last, for given codes: (B, L - 1, C)."""
        table, f_hat, inputs = self.codebook(params), self.zeros(len(code_BxL)), []
        for s in range(len(self.sides) - 1):
            f_hat = self.accumulate(params, s, table[self.layout.take(code_BxL, s)], f_hat)
            inputs.append(self.next_input(f_hat, s))
        if not inputs:
            return jnp.zeros((len(code_BxL), 0, self.code_dim))
        return jnp.concatenate(inputs, 1)

    def f_hat(self, params: Params, token_BxLxC: jax.Array) -> jax.Array:
        """The feature map that all tokens, quantised or not, add up to: (B, h, w, C)."""
        f_hat = self.zeros(len(token_BxLxC))
        for s in range(len(self.sides)):
            f_hat = self.accumulate(params, s, self.layout.take(token_BxLxC, s), f_hat)
        return f_hat

    def residuals(self, params: Params, f_BxhxwxC: jax.Array) -> list[tuple[jax.Array, jax.Array, jax.Array]]:
        """Scale by scale: what is left at its size (B, G, C), the nearest codes (B, G), and f_hat with them.

        Gradients reach `params` through f_hat; the choice of codes has none.
        """
        if f_BxhxwxC.shape[1:3] != (self.sides[-1],) * 2:
            raise UserError(f"a {f_BxhxwxC.shape[1:3]} map for scales {self.sides}: the last must be its side")
        table = self.codebook(params)
        rest, f_hat, steps = jax.lax.stop_gradient(f_BxhxwxC), self.zeros(len(f_BxhxwxC)), []
        for s in range(len(self.sides)):
            z = self.shrink(rest, s)
            code = flow.nearest(z, jax.lax.stop_gradient(table))
            h = self.contribution(params, s, table[code])
            rest, f_hat = rest - jax.lax.stop_gradient(h), f_hat + h
            steps.append((z, code, f_hat))
        return steps

    def encode(self, params: Params, f_BxhxwxC: jax.Array) -> jax.Array:
        """Encoder maps -> code_BxL, scale after scale."""
        return jnp.concatenate([code for _, code, _ in self.residuals(params, f_BxhxwxC)], 1)
