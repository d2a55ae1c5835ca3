"""Images to be scored, from wherever they are: an array as other evaluators read it, a folder, tensorflow-datasets.

They are streamed: 50,000 of 256 x 256 pixels are 10 GB.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.data import image_arrays, photographs, tfds
from dd_jax.data.image_arrays import check
from dd_jax.data.photographs import square
from dd_jax.system import files
from dd_jax.system.errors import UserError

__all__ = ["Images", "check", "from_array", "open_images", "square"]
TFDS = "tfds:"
READERS = 8  # threads that decode pictures

Batch = np.ndarray | list[np.ndarray]  # images (B, R, R, 3), or a list of those that differ in size


@dataclasses.dataclass(frozen=True)
class Images:
    """A set of images. `read(B)` yields uint8 (B, R, R, 3), the last batch shorter.

    Where pictures may differ in size (see `open_images`), a batch in which they do is a list of them.
    """

    name: str
    count: int
    read: Callable[[int], Iterator[Any]]
    changed: dict[str, int] = dataclasses.field(default_factory=dict)  # what reading changed, and in how many images
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)  # files that are not among them, by suffix

    def about(self) -> dict[str, Any]:
        """What a result says of them, once they were read."""
        told = {"changed": dict(sorted(self.changed.items())), "left_out": self.left_out}
        return {"source": self.name} | {key: found for key, found in told.items() if found}

    def told(self) -> str:
        """The same for people, a line or nothing."""
        parts = [f"{count} {what}" for what, count in sorted(self.changed.items())]
        parts += [f"{count} {what} files left out" for what, count in self.left_out.items()]
        return f"{self.name}: as other evaluators read them, {', '.join(parts)}" if parts else ""


def open_images(source: str | Path, resolution: int | None = None, crop: str = "box", mixed: bool = False) -> Images:
    """`source`: an .npz with `arr_0`, an .npy, a folder of pictures, or tfds:NAME[:VERSION][:SPLIT].

    With `resolution`, pictures of any size are made squares of that many pixels (see `square`); without, all
    must have one size, unless `mixed`. UserError for anything that does not hold uint8 RGB images.
    """
    if resolution is not None and resolution < 1:
        raise UserError(f"--resolution {resolution}: give the pixels of a side, at least 1")
    sizes = _Sizes(resolution, crop, mixed)
    if str(source).startswith(TFDS):
        return _tfds(str(source), sizes)
    path = files.local(source)
    if path.is_dir():
        names, left = photographs.find(path)
        return _streamed(str(path), names, lambda name: photographs.read(name, resolution, crop), sizes, left)
    if path.suffix.lower() in (".npz", ".npy") and path.is_file():
        if resolution:
            raise UserError(f"{path} is scored at the size that it has: leave the resolution out")
        count, read = image_arrays.read(path)
        return Images(str(path), count, read)
    if path.is_file():
        packed = path.suffix.lower() in (".zip", ".tar", ".gz", ".tgz")
        way = "unpack it" if packed else "np.savez(FILE, images) writes one"
        raise UserError(f"{path} is neither an .npz or .npy file nor a folder of pictures: {way}")
    raise UserError(f"{path} is neither an .npz file nor a folder of pictures that exists")


def from_array(img_NxRxRx3: np.ndarray, name: str = "memory") -> Images:
    """Images that are in memory already."""
    check(name, img_NxRxRx3.dtype, img_NxRxRx3.shape)
    count = len(img_NxRxRx3)
    return Images(
        name, count, lambda size: (np.ascontiguousarray(img_NxRxRx3[i : i + size]) for i in range(0, count, size))
    )


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """What is made of pictures of any size."""

    resolution: int | None
    crop: str
    mixed: bool

    def name(self, source: str) -> str:
        """What a result says of where the images are from."""
        return f"{source} ({self.crop} to {self.resolution} px)" if self.resolution else source


def _tfds(source: str, sizes: _Sizes) -> Images:
    """Pictures of a prepared data set."""
    name = source.removeprefix(TFDS)
    data = tfds.open_source(name)

    def one(index: int) -> tuple[np.ndarray, list[str]]:
        return photographs.of_array(tfds.field(name, data[index], "image"), sizes.resolution, sizes.crop)

    return _streamed(source, range(len(data)), one, sizes, {})


def _streamed(source: str, items: Sequence[Any], one: Callable[[Any], Any], sizes: _Sizes, left: dict) -> Images:
    changed: dict[str, int] = {}
    return Images(
        sizes.name(source), len(items), lambda size: _batches(items, one, size, sizes.mixed, changed), changed, left
    )


def _batches(
    items: Sequence[Any], one: Callable[[Any], Any], size: int, mixed: bool, changed: dict[str, int]
) -> Iterator[Batch]:
    """Batches of `one(item)`, decoded by several threads; `changed` counts anew."""
    changed.clear()
    shape = None
    with ThreadPoolExecutor(READERS) as pool:
        for first in range(0, len(items), size):
            some = items[first : first + size]
            images: list[np.ndarray] = []
            for item, (image, changes) in zip(some, pool.map(one, some), strict=True):
                shape = shape or image.shape
                if image.shape != shape and not mixed:
                    raise UserError(f"{item} is {image.shape}, others are {shape}: give --resolution to crop them")
                for change in changes:
                    changed[change] = changed.get(change, 0) + 1
                images.append(image)
            same = len({image.shape for image in images}) == 1
            yield np.stack(images) if same else images
