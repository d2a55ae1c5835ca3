"""Config -> LlamaGen's tokenizer, teacher and student."""

import dataclasses

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax.families.llamagen.backbone import GPT, GPTConfig, inherit
from dd_jax.families.llamagen.teacher import RasterTeacher
from dd_jax.families.llamagen.tokenizer import VQ
from dd_jax.method.interfaces import Family, Params
from dd_jax.method.layout import Layout
from dd_jax.method.student import Student, StudentNet
from dd_jax.nn.stack import frugal
from dd_jax.nn.stored import computing
from dd_jax.system import rng

# Attention and MLP in pairs of matrices, the second summed over devices; classes by the codebook. Tables that are
# looked up are cut by width: rows stay whole.
RULES = (
    (r"attention/wqkv/kernel$", (None, "model")),
    (r"attention/wo/kernel$", ("model", None)),
    (r"feed_forward/w[13]/kernel$", (None, "model")),
    (r"feed_forward/w2/kernel$", ("model", None)),
    (r"(^|/)output/kernel$", (None, "model")),
    (r"embedding$", (None, "data")),
)


def build(config: ConfigDict) -> Family:
    """Tokenizer, teacher and student of a config."""
    tokenizer = VQ.from_config(config)
    side = config.tokenizer.side
    sizes = {"side": side, "vocab": tokenizer.vocab, "code_dim": tokenizer.code_dim, "classes": config.data.classes}
    cfg = GPTConfig(**config.model, **sizes, dtype=jnp.dtype(config.dtype.student))
    student_cfg = dataclasses.replace(cfg, **frugal(config.train))
    taught = config.get("pretrain", {}).get("teacher", {})
    layout = Layout.raster(side, cfg.cond)
    trunk = GPT(dataclasses.replace(cfg, dtype=computing(config.dtype.teacher), **frugal(taught)))
    guided = None if config.cfg_interval < 0 else config.cfg_interval + 2  # the prefill makes token 0
    teacher = RasterTeacher(trunk, layout, config.guidance, config.cache_chunk, guided)
    head, student_trunk = config.student.get("head", "both"), GPT(student_cfg, distilled=True)
    net = StudentNet(student_trunk, layout, cfg.code_dim, cfg.width, config.student.same_step, head)

    def teacher_init(key: jax.Array, tokenizer_params: Params) -> Params:
        code = jnp.zeros((1, layout.tokens), jnp.int32)
        mask = layout.teacher_mask(layout.step_N[:-1])
        return rng.fresh(trunk, key, trunk.blank(1), code, mask, method="teach")

    def teacher_params(trunk: Params, tokenizer_params: Params) -> Params:
        return {"trunk": trunk}

    table = () if cfg.caption_dim else ("cls_embedding", "embedding")
    return Family(tokenizer, teacher, Student(net, inherit), teacher_init, teacher_params, RULES, table)
