"""How alike two pictures are, pixel by pixel: PSNR, and SSIM (Wang et al., IEEE Trans. Image Process. 13(4), 2004)."""

import jax
import jax.numpy as jnp
import numpy as np

SPAN = 2.0  # of images in [-1, 1]
SIDE, SIGMA = 11, 1.5  # of the Gaussian window
C1, C2 = (0.01 * SPAN) ** 2, (0.03 * SPAN) ** 2


def psnr(a_BxRxRxc: jax.Array, b_BxRxRxc: jax.Array) -> jax.Array:
    """Decibels (B,), of images in [-1, 1]."""
    return 10 * jnp.log10(SPAN**2 / jnp.mean((a_BxRxRxc - b_BxRxRxc) ** 2, (1, 2, 3)))


def ssim(a_BxRxRxc: jax.Array, b_BxRxRxc: jax.Array) -> jax.Array:
    """SSIM (B,) of images in [-1, 1], 11 px or more: mean over whole windows and channels; 1: they are equal."""
    mean_a, mean_b = _blur(a_BxRxRxc), _blur(b_BxRxRxc)
    var_a, var_b = (_blur(x * x) - mean * mean for x, mean in ((a_BxRxRxc, mean_a), (b_BxRxRxc, mean_b)))
    cov = _blur(a_BxRxRxc * b_BxRxRxc) - mean_a * mean_b
    light = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    return jnp.mean(light * (2 * cov + C2) / (var_a + var_b + C2), (1, 2, 3))


def _blur(x: jax.Array) -> jax.Array:
    """Means under the window, one axis after the other: (B, R - 10, R - 10, c)."""
    at = np.arange(SIDE) - SIDE // 2
    window = np.exp(-(at**2) / (2 * SIGMA**2))
    window /= window.sum()
    for axis in (1, 2):
        count = x.shape[axis] - SIDE + 1
        parts = [w * jax.lax.slice_in_dim(x, i, i + count, axis=axis) for i, w in enumerate(window.astype(np.float32))]
        x = sum(parts[1:], parts[0])
    return x
