"""What convolutional tokenizers share: modules, fresh parameters, and the care of the codebook."""

import dataclasses
import functools
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax.method import flow
from dd_jax.method.interfaces import Params
from dd_jax.nn import codebook
from dd_jax.nn.conv import AutoEncoder, ConvStack
from dd_jax.system import rng
from dd_jax.system.errors import UserError


def stack_of(config: ConfigDict) -> ConvStack:
    """The stack of `config.tokenizer`, for the channels of `config.data`."""
    return ConvStack(**{"channels": config.data.channels, **config.tokenizer.get("stack", {})})


def side_of(config: ConfigDict) -> int:
    """Positions of a side that the stack makes of `config.data.resolution`. UserError unless it divides it."""
    resolution, factor = config.data.resolution, stack_of(config).downsample
    if resolution < factor or resolution % factor:
        near = [size for size in (resolution // factor * factor, (resolution // factor + 1) * factor) if size > 0]
        raise UserError(
            f"config.data.resolution={resolution}: the tokenizer makes one code of {factor} px, so that it has to be a "
            f"multiple of {factor}: set {' or '.join(map(str, near))}, or change config.tokenizer.stack"
        )
    return resolution // factor


def ladder(side: int) -> tuple[int, ...]:
    """Sides of the maps up to this one: each five sevenths of the next, rounded down, so half its codes or so."""
    sides = [side]
    while sides[0] > 1:
        sides.insert(0, max(1, sides[0] * 5 // 7))
    return tuple(sides)


def settle(config: ConfigDict) -> None:
    """`config.tokenizer.side` where it is 0, or `.sides` where they are (): what resolution and stack make them."""
    grid = config.tokenizer
    if grid.get("side") == 0:
        grid.side = side_of(config)
    if grid.get("sides") == ():
        grid.sides = ladder(side_of(config))


class Reconstruction(NamedTuple):
    """Images on their way through the codes; gradients pass the choice of codes straight through."""

    img_BxRxRxc: jax.Array  # unclamped
    code_BxL: jax.Array
    terms: dict[str, jax.Array]  # the quantizer's own losses by name, weighted


@dataclasses.dataclass(frozen=True)
class ConvTokenizer:
    """Most of a `Tokenizer`. Params: the AutoEncoder's modules, and the codebook's under `quantizer`."""

    stack: ConvStack
    vocab: int
    code_dim: int
    commitment: float = 0.25  # weight of pulling the encoder towards its codes
    pixels: float = 1.0  # weight of the squared error of pixels; 10 draws small data 1 to 2 dB sharper
    dtype: Any = jnp.float32  # in which encoder and decoder compute; codes are always found in float32

    kernel: ClassVar[int] = 1  # size of the convolutions from and to code space

    @functools.cached_property
    def net(self) -> AutoEncoder:
        return AutoEncoder(self.stack, self.code_dim, self.kernel)

    def init(self, key: jax.Array) -> Params:
        """Fresh parameters."""
        side = self.stack.downsample
        img = jnp.zeros((1, side, side, self.stack.channels))
        params = rng.fresh(self.net, key, img)
        return {**params, "quantizer": self.init_quantizer(jax.random.fold_in(key, 1))}

    def init_quantizer(self, key: jax.Array) -> Params:
        """Fresh parameters of the quantizer: at least `embedding` (V, C)."""
        raise NotImplementedError

    def codebook(self, params: Params) -> jax.Array:
        """The (V, C) vectors that codes stand for, as every other module uses them."""
        raise NotImplementedError

    def vectors(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        """(M, C) what the codebook has to cover for these images."""
        raise NotImplementedError

    def reconstruct(self, params: Params, img_BxRxRxc: jax.Array) -> Reconstruction:
        """Images through their codes and back, as training does it."""
        raise NotImplementedError

    def loss(self, params: Params, img_BxRxRxc: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """The squared error of pixels and the quantizer's own terms, and what to log."""
        return self.weigh(self.reconstruct(params, img_BxRxRxc), img_BxRxRxc)

    def weigh(self, made: Reconstruction, img_BxRxRxc: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """`loss` of what was made of these images."""
        mse = jnp.mean((made.img_BxRxRxc - img_BxRxRxc) ** 2)
        total = self.pixels * mse
        for term in made.terms.values():
            total = total + term
        psnr = 10 * jnp.log10(4 / mse)  # images span 2
        used = codebook.perplexity(made.code_BxL, self.vocab)
        return total, {"loss": total, "psnr": psnr, **made.terms, "perplexity": used}

    def last_kernel(self, params: Params) -> jax.Array:
        """The decoder's last convolution, by whose gradients an adversarial loss is balanced."""
        return params["decoder"]["conv_out"]["kernel"]

    def raw_codebook(self, params: Params) -> jax.Array:
        """The (V, C) parameter behind `codebook`."""
        return params["quantizer"]["embedding"]

    def with_codebook(self, params: Params, codebook_VxC: jax.Array) -> Params:
        """`params` with another codebook parameter."""
        return {**params, "quantizer": {**params["quantizer"], "embedding": codebook_VxC}}

    def init_codebook(self, params: Params, vectors_MxC: jax.Array, key: jax.Array) -> Params:
        """Codebook = some of these vectors, which are `vectors` of images."""
        return self.with_codebook(params, codebook.draw(vectors_MxC, self.vocab, key))

    def revive(self, params: Params, img_BxRxRxc: jax.Array, key: jax.Array, used_V: jax.Array | None = None) -> Params:
        """Codes that were not in use become vectors of these images; None: those that these images do not use."""
        vectors = self.vectors(params, img_BxRxRxc)
        used = codebook.usage(flow.nearest(vectors, self.codebook(params)), self.vocab) if used_V is None else used_V
        return self.with_codebook(params, codebook.revive(self.raw_codebook(params), used, vectors, key))

    def features(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        """Images -> (B, h, w, C), straight from the encoder."""
        return self._apply(params, img_BxRxRxc, "encode")

    def paint(self, params: Params, map_BxhxwxC: jax.Array) -> jax.Array:
        """(B, h, w, C) in code space -> images, unclamped."""
        return self._apply(params, map_BxhxwxC, "decode")

    def _apply(self, params: Params, x: jax.Array, method: str) -> jax.Array:
        lower = self.dtype != jnp.float32  # else what comes in stays what it is, for the stack to refuse
        found = jnp.asarray(self.net.apply({"params": params}, x.astype(self.dtype) if lower else x, method=method))
        return found.astype(jnp.float32) if lower else found
