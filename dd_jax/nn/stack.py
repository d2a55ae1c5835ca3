"""Equal blocks one after another: written out, or as one loop that is compiled once whatever the depth."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from dd_jax.nn.layers import rematerialised
from dd_jax.system.sharding import constrain

MIDDLE = "middle"  # the collection of streams behind half of the blocks
Call = Callable[[nn.Module, jax.Array, Any], jax.Array]


def run(
    blocks: Sequence[nn.Module], h_BxNxD: jax.Array, call: Call, own: Sequence[Any], remat: bool, scan: bool
) -> jax.Array:
    """The stream h (B, N, D) through all blocks: h = call(block, h, own[i]), own[i] an array, a tree or None.

    `remat`: what a block computes inside is computed again in the backward pass, instead of kept. `scan`: a loop
    over the blocks' stacked parameters. The numbers are the same; it copies the parameters once a call, and one
    block is compiled, whatever the depth.
    """
    h_BxNxD = constrain(h_BxNxD)
    if scan and len(blocks) > 1 and not blocks[0].is_initializing():
        return _loop(blocks, h_BxNxD, call, own, remat)
    for block, mine in zip(blocks, own, strict=True):
        h_BxNxD = rematerialised(call, block, h_BxNxD, mine) if remat else call(block, h_BxNxD, mine)
        h_BxNxD = constrain(h_BxNxD)
    return h_BxNxD


def frugal(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """What a training's section of a config says of `remat` and `scan`: both off where it does not."""
    return {name: bool(recipe.get(name, False)) for name in ("remat", "scan")}


def halves(
    owner: nn.Module,
    blocks: Sequence[nn.Module],
    h_BxNxD: jax.Array,
    call: Call,
    own: Sequence[Any],
    remat: bool,
    scan: bool,
) -> jax.Array:
    """`run`; where a caller asks for `owner`'s intermediates, the stream behind half of the blocks is among them."""
    if owner.is_initializing() or not owner.is_mutable_collection(MIDDLE):
        return run(blocks, h_BxNxD, call, own, remat, scan)
    half = len(blocks) // 2
    h_BxNxD = run(blocks[:half], h_BxNxD, call, own[:half], remat, scan)
    owner.sow(MIDDLE, "stream", h_BxNxD)
    return run(blocks[half:], h_BxNxD, call, own[half:], remat, scan)


def _loop(blocks: Sequence[nn.Module], h_BxNxD: jax.Array, call: Call, own: Sequence[Any], remat: bool) -> jax.Array:
    bare = blocks[0].clone(parent=None, name=None)

    def step(h: jax.Array, given: tuple[Any, Any]) -> tuple[jax.Array, None]:
        params, mine = given
        out: Any = bare.apply({"params": params}, h, mine, method=call)
        return constrain(out), None

    each = [(block.variables["params"], mine) for block, mine in zip(blocks, own, strict=True)]
    stacked = jax.tree.map(lambda *layers: jnp.stack([_slim(x, h_BxNxD.dtype) for x in layers]), *each)
    step = jax.checkpoint(step, prevent_cse=False) if remat else step
    return jax.lax.scan(step, h_BxNxD, stacked)[0]


def _slim(x: jax.Array, dtype: Any) -> jax.Array:
    """A matrix in the type that it is multiplied in, so that no more than that is stacked and sent; int8 stays."""
    return x.astype(dtype) if x.ndim > 1 and jnp.issubdtype(x.dtype, jnp.floating) else x
