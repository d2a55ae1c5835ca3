"""The convolutional encoder and decoder under both families' tokenizers, on (B, rows, cols, width) maps.

Released sizes and lean ones for CPUs are one set of modules: `ConvStack` says which blocks exist.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.nn import winograd
from dd_jax.nn.attention import attend, split_heads
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import constrain


@dataclasses.dataclass(frozen=True)
class ConvStack:
    """Shape of an encoder and its decoder. Level 0 has full resolution; each further one halves the side."""

    ch: int = 128
    ch_mult: tuple[int, ...] = (1, 1, 2, 2, 4)  # width of each level, in units of `ch`
    z_channels: int = 256
    channels: int = 3  # of the image
    encoder_blocks: int = 2  # residual blocks a level; without any, the resampling convolution sets the width
    decoder_blocks: int = 3
    groups: int = 32  # of every norm; 0: no norms
    attention: bool = True  # at the last level and in the middle
    mid: bool = True
    background: float = 0.0  # image value that zeros stand for: at -1 black costs one code, at borders too
    reach: int = 3  # size of the encoder's last convolution: at 1 codes stay local, and cheaper to predict
    patch: int = 1  # pixels of a side that are folded into channels first: spares full-resolution convolutions
    remat: bool = False  # compute each block again in the backward pass: a fraction of the memory, a third more time

    def __post_init__(self) -> None:
        if self.groups and any(width % self.groups for width in self.widths):
            raise UserError(f"groups={self.groups} must divide every width of {self.widths}: change ch or groups")

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.ch * mult for mult in self.ch_mult)

    @property
    def downsample(self) -> int:
        """Pixels of a side per position of the latent map."""
        return int(self.patch * 2 ** (len(self.ch_mult) - 1))

    def check(self, img_BxRxRxc: jax.Array) -> None:
        """Images that this stack cannot take are the user's to fix."""
        if img_BxRxRxc.ndim != 4 or not jnp.issubdtype(img_BxRxRxc.dtype, jnp.floating):
            told = f"{img_BxRxRxc.dtype} of shape {img_BxRxRxc.shape}"
            raise UserError(f"images are {told}: give (B, R, R, channels), floats in [-1, 1] (of uint8: x / 127.5 - 1)")
        rows, cols, channels = img_BxRxRxc.shape[1:]
        if rows % self.downsample or cols % self.downsample:
            raise UserError(f"image of {rows} x {cols} px: both must be multiples of {self.downsample}")
        if channels != self.channels:
            raise UserError(f"image of {channels} channels for a tokenizer of {self.channels}: set channels")


def space_to_depth(x: jax.Array, patch: int) -> jax.Array:
    """(B, p h, p w, c) -> (B, h, w, p p c)."""
    if patch == 1:
        return x
    batch, rows, cols, width = x.shape
    x = x.reshape(batch, rows // patch, patch, cols // patch, patch, width).swapaxes(2, 3)
    return x.reshape(batch, rows // patch, cols // patch, -1)


def depth_to_space(x: jax.Array, patch: int) -> jax.Array:
    """(B, h, w, p p c) -> (B, p h, p w, c)."""
    if patch == 1:
        return x
    batch, rows, cols, width = x.shape
    x = x.reshape(batch, rows, cols, patch, patch, width // patch**2).swapaxes(2, 3)
    return x.reshape(batch, rows * patch, cols * patch, -1)


Padding = tuple[tuple[int, int], tuple[int, int]]

# Taps of a 3-wide kernel that fall on the first and second neighbour, for even and odd positions of a doubled map.
DOUBLED = np.array([[[1, 0, 0], [0, 1, 1]], [[1, 1, 0], [0, 0, 1]]], np.float32)


def convolve(
    x: jax.Array, kernel: jax.Array, bias: jax.Array, stride: int = 1, padding: Padding | None = None
) -> jax.Array:
    """Square kernel (k, k, in, out); `padding` zeros before and after rows and columns, None: keep the side."""
    kernel, bias, half = kernel.astype(x.dtype), bias.astype(x.dtype), len(kernel) // 2
    if half == 0:  # a plain matrix product, which is also the fastest form
        return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0] + bias).reshape(*x.shape[:-1], -1)
    plain = functools.partial(_plain, padding=padding or ((half, half), (half, half)), stride=stride)
    if half == 1 and stride == 1 and padding is None and winograd.pays(x):
        return jax.lax.platform_dependent(x, kernel, cpu=winograd.convolve, default=plain) + bias
    return plain(x, kernel) + bias


def _plain(x: jax.Array, kernel: jax.Array, padding: Padding, stride: int = 1) -> jax.Array:
    order = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), padding, dimension_numbers=order)


