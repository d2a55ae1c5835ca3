"""Images to be scored, from wherever they are: an .npz as other evaluators read it, a folder, tensorflow-datasets.

They are streamed: 50,000 of 256 x 256 pixels are 10 GB.
"""

import contextlib
import dataclasses
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from dd_jax.system.errors import UserError

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")
TFDS = "tfds:"
READERS = 8  # threads that decode pictures


@dataclasses.dataclass(frozen=True)
class Images:
    """A set of images. `read(B)` yields uint8 (B, R, R, 3), the last batch shorter."""

    name: str
    count: int
    read: Callable[[int], Iterator[np.ndarray]]


def open_images(source: str | Path, resolution: int | None = None, crop: str = "box") -> Images:
    """`source`: an .npz with `arr_0`, a folder of pictures, or tfds:NAME[:SPLIT].

    With `resolution`, pictures of any size are made squares of that many pixels (see `square`); without, all
    must have one size. UserError for anything that does not hold uint8 RGB images.
    """
    if str(source).startswith(TFDS):
        return _tfds(str(source), resolution, crop)
    path = Path(source)
    if path.is_dir():
        return _folder(path, resolution, crop)
    if path.suffix == ".npz" and path.is_file():
        if resolution:
            raise UserError(f"{path} is scored at the size that it has: leave the resolution out")
        return _npz(path)
    raise UserError(f"{path} is neither an .npz file nor a folder of pictures that exists")


def from_array(img_NxRxRx3: np.ndarray, name: str = "memory") -> Images:
    """Images that are in memory already."""
    check(name, img_NxRxRx3.dtype, img_NxRxRx3.shape)
    count = len(img_NxRxRx3)
    return Images(
        name, count, lambda size: (np.ascontiguousarray(img_NxRxRx3[i : i + size]) for i in range(0, count, size))
    )


def check(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """UserError unless this is uint8 (N, rows, columns, 3)."""
    if dtype != np.uint8:
        raise UserError(f"{name} holds {dtype}: networks take uint8 images, 0..255; convert [0, 1] by (255 x).round()")
    if len(shape) != 4 or shape[-1] != 3 or 0 in shape:
        raise UserError(f"{name} has shape {shape}: (N, rows, columns, 3) is needed; repeat a single channel")


def square(picture: Image.Image, side: int, crop: str = "box") -> Image.Image:
    """The middle square of a photograph at `side` pixels.

    "box": halve with a box filter while twice too large, then bicubic, then crop, as ADM prepares ImageNet.
    "lanczos": crop, then Lanczos, as the text-to-image evaluation does.
    """
    if crop == "lanczos":
        return _middle(picture, min(picture.size)).resize((side, side), Image.Resampling.LANCZOS)
    while min(picture.size) >= 2 * side:
        picture = picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.BOX)
    scale = side / min(picture.size)
    size = round(picture.width * scale), round(picture.height * scale)
    return _middle(picture.resize(size, Image.Resampling.BICUBIC), side)


def _middle(picture: Image.Image, side: int) -> Image.Image:
    left, top = (picture.width - side) // 2, (picture.height - side) // 2
    return picture.crop((left, top, left + side, top + side))


def _npz(path: Path) -> Images:
    """`arr_0`, without ever holding it."""
    with _array(path) as (_, shape):
        pass

    def read(size: int) -> Iterator[np.ndarray]:
        with _array(path) as (file, shape):
            each = int(np.prod(shape[1:]))
            for first in range(0, shape[0], size):
                count = min(size, shape[0] - first)
                yield _exactly(file, count * each, path).reshape(count, *shape[1:])

    return Images(str(path), shape[0], read)


@contextlib.contextmanager
def _array(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """The open `arr_0` of an .npz behind its header, and its shape."""
    with contextlib.ExitStack() as stack:
        try:
            archive = stack.enter_context(zipfile.ZipFile(path))
            names = [name.removesuffix(".npy") for name in archive.namelist()]
            if "arr_0" not in names:
                raise UserError(f"{path} holds {', '.join(names)}, no arr_0: np.savez(path, images) writes it")
            file = stack.enter_context(archive.open("arr_0.npy"))
            old = np.lib.format.read_magic(file) == (1, 0)
            header = np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0
            shape, fortran, dtype = header(file)
        except UserError:
            raise
        except (zipfile.BadZipFile, ValueError, EOFError, OSError) as error:
            raise UserError(f"{path} is no readable .npz ({error}): write or fetch it again") from error
        check(f"{path}: arr_0", dtype, shape)
        if fortran:
            raise UserError(f"{path}: arr_0 is in Fortran order: save np.ascontiguousarray(images)")
        yield file, shape


def _exactly(file: IO[bytes], size: int, path: Path) -> np.ndarray:
    try:
        data = file.read(size)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): write or fetch it again") from error
    if len(data) != size:
        raise UserError(f"{path} is cut off: write or fetch it again")
    return np.frombuffer(data, np.uint8)


def _folder(path: Path, resolution: int | None, crop: str) -> Images:
    """Pictures below a folder, by name."""
    names = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not names:
        raise UserError(f"no pictures in {path}: {', '.join(SUFFIXES)} are read")

    def one(name: Path) -> np.ndarray:
        try:
            with Image.open(name) as picture:
                rgb = picture.convert("RGB")
                return np.asarray(square(rgb, resolution, crop) if resolution else rgb)
        except (UnidentifiedImageError, OSError) as error:
            raise UserError(f"{name} is no readable picture: {error}") from error

    return Images(_name(path, resolution, crop), len(names), lambda size: _batches(names, one, size))


def _tfds(source: str, resolution: int | None, crop: str) -> Images:
    """tfds:NAME or tfds:NAME:SPLIT, prepared in array_record format (which needs no TensorFlow)."""
    try:
        import tensorflow_datasets as tfds
    except ImportError:
        raise UserError(f"{source} needs tensorflow-datasets: pip install 'dd_jax[data]'") from None
    name, _, split = source.removeprefix(TFDS).partition(":")
    try:
        data = tfds.data_source(name, split=split or "train")
    except Exception as error:  # not prepared, no such data set, no such split
        raise UserError(f"{source} cannot be opened ({error}): prepare it in array_record format") from error

    def one(index: int) -> np.ndarray:
        rgb = Image.fromarray(np.squeeze(data[index]["image"])).convert("RGB")
        return np.asarray(square(rgb, resolution, crop) if resolution else rgb)

    return Images(_name(source, resolution, crop), len(data), lambda size: _batches(range(len(data)), one, size))


def _name(source: str | Path, resolution: int | None, crop: str) -> str:
    """What a result says of where the images are from."""
    return f"{source} ({crop} to {resolution} px)" if resolution else str(source)


def _batches(items: Sequence[Any], one: Callable[[Any], np.ndarray], size: int) -> Iterator[np.ndarray]:
    """Batches of `one(item)`, decoded by several threads."""
    shape = None
    with ThreadPoolExecutor(READERS) as pool:
        for first in range(0, len(items), size):
            some = items[first : first + size]
            images = list(pool.map(one, some))
            shape = shape or images[0].shape
            for item, image in zip(some, images, strict=True):
                if image.shape != shape:
                    raise UserError(f"{item} is {image.shape}, others are {shape}: give --resolution to crop them")
            yield np.stack(images)
