"""Config -> LlamaGen's tokenizer, teacher and student."""

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

from dd_jax.families.llamagen.backbone import GPT, GPTConfig, inherit
from dd_jax.families.llamagen.teacher import RasterTeacher
from dd_jax.families.llamagen.tokenizer import VQ
from dd_jax.interfaces import Cond, Family, Params
from dd_jax.layout import Layout
from dd_jax.student import Student, StudentNet


def build(config: ConfigDict) -> Family:
    """Tokenizer, teacher and student of a config."""
    tokenizer = VQ.from_config(config)
    side = config.tokenizer.side
    cfg = GPTConfig(
        **config.model, side=side, vocab=tokenizer.vocab, code_dim=tokenizer.code_dim, classes=config.data.classes
    )
    layout = Layout.raster(side, cfg.cond)
    trunk = GPT(cfg)
    teacher = RasterTeacher(trunk, layout, config.guidance, chunk=config.cache_chunk)
    net = StudentNet(GPT(cfg, distilled=True), layout, cfg.code_dim, cfg.width, config.student.same_step)

    def teacher_init(key: jax.Array, tokenizer_params: Params) -> Params:
        code = jnp.zeros((1, layout.tokens), jnp.int32)
        mask = layout.teacher_mask(layout.step_N[:-1])
        return trunk.init(key, Cond(jnp.zeros(1, jnp.int32)), code, mask, method="teach")["params"]

    return Family(tokenizer, teacher, Student(net, inherit), teacher_init, lambda trunk, tokenizer: {"trunk": trunk})
