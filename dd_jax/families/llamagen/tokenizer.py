"""The raster tokenizer: one l2-normalised code a position of the encoder's map, row by row."""

import dataclasses
import math

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax.families.tokenizer import ConvTokenizer, Reconstruction, side_of, stack_of
from dd_jax.method import flow
from dd_jax.method.interfaces import Params
from dd_jax.nn import codebook
from dd_jax.nn.layers import unit
from dd_jax.system.errors import UserError

TEMPERATURE = 0.01  # of the soft choice of codes whose entropy is weighed, as released


@dataclasses.dataclass(frozen=True)
class VQ(ConvTokenizer):
    """A `Tokenizer`: codes and encoder vectors are compared at unit norm; the decoder takes any vector."""

    entropy: float = 0.0  # weight of making each position's choice clear and all codes equally frequent; released: 0

    @classmethod
    def from_config(cls, config: ConfigDict) -> "VQ":
        """`config.tokenizer`: side, vocab, code_dim, and the fields of `ConvStack` under `stack`."""
        fields = config.tokenizer
        side = side_of(config)
        if fields.side != side:
            raise UserError(
                f"config.tokenizer.side={fields.side}, but the tokenizer makes {side} codes a side of "
                f"{config.data.resolution} px: set --config.tokenizer.side={side}, or 0, which takes what follows"
            )
        optional = {name: fields[name] for name in ("pixels", "entropy") if name in fields}
        return cls(stack_of(config), fields.vocab, fields.code_dim, **optional)

    def init_quantizer(self, key: jax.Array) -> Params:
        return {"embedding": jax.random.normal(key, (self.vocab, self.code_dim), jnp.float32)}

    def codebook(self, params: Params) -> jax.Array:
        return unit(self.raw_codebook(params))

    def vectors(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        return unit(self.features(params, img_BxRxRxc)).reshape(-1, self.code_dim)

    def encode(self, params: Params, img_BxRxRxc: jax.Array) -> jax.Array:
        """Images in [-1, 1] -> code_BxL."""
        code = flow.nearest(self.vectors(params, img_BxRxRxc), self.codebook(params))
        return code.reshape(len(img_BxRxRxc), -1)

    def decode(self, params: Params, token_BxLxC: jax.Array) -> jax.Array:
        """Code vectors, of any norm -> images, nominally in [-1, 1]."""
        side = math.isqrt(token_BxLxC.shape[1])
        return self.paint(params, token_BxLxC.reshape(len(token_BxLxC), side, side, self.code_dim))

    def reconstruct(self, params: Params, img_BxRxRxc: jax.Array) -> Reconstruction:
        """Terms: codes against the encoder, the encoder against its codes, and, where it has a weight, `entropy`."""
        z = unit(self.features(params, img_BxRxRxc))
        table = self.codebook(params)
        code = flow.nearest(jax.lax.stop_gradient(z), table)
        token = table[code]
        follow = jnp.mean((token - jax.lax.stop_gradient(z)) ** 2)
        commit = self.commitment * jnp.mean((z - jax.lax.stop_gradient(token)) ** 2)
        terms = {"codebook": follow, "commitment": commit}
        if self.entropy:
            logits = 2 * z.reshape(-1, self.code_dim) @ table.T / TEMPERATURE  # -|z - token|^2, less what all share
            terms["entropy"] = self.entropy * codebook.entropy(logits)
        return Reconstruction(self.paint(params, codebook.straight_through(z, token)), code, terms)
