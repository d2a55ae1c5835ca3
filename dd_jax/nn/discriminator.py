"""PatchGAN: a convolutional discriminator that judges overlapping patches of an image (Isola et al., arXiv 1611.07004).

As in VQGAN (arXiv 2012.09841), but for the norm: batch statistics would tie the examples of a batch, its devices and
its micro-batches to each other, and running ones would be state beside the parameters. Group norm needs neither.
"""

import functools
import math

import flax.linen as nn
import jax

from dd_jax.nn.conv import Conv, GroupNorm, convolve

SLOPE = 0.2  # of the leaky ReLUs
GROUPS, LEAST = 32, 4  # of every norm, as far as they divide its width; channels of each
MOST = 8  # widest layer, in widths of the first
PADDING = ((1, 1), (1, 1))


class Discriminator(nn.Module):
    """`layers` 4x4 convolutions of stride 2, each twice as wide as the one before; two more of stride 1.

    Logits (B, h, w), R / 2^layers - 2 a side. Each sees 70 pixels of a side at 3 layers, 34 at 2, 16 at 1.
    """

    width: int = 64
    layers: int = 3

    @nn.compact
    def __call__(self, img_BxRxRxc: jax.Array) -> jax.Array:
        x = img_BxRxRxc
        for i in range(self.layers + 1):
            stride, width = 2 if i < self.layers else 1, self.width * min(2**i, MOST)
            x = _conv(width, stride, f"conv{i}")(x)
            groups = math.gcd(GROUPS, width, max(width // LEAST, 1))
            x = GroupNorm(groups, name=f"norm{i}")(x) if i else x
            x = jax.nn.leaky_relu(x, SLOPE)
        return _conv(1, 1, "logits")(x)[..., 0]


def _conv(width: int, stride: int, name: str) -> Conv:
    return Conv(width, 4, functools.partial(convolve, stride=stride, padding=PADDING), name=name)


def least_side(layers: int) -> int:
    """Pixels of a side below which there is no logit."""
    return int(3 * 2**layers)
