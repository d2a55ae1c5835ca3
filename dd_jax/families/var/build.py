"""Config -> VAR's tokenizer, teacher and student."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax.families.var.backbone import VAR, VARConfig, inherit
from dd_jax.families.var.teacher import ScaleTeacher
from dd_jax.families.var.tokenizer import VQVAE
from dd_jax.method.interfaces import Family, Params
from dd_jax.method.layout import Layout
from dd_jax.method.student import AHEAD, Student, StudentNet
from dd_jax.nn.stack import frugal
from dd_jax.nn.stored import computing
from dd_jax.system import rng
from dd_jax.system.errors import UserError

# Attention and MLP in pairs of matrices, the second summed over devices; classes by the codebook. Tables that are
# looked up are cut by width: rows stay whole.
RULES = (
    (r"attn/mat_qkv/kernel$", (None, "model")),
    (r"attn/proj/kernel$", ("model", None)),
    (r"ffn/fc1/kernel$", (None, "model")),
    (r"ffn/fc1/bias$", ("model",)),
    (r"ffn/fc2/kernel$", ("model", None)),
    (r"ada_lin/kernel$", (None, "model")),
    (r"(^|/)head/kernel$", (None, "model")),
    (r"(^|/)head/bias$", ("model",)),
    (r"(embedding|pos_1LC)$", (None, "data")),
)


def build(config: ConfigDict) -> Family:
    """Tokenizer, teacher and student of a config."""
    tokenizer = VQVAE.from_config(config)
    sides = tuple(config.tokenizer.sides)
    if config.cfg_interval >= 0:
        raise UserError("config.cfg_interval belongs to one-token steps: here guidance grows with the scale")
    model = {"code_dim": tokenizer.code_dim, "classes": config.data.classes, **config.model}
    gate_init = model.pop("gate_init")
    cfg = VARConfig(**model, sides=sides, vocab=tokenizer.vocab, dtype=jnp.dtype(config.dtype.student))
    student_cfg = dataclasses.replace(cfg, **frugal(config.train))
    taught = config.get("pretrain", {}).get("teacher", {})
    layout = Layout.scales(sides)
    trunk = VAR(dataclasses.replace(cfg, dtype=computing(config.dtype.teacher), **frugal(taught)), gate_init=gate_init)
    teacher = ScaleTeacher(trunk, tokenizer.quantizer, layout, config.guidance, config.sample.unmasked_prefix)
    head = config.student.get("head", "both")
    student_trunk = VAR(student_cfg, distilled=True, ahead=head in AHEAD, gate_init=gate_init)
    net = StudentNet(student_trunk, layout, cfg.code_dim, cfg.width, config.student.same_step, head)

    def teacher_init(key: jax.Array, tokenizer_params: Params) -> Params:
        x = jnp.zeros((1, layout.tokens - 1, cfg.code_dim))
        mask = layout.teacher_mask(layout.step_L)
        return rng.fresh(trunk, key, trunk.blank(1), x, mask, method="teach")

    def teacher_params(trunk: Params, tokenizer_params: Params) -> Params:
        return {"trunk": trunk, "quantizer": tokenizer_params["quantizer"]}

    table = ("class_emb", "embedding")
    return Family(tokenizer, teacher, Student(net, inherit), teacher_init, teacher_params, RULES, table)
