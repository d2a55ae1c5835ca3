"""A teacher's training: what it draws while it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import tiny_config
from PIL import Image

from dd_jax import factory
from dd_jax.data.sampleset import sheet, to_uint8
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Cond
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
    lesson = Lesson(system, Regularization(label_dropout=0.5, token_corruption=0.5), Pace())
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
