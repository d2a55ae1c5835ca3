"""How parameters lie in memory: float32, bfloat16, or the kernels of dense layers as int8 with a scale a column.

int8 is of weights alone: W = int8 x scale, to half a scale, and the product is float32's. Tables that are looked up,
norms and biases stay float32: they are a small part of what a step reads.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

KERNEL, SCALE = "kernel", "kernel_scale"  # a dense layer's W (K, N), and of an int8 one the scales (N,)
INT8 = "int8"
MOST = 127  # of an int8 number: -128 would have no opposite


def computing(dtype: str) -> Any:
    """What a network of parameters in `dtype` computes in."""
    return jnp.dtype("float32" if dtype == INT8 else dtype)


def stored(params: Any, dtype: str) -> Any:
    """float32 parameters of a network of dense layers, in `dtype`: float32, bfloat16 or int8."""
    if dtype != INT8:
        return jax.tree.map(lambda x: x.astype(dtype), params)
    return _each_layer(params, lambda layer: _rounded(layer) if getattr(layer.get(KERNEL), "ndim", 0) == 2 else layer)


def restored(params: Any) -> Any:
    """float32 parameters of what `stored` gave: the numbers that its products see."""

    def whole(layer: Mapping[str, Any]) -> Mapping[str, Any]:
        if SCALE not in layer:
            return layer
        rest = {name: x for name, x in layer.items() if name != SCALE}
        return {**rest, KERNEL: layer[KERNEL].astype(jnp.float32) * layer[SCALE]}

    return jax.tree.map(lambda x: x.astype(jnp.float32), _each_layer(params, whole))


def _each_layer(params: Any, change: Any) -> Any:
    if not isinstance(params, Mapping):
        return params
    return {name: _each_layer(x, change) for name, x in change(params).items()}


def _rounded(layer: Mapping[str, Any]) -> dict[str, Any]:
    kernel, scale = _round(layer[KERNEL])
    return {**layer, KERNEL: kernel, SCALE: scale}


@jax.jit
def _round(w_KxN: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(int8, scales): the largest of a column is +-127; a column of zeros stays one."""
    scale_N = jnp.max(jnp.abs(w_KxN.astype(jnp.float32)), 0) / MOST
    return jnp.round(w_KxN / jnp.where(scale_N > 0, scale_N, 1)).astype(jnp.int8), scale_N
