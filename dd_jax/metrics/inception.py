"""The Inception-v3 that FID is defined by: TensorFlow's frozen graph of 2015-12-05, with 1008 outputs.

It differs from the network of the paper (Szegedy et al., arXiv 1512.00567) and from torchvision's: average pools
leave the padding out, the last block pools by maximum, there is no auxiliary head. Module names are those of the
published PyTorch file, `python -m port_weights inception`.
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from dd_jax.method.interfaces import Params
from dd_jax.system import rng, weights
from dd_jax.system.errors import UserError

SIDE = 299  # pixels that it is made for
NORM, BN_EPS = ("scale", "running_mean", "running_var"), 1e-3
POOL, CLASSES, SPATIAL = 2048, 1008, 17 * 17 * 7
PRECISIONS = ("highest", "high", "default")


class Features(NamedTuple):
    """What scores read off the network, of B images."""

    pool3: Any  # (B, 2048) after the last pooling: FID, precision and recall
    spatial: Any  # (B, 2023) seven channels of Mixed_6d's 17 x 17 map, (h, w, c) flattened: sFID
    logits: Any  # (B, 1008)
    logits_unbiased: Any  # (B, 1008) without the bias: what the ADM evaluator's Inception score uses


class Conv(nn.Module):
    """Convolution (its batch norm folded in) and ReLU. `size`: (rows, columns) of the kernel."""

    features: int
    size: tuple[int, int]
    stride: int = 1
    padding: str = "SAME"
    precision: str = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", nn.initializers.he_normal(), (*self.size, x.shape[-1], self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        if self.size == (1, 1):  # a plain matrix product, which is also the fastest form
            y = jnp.matmul(x.reshape(-1, x.shape[-1]), kernel[0, 0], precision=self.precision)
            return nn.relu(y + bias).reshape(*x.shape[:-1], -1)
        order, strides = ("NHWC", "HWIO", "NHWC"), (self.stride, self.stride)
        y = jax.lax.conv_general_dilated(
            x, kernel, strides, self.padding, dimension_numbers=order, precision=self.precision
        )
        return nn.relu(y + bias)


def max_pool(x: jax.Array, stride: int = 2, padding: str = "VALID") -> jax.Array:
    """3 x 3."""
    return nn.max_pool(x, (3, 3), (stride, stride), padding)


def average_pool(x: jax.Array) -> jax.Array:
    """3 x 3 with stride 1; at borders the mean of what is there."""
    return nn.avg_pool(x, (3, 3), (1, 1), "SAME", count_include_pad=False)


class Mixed(nn.Module):
    """What the blocks share: named convolutions, alone or in a row, and the maps side by side."""

    precision: str = "highest"

    def conv(self, x: jax.Array, name: str, features: int, *size: int, stride: int = 1) -> jax.Array:
        """`size`: nothing for 1 x 1, one number for a square, else rows and columns. Strides come without padding."""
        shape = (1, 1) if not size else (size[0], size[-1])
        padding = "SAME" if stride == 1 else "VALID"
        return Conv(features, shape, stride, padding, self.precision, name=name)(x)

    def row(self, x: jax.Array, name: str, *layers: tuple[int, ...], stride: int = 1) -> jax.Array:
        """Convolutions `name`_1, `name`_2, ... of (features, *size) each; the last one has the stride."""
        for i, layer in enumerate(layers, 1):
            x = self.conv(x, f"{name}_{i}", *layer, stride=stride if i == len(layers) else 1)
        return x


def beside(*maps: jax.Array) -> jax.Array:
    """Maps of one size -> one map with all their channels."""
    return jnp.concatenate(maps, -1)


class Mixed35(Mixed):
    """Mixed_5b..5d, on 35 x 35 positions."""

    pool: int = 64

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return beside(
            self.conv(x, "branch1x1", 64),
            self.row(x, "branch5x5", (48,), (64, 5)),
            self.row(x, "branch3x3dbl", (64,), (96, 3), (96, 3)),
            self.conv(average_pool(x), "branch_pool", self.pool),
        )


class Shrink35(Mixed):
    """Mixed_6a: 35 x 35 -> 17 x 17."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return beside(
            self.conv(x, "branch3x3", 384, 3, stride=2),
            self.row(x, "branch3x3dbl", (64,), (96, 3), (96, 3), stride=2),
            max_pool(x),
        )


class Mixed17(Mixed):
    """Mixed_6b..6e, on 17 x 17 positions; also returns the branch that sFID looks at."""

    width: int = 192

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        w, plain = self.width, self.conv(x, "branch1x1", 192)
        mixed = beside(
            plain,
            self.row(x, "branch7x7", (w,), (w, 1, 7), (192, 7, 1)),
            self.row(x, "branch7x7dbl", (w,), (w, 7, 1), (w, 1, 7), (w, 7, 1), (192, 1, 7)),
            self.conv(average_pool(x), "branch_pool", 192),
        )
        return mixed, plain


