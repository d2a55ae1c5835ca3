"""Pictures that a user hands over in Python: of any kind and size -> squares of 8 bits, as models take them.

Arrays are read as matplotlib, scikit-image and torchvision have them: uint8 in 0..255, floats in [0, 1], channels last.
"""

import os
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from PIL import Image

from dd_jax.data import decode
from dd_jax.data.conditions import as_array
from dd_jax.system.errors import UserError

SIZES = ("crop", "fit")
CHANNELS = (1, 2, 3, 4)  # grey, grey and alpha, RGB, RGB and alpha
ROUNDING = 1e-3  # by which floats may leave [0, 1]
KINDS = "uint8 in 0..255, or floats in [0, 1]"


def squares(images: Any, side: int, channels: int, size: str = "crop", background: str | None = None) -> np.ndarray:
    """uint8 (B, side, side, channels) of one picture or many.

    A picture: Pillow's, a file's path, or an array (rows, columns[, 1 to 4 channels]) of uint8, uint16, bool or floats
    in [0, 1]; several: an array of them or a list, each of any size. `size`: "crop" takes the central square, as
    training does; "fit" the whole picture, with margins. `background`: a colour for margins and behind alpha; none:
    white. UserError for what is none of these.
    """
    if size not in SIZES:
        raise UserError(f'size={size!r} is unknown: "crop" takes the central square, "fit" the whole picture')
    mode, ground = decode.MODES[channels], decode.ground(background)
    found = [_square(one, name, side, mode, ground, size == "fit") for name, one in each(images, channels)]
    return np.stack(found) if found else np.zeros((0, side, side, channels), np.uint8)


def each(images: Any, channels: int) -> list[tuple[str, Any]]:
    """(what errors call it, picture) one by one. UserError for what is no list of pictures."""
    if isinstance(images, (Image.Image, str, os.PathLike)):
        return [("the image", images)]
    if isinstance(images, (list, tuple)) and not (images and isinstance(images[0], (list, int, float))):
        return [(f"image {i}", one) for i, one in enumerate(images)]
    array = as_array(images, "images")
    if 0 in array.shape[:1]:
        return []
    if array.ndim == 2 or (array.ndim == 3 and array.shape[-1] in CHANNELS):
        return [("the image", array)]
    first = array.ndim == 3 and channels == 3 and len(array) in (3, 4)  # in grey models these are so many grey pictures
    if first or (array.ndim == 4 and array.shape[-1] not in CHANNELS and array.shape[1] in CHANNELS):
        axes = "1, 2, 0" if array.ndim == 3 else "0, 2, 3, 1"
        raise UserError(f"images are {array.shape}, channels first: give images.transpose({axes})")
    if array.ndim not in (3, 4):
        raise UserError(f"images are {array.dtype} {array.shape}: give (B, rows, columns, channels), {KINDS}")
    return [(f"image {i}", one) for i, one in enumerate(array)]


def _square(one: Any, name: str, side: int, mode: str, ground: tuple[int, ...], whole: bool) -> np.ndarray:
    """uint8 (side, side, 1 or 3). UserError for what is no picture, or cannot be read."""
    try:
        if isinstance(one, (str, os.PathLike)):
            name = str(one)
            with Image.open(Path(one).expanduser()) as file:
                return decode.prepared(file, side, mode, ground, whole)[0]
        img = one if isinstance(one, Image.Image) else _image(one, name)
        return decode.prepared(img, side, mode, ground, whole)[0]
    except UserError:
        raise
    except Exception as error:  # torn files make Pillow raise nearly anything, and it reads them late
        raise UserError(f"{name} is no picture that can be read ({decode.reason(error)})") from error


def _image(one: Any, name: str) -> Image.Image:
    """An array as Pillow's picture."""
    array = as_array(one, name)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in CHANNELS or 0 in array.shape:
        told = ": channels first; give image.transpose(1, 2, 0)" if array.ndim == 3 and len(array) in CHANNELS else ""
        raise UserError(f"{name} is {array.shape}{told or ', and a picture is (rows, columns[, 1 to 4 channels])'}")
    bytes = _bytes(array, name)
    return Image.fromarray(bytes[..., 0] if bytes.shape[-1] == 1 else bytes)


def _bytes(array: np.ndarray, name: str) -> np.ndarray:
    """uint8. UserError for numbers whose range nobody can know."""
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return np.round(array * (255 / 65535)).astype(np.uint8)
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise UserError(f"{name} is {array.dtype}: give {KINDS} (image.astype(np.uint8), image / 255)")
    array = array.astype(np.float32)
    low, high = float(array.min()), float(array.max())
    if not (low >= -ROUNDING and high <= 1 + ROUNDING):  # NaN neither
        raise UserError(
            f"{name} goes from {low:.4g} to {high:.4g}, and floats must lie in [0, 1]: image / 2 + 0.5 brings [-1, 1] "
            "there, image / 255 brings 0..255"
        )
    return np.round(np.clip(array, 0, 1) * 255).astype(np.uint8)
