"""Pictures as evaluators read them: Pillow's `convert("RGB")`, and nothing else; but what that changes is counted.

pytorch-fid, clean-fid and torch-fidelity all do so: 16-bit grey levels are cut at 255, alpha is dropped (what lies
below shows), the rotation that a camera noted is ignored. A score is comparable with theirs only if it does the same.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from dd_jax.system.errors import UserError

# What clean-fid and pytorch-fid read, in whatever case.
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm")
OTHERS = (".gif", ".avif", ".jp2", ".heic", ".jxl", ".npy", ".npz", ".zip", ".tar")  # left out, and told
ALPHA, PLAIN = ("RGBA", "RGBa", "LA", "La", "PA"), ("RGB", "RGBA", "RGBa", "RGBX", "I", "F")
MODES = dict.fromkeys(("L", "LA", "La", "1"), "grey repeated") | dict.fromkeys(("P", "PA"), "palette converted")


def find(path: Path) -> tuple[list[Path], dict[str, int]]:
    """(pictures below a folder, by name; what else is there that may be meant as one, counted by suffix)."""
    names: list[Path] = []
    left: dict[str, int] = {}
    for one in sorted(path.rglob("*")):
        inner, suffix = one.relative_to(path).parts, one.suffix.lower()
        if suffix not in (*SUFFIXES, *OTHERS) or not one.is_file():
            continue
        hidden = any(part.startswith(".") or part == "__MACOSX" for part in inner)
        if hidden or suffix in OTHERS:
            key = "hidden" if hidden else suffix
            left[key] = left.get(key, 0) + 1
        else:
            names.append(one)
    if not names:
        told = "; there are " + ", ".join(f"{n} {key}" for key, n in left.items()) if left else ""
        raise UserError(f"no pictures in {path}: {', '.join(SUFFIXES)} are read{told}")
    return names, left


def read(name: Path, side: int | None, crop: str) -> tuple[np.ndarray, list[str]]:
    """(uint8 (rows, columns, 3), what reading it changed). UserError for a file that is no picture."""
    try:
        with Image.open(name) as picture:
            changed = [*_changes(picture)]
            return pixels(picture, side, crop), changed
    except Exception as error:  # Pillow's readers raise whatever a damaged file leads them to
        raise UserError(f"{name} is no readable picture: {error}") from error


def pixels(picture: Image.Image, side: int | None, crop: str) -> np.ndarray:
    """uint8 (rows, columns, 3); with `side`, the middle square at so many pixels."""
    rgb = picture.convert("RGB")
    return np.asarray(square(rgb, side, crop) if side else rgb)


def of_array(img: Any, side: int | None, crop: str) -> tuple[np.ndarray, list[str]]:
    """The same of an array (rows, columns[, 1, 3 or 4])."""
    img = np.asarray(img)
    picture = Image.fromarray(img[..., 0] if img.ndim == 3 and img.shape[-1] == 1 else img)
    return pixels(picture, side, crop), [*_changes(picture)]


def _changes(picture: Image.Image) -> Iterator[str]:
    """What `convert("RGB")` does to the meaning of a picture."""
    if picture.mode[:2] in ("I", "I;") or picture.mode == "F":
        yield "more than 8 bits, cut at 255"
    elif picture.mode not in PLAIN:
        yield MODES.get(picture.mode, f"{picture.mode} converted")
    if picture.mode in ALPHA or "transparency" in picture.info:
        yield "alpha dropped"
    if picture.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1):
        yield "EXIF rotation ignored"
    if getattr(picture, "n_frames", 1) > 1:
        yield "first of several frames"


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