def convolve_doubled(x: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """`convolve` 3x3 of the map with every position four times, by four 2x2 kernels: 4/9 of the products."""
    kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
    if winograd.pays(x, scale=2):
        return jax.lax.platform_dependent(x, kernel, cpu=winograd.convolve_doubled, default=_by_phases) + bias
    return _by_phases(x, kernel) + bias


def _by_phases(x: jax.Array, kernel: jax.Array) -> jax.Array:
    precision = jax.lax.Precision.HIGHEST
    small = jnp.einsum("pti,qsj,ijcd->pqtscd", DOUBLED, DOUBLED, kernel, precision=precision).astype(x.dtype)
    phases = [[_plain(x, small[p, q], ((1 - p, p), (1 - q, q))) for q in (0, 1)] for p in (0, 1)]
    return winograd.interleave(phases)


def lecun(key: jax.Array, shape: tuple[int, ...], dtype: jax.typing.DTypeLike = jnp.float32) -> jax.Array:
    """Normal of variance 1 / fan-in. Drawn flat: XLA on CPUs takes seconds to compile a 4-D draw."""
    fan_in = math.prod(shape[:-1])
    return (jax.random.normal(key, (math.prod(shape),), dtype) * fan_in**-0.5).reshape(shape)


class Conv(nn.Module):
    """size x size kernel and bias, applied by `how`."""

    features: int
    size: int = 3
    how: Callable[..., jax.Array] = convolve

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param("kernel", lecun, (self.size, self.size, x.shape[-1], self.features), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,), jnp.float32)
        return self.how(constrain(x), kernel, bias)


