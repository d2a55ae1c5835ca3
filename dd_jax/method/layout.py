"""Layout: which AR step emits which token. Raster and next-scale orders are data, not code paths.

Give every token its step number, and the P condition tokens steps -P..-1; data/noise flags, both attention
masks, X_t and the split between the two heads become one line each.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np


@dataclasses.dataclass(frozen=True)
class Layout:
    """S steps; step s emits `sizes[s]` tokens, in order, after P = `cond` condition tokens."""

    sizes: tuple[int, ...]
    cond: int = 1

    @classmethod
    def raster(cls, side: int, cond: int = 1) -> "Layout":
        """A side x side grid, row by row: one token a step."""
        return cls((1,) * (side * side), cond)

    @classmethod
    def scales(cls, sides: Sequence[int], cond: int = 1) -> "Layout":
        """Next-scale order: step s emits a whole sides[s] x sides[s] map."""
        return cls(tuple(side * side for side in sides), cond)

    @property
    def steps(self) -> int:
        return len(self.sizes)

    @property
    def tokens(self) -> int:
        return int(sum(self.sizes))

    @property
    def uniform(self) -> bool:
        """Are all steps of one size? Then a step number may be traced."""
        return len(set(self.sizes)) == 1

    @property
    def maps(self) -> tuple[int, ...]:
        """Sides of the square maps that the tokens make, in order: one map in raster order, else one a step."""
        counts = (self.tokens,) if max(self.sizes) == 1 else self.sizes
        return tuple(math.isqrt(count) for count in counts)

    @functools.cached_property
    def bands(self) -> dict[str, slice]:
        """Tokens by where they are: "row_0" and so on of the one map in raster order, else "scale_0" and so on."""
        raster = len(self.maps) == 1
        sizes = self.maps * self.maps[0] if raster else self.sizes
        ends = np.cumsum([0, *sizes]).tolist()
        name = "row" if raster else "scale"
        return {f"{name}_{i}": slice(*ends[i : i + 2]) for i in range(len(sizes))}

    @functools.cached_property
    def start(self) -> np.ndarray:
        """(S + 1,) first token of every step; start[S] == L."""
        return np.concatenate([[0], np.cumsum(self.sizes)]).astype(np.int32)

    @functools.cached_property
    def step_L(self) -> np.ndarray:
        """(L,) the step that emits each token."""
        return np.repeat(np.arange(self.steps, dtype=np.int32), self.sizes)

    @functools.cached_property
    def step_N(self) -> np.ndarray:
        """(N,) the same with the condition tokens, steps -P..-1, in front."""
        return np.concatenate([np.arange(-self.cond, 0, dtype=np.int32), self.step_L])

    @functools.cached_property
    def ahead(self) -> np.ndarray:
        """(P - 1 + L,) the step that each row of a stream predicts, where rows hold what comes before it.

        The last L rows predict the tokens; those of one step may see each other, since none holds that step itself.
        """
        return np.concatenate([np.arange(1 - self.cond, 0, dtype=np.int32), self.step_L])

    def known(self, t: jax.Array | int) -> jax.Array:
        """Which tokens are data at boundary t: int -> (L,), (B,) -> (B, L)."""
        return jnp.asarray(self.step_L) < jnp.asarray(t)[..., None]

    def is_data(self, t_B: jax.Array, ahead: bool = False) -> jax.Array:
        """(B, N) data flags with the condition tokens, which are always data; `ahead`: of such a stream's rows."""
        return jnp.asarray(self.ahead - 1 if ahead else self.step_N) < t_B[:, None]

    def mix(self, t: jax.Array | int, data_BxLxC: jax.Array, noise_BxLxC: jax.Array) -> jax.Array:
        """X_t (Eq. 5): data at steps < t, noise from t on."""
        return jnp.where(self.known(t)[..., None], data_BxLxC, noise_BxLxC)

    def span(self, s: int) -> slice:
        """The tokens of step s."""
        return slice(int(self.start[s]), int(self.start[s + 1]))

    def take(self, x_BxL: jax.Array, s: jax.Array | int) -> jax.Array:
        """The slice of step s along axis 1; s may be traced where the layout is uniform."""
        if isinstance(s, int):
            return x_BxL[:, self.span(s)]
        return jax.lax.dynamic_slice_in_dim(x_BxL, s * self._one_size(), self._one_size(), 1)

    def put(self, x_BxL: jax.Array, s: jax.Array | int, x_BxG: jax.Array) -> jax.Array:
        """`x_BxL` with step s replaced (the inverse of `take`)."""
        first = int(self.start[s]) if isinstance(s, int) else s * self._one_size()
        return jax.lax.dynamic_update_slice_in_dim(x_BxL, x_BxG.astype(x_BxL.dtype), first, 1)

    def teacher_mask(self, step: np.ndarray) -> np.ndarray:
        """(M, M) True = attend: a token sees its own step and all earlier ones."""
        return step[None, :] <= step[:, None]

    def student_mask(self, same_step: bool = False) -> np.ndarray:
        """(N, N) True = attend: earlier steps and the token itself.

        That is the released models' mask and exactly what a flow target depends on; `same_step=True` is the
        paper's App. C, where tokens of one step see each other. In raster order the two are one.
        """
        step = self.step_N
        if same_step:
            return self.teacher_mask(step)
        return (step[None, :] < step[:, None]) | np.eye(len(step), dtype=bool)

    def _one_size(self) -> int:
        if not self.uniform:
            raise ValueError(f"steps of unequal sizes {self.sizes} need a static step number")
        return self.sizes[0]
