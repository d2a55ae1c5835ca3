"""A small classifier of the bundled data sets: features for the scores, a perceptual distance for training.

It stands where Inception and LPIPS's VGG stand for photographs, behind the same interface.
"""

import dataclasses
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.method.interfaces import Params
from dd_jax.nn.layers import Dense
from dd_jax.system import rng
from dd_jax.system.errors import UserError


class ClassifierNet(nn.Module):
    """Space to depth, two 3x3 convolutions (the second with stride 2), one hidden layer, logits."""

    classes: int
    patch: int
    widths: tuple[int, int]
    hidden: int

    def setup(self) -> None:
        self.conv1 = nn.Conv(self.widths[0], (3, 3), name="conv1")
        self.conv2 = nn.Conv(self.widths[1], (3, 3), strides=2, name="conv2")
        he = nn.initializers.he_normal()
        self.fc1 = Dense(self.hidden, kernel_init=he, name="fc1")
        self.fc2 = Dense(self.classes, kernel_init=nn.initializers.lecun_normal(), name="fc2")

    def maps(self, img_BxRxRxc: jax.Array) -> list[jax.Array]:
        """ReLU maps after each convolution, not normalised."""
        first = nn.relu(self.conv1(space_to_depth(img_BxRxRxc, self.patch)))
        return [first, nn.relu(self.conv2(first))]

    def features(self, img_BxRxRxc: jax.Array) -> jax.Array:
        last = self.maps(img_BxRxRxc)[-1]
        return nn.relu(self.fc1(last.reshape(last.shape[0], -1)))

    def __call__(self, img_BxRxRxc: jax.Array) -> jax.Array:
        return self.fc2(self.features(img_BxRxRxc))


@dataclasses.dataclass(frozen=True)
class Classifier:
    """The classifier and what is read off it; images are float, nominally in [-1, 1], (B, R, R, channels)."""

    resolution: int
    channels: int = 1
    classes: int = 10
    patch: int = 2  # 1 for pictures of 8 px
    widths: tuple[int, int] = (32, 48)
    hidden: int = 64

    def __post_init__(self) -> None:
        if self.resolution % self.patch:
            raise UserError(f"config.classifier.patch={self.patch} must divide the pictures' side, {self.resolution}")

    @property
    def net(self) -> ClassifierNet:
        return ClassifierNet(self.classes, self.patch, self.widths, self.hidden)

    def _apply(self, params: Params, img_BxRxRxc: jax.Array, method: str | None = None) -> Any:
        return self.net.apply({"params": params}, img_BxRxRxc, method=method)

    def init(self, key: jax.Array) -> Params:
        img = jnp.zeros((1, self.resolution, self.resolution, self.channels))
        return rng.fresh(self.net, key, img)

    def logits(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        """Class logits (B, classes)."""
        return self._apply(params, img_BxRxRxc)

    def features(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        """The hidden layer after its ReLU (B, hidden): Frechet distance, precision and recall live here."""
        return self._apply(params, img_BxRxRxc, "features")

    def maps(self, params: Params, img_BxRxRxc: jax.Array) -> list[jax.Array]:
        """Feature maps with every pixel's channel vector scaled to unit length, as LPIPS compares them."""
        return [unit(x) for x in self._apply(params, img_BxRxRxc, "maps")]

    def pooled(self, params: Params, img_BxRxRxc: jax.Array) -> list[jax.Array]:
        """Means and standard deviations of each layer's `maps` by quarter of the picture (B, 8 channels).

        The layers before the one that scores look at.
        """
        found = []
        for x in self.maps(params, img_BxRxRxc):
            count, rows, cols, channels = x.shape
            x = x[:, : rows // 2 * 2, : cols // 2 * 2].reshape(count, 2, rows // 2, 2, cols // 2, channels)
            mean, square = jnp.mean(x, (2, 4)), jnp.mean(x * x, (2, 4))
            spread = jnp.sqrt(jnp.maximum(square - mean * mean, 0.0) + 1e-6)
            found.append(jnp.concatenate([mean, spread], -1).reshape(count, -1))
        return found

    def perceptual(self, params: Params, a_BxRxRxc: jax.Array, b_BxRxRxc: jax.Array) -> jax.Array:
        """Distance (B,): squared differences of `maps`, mean over pixels, sum over channels and layers."""
        pairs = zip(self.maps(params, a_BxRxRxc), self.maps(params, b_BxRxRxc), strict=True)
        return sum((jnp.mean(jnp.sum((a - b) ** 2, -1), (1, 2)) for a, b in pairs), jnp.zeros(()))

    def loss(
        self, params: Params, img_BxRxRxc: jax.Array, label_B: jax.Array
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Cross-entropy, and what to log."""
        logits = self.logits(params, img_BxRxRxc)
        log_p = jax.nn.log_softmax(logits)
        loss = -jnp.mean(jnp.take_along_axis(log_p, label_B[:, None], 1))
        return loss, {"loss": loss, "accuracy": jnp.mean(jnp.argmax(logits, -1) == label_B)}


def space_to_depth(img_BxRxRxc: jax.Array, patch: int) -> jax.Array:
    """patch x patch pixels -> channels. Fewer, fatter positions: what convolutions on a CPU like."""
    if patch == 1:
        return img_BxRxRxc
    count, rows, cols, channels = img_BxRxRxc.shape
    x = img_BxRxRxc.reshape(count, rows // patch, patch, cols // patch, patch, channels)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(count, rows // patch, cols // patch, -1)


def unit(x: jax.Array, eps: float = 1e-10) -> jax.Array:
    """x / (|x| + eps) over channels. A ReLU map has zero vectors, where sqrt's own gradient would be NaN."""
    square = jnp.sum(x * x, -1, keepdims=True)
    norm = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    return x / (norm + eps)
