"""A teacher's training: what it draws while it learns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny
from conftest import tiny_config
from PIL import Image

from dd_jax import factory
from dd_jax.data.sampleset import sheet, to_uint8
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Cond
from dd_jax.nn import dropping
from dd_jax.nn.dropping import Chance
from dd_jax.stages.finetune import Pace
from dd_jax.stages.teaching import Lesson, Regularization, train_teacher
from dd_jax.system import rng
from dd_jax.training import preview
from dd_jax.training.course import Course
from dd_jax.training.loop import Recipe, init_state


@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_its_last_picture_is_what_it_draws_then(family, tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "COUNT", 12)
    system = factory.build(tiny_config(family))
    tokenizer = jax.jit(system.tokenizer.init)(rng.key(0))
    code = np.random.default_rng(0).integers(0, system.tokenizer.vocab, (30, system.layout.tokens))
    label = np.arange(30, dtype=np.int32) % 10
    course = Course("teacher", tmp_path, Recipe(steps=4, batch=8, lr=1e-2, warmup=1, ema=0.5, checkpoint_every=4))
    trained = train_teacher(system, course, tokenizer, code, label, grid_every=2)
    assert sorted(path.name for path in (tmp_path / "grids").iterdir()) == ["step-00000002.png", "step-00000004.png"]
    params = {"tokenizer": tokenizer, "teacher": system.teacher_params(trained["trunk"], tokenizer)}
    keys = rng.example_keys(rng.stream(0, "sample"), np.arange(12))
    draw = jax.jit(generator(f"T0:{system.layout.steps}", system.models))
    made = draw(params, Cond(np.arange(12, dtype=np.int32) % 10), keys)
    shown = np.asarray(sheet(to_uint8(system.tokenizer.decode(tokenizer, made.token_BxLxC))))
    kept = np.asarray(Image.open(tmp_path / "grids" / "step-00000004.png"))
    assert np.abs(kept.astype(int) - shown).max() <= 1
    assert np.ptp(kept) > 50


def change(config):
    """What one step of plain gradient descent makes of a teacher that reads no codes of its own, and its metrics."""
    system, section, tx = factory.build(config), config.pretrain.teacher, optax.sgd(1.0)
    tokenizer = jax.jit(system.tokenizer.init)(rng.key(0))
    code = np.random.default_rng(0).integers(0, system.tokenizer.vocab, (16, system.layout.tokens)).astype(np.int32)
    shares = {"label_dropout": 0.5, "token_corruption": 0.5, "label_smoothing": 0.1, "dropout": 0.2, "drop_path": 0.5}
    lesson = Lesson(system, Regularization(**shares), Pace())
    step = Course("teacher", ".", Recipe.of(section)).step(lesson.loss, tx, lesson.draw)
    start = jax.jit(system.learned_init)(rng.key(0), tokenizer)
    batch = {"code": code, "label": np.arange(16, dtype=np.int32) % 10}
    state, metrics = step(init_state(start, tx), batch, {"tokenizer": tokenizer})
    return jax.tree.map(jnp.subtract, state.params, jax.jit(system.learned_init)(rng.key(0), tokenizer)), metrics


@pytest.mark.parametrize("family", ["llamagen", pytest.param("var", marks=pytest.mark.slow)])
def test_micro_batches_rematerialisation_and_a_loop_change_nothing(family):
    config = tiny_config(family)
    config.model.depth = 2
    whole, metrics = change(config)
    config.pretrain.teacher.update({"accumulate": 4, "remat": True, "scan": True})
    pieces, seen = change(config)
    assert float(optax.global_norm(jax.tree.map(jnp.subtract, pieces, whole))) < 1e-6 * float(optax.global_norm(whole))
    for name in metrics:
        np.testing.assert_allclose(seen[name], metrics[name], rtol=1e-5, err_msg=name)


def test_what_is_left_out_leaves_the_mean():
    keys, x = rng.example_keys(rng.key(0), np.arange(4000)), jnp.ones((4000, 3, 4))
    chance = Chance(keys, jnp.float32(0.3), dropout=0.2)
    made, skipped = dropping.branch(chance, x, 1), (dropping.branch(chance, x, 1) == 0).all((1, 2))
    assert abs(float(jnp.mean(skipped)) - 0.3) < 0.03
    assert abs(float(jnp.mean(made[~skipped] == 0)) - 0.2) < 0.01
    assert abs(float(jnp.mean(made)) - 1) < 0.03
    assert not (made == dropping.branch(chance, x, 0)).all()
    np.testing.assert_allclose([one.path for one in dropping.layers(chance, 4)], [0, 0.1, 0.2, 0.3], rtol=1e-6)


@pytest.mark.parametrize("make", [tiny.raster, tiny.scales])
def test_who_skips_the_last_block_has_a_stream_without_it(make):
    """A quarter of the examples at a share of one half, as both branches are drawn apart; at 0 nothing changes."""
    models, params = make()
    teacher, keys = models.teacher, rng.example_keys(rng.key(0), np.arange(256))
    code = np.random.default_rng(0).integers(0, tiny.VOCAB, (256, models.layout.tokens))
    short = teacher.trunk.clone(cfg=dataclasses.replace(teacher.trunk.cfg, depth=1))
    given = params["teacher"], tiny.cond(256), code
    without = dataclasses.replace(teacher, trunk=short).forward(*given)
    made = teacher.forward(*given, Chance(keys, jnp.float32(0.5)))
    assert 0.2 < float(jnp.mean(jnp.all(jnp.abs(made - without) < 1e-5, (1, 2)))) < 0.3
    np.testing.assert_array_equal(teacher.forward(*given, Chance(keys, jnp.float32(0))), teacher.forward(*given))


def test_a_lesson_leaves_out_what_its_config_says():
    config = tiny_config("llamagen")
    config.model.depth = 2
    system = factory.build(config)
    tokenizer = jax.jit(system.tokenizer.init)(rng.key(0))
    params = tiny.strong(jax.eval_shape(system.learned_init, rng.key(0), tokenizer))
    batch = {"code": jnp.zeros((4, system.layout.tokens), jnp.uint16), "label": jnp.arange(4)}

    def loss(**shares):
        lesson = Lesson(system, Regularization.of({"label_dropout": 0.0, **shares}), Pace())
        return jax.jit(lambda: lesson.loss(params, lesson.draw(batch, rng.key(0)), {"tokenizer": tokenizer})[0])()

    found = [float(loss(**shares)) for shares in ({}, {"label_smoothing": 0.5}, {"dropout": 0.5}, {"drop_path": 0.5})]
    assert len({*found}) == 4
