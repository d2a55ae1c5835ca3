"""The protocols that published numbers come from: what an image goes through, and what is scored against what.

One network, three preprocessings, about 0.1 FID apart: numbers of different protocols are never comparable, so a
result names its protocol, statistics remember theirs, and the two have to agree.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.metrics.inception import SIDE
from dd_jax.metrics.resize import Matrix, half_pixel_bilinear, pil_bicubic, resize, tf1_bilinear
from dd_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How images are prepared and which scores are reported. Pixels become (x - centre) / scale."""

    name: str
    about: str
    matrix: Matrix
    centre: float = 128.0
    scale: float = 128.0
    crop: str = "box"  # how photographs of any size become squares (see `images.square`)
    mixed: bool = False  # pictures may differ in size: each is resized by itself
    scores: tuple[str, ...] = ("fid",)
    count: int = 50_000  # samples of a published number
    is_split: int = 5000  # samples of a part of the Inception score
    neighbours: int = 3  # of precision and recall

    def prepare(self, img_BxRxRx3: jax.Array) -> jax.Array:
        """uint8 images -> what the network takes, float32 (B, 299, 299, 3)."""
        return self.normalised(resize(img_BxRxRx3.astype(jnp.float32), SIDE, self.matrix))

    def resized(self, img: np.ndarray) -> np.ndarray:
        """One uint8 image (rows, columns, 3) -> float32 (299, 299, 3), off the device: nothing compiles for a size."""
        x = np.einsum("hwc,sw->hsc", img.astype(np.float32), self.matrix(img.shape[1], SIDE), optimize=True)
        return np.einsum("hwc,sh->swc", x, self.matrix(img.shape[0], SIDE), optimize=True)

    def normalised(self, x: jax.Array) -> jax.Array:
        """Resized images -> what the network takes."""
        if self.matrix is pil_bicubic:
            x = jnp.clip(x, 0, 255)  # bicubic overshoots
        return (x - self.centre) / self.scale


PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "adm",
            "guided-diffusion's evaluator; the published ImageNet tables of ADM, of the teachers and of DD",
            tf1_bilinear,
            scores=("fid", "sfid", "inception_score", "precision", "recall"),
        ),
        Protocol(
            "pytorch_fid",
            "pytorch-fid, which the released DD code calls, against its statistic.pth",
            half_pixel_bilinear,
            centre=127.5,
            scale=127.5,
        ),
        Protocol(
            "clean",
            "clean-fid; text-to-image on COCO, 30,000 captions",
            pil_bicubic,
            crop="lanczos",
            mixed=True,
            count=30_000,
        ),
    )
}


def find(name: str) -> Protocol:
    """UserError for an unknown name."""
    if name not in PROTOCOLS:
        raise UserError(f"unknown protocol {name!r}: choose one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
