"""Tiny models of both families with strong random weights, for laws that must hold for any weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.families.llamagen.backbone import GPT, GPTConfig
from dd_jax.families.llamagen.backbone import inherit as inherit_raster
from dd_jax.families.llamagen.teacher import RasterTeacher
from dd_jax.families.var.backbone import VAR, VARConfig
from dd_jax.families.var.backbone import inherit as inherit_scales
from dd_jax.families.var.quantizer import Quantizer
from dd_jax.families.var.teacher import ScaleTeacher
from dd_jax.method.filtering import Filter
from dd_jax.method.flow import FlowSolver
from dd_jax.method.interfaces import Cond
from dd_jax.method.layout import Layout
from dd_jax.method.models import Models
from dd_jax.method.student import AHEAD, Student, StudentNet

CLASSES, VOCAB, CODE, WIDTH, SIDE, SIDES = 3, 12, 4, 32, 3, (1, 2, 3)


@dataclasses.dataclass(frozen=True)
class Table:
    """As much of a tokenizer as the samplers need."""

    def codebook(self, params):
        return params["codebook"]


def strong(shapes, seed=0):
    """Random parameters of these shapes, far from the near-zero starts that would hide mistakes."""

    def fill(path, leaf):
        rng = np.random.default_rng([seed, sum(jax.tree_util.keystr(path).encode())])
        x, kind = rng.standard_normal(leaf.shape), path[-1].key
        scale = {"kernel": np.prod(leaf.shape[:-1]) ** -0.5, "embedding": 1.0}.get(kind, 0.3)
        return jnp.asarray(x * scale + (kind in ("weight", "scale_mul")), jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def cond(batch):
    return Cond(jnp.arange(batch) % CLASSES)


def raster(guidance=2.0, head="both", **kwargs):
    """(models, params): a 3 x 3 grid, one token a step."""
    cfg = GPTConfig(WIDTH, 2, 2, VOCAB, SIDE, CLASSES, CODE, multiple_of=32)
    layout, trunk = Layout.raster(SIDE), GPT(cfg)
    teacher = RasterTeacher(trunk, layout, guidance=guidance, **kwargs)
    net = StudentNet(GPT(cfg, distilled=True), layout, CODE, WIDTH, head=head)
    return _system(teacher, Student(net, inherit_raster), _raster_shapes(trunk, layout))


def _raster_shapes(trunk, layout):
    def init(key):
        code, mask = jnp.zeros((1, layout.tokens), int), layout.teacher_mask(layout.step_N[:-1])
        return trunk.init(key, cond(1), code, mask, method="teach")["params"]

    return {"trunk": jax.eval_shape(init, jax.random.key(0))}


def scales(guidance=1.5, head="both", **kwargs):
    """(models, params): maps of 1, 4 and 9 tokens."""
    cfg = VARConfig(WIDTH, 2, 2, VOCAB, SIDES, CLASSES, CODE)
    layout, trunk, quantizer = Layout.scales(SIDES), VAR(cfg), Quantizer(SIDES, VOCAB, CODE)
    teacher = ScaleTeacher(trunk, quantizer, layout, guidance=guidance, **kwargs)
    net = StudentNet(VAR(cfg, distilled=True, ahead=head in AHEAD), layout, CODE, WIDTH, head=head)
    return _system(teacher, Student(net, inherit_scales), _scale_shapes(trunk, quantizer, layout))


def _scale_shapes(trunk, quantizer, layout):
    def init(key):
        x, mask = jnp.zeros((1, layout.tokens - 1, CODE)), layout.teacher_mask(layout.step_L)
        return trunk.init(key, cond(1), x, mask, method="teach")["params"]

    key = jax.random.key(0)
    return {"trunk": jax.eval_shape(init, key), "quantizer": jax.eval_shape(quantizer.init, key)}


def _system(teacher, student, teacher_shapes):
    models = Models(teacher, student, Table(), Filter(), FlowSolver(), split=teacher.layout.steps // 2)
    codebook = jnp.asarray(np.random.default_rng(0).standard_normal((VOCAB, CODE)), jnp.float32)
    teacher_params = strong(teacher_shapes, 1)
    if "quantizer" in teacher_params:
        teacher_params["quantizer"]["embedding"] = codebook
    student_params = strong(jax.eval_shape(student.init, jax.random.key(0)), 2)
    return models, {
        "teacher": teacher_params,
        "student": student_params,
        "tokenizer": {"codebook": codebook},
    }
