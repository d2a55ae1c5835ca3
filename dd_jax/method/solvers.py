"""Solvers for the flow on Diffrax, by name: multistep methods on the data prediction, and Runge-Kutta.

Along x = (1 - u) z + u c the flow with data prediction D = E[c | x] is, in r = u / (1 - u),

    d(x / (1 - u)) / dr = D,

so a multistep method is a polynomial through past values of D, integrated over r. Its weights depend on the
grid alone: they are made once, in float64 NumPy.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, ClassVar

import diffrax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.system import plugins

FEW = 8  # tokens
DPM = {"dpmpp1": 1, "dpmpp2m": 2, "dpmpp3m": 3}


def dpm_weights(u_J: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """(J,) weights of D at the nodes u_J, newest (= lo) first, for the step from u = lo to hi.

    DPM-Solver++ (arXiv 2211.01095) as its authors' code has it: a polynomial in lam = log r, where 2M takes
    the midpoint value for the first moment and 3M takes half of the second moment.
    """
    lam_J, a, b = _log_snr(u_J), _log_snr(lo), _log_snr(hi)
    h, J = b - a, len(u_J)
    zeroth = np.exp(b) - np.exp(a)
    first = np.exp(b) * h - zeroth
    second = np.exp(b) * h**2 / 2 - first
    moments = np.array([zeroth, zeroth * h / 2 if J == 2 else first, second])
    return np.linalg.solve(np.vander(lam_J - a, J, increasing=True).T, moments[:J])


def adams_weights(u_J: np.ndarray, lo: float, hi: float) -> np.ndarray:
    """(J,) weights of D at the nodes u_J for the step from u = lo to hi: a polynomial in u, exactly.

    Log-SNR stretches the start, where D hardly changes, without bound; u does not, and u = 0 is a node too.
    """
    point, weight = np.polynomial.legendre.leggauss(24)
    a, b = -np.log1p(-lo), -np.log1p(-hi)
    tau = (a + b) / 2 + (b - a) / 2 * point  # dr = e^tau dtau: smooth however near u = 1 the step ends
    powers = np.vander(1 - np.exp(-tau) - lo, len(u_J), increasing=True)
    moments = (weight * (b - a) / 2 * np.exp(tau)) @ powers
    return np.linalg.solve(np.vander(u_J - lo, len(u_J), increasing=True).T, moments)


@functools.lru_cache(maxsize=64)
def multistep_table(name: str, grid: tuple[float, ...]) -> np.ndarray:
    """(steps, 8) float64; row k: [decay, 3 weights] that correct node k, the same that predict node k + 1.

    x_next = decay x + sum_j weight_j D_j with D_0 the newest. Row 0 corrects nothing.
    """
    u = np.asarray(grid)
    order = DPM.get(name, 3)
    weights = dpm_weights if name in DPM else adams_weights
    table = np.zeros((len(u) - 1, 8))
    table[0, 0] = 1
    for k in range(len(u) - 1):
        newest_J = u[max(0, k - order + 1) : k + 1][::-1]
        ahead_J = weights(newest_J, u[k], u[k + 1])
        table[k, 4] = (1 - u[k + 1]) / (1 - u[k])
        table[k, 5 : 5 + len(ahead_J)] = (1 - u[k + 1]) * ahead_J
        if k and name == "adams3":
            table[k, 0] = (1 - u[k]) / (1 - u[k - 1])
            table[k, 1 : 1 + len(newest_J)] = (1 - u[k]) * weights(newest_J, u[k - 1], u[k])
    return table


State = tuple[jax.Array, jax.Array, jax.Array, jax.Array]


class Multistep(diffrax.AbstractSolver[State]):
    """DPM-Solver++ 1, 2M, 3M, and "adams3", as a Diffrax solver: one evaluation a step.

    adams3 predicts a node from the last three data predictions, and once D is known there, first redoes the
    step that led to it with D included (predict, evaluate, correct): the correction costs no evaluation.
    State: (k, corrected x of node k - 1, the two data predictions before node k). With `zero_start` D = 0 at
    node 0, which is u = 0, is known, and the solve begins at node 1.
    """

    name: str = eqx.field(static=True)
    grid: tuple[float, ...] = eqx.field(static=True)
    zero_start: bool = eqx.field(static=True, default=False)

    term_structure: ClassVar = diffrax.AbstractTerm
    interpolation_cls: ClassVar[Callable[..., diffrax.LocalLinearInterpolation]] = diffrax.LocalLinearInterpolation

    def order(self, terms: Any) -> int:
        return DPM.get(self.name, 3)

    def init(self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any) -> State:
        none = jnp.zeros_like(y0)
        first = int(self.zero_start)
        return jnp.asarray(first, jnp.int32), y0 / (1 - self.grid[first]), none, none

    def step(
        self, terms: Any, t0: Any, t1: Any, y0: Any, args: Any, solver_state: State, made_jump: Any
    ) -> tuple[Any, None, dict[str, Any], State, Any]:
        k, base, older, oldest = solver_state
        row = jnp.asarray(multistep_table(self.name, self.grid), y0.dtype)[k]
        data = y0 + (1 - t0) * terms.vf(t0, y0, args)
        x = y0
        if self.name == "adams3":
            redone = row[0] * base + row[1] * data + row[2] * older + row[3] * oldest
            x = jnp.where(k > 0, redone, y0)
        y1 = row[4] * x + row[5] * data + row[6] * older + row[7] * oldest
        return y1, None, {"y0": y0, "y1": y1}, (k + 1, x, data, older), diffrax.RESULTS.successful

    def func(self, terms: Any, t0: Any, y0: Any, args: Any) -> Any:
        return terms.vf(t0, y0, args)


@dataclasses.dataclass(frozen=True)
class Solver:
    """A solver of the flow by name: how Diffrax's object is made, and what it costs.

    `make(grid, zero_start)`, from the flow times of all nodes in [0, 1) and `flow.FlowSolver.zero_start`, returns
    the solver. It steps from node to node and may evaluate the velocity at any u between them, never at 1.
    """

    make: Callable[[tuple[float, ...], bool], diffrax.AbstractSolver]
    evaluations: int = 1  # of the velocity a step
    opening: int = 0  # and so many more before the first step
    from_zero: bool = True  # whether u = 0 may be a node
    zero_start: bool = False  # whether it can begin at node 1, knowing D = 0 at u = 0 (see `Multistep`)


def one_step(make: Callable[[], diffrax.AbstractSolver], evaluations: int, opening: int = 0) -> Solver:
    """A solver that knows its current step alone, such as a Runge-Kutta method: `one_step(diffrax.Heun, 2)`."""
    return Solver(lambda grid, zero_start: make(), evaluations, opening)


SOLVERS = {
    "adams3": Solver(functools.partial(Multistep, "adams3"), zero_start=True),
    **{name: Solver(functools.partial(Multistep, name), from_zero=False) for name in DPM},
    "euler": one_step(diffrax.Euler, 1),
    "heun": one_step(diffrax.Heun, 2),
    "tsit5": one_step(diffrax.Tsit5, 6, opening=1),  # its seventh stage opens the next step
}


def named(name: str) -> Solver:
    """The solver of this name, `package.module:attribute` for one from outside. UserError if there is none."""
    return plugins.find(name, SOLVERS, f"flow solver {name!r} is unknown; choose one of", Solver)


def integrate(
    field: Callable[..., jax.Array], x0: jax.Array, args: Any, name: str, grid: np.ndarray, zero_start: bool
) -> tuple[jax.Array, jax.Array]:
    """Follow dx/du = field(u, x, args) over the nodes of `grid` -> (x at the last node, went well?).

    x0 is a whole batch in one solve: every token takes the same steps.
    With `zero_start` x0 belongs to node 1 (see `Multistep`).

    Diffrax's steps without its loop: that one is made for adaptive steps, dense output and events, and takes four
    times as long to compile. Here nothing calls back into Python, so programs can be cached and exported.
    """
    solver, term = named(name).make(tuple(float(u) for u in grid), zero_start), diffrax.ODETerm(field)
    nodes = jnp.asarray(grid[int(zero_start) :], x0.dtype)

    def step(carry: tuple[Any, ...], ends: tuple[jax.Array, jax.Array]) -> tuple[tuple[Any, ...], None]:
        x, state, ok = carry
        x, _, _, state, result = solver.step(term, *ends, x, args, state, made_jump=False)
        return (x, state, ok & (result == diffrax.RESULTS.successful)), None

    begun = x0, solver.init(term, nodes[0], nodes[1], x0, args), jnp.asarray(True)

    def solve(unroll: bool) -> Callable[..., Any]:
        return lambda *begun: jax.lax.scan(step, begun, (nodes[:-1], nodes[1:]), unroll=unroll)[0]

    # A GPU starts a graph of kernels a turn: written out, the turns of few tokens are part of the graph around them.
    few = functools.partial(jax.lax.platform_dependent, cuda=solve(True), default=solve(False))
    x, _, ok = (few if len(x0) <= FEW else solve(False))(*begun)
    return x, ok


def _log_snr(u: Any) -> Any:
    return np.log(u) - np.log1p(-u)
