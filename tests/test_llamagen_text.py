"""The text-conditional raster teacher against the reference: captions, padding, null captions, caches."""

import functools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.families.llamagen.backbone import GPT, GPTConfig, inherit
from dd_jax.families.llamagen.caption import hide_padding
from dd_jax.families.llamagen.teacher import RasterTeacher
from dd_jax.method import ar
from dd_jax.method.interfaces import Cond
from dd_jax.method.layout import Layout
from dd_jax.method.student import Student, StudentNet
from dd_jax.system.errors import UserError
from dd_jax.text.t5 import left_pad
from port_weights import llamagen

CASES = (8, 120)
near = functools.partial(assert_allclose, rtol=1e-5, atol=2e-5)


@functools.cache
def system(tokens):
    """(trunk, layout, params, golden)."""
    cfg = GPTConfig(64, 2, 4, 64, side=4, cond=tokens, caption_dim=32)
    trunk, layout = GPT(cfg), Layout.raster(4, tokens)
    mask = layout.teacher_mask(layout.step_N[:-1])
    init = functools.partial(trunk.init, method="teach")
    expected = helpers.shapes(lambda key: init(key, trunk.blank(1), jnp.zeros((1, 16), int), mask)["params"])
    params = helpers.recipe_params(llamagen.teacher(), expected)
    return trunk, layout, {"trunk": params}, helpers.arrays(f"llamagen/gpt_t2i_tiny{tokens}/io.npz")


def caption(golden):
    return Cond(caption_BxPxF=jnp.asarray(golden["cap"]), valid_BxP=jnp.asarray(golden["mask"] == 1))


@pytest.mark.parametrize("tokens", CASES)
def test_padding_moves_to_the_front(tokens):
    golden = system(tokens)[3]
    features, valid = left_pad(jnp.asarray(golden["cap_right_padded"]), jnp.asarray(golden["mask_right_padded"]))
    assert_array_equal(features, golden["cap"])
    assert_array_equal(valid, golden["mask"] == 1)


@pytest.mark.parametrize("tokens", CASES)
def test_the_mask(tokens):
    _, layout, _, golden = system(tokens)
    causal = layout.teacher_mask(layout.step_N[:-1])
    assert_array_equal(hide_padding(causal, 0, golden["mask"] == 1), golden["attn_mask"])


@pytest.mark.parametrize("tokens", CASES)
def test_teacher_forced_logits(tokens):
    trunk, layout, params, golden = system(tokens)
    forward, cond = jax.jit(RasterTeacher(trunk, layout).forward), caption(golden)
    near(forward(params, cond, golden["idx"]), golden["logits_full_cond"])
    near(forward(params, cond, golden["idx"]), golden["train_logits"])
    near(forward(params, cond.dropped(), golden["idx"]), golden["logits_full_uncond"])


@pytest.mark.parametrize("tokens", CASES)
def test_caption_positions(tokens):
    trunk, _, params, golden = system(tokens)

    def run(params, cond):
        bound = trunk.bind({"params": params["trunk"]})
        mask = hide_padding(np.tril(np.ones((tokens - 1, tokens), bool)), 0, cond.valid_BxP)[..., :-1]
        h = bound.stream(bound.embed_cond(cond)[:, :-1], mask)
        return bound.logits(h)

    near(jax.jit(run)(params, caption(golden)), golden["logits_full_cond_captionpos"])


@pytest.mark.parametrize("tokens", CASES)
@pytest.mark.parametrize(("case", "scale"), [("greedy_cfg1", 1.0), ("greedy_cfg75", 7.5)])
def test_greedy_samples(tokens, case, scale):
    trunk, layout, params, golden = system(tokens)
    teacher, cond = RasterTeacher(trunk, layout, guidance=scale), caption(golden)
    empty = jnp.zeros((3, 16), jnp.int32)
    code = jax.jit(lambda p: ar.decode(teacher, p, cond, ar.greedy, 0, 16, empty))(params)
    assert_array_equal(code, golden[case])
    if case == "greedy_cfg75":
        plain = RasterTeacher(trunk, layout)
        steps = golden["greedy_cfg75_step_logits_cond_then_uncond"]
        near(jax.jit(plain.parallel)(params, cond, code), steps[:3])
        null = steps[3:] + 7.5 * (steps[:3] - steps[3:])
        assert_allclose(jax.jit(teacher.parallel)(params, cond, code), null, rtol=1e-5, atol=2e-4)


def test_a_window_hides_padding_too():
    trunk, layout, params, golden = system(8)
    teacher, cond = RasterTeacher(trunk, layout, guidance=2.0), caption(golden)
    code, first = jnp.asarray(golden["idx"]), jnp.asarray([0, 3, 5])

    @jax.jit
    def run(params):
        state = teacher.reserve(teacher.start(params, cond, code, 0), 16)
        _, state = teacher.window(params, state, cond, code, jnp.zeros(3, int), 16)
        return teacher.window(params, state, cond, code, first, 4)[0]

    whole = jax.jit(teacher.parallel)(params, cond, code)
    near(run(params), np.stack([whole[i, f : f + 4] for i, f in enumerate((0, 3, 5))]), atol=5e-5)


def test_a_student_reads_captions():
    cfg = GPTConfig(64, 2, 4, 64, side=4, cond=8, caption_dim=32)
    layout = Layout.raster(4, 8)
    student = Student(StudentNet(GPT(cfg, distilled=True), layout, 8, 64), inherit)
    params = helpers.recipe_params(llamagen.student(), helpers.shapes(student.init))
    cond, x, t = caption(system(8)[3]), jnp.asarray(np.random.default_rng(0).normal(size=(3, 16, 8))), jnp.full(3, 5)
    logits, token = student(params, cond, x, t)
    assert logits.shape == (3, 16, 64)
    assert token.shape == (3, 16, 8)
    # What stands at padded positions changes nothing.
    noisy = cond.caption_BxPxF + 3.0 * ~cond.valid_BxP[..., None]
    again = student(params, Cond(caption_BxPxF=noisy, valid_BxP=cond.valid_BxP), x, t)
    near(again[0], logits)
    near(again[1], token)


def test_labels_for_a_caption_model_are_refused():
    trunk, layout, params, golden = system(8)
    with pytest.raises(UserError, match=r"takes caption features \('batch', 8, 32\), got None"):
        RasterTeacher(trunk, layout).forward(params, Cond(jnp.zeros(3, int)), golden["idx"])
