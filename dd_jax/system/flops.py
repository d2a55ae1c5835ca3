"""Count the matrix-product FLOPs of a function from its jaxpr, and measure what the device can do: FLOP/s, bytes/s."""

import math
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr

from dd_jax.system import rng


def count(fn: Callable, *args: Any) -> float:
    """FLOPs (2 per multiply-add) of all matrix products and convolutions in one call; loops times their length.

    While-loops of unknown length count once. Elementwise work is left out.
    """
    return count_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def count_jaxpr(jaxpr: Any, recomputed: bool = True) -> float:
    """The same of what has been traced, less what no output needs: XLA drops that too (a pull-back's other half, say).

    Not `recomputed`: without the second forward of rematerialised blocks.
    """
    needed, _ = dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))
    return _products(needed, recomputed)


def _products(jaxpr: Any, recomputed: bool = True) -> float:
    total = 0.0
    for eqn in jaxpr.eqns:
        if eqn.primitive.name == "dot_general":
            (contract, _), _ = eqn.params["dimension_numbers"]
            lhs = eqn.invars[0].aval.shape
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * math.prod(lhs[i] for i in contract)
        elif eqn.primitive.name == "conv_general_dilated":
            kernel, spec = eqn.invars[1].aval.shape, eqn.params["dimension_numbers"].rhs_spec
            per_output = math.prod(kernel) / kernel[spec[0]]
            total += 2.0 * math.prod(eqn.outvars[0].aval.shape) * per_output
        times = eqn.params.get("length", 1) if eqn.primitive.name == "scan" else 1
        if not recomputed and eqn.params.get("differentiated") is True:
            times *= 2 / 3  # its backward pass is two of three parts
        for inner in _inner(eqn.params):
            total += times * _products(inner, recomputed)
    return total


def _inner(params: dict[str, Any]) -> list[Any]:
    """The jaxprs inside an equation; of a conditional, the dearest branch."""
    if "branches" in params:
        return [max((b.jaxpr for b in params["branches"]), key=_products)]
    found = []
    for value in params.values():
        if hasattr(value, "eqns"):
            found.append(value)
        elif hasattr(value, "jaxpr"):
            found.append(value.jaxpr)
    return found


def seconds(fn: Callable, *args: Any, repeats: int = 10, warm: bool = False) -> float:
    """Median wall time of a jitted call, blocked, after one that is not counted unless it is `warm` already."""
    if not warm:
        jax.block_until_ready(fn(*args))
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(fn(*args))
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


SIDE = 2048  # of the matrices whose product says how fast a machine is


def matmul_rate(side: int = SIDE, repeats: int = 15) -> float:
    """FLOP/s of a side x side float32 matrix product on the default device."""
    x = jax.random.normal(rng.key(0), (side, side), jnp.float32)
    return 2.0 * side**3 / seconds(_product, x, x, repeats=repeats)


def stream_rate(side: int = 8192, repeats: int = 7) -> float:
    """Bytes/s at which a float32 matrix of side^2 is read by a matrix-vector product on the default device."""
    matrix, x = jnp.ones((side, side)), jnp.ones(side)
    return 4.0 * side**2 / seconds(_product, x, matrix, repeats=repeats)


_product = jax.jit(jnp.matmul)
