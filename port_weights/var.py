"""Released VAR transformers and VAR-DD students: which key becomes which parameter.

Which file is published where: `catalog.py`.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from dd_jax.system.errors import UserError
from port_weights.rules import LINEAR, Array, Rule, Table, Transform, single

if TYPE_CHECKING:
    from dd_jax.method.layout import Layout

MASK = "attn_bias_for_masking"
# Buffers: a key bias that is always zero, each position's scale, the attention mask (see `same_step`).
STRAYS = (r"blocks\.\d+\.attn\.zero_k_bias", r"lvl_1L", MASK)


def bare(axes: int) -> Transform:
    """Drops so many leading axes of size 1."""
    return single(lambda x: x.reshape(x.shape[axes:]), lambda x: x.reshape((1,) * axes + x.shape))


HEADS = single(lambda x: x.reshape(-1), lambda x: x.reshape(1, -1, 1, 1))  # (1, H, 1, 1) <-> (H,)


def linear(source: str, target: str) -> list[Rule]:
    """A dense layer with bias."""
    return [Rule(f"{source}.weight", f"{target}/kernel", LINEAR), Rule(f"{source}.bias", f"{target}/bias")]


def block(source: str, target: str) -> list[Rule]:
    """A transformer block, either kind of modulation. The rows of mat_qkv are q | k | v, head by head."""
    rules = [
        Rule(f"{source}.attn.mat_qkv.weight", f"{target}/attn/mat_qkv/kernel", LINEAR),
        Rule(f"{source}.attn.q_bias", f"{target}/attn/q_bias"),
        Rule(f"{source}.attn.v_bias", f"{target}/attn/v_bias"),
        Rule(f"{source}.attn.scale_mul_1H11", f"{target}/attn/scale_mul", HEADS),
        Rule(f"{source}.ada_gss", f"{target}/ada_gss", bare(2)),
        *linear(f"{source}.ada_lin.1", f"{target}/ada_lin"),
    ]
    for ours, theirs in (("attn/proj", "attn.proj"), ("ffn/fc1", "ffn.fc1"), ("ffn/fc2", "ffn.fc2")):
        rules += linear(f"{source}.{theirs}", f"{target}/{ours}")
    return rules


def trunk(prefix: str = "") -> list[Rule]:
    """What teacher and student share."""
    return [
        *linear("word_embed", f"{prefix}word_embed"),
        Rule("class_emb.weight", f"{prefix}class_emb/embedding"),
        Rule("lvl_embed.weight", f"{prefix}lvl_embed/embedding"),
        Rule("pos_start", f"{prefix}pos_start", bare(2)),
        Rule("pos_1LC", f"{prefix}pos_1LC", bare(1)),
        *linear("shared_ada_lin.1", f"{prefix}shared_ada_lin"),
        *block("blocks.{i}", f"{prefix}blocks_{{i}}"),
        *linear("head_nm.ada_lin.1", f"{prefix}head_nm"),
        *linear("head", f"{prefix}head"),
    ]


def teacher() -> Table:
    """The transformer, into the trunk's parameters."""
    return Table(trunk(), STRAYS)


def student() -> Table:
    """The distilled transformer, into a `StudentNet`'s parameters."""
    rules = [
        *linear("layerwise_n_d_embed.{i}", "trunk/layerwise_n_d_embed_{i}"),
        Rule("n_d_embed.weight", "n_d_embed/embedding"),
        Rule("final_layer_conti.scale_shift_table", "embedding_head/scale_shift_table"),
        *linear("final_layer_conti.linear", "embedding_head/linear"),
    ]
    return Table([*trunk("trunk/"), *rules], STRAYS)


def same_step(state_dict: Mapping[str, Array], layout: "Layout") -> bool | None:
    """Which attention mask a student's file was made for: do tokens of one step see each other? None: it says nothing.

    The reference loads its mask from the file where there is one, whatever the code says, and builds False
    without one. UserError for any other mask.
    """
    if MASK not in state_dict:
        return None
    for same in (False, True):
        if np.array_equal(_visible(state_dict), layout.student_mask(same)):
            return same
    raise UserError(f"{MASK} is neither mask of scales {layout.sizes}: is it another model?")


def check_teacher_mask(state_dict: Mapping[str, Array], layout: "Layout") -> None:
    """UserError for a teacher whose file has another mask than block-causal."""
    if MASK in state_dict and not np.array_equal(_visible(state_dict), layout.teacher_mask(layout.step_L)):
        raise UserError(f"{MASK} is not that of scales {layout.sizes}: is it another model?")


def _visible(state_dict: Mapping[str, Array]) -> np.ndarray:
    return np.asarray(state_dict[MASK])[0, 0] == 0
