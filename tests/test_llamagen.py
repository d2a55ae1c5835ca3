"""The raster family against the reference: rope, teacher, student, samplers, released key names."""

import dataclasses
import functools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.families.llamagen.backbone import GPT, GPTConfig, _turned, _turned_in_place, inherit, rope_table, rotate
from dd_jax.families.llamagen.teacher import RasterTeacher
from dd_jax.method import ar, flow
from dd_jax.method.fewstep import run_plan, student_step
from dd_jax.method.filtering import Filter
from dd_jax.method.flow import FlowSolver
from dd_jax.method.interfaces import Cond
from dd_jax.method.layout import Layout
from dd_jax.method.models import Models
from dd_jax.method.student import Student, StudentNet
from port_weights import llamagen, rules

LAYOUT = Layout.raster(4)


def near(actual, desired, atol=2e-5):
    assert_allclose(np.asarray(actual), desired, rtol=1e-5, atol=atol)


def teacher_shapes(trunk):
    tokens = trunk.cfg.side**2
    code, mask = jnp.zeros((1, tokens), int), np.ones((tokens, tokens), bool)
    label = Cond(jnp.zeros(1, int))
    return helpers.shapes(lambda key: trunk.init(key, label, code, mask, method="teach")["params"])


def load_teacher(name, classes):
    trunk = GPT(GPTConfig(64, 2, 4, 64, side=4, classes=classes))
    params = rules.convert(helpers.weights(name), llamagen.teacher(), teacher_shapes(trunk))
    return trunk, {"trunk": jax.tree.map(jnp.asarray, params)}


def make_student(cfg):
    net = StudentNet(GPT(cfg, distilled=True), Layout.raster(cfg.side), cfg.code_dim, cfg.width)
    return Student(net, inherit)


@functools.cache
def gpt():
    """(trunk, params, golden) of gpt_c2i_tiny."""
    golden = helpers.arrays("llamagen/gpt_c2i_tiny/io.npz")
    return *load_teacher("llamagen/gpt_c2i_tiny/state_dict.safetensors", 10), golden


@functools.cache
def dd():
    """(student, params, golden) of dd_tiny."""
    student = make_student(GPTConfig(64, 2, 4, 64, side=4))
    state_dict = helpers.weights("llamagen/dd_tiny/state_dict.safetensors")
    params = rules.convert(state_dict, llamagen.student(), helpers.shapes(student.init))
    return student, jax.tree.map(jnp.asarray, params), helpers.arrays("llamagen/dd_tiny/io.npz")


@pytest.mark.parametrize(
    "case", ["cls1_g16_hd64", "cls120_g16_hd64", "cls1_g24_hd64", "cls1_g24_hd100", "cls1_g4_hd16"]
)
def test_rope_tables(case):
    cond, side, head = (int(part.lstrip("clsghd")) for part in case.split("_"))
    near(rope_table(side, head, cond), helpers.arrays("llamagen/rope/io.npz")[case], 2e-6)


def test_rope_turns_and_silences_the_condition():
    golden = helpers.arrays("llamagen/rope/io.npz")
    turned = rotate(jnp.asarray(golden["x"]).swapaxes(1, 2), rope_table(16, 64, 1))
    near(turned.swapaxes(1, 2), golden["y"], 2e-6)
    assert np.all(turned[:, :, 0] == 0)


def test_teacher_forced_logits():
    trunk, params, golden = gpt()
    teacher = RasterTeacher(trunk, LAYOUT)
    for name in ("cond", "null"):
        cond = Cond(jnp.asarray(golden[name]))
        near(jax.jit(teacher.forward)(params, cond, jnp.asarray(golden["idx"])), golden[f"logits_full_{name}"])
        dropped = Cond(jnp.asarray(golden["cond"])).dropped()
        near(jax.jit(teacher.forward)(params, dropped, jnp.asarray(golden["idx"])), golden["logits_full_null"])


def test_hidden_states_and_the_last_position():
    trunk, params, golden = gpt()
    bound = trunk.bind({"params": params["trunk"]})
    h = jnp.concatenate([bound.embed_cond(Cond(jnp.asarray(golden["cond"]))), bound.embed(golden["idx"])], 1)
    rope, mask = rope_table(4, 16, 1), np.tril(np.ones((17, 17), bool))
    near(bound.logits(bound.stream(h, mask)), golden["logits_full_cond_17"])
    for depth in (1, 2):
        layers, h16 = bound.layers[:depth], h[:, :16]
        for layer in layers:
            h16, _ = layer(h16, rope[:16], mask[:16, :16])
        near(h16, golden[f"hidden_block{depth - 1}"])


