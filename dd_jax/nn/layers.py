"""Dense layers and norms. They work on (tokens, width): XLA's CPU backward is far faster on flat arrays."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.nn.product import product
from dd_jax.nn.stored import KERNEL, SCALE

Dtype = jax.typing.DTypeLike
Init = Callable[..., jax.Array]


class Dense(nn.Module):
    """y = x W (+ b) over the last axis, all leading axes flattened into one matrix product.

    W may be int8 with a scale a column beside it (see `stored`).
    """

    features: int
    use_bias: bool = True
    kernel_init: Init = nn.initializers.normal(0.02)
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param(KERNEL, self.kernel_init, (x.shape[-1], self.features), jnp.float32)
        wide = kernel.dtype.itemsize > jnp.dtype(self.dtype).itemsize
        y = product(x.reshape(-1, x.shape[-1]).astype(self.dtype), kernel.astype(self.dtype) if wide else kernel)
        if self.has_variable("params", SCALE):
            y = y * self.get_variable("params", SCALE).astype(self.dtype)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
            y = y + bias.astype(self.dtype)
        return y.reshape(*x.shape[:-1], self.features)


def rematerialised(call: Callable, block: nn.Module, h: jax.Array, *given: Any) -> jax.Array:
    """`call(block, h, *given)`, computed once more in the backward pass: only its inputs are kept until then."""
    run: Callable = nn.remat(lambda block, h: call(block, h, *given))
    return run(block, h)


class RMSNorm(nn.Module):
    """x / rms(x) in float32, cast back, then times a learnt gain (the order that LLaMA-like models use)."""

    eps: float = 1e-5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        gain = self.param("weight", nn.initializers.ones_init(), (x.shape[-1],), jnp.float32)
        flat = x.reshape(-1, x.shape[-1])
        y = flat.astype(jnp.float32)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, -1, keepdims=True) + self.eps)
        return (y.astype(x.dtype) * gain.astype(x.dtype)).reshape(x.shape)


def layer_norm(x: jax.Array, eps: float = 1e-6) -> jax.Array:
    """LayerNorm over the last axis, without gain and bias; statistics in float32."""
    flat = x.reshape(-1, x.shape[-1]).astype(jnp.float32)
    flat = flat - jnp.mean(flat, -1, keepdims=True)
    flat = flat * jax.lax.rsqrt(jnp.mean(flat * flat, -1, keepdims=True) + eps)
    return flat.astype(x.dtype).reshape(x.shape)


def modulate(x_BxNxD: jax.Array, scale_BxD: jax.Array, shift_BxD: jax.Array) -> jax.Array:
    """Adaptive norm's affine part: x (1 + scale) + shift, one scale and shift an example."""
    return x_BxNxD * (1 + scale_BxD[:, None]) + shift_BxD[:, None]


def unit(x: jax.Array) -> jax.Array:
    """x / max(|x|, 1e-12) over the last axis, in float32; finite gradients at zero."""
    x = x.astype(jnp.float32)
    return x * jax.lax.rsqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))
