"""What distillation has to beat: marginals of each position, for all steps (onestep*) or the last (skip-n)."""

import dataclasses

import jax
import jax.numpy as jnp

from dd_jax.fewstep import Models, advance, noise_for
from dd_jax.interfaces import Cond, Draft, Generator, Params
from dd_jax.plans import Op


def marginals(code_MxL: jax.Array, label_M: jax.Array, classes: int, vocab: int) -> jax.Array:
    """Prop. 3.1: (classes, L, V) frequency of each code at each position among a class's teacher samples."""
    tokens = code_MxL.shape[1]
    counts = jnp.zeros((classes, tokens, vocab), jnp.int32)
    counts = counts.at[label_M[:, None], jnp.arange(tokens)[None], code_MxL].add(1)
    return counts / jnp.maximum(counts.sum(-1, keepdims=True), 1)


def _draw(params: dict[str, Params], cond: Cond, key_B: jax.Array) -> jax.Array:
    """Every token on its own from `params["marginals"]`."""
    probability = params["marginals"][cond.label_B]
    keys = jax.vmap(jax.random.fold_in, (0, None))(key_B, 2)
    return jax.vmap(jax.random.categorical)(keys, jnp.log(probability)).astype(jnp.int32)


def _draft(token: jax.Array, code: jax.Array) -> Draft:
    zero = jnp.zeros(len(code), jnp.int32)
    return Draft(token, code, zero, zero)


def onestep(models: Models) -> Generator:
    """onestep*: the optimum of predicting all tokens at once (Prop. 3.1), sampled."""

    def generate(params: dict[str, Params], cond: Cond, key_B: jax.Array) -> Draft:
        code = _draw(params, cond, key_B)
        return _draft(models.tokenizer.codebook(params["tokenizer"])[code], code)

    return generate


def skip(models: Models, n: int, drop: bool = False) -> Generator:
    """skip-n: the teacher without its last n steps, whose tokens come from the marginals.

    `drop=True` leaves those tokens' vectors zero instead: at a residual pyramid they then add nothing.
    """
    layout = models.layout
    kept, by_flow = layout.steps - n, dataclasses.replace(models, categorical=False)

    def generate(params: dict[str, Params], cond: Cond, key_B: jax.Array) -> Draft:
        codebook = models.tokenizer.codebook(params["tokenizer"])
        noise = noise_for(key_B, layout.tokens, codebook.shape[-1])
        code = _draw(params, cond, key_B)
        if kept:
            used = {name: params[name] for name in ("teacher", "tokenizer")}
            begun = _draft(noise, code)
            code = advance(Op("T", 0, kept), by_flow, used, cond, noise, key_B, begun, 0).code_BxL
        token = codebook[code]
        if drop:
            token = jnp.where(layout.known(kept)[..., None], token, 0.0)
        return _draft(token, code)

    return generate
