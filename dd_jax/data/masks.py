"""Masks that a user hands over with pictures: which pixels are drawn anew. Of any kind and size."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dd_jax.data import decode, given
from dd_jax.data.conditions import as_array
from dd_jax.method.pinning import shrunk
from dd_jax.system.errors import UserError

TURNED = (5, 6, 7, 8)  # EXIF's orientations that lay a picture on its side
MASK = "a mask is (rows, columns), bool, whole numbers or floats in [0, 1]; true, 1 or white is drawn anew"


def holes(mask: Any, images: Any, side: int, channels: int, size: str = "crop") -> np.ndarray:
    """Bool (1 or B, side, side): where B pictures, which `given.squares` has read, are drawn anew.

    A mask: an array (rows, columns[, 1]), Pillow's picture or a file's path, for all of them; or one each: an array
    (B, rows, columns[, 1]) or a list. It has the proportions of its picture, and is cropped or fitted as that is, or it
    is a square, and lies over the square that the model sees. A pixel is drawn anew where any part of it is masked.
    UserError for what is none of these, another number of masks, and a mask without a hole.
    """
    found = [_read(one, name) for name, one in _each(mask)]
    pictures = [_extent(one) for _, one in given.each(images, channels)]
    if len(found) not in (1, len(pictures)):
        raise UserError(f"there are {len(found)} masks for {len(pictures)} images: give one, or one an image")
    for one, (rows, columns) in zip(found * (len(pictures) // len(found)), pictures, strict=True):
        (high, wide), most = one.shape, max(*one.shape, rows, columns)
        if high != wide and abs(high * columns - wide * rows) > most:  # but for rounding
            raise UserError(
                f"a mask of {high} rows and {wide} columns does not fit an image of {rows} and {columns}: give it the "
                "image's proportions, or a square one for the square that the model sees"
            )
    squares = np.concatenate([shrunk(_squared(one, size == "fit")[None], side) for one in found])
    if not squares.any((1, 2)).all():
        raise UserError(f"the mask leaves nothing to draw anew: {MASK}")
    return squares


def soft(hole_BxRxR: np.ndarray, width: float) -> np.ndarray:
    """(B, R, R) float weights of what is drawn: 1 in a hole, falling to 0 over so many pixels around it."""
    return np.stack([np.clip(1 - _distance(hole) / (width + 1), 0, 1) for hole in hole_BxRxR])


def _distance(hole_RxR: np.ndarray) -> np.ndarray:
    """Of every pixel, to the nearest in the hole: squares of distances along one axis, then along the other."""
    at = np.arange(len(hole_RxR), dtype=np.float32)
    square = np.where(hole_RxR, np.float32(0), np.float32(np.inf))
    for _ in range(2):
        square = np.stack([np.min((at - row)[:, None] ** 2 + square, 0) for row in at]).T
    return np.sqrt(square)


def _each(mask: Any) -> list[tuple[str, Any]]:
    """(what errors call it, mask) one by one."""
    if isinstance(mask, (Image.Image, str, os.PathLike)):
        return [("the mask", mask)]
    if isinstance(mask, (list, tuple)) and mask and isinstance(mask[0], (Image.Image, str, os.PathLike, np.ndarray)):
        return [(f"mask {i}", one) for i, one in enumerate(mask)]
    array = as_array(mask, "masks")
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] == 1):
        return [("the mask", array)]
    if array.ndim not in (3, 4) or not len(array):
        raise UserError(f"the mask is {array.dtype} {array.shape}: {MASK}; or one an image, (B, rows, columns)")
    return [(f"mask {i}", one) for i, one in enumerate(array)]


def _read(one: Any, name: str) -> np.ndarray:
    """Bool (rows, columns)."""
    if isinstance(one, (str, os.PathLike, Image.Image)):
        try:
            if isinstance(one, Image.Image):
                return _white(one)
            with Image.open(Path(one).expanduser()) as file:
                return _white(file)
        except Exception as error:  # torn files make Pillow raise nearly anything
            raise UserError(f"{name} is no picture that can be read ({decode.reason(error)})") from error
    array = as_array(one, name)
    array = array[..., 0] if array.ndim == 3 and array.shape[-1] == 1 else array
    if array.ndim != 2 or not array.size or array.dtype.kind not in "biuf":
        raise UserError(f"{name} is {array.dtype} {array.shape}: {MASK}")
    if array.dtype.kind == "f":
        if not (array.min() >= 0 and array.max() <= 1):  # NaN neither
            raise UserError(f"{name} goes from {array.min():.4g} to {array.max():.4g}: {MASK}")
        return array >= 0.5
    return array != 0


def _white(img: Image.Image) -> np.ndarray:
    """Where a picture is white rather than black; what is transparent counts as black."""
    grey, alpha = np.moveaxis(np.asarray(img.convert("RGBA").convert("LA"), np.int32), -1, 0)
    return grey * alpha >= 128 * 255


def _squared(mask: np.ndarray, whole: bool) -> np.ndarray:
    """Its central square, or all of it between margins that are kept."""
    rows, columns = mask.shape
    if whole:
        edge = max(rows, columns)
        top, left = (edge - rows) // 2, (edge - columns) // 2
        return np.pad(mask, ((top, edge - rows - top), (left, edge - columns - left)))
    edge = min(rows, columns)
    top, left = (rows - edge) // 2, (columns - edge) // 2
    return mask[top : top + edge, left : left + edge]


def _extent(one: Any) -> tuple[int, int]:
    """(rows, columns) of a picture that `given.squares` could read."""
    if isinstance(one, (str, os.PathLike)):
        with Image.open(Path(one).expanduser()) as file:
            return _extent(file)
    if isinstance(one, Image.Image):
        return one.size if one.getexif().get(0x112) in TURNED else one.size[::-1]
    rows, columns = np.shape(one)[:2]
    return rows, columns
