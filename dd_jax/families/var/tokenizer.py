"""The next-scale tokenizer: the encoder's map as a sum of residual maps of growing size."""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax.families.tokenizer import ConvTokenizer, Reconstruction, ladder, side_of, stack_of
from dd_jax.families.var.quantizer import Quantizer
from dd_jax.method.interfaces import Params
from dd_jax.nn import codebook
from dd_jax.system.errors import UserError


@dataclasses.dataclass(frozen=True)
class VQVAE(ConvTokenizer):
    """A `Tokenizer` of sum(side^2) codes an image."""

    sides: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)
    phis: int = 4
    moments: float = 0.0  # weight of keeping encoder maps at zero mean and unit variance: helps small data

    kernel: ClassVar[int] = 3

    @classmethod
    def from_config(cls, config: ConfigDict) -> "VQVAE":
        """`config.tokenizer`: sides, vocab, code_dim, and the fields of `ConvStack` under `stack`."""
        fields = config.tokenizer
        sides, side = tuple(fields.sides), side_of(config)
        if not sides or sides[-1] != side:
            raise UserError(
                f"config.tokenizer.sides={sides}, but of {config.data.resolution} px the tokenizer makes a last map of "
                f'{side} codes a side: set --config.tokenizer.sides="{ladder(side)}", or another way up to {side}'
            )
        optional = {name: fields[name] for name in ("pixels", "phis", "moments") if name in fields}
        return cls(stack_of(config), fields.vocab, fields.code_dim, sides=sides, **optional)

    @functools.cached_property
    def quantizer(self) -> Quantizer:
        return Quantizer(self.sides, self.vocab, self.code_dim, self.phis)

    def init_quantizer(self, key: jax.Array) -> Params:
        return self.quantizer.init(key)

    def codebook(self, params: Params) -> jax.Array:
        return self.raw_codebook(params)

    def vectors(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        steps = self.quantizer.residuals(params["quantizer"], self.features(params, img_BxRxRxc))
        return jnp.concatenate([z for z, _, _ in steps], 1).reshape(-1, self.code_dim)

    def encode(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        """Images in [-1, 1] -> code_BxL."""
        return self.quantizer.encode(params["quantizer"], self.features(params, img_BxRxRxc))

    def decode(self, params: Params, token_BxLxC: jax.Array) -> jax.Array:
        """Code vectors, quantised or not -> images in [-1, 1]."""
        f_hat = self.quantizer.f_hat(params["quantizer"], token_BxLxC)
        return jnp.clip(self.paint(params, f_hat), -1, 1)

    def reconstruct(self, params: Params, img_BxRxRxc: jax.Array) -> Reconstruction:
        """Terms: f_hat against the encoder's map, and back, after every scale; and `moments`."""
        f = self.features(params, img_BxRxRxc)
        steps = self.quantizer.residuals(params["quantizer"], f)
        still = jax.lax.stop_gradient(f)
        f_hat = jnp.stack([f_hat for _, _, f_hat in steps])
        follow = jnp.mean((f_hat - still) ** 2)
        commit = self.commitment * jnp.mean((f - jax.lax.stop_gradient(f_hat)) ** 2)
        drift = self.moments * jnp.mean(jnp.mean(f, (0, 1, 2)) ** 2 + (jnp.std(f, (0, 1, 2)) - 1) ** 2)
        img = self.paint(params, codebook.straight_through(f, steps[-1][2]))
        code = jnp.concatenate([code for _, code, _ in steps], 1)
        return Reconstruction(img, code, {"codebook": follow, "commitment": commit, "moments": drift})
