"""Images -> features: resize, normalise and network in one compiled step, on every device, while the next are read."""

import dataclasses
import functools
import hashlib
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data.images import Images
from dd_jax.method.interfaces import Params
from dd_jax.metrics import devices
from dd_jax.metrics.inception import PRECISIONS, Features, Inception, InceptionNet
from dd_jax.metrics.protocols import Protocol
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress

AHEAD = 2  # batches that devices work on while their results are awaited


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A network under a protocol. `batch`: images of a step, over all devices."""

    inception: Inception
    protocol: Protocol
    batch: int = 64
    precision: str = "highest"  # of products: "high" and "default" are faster on accelerators, and less exact

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise UserError(f"precision {self.precision!r}: choose one of {', '.join(PRECISIONS)}")
        if self.batch < 1:
            raise UserError(f"batches of {self.batch} images: take at least 1")

    def stream(self, images: Images, digest: Any = None) -> Iterator[Features]:
        """Features of the images in order, batch by batch, as NumPy arrays; `digest` (of hashlib) sees the pixels.

        The last batch is padded for the network, never dropped. Progress is shown.
        """
        size = -(-self.batch // devices.count()) * devices.count()
        params, waiting = devices.everywhere(self.inception.params), deque[tuple[Features, int]]()
        with Progress(images.count, "features", "images") as bar:
            for pixels in ahead(images.read(size)):
                if digest is not None:
                    for one in pixels if isinstance(pixels, list) else (pixels,):
                        digest.update(np.ascontiguousarray(one))
                given = np.stack([self.protocol.resized(x) for x in pixels]) if isinstance(pixels, list) else pixels
                made = apply(self.protocol, self.precision, params, devices.apart(devices.padded(given, size)))
                waiting.append((made, len(pixels)))
                if len(waiting) > AHEAD:
                    yield _fetch(*waiting.popleft(), bar)
            while waiting:
                yield _fetch(*waiting.popleft(), bar)

    def collect(self, images: Images, names: Iterable[str] = Features._fields) -> tuple[dict[str, np.ndarray], str]:
        """Features of all images by name, and the SHA-256 of their pixels."""
        digest, names = hashlib.sha256(), tuple(names)
        parts = [{name: getattr(made, name) for name in names} for made in self.stream(images, digest)]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}, digest.hexdigest()


@functools.partial(jax.jit, static_argnums=(0, 1))
def apply(protocol: Protocol, precision: str, params: Params, img_BxRxRx3: jax.Array) -> Features:
    """uint8 images, or float ones that are resized already, -> features.

    Weights are arguments: as constants they would be folded for minutes.
    """
    resized = img_BxRxRx3.dtype == jnp.float32
    x = protocol.normalised(img_BxRxRx3) if resized else protocol.prepare(img_BxRxRx3)
    made: Any = InceptionNet(precision).apply({"params": params}, x)
    return made


def ahead(items: Iterator[Any]) -> Iterator[Any]:
    """The same items, the next of them already being made by another thread."""
    with ThreadPoolExecutor(1) as pool:
        coming = pool.submit(next, items, None)
        while (item := coming.result()) is not None:
            coming = pool.submit(next, items, None)
            yield item


def _fetch(made: Features, count: int, bar: Progress) -> Features:
    features = Features(*(np.asarray(x)[:count] for x in made))
    bar.update(count)
    return features
