"""Flow matching between Gaussian noise and one token's distribution over the codebook (Eq. 3 and 4).

A token's data are the Diracs p = softmax(logits) on the codebook rows c_j. On x = (1 - u) z + u c with
z ~ N(0, I) the posterior over codes is known in closed form, and so is the velocity: nothing is learned here.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method import solvers
from dd_jax.system.errors import UserError

HIGHEST = jax.lax.Precision.HIGHEST  # logits grow like 1 / (1 - u)^2: TF32 or bf16 products change the code
FLOOR = 0.1  # least width of a token's distribution, in units of the codebook's: beyond it float32 runs out


@dataclasses.dataclass(frozen=True)
class FlowSolver:
    """How noise becomes a code: solver, number of evaluations, grid, and where the code is read off.

    `evaluations` counts every pass over the codebook: solver steps, the final posterior of "x0", and the
    moments of p that `normalise` needs (they are the data prediction at u = 0, which adams3 uses as such).
    `readout="x0"`: the most likely code given x at the last node, among those with p > 0.
    `readout="snap"`: the codebook entry nearest to the end point, over the whole codebook.
    Nodes are uniform in u from `start` to `end`; None picks them.
    `normalise` solves with the codebook (c - mean) / std, mean and std being those of the token's own p: the
    exact map from noise to code does not depend on scale and offset, but the solver's error does.

    Choices, by share of codes equal to those of the exact flow (float32; mean and worst of nine cases: V 64
    to 1024, C 4 to 32, flat, typical, peaked and clustered p):

        evaluations                  10            20
        adams3, normalised      .986  .952    .998  .994    <- default; .997 .990 at 16
        adams3                  .971  .928    .996  .984
        dpmpp3m, normalised     .968  .904    .994  .986
        dpmpp3m                 .962  .918    .993  .984    as published, but read off at x0
        heun, normalised        .951  .904    .987  .974
        euler, normalised       .924  .836    .962  .922
        `literal()`             .432  .000

    One mean and std for all tokens instead of p's own: .982 and .997 (worst .948, .992); it is only better
    where p is peaked. Grids uniform in log-SNR, log(1-u), sqrt(1-u) or arctan(u/(1-u)) cost dpmpp3m .005 to
    .05 at 10 evaluations. The end matters little (.985 or more for .86 to .94 at 10; .996 for .90 at 20).
    """

    name: str = "adams3"
    evaluations: int = 16
    readout: str = "x0"
    start: float | None = None
    end: float | None = None
    normalise: bool = True

    @classmethod
    def literal(cls) -> "FlowSolver":
        """The paper's App. D as written, with the official solver's defaults: 10 evaluations, order 3.

        It is here for comparison: the long third-order last step misses on closely spaced codebooks.
        """
        return cls("dpmpp3m", 10, "snap", start=1e-3, end=0.999, normalise=False)

    def __post_init__(self) -> None:
        kind = solvers.named(self.name)
        if self.readout not in ("x0", "snap"):
            raise UserError(f"flow readout {self.readout!r} is unknown; choose x0 or snap")
        if self.steps < 1 + self.zero_start:
            raise UserError(f"{self.evaluations} evaluations are no step of {self.name}; ask for more")
        first, last = self.nodes[0], self.nodes[-1]
        if not 0 <= first < last < 1 or (first == 0 and not kind.from_zero):
            raise UserError(f"flow grid {first}..{last} must rise inside [0, 1), for dpmpp inside (0, 1)")

    @property
    def zero_start(self) -> bool:
        """Whether node 0 is u = 0 with D = 0, so that the moments stand for its evaluation."""
        return solvers.named(self.name).zero_start and self.normalise and not self.start

    @property
    def steps(self) -> int:
        """Solver steps that the evaluations pay for."""
        kind = solvers.named(self.name)
        left = self.evaluations - (self.readout == "x0") - kind.opening
        left -= self.normalise and not self.zero_start
        return left // kind.evaluations

    @property
    def nodes(self) -> np.ndarray:
        """(steps + 1,) flow times in float64, the end below 1.

        Centred, D = O(u): the first .03 are a free step for every solver. Otherwise dpmpp starts at the
        official .001 (log-SNR has no u = 0).
        """
        start, end = self.start, self.end
        if start is None:
            official = 0.0 if solvers.named(self.name).from_zero else 1e-3
            start = 0.0 if self.zero_start else 0.03 if self.normalise else official
        if end is None:
            end = 1 - 1 / max(self.evaluations, 2) if self.readout == "x0" else 0.999
        return np.linspace(start, end, self.steps + 1)


def posterior(
    x_C: jax.Array,
    u: jax.Array | float,
    logits_V: jax.Array,
    codebook_VxC: jax.Array,
    mean_C: jax.Array | float = 0.0,
    scale: jax.Array | float = 1.0,
) -> jax.Array:
    """Log weights, up to a constant, of every code given x at flow time u; -inf logits stay -inf.

    log p_j - |x - u c_j|^2 / (2 (1 - u)^2), expanded, for the codebook (c - mean) / scale. The affine map
    acts on the query, so no codebook of a token's own is ever made. (The printed Eq. 3 lacks the minus sign
    and the factor 1/2; with it, codes do not follow p.)
    """
    r = u / ((1 - u) * scale)
    query_C = r / (1 - u) * x_C + r**2 * mean_C
    product_V = jnp.dot(codebook_VxC, query_C, precision=HIGHEST)
    return logits_V + product_V - r**2 / 2 * jnp.sum(codebook_VxC**2, -1)


def velocity(
    x_C: jax.Array,
    u: jax.Array | float,
    logits_V: jax.Array,
    codebook_VxC: jax.Array,
    mean_C: jax.Array | float = 0.0,
    scale: jax.Array | float = 1.0,
) -> jax.Array:
    """Eq. 3, corrected: (E[c | x] - x) / (1 - u) of one token, u in [0, 1); see `posterior`."""
    weight_V = jax.nn.softmax(posterior(x_C, u, logits_V, codebook_VxC, mean_C, scale))
    data_C = jnp.dot(weight_V, codebook_VxC, precision=HIGHEST)
    return ((data_C - mean_C) / scale - x_C) / (1 - u)


_OVER_TOKENS = (0, None, 0, None, 0, 0)
_posterior_B = jax.vmap(posterior, _OVER_TOKENS)
_velocity_B = jax.vmap(velocity, _OVER_TOKENS)


def transport(
    noise: jax.Array,
    logits: jax.Array,
    codebook_VxC: jax.Array,
    solver: FlowSolver = FlowSolver(),
    frame_VxC: jax.Array | None = None,
) -> jax.Array:
    """Eq. 4: noise (..., C), logits (..., V) -> code (...) int32, deterministic, following softmax(logits).

    Pure and jit-able, `solver` static. A token whose noise, logits or solution is not finite gets code -1
    (so do logits that are all -inf): jit cannot raise, so whoever stores codes checks the sign. `frame_VxC`:
    `framed(codebook_VxC)`, of which a loop over steps makes one.
    """
    if noise.shape[:-1] != logits.shape[:-1] or codebook_VxC.shape != (logits.shape[-1], noise.shape[-1]):
        raise UserError(
            f"noise {noise.shape}, logits {logits.shape} and codebook {codebook_VxC.shape} do not fit; "
            "expected (..., C), (..., V) and (V, C)"
        )
    dtype = jnp.promote_types(noise.dtype, jnp.float32)
    noise_BxC = noise.reshape(-1, noise.shape[-1]).astype(dtype)
    logits_BxV = logits.reshape(-1, logits.shape[-1]).astype(dtype)
    code_B = _transport(noise_BxC, logits_BxV, codebook_VxC.astype(dtype), solver, frame_VxC)
    return code_B.reshape(noise.shape[:-1])


def nearest(x: jax.Array, codebook_VxC: jax.Array) -> jax.Array:
    """The codebook entry nearest to each vector: (..., C) -> code (...) int32."""
    product = jnp.dot(x, codebook_VxC.T, precision=HIGHEST)
    return jnp.argmax(product - jnp.sum(codebook_VxC**2, -1) / 2, -1).astype(jnp.int32)


def framed(codebook_VxC: jax.Array) -> jax.Array:
    """(c - mean) / rms: the codebook in its own units, around 0 and as wide as the noise."""
    centred_VxC = codebook_VxC - jnp.mean(codebook_VxC, 0)
    width = jnp.sqrt(jnp.mean(centred_VxC**2))
    return centred_VxC / jnp.where(width > 0, width, 1)  # a single repeated entry has none


def _transport(
    noise_BxC: jax.Array,
    logits_BxV: jax.Array,
    codebook_VxC: jax.Array,
    solver: FlowSolver,
    frame_VxC: jax.Array | None,
) -> jax.Array:
    """`transport` on flat, float arrays."""
    codebook_VxC, mean_BxC, scale_B = _frame(logits_BxV, codebook_VxC, solver.normalise, frame_VxC)
    x_BxC, ok = _end_point(noise_BxC, logits_BxV, codebook_VxC, mean_BxC, scale_B, solver)
    if solver.readout == "x0":
        u = float(solver.nodes[-1])
        score_BxV = _posterior_B(x_BxC, u, logits_BxV, codebook_VxC, mean_BxC, scale_B)
    else:
        x_BxC = mean_BxC + scale_B[:, None] * x_BxC
        product_BxV = jnp.dot(x_BxC, codebook_VxC.T, precision=HIGHEST)
        score_BxV = product_BxV - jnp.sum(codebook_VxC**2, -1) / 2
    ok_B = ok & jnp.isfinite(jnp.max(score_BxV, -1)) & jnp.all(jnp.isfinite(x_BxC), -1)
    return jnp.where(ok_B, jnp.argmax(score_BxV, -1), -1).astype(jnp.int32)


def _end_point(
    noise_BxC: jax.Array,
    logits_BxV: jax.Array,
    codebook_VxC: jax.Array,
    mean_BxC: jax.Array,
    scale_B: jax.Array,
    solver: FlowSolver,
) -> tuple[jax.Array, jax.Array]:
    """x at the last node, in the tokens' own frames, and whether the solver succeeded."""
    first = solver.nodes[int(solver.zero_start)]
    # The official start takes x = z; with D(0) = 0, z shrinks by (1 - u) first.
    x_BxC = noise_BxC * (1 - first) if solver.normalise else noise_BxC

    def field(u: jax.Array, x: jax.Array, args: tuple[jax.Array, ...]) -> jax.Array:
        return _velocity_B(x, u, *args)

    args = (logits_BxV, codebook_VxC, mean_BxC, scale_B)
    return solvers.integrate(field, x_BxC, args, solver.name, solver.nodes, solver.zero_start)


def _frame(
    logits_BxV: jax.Array, codebook_VxC: jax.Array, normalise: bool, frame_VxC: jax.Array | None = None
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(codebook, mean_BxC, scale_B): the codebook in its own units, and p's mean and width within it."""
    B, C = len(logits_BxV), codebook_VxC.shape[1]
    if not normalise:
        return codebook_VxC, jnp.zeros((B, C), logits_BxV.dtype), jnp.ones((B,), logits_BxV.dtype)
    codebook_VxC = framed(codebook_VxC) if frame_VxC is None else frame_VxC
    prob_BxV = jax.nn.softmax(logits_BxV, -1)
    mean_BxC = jnp.dot(prob_BxV, codebook_VxC, precision=HIGHEST)
    square_B = jnp.dot(prob_BxV, jnp.mean(codebook_VxC**2, -1), precision=HIGHEST)
    variance_B = square_B - jnp.mean(mean_BxC**2, -1)
    return codebook_VxC, mean_BxC, jnp.sqrt(jnp.maximum(variance_B, FLOOR**2))
