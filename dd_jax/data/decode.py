"""One picture of one's own, as models take it: upright, of 8 bits, opaque, a square. What that changed is told.

The networks' training reads pictures so; scores read them as the tools do that they are compared with.
"""

import numpy as np
from PIL import ExifTags, Image, ImageColor, ImageOps, UnidentifiedImageError

from dd_jax.system.errors import UserError

# As far as the installed Pillow reads them. Not what only another program could draw (.eps, .wmf, .pdf).
USUAL = """
.png .apng .jpg .jpeg .jpe .jfif .mpo .webp .bmp .dib .gif .tif .tiff .ppm .pgm .pbm .pnm .pfm .avif .avifs .heic .heif
.hif .jxl .jp2 .j2k .jpf .jpx .j2c .jpc .tga .qoi .pcx .sgi .ras .ico
"""
MODES = {1: "L", 3: "RGB"}  # by channels
GREY = ("1", "L", "LA", "La", "I", "F")
SEVERAL = ("GIF", "PNG", "WEBP", "TIFF", "AVIF")  # formats of several frames, of which a JPEG's are no pictures
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def suffixes() -> tuple[str, ...]:
    """Of files that Pillow reads here, in lower case."""
    known = Image.registered_extensions()
    return tuple(suffix for suffix in USUAL.split() if known.get(suffix) in Image.OPEN)


def ground(background: str | None) -> tuple[int, ...]:
    """The colour, (3,), that `config.data.background` names; white if it names none. UserError for no colour."""
    try:
        return ImageColor.getrgb(background or "white")[:3]
    except ValueError as error:
        raise UserError(f"config.data.background={background} is no colour: white, black, '#808080' are") from error


def prepared(
    img: Image.Image, side: int, mode: str, background: tuple[int, ...] = (255, 255, 255), whole: bool = False
) -> tuple[np.ndarray, list[str]]:
    """uint8 (side, side, 1 or 3), the central square in `mode`, "L" or "RGB"; and what was converted, in words.

    With `whole` all of the picture instead, between margins of the background. Turned as its EXIF says, more than 8
    bits scaled to 8, what is transparent laid on `background`, the first of several frames. Raises what Pillow raises,
    and ValueError for numbers whose range nobody can know.
    """
    img, told = _plain(img, mode, background)
    if whole:
        margin = tuple(np.asarray(Image.new("RGB", (1, 1), background).convert(mode)).reshape(-1).tolist())
        padded = ImageOps.pad(img.convert(mode), (side, side), Image.Resampling.LANCZOS, margin)
        return np.asarray(padded).reshape(side, side, -1), told
    if img.width != img.height:
        told.append("cut to the central square")
    if min(img.size) < side:
        told.append(f"smaller than {side} px, enlarged")
    edge = min(img.size)
    left, top = (img.width - edge) // 2, (img.height - edge) // 2
    img = img.convert(mode).crop((left, top, left + edge, top + edge)).resize((side, side), Image.Resampling.LANCZOS)
    return np.asarray(img).reshape(side, side, -1), told


def resized(img: Image.Image, side: int, mode: str, background: tuple[int, ...]) -> tuple[np.ndarray, list[str]]:
    """The same of the whole picture in its own shape, the shorter side `side` px: uint8 (rows, columns, 1 or 3)."""
    img, told = _plain(img, mode, background)
    shorter = min(img.size)
    if shorter < side:
        told.append(f"smaller than {side} px, enlarged")
    size = round(img.width * side / shorter), round(img.height * side / shorter)
    return np.asarray(img.convert(mode).resize(size, Image.Resampling.LANCZOS)).reshape(size[1], size[0], -1), told


def _plain(img: Image.Image, mode: str, background: tuple[int, ...]) -> tuple[Image.Image, list[str]]:
    """Upright, of 8 bits, opaque, yet of its own size; and what was converted."""
    told, format = list[str](), img.format or ""
    if format in SEVERAL and getattr(img, "is_animated", False):
        told.append("first of several frames or pages taken")
    if _deep(img):
        told.append("16 bits scaled to 8")
    colour = in_colour(img)
    upright = _upright(img)
    if upright is not None:
        told.append("turned as EXIF says")
    img = _eight_bits(upright or img, format)
    if img.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in img.info:
        img, clear = _opaque(img, background)
        told += [f"transparent, laid on #{bytes(background).hex()}"] * clear
    if colour and mode == "L":
        told.append("colour made grey")
    return img, told


def in_colour(img: Image.Image) -> bool:
    """By how it is stored: an RGB file counts as colour even if all of it is grey."""
    if img.mode in ("P", "PA"):
        red, green, blue = np.array(img.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3).T
        return bool((red != green).any() or (green != blue).any())
    if any("LA;16" in str(tile[3]) for tile in getattr(img, "tile", [])):  # comes as RGBA
        return False
    return img.mode not in GREY and not img.mode.startswith("I;16")


def _deep(img: Image.Image) -> bool:
    """More than 8 bits a channel, as far as Pillow tells; colours come as their high bytes."""
    if img.mode in ("I", "F") or img.mode.startswith("I;16"):
        return True
    for tile in getattr(img, "tile", []):
        args = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if any(";16" in str(arg) for arg in args):
            return True
        if tile[0].startswith("ppm") and isinstance(args[-1], int) and args[-1] > 255:
            return True
    return False


def _upright(img: Image.Image) -> Image.Image | None:
    """The picture, turned; None if its EXIF asks for nothing, or cannot be read."""
    try:
        turn = img.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # whatever a camera wrote there: the picture may be fine
        return None
    if turn not in TURNS:
        return None
    img.load()  # TIFF turns itself, and then has no such tag any more
    left = img.getexif().get(ExifTags.Base.Orientation) if img.format == "TIFF" else turn
    return img.transpose(TURNS[turn]) if left else img


def _eight_bits(img: Image.Image, format: str) -> Image.Image:
    """Grey of 16 or 32 bits, or of floats, as "L", or "LA" where one value of it is transparent."""
    if not (img.mode in ("I", "F") or img.mode.startswith("I;16")):
        return img
    values = np.asarray(img)
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 65535):  # NaN neither
        raise ValueError(f"its values go from {low} to {high}: save it with 8 or 16 bits, or floats in 0..1")
    if img.mode.startswith("I;16") or high > 255 or (img.mode == "I" and format in ("PNG", "PPM")):
        top = 65535
    else:
        top = 1 if img.mode == "F" and high <= 1 else 255
    grey = Image.fromarray(np.round(values * (255 / top)).astype(np.uint8))
    if isinstance(img.info.get("transparency"), int):
        grey.putalpha(Image.fromarray(np.where(values == img.info["transparency"], 0, 255).astype(np.uint8)))
    return grey


def _opaque(img: Image.Image, background: tuple[int, ...]) -> tuple[Image.Image, bool]:
    """Laid on a ground; and whether anything of it shows."""
    img = (img.convert("LA") if img.mode == "La" else img).convert("RGBA")
    clear = np.asarray(img)[..., 3].min() < 255
    return Image.alpha_composite(Image.new("RGBA", img.size, (*background, 255)), img).convert("RGB"), bool(clear)


def reason(error: Exception) -> str:
    """What Pillow says of a file, in a few words and without the file's name."""
    if isinstance(error, UnidentifiedImageError):
        return "no picture format that Pillow knows"
    told = getattr(error, "strerror", None) or " ".join(str(error).split()) or type(error).__name__
    return told[:120]
