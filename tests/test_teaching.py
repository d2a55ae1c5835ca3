"""A teacher's training: what it draws while it learns."""

import jax
import numpy as np
import pytest
from conftest import tiny_config
from PIL import Image

from dd_jax import factory
from dd_jax.data.sampleset import sheet, to_uint8
from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Cond
from dd_jax.stages.teaching import train_teacher
from dd_jax.system import rng
from dd_jax.training import preview
from dd_jax.training.course import Course
from dd_jax.training.loop import Recipe


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