class GroupNorm(nn.Module):
    """Zero mean and unit variance over positions and the channels of a group, in float32; gain and bias."""

    groups: int = 32
    eps: float = 1e-6

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        gain = self.param("scale", nn.initializers.ones_init(), (width,), jnp.float32)
        bias = self.param("bias", nn.initializers.zeros_init(), (width,), jnp.float32)
        y = x.astype(jnp.float32).reshape(x.shape[0], -1, self.groups, width // self.groups)
        y = y - jnp.mean(y, (1, 3), keepdims=True)
        y = y * jax.lax.rsqrt(jnp.mean(y * y, (1, 3), keepdims=True) + self.eps)
        return (y.reshape(-1, width) * gain + bias).reshape(x.shape).astype(x.dtype)


def norm_silu(x: jax.Array, groups: int, name: str) -> jax.Array:
    """The activation of this stack; to be called inside a module, which owns the norm."""
    return jax.nn.silu(GroupNorm(groups, name=name)(x) if groups else x)


class ResBlock(nn.Module):
    """x + conv(silu(norm(conv(silu(norm x))))); a 1x1 convolution on the way past where the width changes."""

    features: int
    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y = Conv(self.features, name="conv1")(norm_silu(x, self.groups, "norm1"))
        y = Conv(self.features, name="conv2")(norm_silu(y, self.groups, "norm2"))
        if x.shape[-1] != self.features:
            x = Conv(self.features, size=1, name="nin_shortcut")(x)
        return x + y


class AttnBlock(nn.Module):
    """Single-head self-attention over all positions, residual."""

    groups: int = 32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        batch, rows, cols, width = x.shape
        y = GroupNorm(self.groups, name="norm")(x) if self.groups else x
        qkv = Conv(3 * width, size=1, name="qkv")(y).reshape(batch, rows * cols, 3 * width)
        y = attend(*split_heads(qkv, 1), None, width**-0.5)
        return x + Conv(width, size=1, name="proj_out")(y.reshape(x.shape))


class Downsample(nn.Module):
    """Half the side: one zero on the right and below, then 3x3 with stride 2."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        halve = functools.partial(convolve, stride=2, padding=((0, 1), (0, 1)))
        return Conv(self.features, how=halve, name="conv")(x)


class Upsample(nn.Module):
    """Twice the side: every position four times, then 3x3."""

    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        return Conv(self.features, how=convolve_doubled, name="conv")(x)


def blocks_of(cfg: ConvStack) -> tuple[Any, Any]:
    """The classes of residual and attention blocks."""
    return (nn.remat(ResBlock), nn.remat(AttnBlock)) if cfg.remat else (ResBlock, AttnBlock)


def run_level(cfg: ConvStack, x: jax.Array, level: int, blocks: int) -> jax.Array:
    """The blocks of one level, or an activation where there are none; to be called inside a module."""
    res, attn = blocks_of(cfg)
    for j in range(blocks):
        x = res(cfg.widths[level], cfg.groups, name=f"level{level}_block{j}")(x)
        if cfg.attention and level == len(cfg.widths) - 1:
            x = attn(cfg.groups, name=f"level{level}_attn{j}")(x)
    return x if blocks else jax.nn.silu(x)


def run_mid(cfg: ConvStack, x: jax.Array) -> jax.Array:
    """The middle of an encoder or decoder; to be called inside a module."""
    if not cfg.mid:
        return x
    res, attn = blocks_of(cfg)
    x = res(cfg.widths[-1], cfg.groups, name="mid_block1")(x)
    if cfg.attention:
        x = attn(cfg.groups, name="mid_attn")(x)
    return res(cfg.widths[-1], cfg.groups, name="mid_block2")(x)


class Encoder(nn.Module):
    """Images (B, R, R, c) -> maps (B, R / downsample, R / downsample, z_channels)."""

    cfg: ConvStack

    @nn.compact
    def __call__(self, img_BxRxRxc: jax.Array) -> jax.Array:
        cfg, last = self.cfg, len(self.cfg.widths) - 1
        cfg.check(img_BxRxRxc)
        x = Conv(cfg.widths[0], name="conv_in")(space_to_depth(img_BxRxRxc - cfg.background, cfg.patch))
        for level in range(last):
            x = run_level(cfg, x, level, cfg.encoder_blocks)
            width = cfg.widths[level if cfg.encoder_blocks else level + 1]
            x = Downsample(width, name=f"level{level}_down")(x)
        x = run_level(cfg, x, last, cfg.encoder_blocks) if cfg.encoder_blocks else x
        x = norm_silu(run_mid(cfg, x), cfg.groups, "norm_out")
        return Conv(cfg.z_channels, cfg.reach, name="conv_out")(x)


class Decoder(nn.Module):
    """Maps of z_channels -> images, nominally in [-1, 1]. Level 0, full resolution, comes last."""

    cfg: ConvStack

    @nn.compact
    def __call__(self, z_BxhxwxZ: jax.Array) -> jax.Array:
        cfg, last = self.cfg, len(self.cfg.widths) - 1
        x = run_mid(cfg, Conv(cfg.widths[-1], name="conv_in")(z_BxhxwxZ))
        for level in range(last, 0, -1):
            x = run_level(cfg, x, level, cfg.decoder_blocks)
            width = cfg.widths[level if cfg.decoder_blocks else level - 1]
            x = Upsample(width, name=f"level{level}_up")(x)
        x = run_level(cfg, x, 0, cfg.decoder_blocks) if cfg.decoder_blocks else x
        x = Conv(cfg.patch**2 * cfg.channels, name="conv_out")(norm_silu(x, cfg.groups, "norm_out"))
        return depth_to_space(x, cfg.patch) + cfg.background


class AutoEncoder(nn.Module):
    """Encoder and decoder with the convolutions (`size` x `size`) from and to the space of the codes."""

    cfg: ConvStack
    code_dim: int
    size: int = 1

    def setup(self) -> None:
        self.encoder = Encoder(self.cfg)
        self.quant_conv = Conv(self.code_dim, size=self.size)
        self.post_quant_conv = Conv(self.cfg.z_channels, size=self.size)
        self.decoder = Decoder(self.cfg)

    def encode(self, img_BxRxRxc: jax.Array) -> jax.Array:
        """Images -> maps of code_dim channels, not yet quantised."""
        return self.quant_conv(self.encoder(img_BxRxRxc))

    def decode(self, z_BxhxwxC: jax.Array) -> jax.Array:
        """Maps of code_dim channels -> images."""
        return self.decoder(self.post_quant_conv(z_BxhxwxC))

    def __call__(self, img_BxRxRxc: jax.Array) -> jax.Array:
        return self.decode(self.encode(img_BxRxRxc))
