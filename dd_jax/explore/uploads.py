"""Pictures that somebody hands over a browser: of a few formats, bounded, whatever the file says of itself."""

from pathlib import Path

import numpy as np
from PIL import Image

from dd_jax.data import given
from dd_jax.system.errors import UserError

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")
BYTES = 20 << 20
PIXELS = 24_000_000  # of a picture: decoded, four bytes each


def read(file: str | Path, side: int, channels: int, size: str = "crop", background: str | None = None) -> np.ndarray:
    """uint8 (1, side, side, channels): the central square of a picture ("crop"), or all of it between margins ("fit").

    UserError, in one line, for a file that is too large, of another kind, torn, or no picture. Its size is looked at
    before anything is decoded.
    """
    name, large = Path(file).name[-60:], f"{BYTES >> 20} MB and {PIXELS // 1_000_000} megapixels"
    if (bytes := Path(file).stat().st_size) > BYTES:
        raise UserError(f"{name} has {bytes / 2**20:.0f} MB: give a picture of up to {large}")
    try:
        with Image.open(file, formats=FORMATS) as img:
            if img.width * img.height > PIXELS:
                raise UserError(f"{name} has {img.width} x {img.height} pixels: give a picture of up to {large}")
            return given.squares(img, side, channels, size, background)
    except Image.DecompressionBombError as error:
        raise UserError(f"{name} has too many pixels: give a picture of up to {large}") from error
    except UserError:
        raise
    except Exception as error:  # torn files make Pillow raise nearly anything
        raise UserError(f"{name} is no picture that is read here: give one of {', '.join(FORMATS)}") from error