def stepwise(teacher, params, cond, code):
    """Logits of every step from the cache, teacher-forced."""

    @jax.jit
    def run(params, code):
        def step(state, s):
            logits, state = teacher.logits(params, state, s)
            return teacher.append(params, state, s, teacher.layout.take(code, s)), logits[:, 0]

        start = teacher.reserve(teacher.start(params, cond, code, 0), teacher.layout.steps)
        return jax.lax.scan(step, start, jnp.arange(teacher.layout.steps))[1].swapaxes(0, 1)

    return run(params, code)


def test_cached_logits():
    trunk, params, golden = gpt()
    cond, code = Cond(jnp.asarray(golden["cond"])), jnp.asarray(golden["idx"])
    plain = stepwise(RasterTeacher(trunk, LAYOUT), params, cond, code)
    near(plain, golden["cached_logits_cond_then_null"][:3])
    guided = RasterTeacher(trunk, LAYOUT, guidance=float(golden["cfg_scale"]))
    near(stepwise(guided, params, cond, code), golden["cached_logits_cfg"], 5e-5)
    near(jax.jit(guided.parallel)(params, cond, code), golden["cached_logits_cfg"], 5e-5)


def test_half_precision_stays_near():
    trunk, params, golden = gpt()
    half = GPT(dataclasses.replace(trunk.cfg, dtype=jnp.dtype("bfloat16")))
    halved = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    cond, code = Cond(jnp.asarray(golden["cond"])), jnp.asarray(golden["idx"])
    logits = jax.jit(RasterTeacher(half, LAYOUT, guidance=2.0).parallel)(halved, cond, code)
    cached = stepwise(RasterTeacher(half, LAYOUT, guidance=2.0), halved, cond, code)
    assert logits.dtype == cached.dtype == jnp.float32
    scale = golden["cached_logits_cfg"].std()
    assert 1e-4 < np.abs(logits - golden["cached_logits_cfg"]).mean() / scale < 0.03
    assert np.abs(cached - logits).mean() / scale < 0.03


@pytest.mark.parametrize(
    ("case", "scale", "steps"),
    [("cfg1", 1.0, None), ("cfg2", 2.0, None), ("cfg2_int5", 2.0, 7), ("cfg4", 4.0, None)],
)
def test_greedy_samples(case, scale, steps):
    trunk, params, golden = gpt()
    teacher = RasterTeacher(trunk, LAYOUT, guidance=scale, guided_steps=steps)
    cond, empty = Cond(jnp.asarray(golden["cond"])), jnp.zeros((3, 16), jnp.int32)
    code = jax.jit(lambda p: ar.decode(teacher, p, cond, ar.greedy, 0, 16, empty))(params)
    assert_array_equal(code, golden[f"greedy_{case}"])


@pytest.mark.parametrize("case", ["t0", "t5", "tmix"])
def test_student_forward(case):
    student, params, golden = dd()
    cond, t = Cond(jnp.asarray(golden["cond"])), jnp.asarray(golden[f"{case}_timestep"].astype(np.int32))
    x = LAYOUT.mix(t, jnp.asarray(golden["data"]), jnp.asarray(golden["noise"]))
    near(x, golden[f"{case}_x_t"], 0)
    logits, token = student(params, cond, x, t)
    near(logits, golden[f"{case}_logits"])
    near(token, golden[f"{case}_tokens"])
    assert_array_equal(flow.nearest(x, golden["codebook_normalized"]), golden[f"{case}_nearest_idx"])
    bound = student.net.bind({"params": params})
    kind = LAYOUT.is_data(t).astype(jnp.int32)
    nd, rows = bound.n_d_embed(kind), bound.n_d_embed(jnp.arange(2))
    hidden, _ = bound.trunk.encode(cond, x, jax.nn.one_hot(kind, 2), rows, LAYOUT.student_mask())
    near(hidden, golden[f"{case}_hidden_last"])
    near(bound.trunk.embed_cond(cond)[:, 0] + nd[:, 0], golden[f"{case}_block_in"][:, 0])
    near(bound.trunk.embed(x) + nd[:, 1:], golden[f"{case}_block_in"][:, 1:])


def models(split, guidance=2.0, filt=Filter(top_k=1)):
    """(models, params) of dd_sampler_tiny: drawing with top_k=1 is deterministic."""
    trunk, teacher = load_teacher("llamagen/dd_tiny/teacher_state_dict.safetensors", 1000)
    tokenizer, tokenizer_params = helpers.vq_tiny()
    student, student_params, _ = dd()
    params = {"teacher": teacher, "student": student_params, "tokenizer": tokenizer_params}
    scored = RasterTeacher(trunk, LAYOUT, guidance=guidance)
    return Models(scored, student, tokenizer, Filter(), FlowSolver(), split, categorical=True, draw=filt), params


