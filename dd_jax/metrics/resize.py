"""The three ways in which published FIDs bring images to 299 x 299. Each is a linear map per axis: a matrix.

They are worth about 0.1 FID to each other, and more at low resolutions (Parmar et al., arXiv 2104.11222). A fourth
one is what a published script does before that to images of 384 px.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

Matrix = Callable[[int, int], np.ndarray]  # (side before, side after) -> (after, before), float32


def tf1_bilinear(before: int, after: int) -> np.ndarray:
    """TensorFlow 1's resize_bilinear: pixel corners at the origin, no antialiasing; in float32, as there."""
    scale = np.float32(before) / np.float32(after)
    return _linear(np.arange(after, dtype=np.float32) * scale, before)


def half_pixel_bilinear(before: int, after: int) -> np.ndarray:
    """PyTorch's interpolate(mode="bilinear", align_corners=False): pixel centres, no antialiasing; fused float32."""
    scale = np.float64(np.float32(before) / np.float32(after))
    centre = ((np.arange(after) + 0.5) * scale - 0.5).astype(np.float32)  # one rounding, as in a fused multiply-add
    return _linear(np.maximum(centre, 0), before)


def pil_bicubic(before: int, after: int, a: float = -0.5) -> np.ndarray:
    """Pillow's bicubic: pixel centres, the kernel as wide as an output pixel, cut off and normalised at borders."""
    scale = before / after
    wide = max(scale, 1.0)
    centre = (np.arange(after)[:, None] + 0.5) * scale
    pixel = np.arange(before)[None]
    weight = _cubic(np.abs(pixel + 0.5 - centre) / wide, a)
    inside = (pixel >= np.floor(centre - 2 * wide + 0.5)) & (pixel < np.floor(centre + 2 * wide + 0.5))
    weight = np.where(inside, weight, 0.0)
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def torch_bicubic(before: int, after: int, a: float = -0.75) -> np.ndarray:
    """PyTorch's interpolate(mode="bicubic", align_corners=False): always four pixels, borders repeated."""
    centre = (np.arange(after) + 0.5) * (before / after) - 0.5
    first = np.floor(centre).astype(int) - 1
    matrix = np.zeros((after, before))
    for pixel in first + np.arange(4)[:, None]:
        np.add.at(matrix, (np.arange(after), np.clip(pixel, 0, before - 1)), _cubic(np.abs(pixel - centre), a))
    return matrix.astype(np.float32)


def _cubic(x: np.ndarray, a: float) -> np.ndarray:
    """Keys' kernel at the distance x."""
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))


def resize(img_BxRxRxc: jax.Array, side: int, matrix: Matrix) -> jax.Array:
    """Float images of any size -> (B, side, side, c). At full precision: accelerators would round grey levels."""
    for axis in (2, 1):  # columns first, as Pillow and TensorFlow do
        weight = jnp.asarray(matrix(img_BxRxRxc.shape[axis], side))
        spec = "bhwc,sw->bhsc" if axis == 2 else "bhwc,sh->bswc"
        img_BxRxRxc = jnp.einsum(spec, img_BxRxRxc, weight, precision=jax.lax.Precision.HIGHEST)
    return img_BxRxRxc


def _linear(position: np.ndarray, before: int) -> np.ndarray:
    """Rows that interpolate between the two neighbours of each position."""
    low = np.floor(position).astype(int)
    part = (position - low).astype(np.float32)
    matrix, row = np.zeros((len(position), before), np.float32), np.arange(len(position))
    matrix[row, np.minimum(low, before - 1)] += 1 - part
    matrix[row, np.minimum(low + 1, before - 1)] += part
    return matrix