class Shrink17(Mixed):
    """Mixed_7a: 17 x 17 -> 8 x 8."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return beside(
            self.row(x, "branch3x3", (192,), (320, 3), stride=2),
            self.row(x, "branch7x7x3", (192,), (192, 1, 7), (192, 7, 1), (192, 3), stride=2),
            max_pool(x),
        )


class Mixed8(Mixed):
    """Mixed_7b and 7c, on 8 x 8 positions; the second pools by maximum, as the graph of 2015 does."""

    maximum: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.conv(x, "branch3x3_1", 384)
        z = self.row(x, "branch3x3dbl", (448,), (384, 3))
        pooled = max_pool(x, 1, "SAME") if self.maximum else average_pool(x)
        return beside(
            self.conv(x, "branch1x1", 320),
            self.conv(y, "branch3x3_2a", 384, 1, 3),
            self.conv(y, "branch3x3_2b", 384, 3, 1),
            self.conv(z, "branch3x3dbl_3a", 384, 1, 3),
            self.conv(z, "branch3x3dbl_3b", 384, 3, 1),
            self.conv(pooled, "branch_pool", 192),
        )


class Head(nn.Module):
    """Class logits with and without the bias."""

    precision: str = "highest"

    @nn.compact
    def __call__(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (x.shape[-1], CLASSES))
        bias = self.param("bias", nn.initializers.zeros_init(), (CLASSES,))
        logits = jnp.matmul(x, kernel, precision=self.precision)
        return logits + bias, logits


class InceptionNet(nn.Module):
    """Normalised images (B, 299, 299, 3) -> `Features`."""

    precision: str = "highest"

    def _stem(self, x: jax.Array) -> jax.Array:
        """299 x 299 pixels -> 35 x 35 positions."""
        layers = (("1a_3x3", 32, 3, 2, "VALID"), ("2a_3x3", 32, 3, 1, "VALID"), ("2b_3x3", 64, 3, 1, "SAME"))
        for layer in (*layers, None, ("3b_1x1", 80, 1, 1, "VALID"), ("4a_3x3", 192, 3, 1, "VALID"), None):
            if layer is None:
                x = max_pool(x)
            else:
                name, features, side, stride, padding = layer
                size = (side, side)
                x = Conv(features, size, stride, padding, self.precision, name=f"Conv2d_{name}")(x)
        return x

    @nn.compact
    def __call__(self, img_Bx299x299x3: jax.Array) -> Features:
        x = self._stem(img_Bx299x299x3)
        for name, pool in (("5b", 32), ("5c", 64), ("5d", 64)):
            x = Mixed35(self.precision, pool, name=f"Mixed_{name}")(x)
        x = Shrink35(self.precision, name="Mixed_6a")(x)
        plain = {}
        for name, width in (("6b", 128), ("6c", 160), ("6d", 160), ("6e", 192)):
            x, plain[name] = Mixed17(self.precision, width, name=f"Mixed_{name}")(x)
        x = Shrink17(self.precision, name="Mixed_7a")(x)
        x = Mixed8(self.precision, name="Mixed_7b")(x)
        x = Mixed8(self.precision, maximum=True, name="Mixed_7c")(x)
        pool3, spatial = x.mean((1, 2)), plain["6d"][..., :7].reshape(len(x), -1)
        return Features(pool3, spatial, *Head(self.precision, name="fc")(pool3))


def folded_shapes() -> Params:
    """Shapes of what `InceptionNet` takes."""
    img = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)
    return jax.eval_shape(functools.partial(rng.fresh, InceptionNet()), rng.key(0), img)


def published_shapes() -> Params:
    """Shapes of the published weights: each convolution with its batch norm beside it, not folded."""
    shapes: dict[tuple[str, ...], Any] = {}
    for path, layer in layers(folded_shapes()):
        norm = dict.fromkeys(NORM, layer["bias"]) if layer["kernel"].ndim == 4 else {}
        shapes |= {(*path, name): leaf for name, leaf in (layer | norm).items()}
    return traverse_util.unflatten_dict(shapes)


def fold(published: Params) -> Params:
    """Batch norms into their convolutions, in float64: kernel, bias and the norm's own -> kernel and bias.

    UserError for a variance that no batch norm can have.
    """
    folded: dict[tuple[str, ...], Any] = {}
    for path, layer in layers(published):
        kernel, bias = layer["kernel"], layer["bias"]
        if "running_var" in layer:
            scale, mean, variance = (np.asarray(layer[name], np.float64) for name in NORM)
            if (variance < 0).any():
                raise UserError(f"{'/'.join(path)} has a negative variance: port the weights again")
            gain = scale / np.sqrt(variance + BN_EPS)
            kernel, bias = kernel * gain, bias - mean * gain
        folded[*path, "kernel"], folded[*path, "bias"] = np.float32(kernel), np.float32(bias)
    return traverse_util.unflatten_dict(folded)


def layers(params: Params) -> list[tuple[tuple[str, ...], dict[str, Any]]]:
    """(path, arrays by name) of every layer."""
    found: dict[tuple[str, ...], dict[str, Any]] = {}
    for path, x in traverse_util.flatten_dict(params).items():
        found.setdefault(path[:-1], {})[path[-1]] = x
    return list(found.items())


@dataclasses.dataclass(frozen=True)
class Inception:
    """The network with its weights. `about`: what the folder said of them."""

    params: Params
    about: dict[str, Any] = dataclasses.field(default_factory=dict)


def check_folder(folder: str | Path) -> None:
    """UserError for the published file itself."""
    if Path(folder).is_file():
        way = f"python -m port_weights inception --src {folder} --out weights, then --inception weights/inception"
        raise UserError(f"{folder} is a file: {way}")


def load(folder: str | Path) -> Inception:
    """A folder that `python -m port_weights inception` wrote. UserError if it is another model's or damaged."""
    check_folder(folder)
    about = weights.describe(folder)
    if about.get("part") != "inception":
        raise UserError(f"{folder} holds {about.get('id')}: --inception takes what `port_weights inception` wrote")
    return Inception(fold(weights.load(folder, published_shapes(), verify=True)), about)