@pytest.mark.parametrize("split", [0, 7, 16])
def test_student_step(split):
    system, params = models(split)
    golden = dd()[2]
    cond, codebook = Cond(jnp.asarray(golden["cond"])), jnp.asarray(golden["codebook_normalized"])
    step = jax.jit(lambda params, x, t: student_step(system, params, cond, x, t, codebook))
    for t in (0, 5):
        near(step(params, golden[f"t{t}_x_t"], t), golden[f"t{t}_x_split{split}"])


@functools.cache
def painter():
    """Tokens -> images as the reference keeps them."""
    tokenizer, params = helpers.vq_tiny()
    paint = jax.jit(lambda p, token: jnp.moveaxis((tokenizer.decode(p, token) + 1) / 2, -1, 1))
    return functools.partial(paint, params)


@pytest.mark.parametrize(
    ("case", "plan"),
    [
        ("fewstep_1", "S0"),
        ("fewstep_2", "S0 S5"),
        ("combine_start3", "S0 T3:5 S5"),
        ("combine_start0", "T0:5 S5"),
    ],
)
def test_the_reference_samplers_are_plans(case, plan):
    golden = helpers.arrays(f"llamagen/dd_sampler_tiny/{case}.npz")
    system, params = models(split=7)
    cond, noise = Cond(jnp.asarray(golden["cond"])), jnp.asarray(golden["step0_x_t"])
    keys = jax.random.split(jax.random.key(0), len(noise))

    draft = jax.jit(lambda p: run_plan(plan, system, p, cond, noise, keys))(params)
    last = "step1" if "step1_x_out" in golden else "step0"
    near(draft.token_BxLxC, golden[f"{last}_x_out"])
    near(draft.token_BxLxC.reshape(-1, 4, 4, 8), helpers.nhwc(golden["final_latent_nchw"]))
    near(painter()(draft.token_BxLxC), golden["images_0to1_unclamped"])
    if "teacher_prefix" in golden:
        assert_array_equal(draft.code_BxL[:, :3], golden["teacher_prefix"])
    if "teacher_new_seq" in golden:
        assert_array_equal(draft.code_BxL[:, :5], golden["teacher_new_seq"])


def test_what_a_student_inherits():
    student, _, _ = dd()
    fresh = jax.jit(student.init)(jax.random.key(1))
    _, teacher = load_teacher("llamagen/dd_tiny/teacher_state_dict.safetensors", 1000)
    start = student.init_from_teacher(jax.random.key(1), teacher["trunk"])
    theirs = helpers.weights("llamagen/dd_tiny/teacher_state_dict.safetensors")
    ours, new = (rules.export(p, llamagen.student()) for p in (start, fresh))
    listed = helpers.read_json("llamagen/dd_tiny/init_with_teacher.json")
    assert set(listed["copied_from_teacher"]) | set(listed["untouched"]) == set(ours)
    for key in listed["copied_from_teacher"]:
        assert_array_equal(ours[key], theirs[key])
    for key in listed["untouched"]:
        assert_array_equal(ours[key], new[key])


SIZES = {"B": GPTConfig(768, 12, 12, 16384, side=16), "L": GPTConfig(1024, 24, 16, 16384, side=16)}


def released(name):
    """(published shapes, as arrays that take no memory; number of parameters)."""
    keys = helpers.read_json(f"llamagen/keys_{name}.json")
    return {k: np.broadcast_to(np.float32(0), s) for k, s in keys["state_dict"].items()}, keys["params"]


@pytest.mark.parametrize("size", SIZES)
def test_released_teachers_fit(size):
    state_dict, count = released(f"c2i_GPT-{size}")
    shapes = teacher_shapes(GPT(SIZES[size]))
    params = rules.convert({**state_dict, "freqs_cis": np.zeros(1)}, llamagen.teacher(), shapes)
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    assert rules.export(params, llamagen.teacher()).keys() == state_dict.keys()


@pytest.mark.parametrize("size", SIZES)
def test_released_students_fit(size):
    state_dict, count = released(f"LlamaGen-DD_GPT-{size}")
    params = rules.convert(state_dict, llamagen.student(), helpers.shapes(make_student(SIZES[size]).init))
    assert sum(x.size for x in jax.tree.leaves(params)) == count
    assert rules.export(params, llamagen.student()).keys() == state_dict.keys()


def test_one_position_turns_as_many_do():
    """As NVIDIA's cards turn the one of a cached step (see `rotate`)."""
    pair, rope = jax.random.normal(jax.random.key(0), (2, 4, 1, 8, 2)), jnp.asarray(rope_table(4, 16, 1)[5:6])
    near(_turned_in_place(pair, rope), _turned(pair, rope), 1e-6)
