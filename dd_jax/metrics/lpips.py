"""LPIPS v0.1: how far apart two pictures look to VGG16 (arXiv 1801.03924), the distance of Alg. 2's embedding head.

Features after five of VGG16's ReLUs, every pixel's channel vector at unit length; squared differences, weighted per
channel by learnt heads, mean over pixels, sum over layers. No dropout: the heads' own is for training them.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.method.interfaces import Params
from dd_jax.metrics.classifier import unit
from dd_jax.nn.conv import convolve
from dd_jax.system.errors import UserError

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # widths, block by block
# What torchvision's VGG16 was trained on, for images in [-1, 1]. One channel becomes three here.
SHIFT = np.array([-0.030, -0.088, -0.188], np.float32)
SCALE = np.array([0.458, 0.448, 0.450], np.float32)
SAME = ((1, 1), (1, 1))  # said aloud it keeps Winograd away, whose rounding turns ReLUs and maxima that nearly tie


@dataclasses.dataclass(frozen=True)
class LPIPS:
    """The network. Params: `conv1_1` ... `conv5_3` of `kernel` (3, 3, in, out) and `bias`; `lin0` ... of `weight`."""

    blocks: tuple[tuple[int, ...], ...] = VGG16

    def init(self, key: jax.Array) -> Params:
        """Random parameters: convolutions that keep the size of what they get, heads in 0..1."""
        params, width = {}, len(SHIFT)
        for i, widths in enumerate(self.blocks):
            for j, out in enumerate(widths):
                at = jax.random.fold_in(jax.random.fold_in(key, i), j)
                flat = jax.random.normal(at, (math.prod(shape := (3, 3, width, out)),), jnp.float32)
                kernel = (flat * (2 / (9 * width)) ** 0.5).reshape(shape)
                params[f"conv{i + 1}_{j + 1}"], width = {"kernel": kernel, "bias": jnp.zeros(out)}, out
            params[f"lin{i}"] = {"weight": jax.random.uniform(jax.random.fold_in(key, 100 + i), (width,), jnp.float32)}
        return params

    def check(self, *sides: int) -> None:
        """UserError for images of which the last pooling would leave nothing."""
        least = 2 ** (len(self.blocks) - 1)
        if min(sides) < least:
            raise UserError(f"LPIPS of {min(sides)} px: it takes {least} or more; compare by config.train.distance=mse")

    def features(self, params: Params, img_BxRxRxc: jax.Array) -> list[jax.Array]:
        """Maps after the last ReLU of every block, (B, R / 2^i, R / 2^i, width). UserError for too small images."""
        self.check(*img_BxRxRxc.shape[1:3])
        x, found = (img_BxRxRxc.astype(jnp.float32) - SHIFT) / SCALE, []
        for i, widths in enumerate(self.blocks):
            x = halve(x) if i else x
            for j in range(len(widths)):
                layer = params[f"conv{i + 1}_{j + 1}"]
                x = jax.nn.relu(convolve(x, layer["kernel"], layer["bias"], padding=SAME))
            found.append(x)
        return found

    def perceptual(self, params: Params, a_BxRxRxc: jax.Array, b_BxRxRxc: jax.Array) -> jax.Array:
        """Distance (B,) of images in [-1, 1], of one channel or three; its gradient is finite everywhere."""
        far = jnp.zeros(len(a_BxRxRxc))
        pairs = zip(self.features(params, a_BxRxRxc), self.features(params, b_BxRxRxc), strict=True)
        for i, (a, b) in enumerate(pairs):
            far += jnp.mean((unit(a) - unit(b)) ** 2, (1, 2)) @ params[f"lin{i}"]["weight"]
        return far


def halve(x: jax.Array) -> jax.Array:
    """2x2 maxima of (B, h, w, C), odd ends dropped. Of equal values the first one has the gradient, as in PyTorch."""
    for axis in (2, 1):
        even, odd = (jax.lax.slice_in_dim(x, i, x.shape[axis] // 2 * 2 - 1 + i, 2, axis) for i in (0, 1))
        x = jnp.where(even >= odd, even, odd)
    return x
