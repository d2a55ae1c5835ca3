"""Where arrays live: specs of the real models, meshes that do not fit, and eight devices against one."""

import dataclasses
import importlib
import os
import subprocess
import sys
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from conftest import tiny_config

from dd_jax import factory
from dd_jax.method import losses
from dd_jax.method.interfaces import Cond
from dd_jax.method.student import StudentNet
from dd_jax.scripts import hlo
from dd_jax.stages.train import Objective, distance_of, stepper, train_step
from dd_jax.stages.workdir import Workdir
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE, AXES, Placement, make_mesh, path_of
from dd_jax.training.loop import Recipe, gradients, init_state

CONFIGS = ("llamagen_b", "llamagen_l", "llamagen_xl", "llamagen_xxl", "llamagen_3b")
CONFIGS += ("var_d16", "var_d20", "var_d24", "var_d30", "var_d36")
ROOT = Path(__file__).parents[1]


@pytest.mark.slow
@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_eight_devices_do_what_one_does(family, tmp_path):
    """Pairs, twenty steps, and checkpoints from one mesh to another: see `eight_devices`."""
    command = [sys.executable, str(ROOT / "tests/eight_devices.py"), family, str(tmp_path)]
    run = subprocess.run(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def one_layer(name):
    """(student's and teacher's parameter shapes, rules) of a full-size config, one layer deep."""
    config = importlib.import_module(f"dd_jax.configs.{name}").get_config()
    config.model.depth = 1
    system, key = factory.build(config), jax.random.key(0)
    tokenizer = jax.eval_shape(system.tokenizer.init, key)
    teacher = jax.eval_shape(system.teacher_init, key, tokenizer)
    return {"student": jax.eval_shape(system.student.init, key), "teacher": teacher}, system.rules


@pytest.mark.parametrize("name", CONFIGS)
def test_axes_divide_every_parameter(name):
    params, rules = one_layer(name)
    tx = Recipe(1, 1, 1.0, warmup=0).optimizer()
    state = jax.eval_shape(lambda params: init_state(params, tx), params["student"])
    for shape in ((16, 1), (256, 1), (4, 4), (8, 2)):
        mesh = jax.sharding.AbstractMesh(shape, AXES)
        for tree in (state, params["teacher"]):
            leaves, cuts = jax.tree_util.tree_leaves_with_path(tree), Placement(mesh, rules).shardings(tree)
            for (path, leaf), cut in zip(leaves, jax.tree.leaves(cuts), strict=True):
                assert len(cut.spec) == leaf.ndim, path_of(path)
                for size, axis in zip(leaf.shape, cut.spec, strict=True):
                    assert size % (mesh.shape[axis] if axis else 1) == 0, path_of(path)


@pytest.mark.parametrize("name", ["llamagen_l", "var_d16"])
def test_every_rule_finds_something_and_cuts_save_memory(name):
    params, rules = one_layer(name)
    paths = [path_of(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
    for pattern, _ in rules:
        assert any(Placement(None, rules).rule(path)[0] == pattern for path in paths), pattern
    mesh, total, held = jax.sharding.AbstractMesh((4, 4), AXES), 0, 0
    cuts = jax.tree.leaves(Placement(mesh, rules).shardings(params))
    for leaf, cut in zip(jax.tree.leaves(params), cuts, strict=True):
        total, held = total + leaf.size, held + np.prod(cut.shard_shape(leaf.shape))
    assert held < total / 6


def test_meshes_that_do_not_fit_are_clear_errors():
    devices = jax.devices()[:1]
    with pytest.raises(UserError, match=r"config.mesh is \(3, 1\), and there are 1 devices .*data x model must be 1"):
        make_mesh((3, 1), devices)
    for shape in ((0, 1), (-1, -1), (1,), (-2, 1)):
        with pytest.raises(UserError, match="give two sizes"):
            make_mesh(shape, devices)
    assert dict(make_mesh((-1, 1), devices).shape) == {"data": 1, "model": 1}
    assert make_mesh((1, 1), 8 * devices).size == 1


def test_batches_must_spread():
    eight = Placement(jax.sharding.AbstractMesh((8, 1), AXES))
    with pytest.raises(UserError, match=r"train.batch=12 does not spread over 8 devices: make it a multiple of 8"):
        eight.check_batch("config.train.batch", 12)
    objective = Objective((0, 1), 4, losses.Weights())
    with pytest.raises(UserError, match="multiple of 8"):
        stepper(Recipe(1, 12, 1.0, warmup=0, accumulate=4), objective, tiny.raster()[0], None, 0)
    ALONE.check_batch("config.train.batch", 12)


def change(models, params, accumulate=1):
    """What one step of plain gradient descent changes, and its metrics."""
    layout, codebook = models.layout, params["tokenizer"]["codebook"]
    code = np.random.default_rng(0).integers(0, len(codebook), (16, layout.tokens), np.int32)
    batch = {"id": np.arange(16), "cond": Cond(np.arange(16) % tiny.CLASSES), "code": code}
    objective, tx = Objective((0, 1), layout.steps // 2, losses.Weights(0.1, 1.0), "mse"), optax.sgd(1.0)

    @jax.jit
    def step(params):
        state, metrics = train_step(
            init_state(params, tx),
            batch,
            {"codebook": codebook},
            models=models,
            objective=objective,
            tx=tx,
            ema=0.9,
            distance=distance_of(objective, None, None),
            seed=0,
            accumulate=accumulate,
        )
        return jax.tree.map(jnp.subtract, state.params, params), metrics

    return step(params["student"])


def close(a, b):
    """Equal to 1e-6 of the whole, as accumulated in another order."""
    norm = jax.jit(optax.global_norm)
    assert float(norm(jax.tree.map(np.subtract, a, b))) < 1e-6 * float(norm(b))


@pytest.mark.parametrize(
    ("make", "scan"),
    [
        (tiny.raster, True),
        pytest.param(tiny.raster, False, marks=pytest.mark.slow),
        pytest.param(tiny.scales, True, marks=pytest.mark.slow),
        pytest.param(tiny.scales, False, marks=pytest.mark.slow),
    ],
)
def test_micro_batches_rematerialisation_and_a_loop_change_nothing(make, scan):
    models, params = make()
    whole, metrics = change(models, params)
    net = models.student.net
    trunk = net.trunk.clone(cfg=dataclasses.replace(net.trunk.cfg, remat=True, scan=scan))
    net = StudentNet(trunk, net.layout, net.code_dim, net.width)
    again = dataclasses.replace(models, student=dataclasses.replace(models.student, net=net))
    pieces, seen = change(again, params, accumulate=4)
    close(pieces, whole)
    close(seen, metrics)


@pytest.mark.parametrize("make", [tiny.raster, tiny.scales])
def test_a_loop_over_the_blocks_is_compiled_once_and_changes_nothing(make):
    models, params = make()
    net = models.student.net

    def forward(scan):
        trunk = net.trunk.clone(cfg=dataclasses.replace(net.trunk.cfg, scan=scan))
        cond, x, t = net.trunk.blank(2), jnp.ones((2, net.layout.tokens, net.code_dim)), jnp.array([0, 1])
        traced = jax.jit(net.clone(trunk=trunk).apply).trace({"params": params["student"]}, cond, x, t)
        out = traced.lower().compile()({"params": params["student"]}, cond, x, t)
        return out, str(traced.jaxpr).count("dot_general")

    (written_out, many), (loop, few) = forward(False), forward(True)
    chex.assert_trees_all_close(loop, written_out, rtol=1e-5, atol=1e-6)
    assert few < many


def test_micro_batches_have_all_kinds_equally_often():
    kind = jnp.arange(12) % 2

    def loss(scale, part):
        return scale * jnp.mean(part), {"share": jnp.mean(part), "spread": jnp.std(part)}

    _, metrics = gradients(loss, jnp.float32(1), kind.astype(jnp.float32), pieces=3, run=2)
    assert metrics == {"share": 0.5, "spread": 0.5}


def test_mesh_and_memory_do_not_make_a_work_directory_stale(tmp_path):
    config = tiny_config("llamagen")
    Workdir(tmp_path, config.to_dict()).begin("train")
    (tmp_path / "student/5").mkdir(parents=True)  # a checkpoint: something was made
    config.mesh, config.train.remat, config.train.accumulate = (4, 2), True, 4
    Workdir(tmp_path, config.to_dict()).check("train")
    config.train.lr *= 2
    with pytest.raises(UserError, match=r"config\.train\.lr"):
        Workdir(tmp_path, config.to_dict()).check("train")


HLO = """
%body (p: (u32[], f32[64,2])) -> (u32[], f32[64,2]) {
  %two = u32[]{:T(128)} constant(2)
  %i = u32[]{:T(128)} get-tuple-element(%p), index=0
  %s.1 = (f32[64,2]{1,0}, f32[64,2]{1,0}, u32[]) collective-permute-start(%x), channel_id=1
  %d.1 = f32[64,2]{1,0} collective-permute-done(%s.1)
  %next = u32[]{:T(128)} add(%i, %two)
}
%condition (p: (u32[], f32[64,2])) -> pred[] {
  %limit = u32[]{:T(128)} constant(8)
  %j = u32[]{:T(128)} get-tuple-element(%p), index=0
  ROOT %c = pred[] compare(%j, %limit), direction=LT
}
ENTRY %main (a: f32[8]) -> f32[] {
  %w = (u32[], f32[64,2]) while(%t), condition=%condition, body=%body
  %g = bf16[128]{0} all-gather(%a), channel_id=2
  %h = bf16[128]{0} all-gather(%a), channel_id=2
}
"""


def test_collectives_are_counted_through_loops_and_once_a_channel():
    assert hlo.collectives(HLO) == {"collective-permute": (4, 4 * 512), "all-gather": (1, 256)}


def test_kernels_are_counted_through_loops_and_not_inside_fusions():
    assert hlo.kernels(GRAPH) == 2 + 14 * 3
    assert hlo.kernels(HLO) == 2 + 4 * 2


GRAPH = """
%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %twice = f32[8]{0} add(%p, %p)
}
%body (t: (s32[], f32[8])) -> (s32[], f32[8]) {
  %t = (s32[], f32[8]{0}) parameter(0)
  %x = f32[8]{0} get-tuple-element(%t), index=1
  %k = (f32[8]{0}, /*index=1*/f32[8]{0}) fusion(%x), kind=kLoop, calls=%fused
  %c = f32[8]{0} copy(%x)
  %g = f32[8]{0} custom-call(%c), custom_call_target="__cublas$gemm"
  ROOT %r = (s32[], f32[8]{0}) tuple(%k, %g)
}
%condition (t: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] fusion(%t), kind=kLoop, calls=%fused
}
ENTRY %main (a: f32[8]) -> f32[8] {
  %a = f32[8]{0} parameter(0)
  %k = f32[8]{0} fusion(%a), kind=kLoop, calls=%fused
  %w = (s32[], f32[8]{0}) while(%a), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"14"}}
  ROOT %k2 = f32[8]{0} fusion(%w), kind=kInput, calls=%fused
}
"""
