"""The next-scale family against the reference: teacher, student, samplers, Alg. 1, released key names."""

import dataclasses
import functools

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.families.guided import class_rows
from dd_jax.families.var.backbone import VAR, VARConfig, inherit
from dd_jax.families.var.teacher import ScaleTeacher
from dd_jax.method import ar, flow
from dd_jax.method.fewstep import run_plan, student_step
from dd_jax.method.filtering import Filter
from dd_jax.method.flow import FlowSolver
from dd_jax.method.interfaces import Cond
from dd_jax.method.layout import Layout
from dd_jax.method.models import Models
from dd_jax.method.student import Student, StudentNet
from dd_jax.system.errors import UserError
from port_weights import rules, var

SIDES = (1, 2, 3, 4)
LAYOUT = Layout.scales(SIDES)
TINY = VARConfig(64, 2, 2, 64, SIDES, classes=10, code_dim=8)
VARIANTS = {"l2_unshared": {}, "nol2_shared": {"l2_norm": False, "shared_aln": True}}


def near(actual, desired, atol=2e-5):
    assert_allclose(np.asarray(actual), desired, rtol=1e-5, atol=atol)


def teacher_shapes(trunk):
    tokens, label = trunk.cfg.tokens, Cond(jnp.zeros(1, int))
    x, mask = jnp.zeros((1, tokens - 1, trunk.cfg.code_dim)), np.ones((tokens, tokens), bool)
    return helpers.shapes(lambda key: trunk.init(key, label, x, mask, method="teach")["params"])


@functools.cache
def load_teacher(variant="l2_unshared"):
    """(trunk, params, tokenizer, its params) of var_tiny."""
    trunk = VAR(dataclasses.replace(TINY, **VARIANTS[variant]))
    state_dict = helpers.weights(f"var/var_tiny/var_{variant}.safetensors")
    params = rules.convert(state_dict, var.teacher(), teacher_shapes(trunk))
    tokenizer, own = helpers.vqvae_tiny()
    params = {"trunk": jax.tree.map(jnp.asarray, params), "quantizer": own["quantizer"]}
    return trunk, params, tokenizer, own


def make_student(cfg, same_step=False):
    layout = Layout.scales(cfg.sides)
    return Student(StudentNet(VAR(cfg, distilled=True), layout, cfg.code_dim, cfg.width, same_step), inherit)


@functools.cache
def student_params():
    state_dict = helpers.weights("var/dd_tiny/dd.safetensors")
    params = rules.convert(state_dict, var.student(), helpers.shapes(make_student(TINY).init))
    return jax.tree.map(jnp.asarray, params)


@pytest.mark.parametrize("variant", VARIANTS)
def test_teacher_forced_logits(variant):
    trunk, params, tokenizer, _ = load_teacher(variant)
    golden = helpers.arrays(f"var/var_tiny/teacher_forced_{variant}.npz")
    cond, code = Cond(jnp.asarray(golden["label"])), jnp.asarray(golden["idx"])
    teacher = ScaleTeacher(trunk, tokenizer.quantizer, LAYOUT)
    near(jax.jit(teacher.parallel)(params, cond, code), golden["logits"])
    assert np.all(class_rows(cond.dropped(), 10) == 10)
    x = tokenizer.quantizer.teacher_input(params["quantizer"], code)
    near(x, golden["x_BLCv_wo_first_l"])
    h = jax.jit(lambda p: blocks(trunk, p, cond, x))(params["trunk"])
    for i in range(2):
        near(h[i], golden[f"block{i}_out"])


def blocks(trunk, params, cond, x):
    """The residual stream behind each block."""
    bound = trunk.bind({"params": params})
    cond_BxD, shared, out = bound.embed_cond(cond), None, []
    if trunk.cfg.shared_aln:
        shared = bound.shared_ada_lin(jax.nn.silu(cond_BxD)).reshape(-1, 6, trunk.cfg.width)
    h = jnp.concatenate([bound.start_token(cond_BxD), bound.embed(x, 1)], 1)
    for block in bound.blocks:
        h, _ = block(h, cond_BxD, shared, None, LAYOUT.teacher_mask(LAYOUT.step_L))
        out.append(h)
    return out


def test_cached_guided_sampling():
    trunk, params, tokenizer, own = load_teacher()
    golden = helpers.arrays("var/var_tiny/infer_cfg_l2_unshared.npz")
    teacher = ScaleTeacher(trunk, tokenizer.quantizer, LAYOUT, guidance=float(golden["cfg"]))
    cond, empty = Cond(jnp.asarray(golden["label"])), jnp.zeros((2, 30), jnp.int32)

    @jax.jit
    def run(params):
        state, out = teacher.start(params, cond, empty, 0), []
        for s in range(4):
            logits, state = teacher.logits(params, state, s)
            state = teacher.append(params, state, s, ar.greedy(logits, s))
            out.append((logits, state["f_hat"]))
        return out

    for s, (logits, f_hat) in enumerate(run(params)):
        near(logits, golden[f"logits_cfg_stage{s}"], 5e-5)
        if s < 3:
            near(f_hat, helpers.nhwc(golden[f"f_hat_stage{s}"]))
            side = SIDES[s + 1]
            following = tokenizer.quantizer.next_input(f_hat, s).reshape(2, side, side, 8)
            near(following, helpers.nhwc(golden[f"next_map_stage{s}"]))
    code = jax.jit(lambda p: ar.decode(teacher, p, cond, ar.greedy, 0, 4, empty))(params)
    assert_array_equal(code, golden["idx"])
    near(painter()(tokenizer.codebook(own)[code]), golden["img"])
    near(jax.jit(teacher.parallel)(params, cond, code)[:, -16:], golden["logits_cfg_stage3"], 5e-5)


@pytest.mark.parametrize(("case", "same_step"), [("forward", False), ("forward_blockmask", True)])
def test_student_forward(case, same_step):
    golden, inputs = helpers.arrays(f"var/dd_tiny/{case}.npz"), helpers.arrays("var/dd_tiny/forward.npz")
    student, cond = make_student(TINY, same_step), Cond(jnp.asarray(golden["label"]))
    run = jax.jit(lambda params, x, t: student(params, cond, x, t))
    for name in sorted({key.split("/")[0] for key in golden if key.endswith("logits")}):
        t = jnp.array([0, 2] if name == "mixed" else [int(name[1])] * 2)
        logits, token = run(student_params(), jnp.asarray(inputs[f"{name}/x"]), t)
        near(logits, golden[f"{name}/logits"])
        near(token, golden[f"{name}/conti"])


def models(split, guidance=2.0, filt=Filter(top_k=1), solver=FlowSolver(), unmasked=False, categorical=True):
    trunk, teacher_params, tokenizer, own = load_teacher()
    teacher = ScaleTeacher(trunk, tokenizer.quantizer, LAYOUT, guidance=guidance, unmasked_prefix=unmasked)
    params = {"teacher": teacher_params, "student": student_params(), "tokenizer": own}
    return Models(teacher, make_student(TINY), tokenizer, filt, solver, split, categorical, draw=filt), params


def run(plan, system, params, golden):
    cond, noise = Cond(jnp.asarray(golden["label"])), jnp.asarray(golden["noise"])
    keys = jax.random.split(jax.random.key(0), len(noise))
    return jax.jit(lambda p: run_plan(plan, system, p, cond, noise, keys))(params)


@functools.cache
def painter():
    """Tokens -> images in [0, 1] as the reference keeps them."""
    tokenizer, params = helpers.vqvae_tiny()
    paint = jax.jit(lambda p, token: jnp.moveaxis((tokenizer.decode(p, token) + 1) / 2, -1, 1))
    return functools.partial(paint, params)


@pytest.mark.parametrize("split", [0, 4])
def test_student_step(split):
    golden = helpers.arrays("var/dd_tiny/forward.npz")
    system, params = models(split)
    codebook, cond = system.tokenizer.codebook(params["tokenizer"]), Cond(jnp.asarray(golden["label"]))
    step = jax.jit(lambda params, x, t: student_step(system, params, cond, x, t, codebook))
    for t in range(4):
        token = step(params, golden[f"t{t}/x"], t)
        near(token, codebook[golden[f"t{t}/final_argmax"]] if split else golden[f"t{t}/final_conti"])


@pytest.mark.parametrize("case", ["1step", "2step", "2step_split3", "3step"])
def test_algorithm_3(case):
    golden = helpers.arrays("var/dd_tiny/alg3.npz")
    boundaries = golden[f"{case}/t_list"]
    system, params = models(int(golden[f"{case}/split"]))
    draft = run(" ".join(f"S{t}" for t in boundaries), system, params, golden)
    near(draft.token_BxLxC, golden[f"{case}/x_after_{len(boundaries) - 1}"])
    near(painter()(draft.token_BxLxC), golden[f"{case}/img"])


@pytest.mark.parametrize(("start", "plan"), [(0, "T0:2 S2"), (1, "S0 T1:3 S3"), (2, "S0 T2:3 S3")])
def test_algorithm_4(start, plan):
    golden = helpers.arrays("var/dd_tiny/alg4.npz")
    case = f"start{start}"
    system, params = models(int(golden[f"{case}/split"]), float(golden["cfg"]), unmasked=True)
    draft = run(plan, system, params, golden)
    codebook = system.tokenizer.codebook(params["tokenizer"])
    known = golden[f"{case}/seq"].shape[1]
    near(codebook[draft.code_BxL[:, :known]], golden[f"{case}/seq"])
    near(draft.token_BxLxC, golden[f"{case}/final"])
    near(painter()(draft.token_BxLxC), golden[f"{case}/img"])


@pytest.mark.parametrize(("start", "unmasked"), [(0, False), (1, False), (2, False), (1, True), (2, True)])
def test_teacher_logits_behind_a_drafted_prefix(start, unmasked):
    golden = helpers.arrays("var/dd_tiny/alg4.npz")
    case, name = f"start{start}", "teacher_cfg_logits_" + ("" if unmasked else "causal_")
    system, params = models(2, float(golden["cfg"]), unmasked=unmasked)
    teacher, cond = system.teacher, Cond(jnp.asarray(golden["label"]))
    seq = flow.nearest(jnp.asarray(golden[f"{case}/seq"]), system.tokenizer.codebook(params["tokenizer"]))
    code = jnp.zeros((2, 30), jnp.int32).at[:, : seq.shape[1]].set(seq)
    if start:
        assert_array_equal(golden[f"{case}/dd1_idx"][:, : LAYOUT.start[start]], seq[:, : LAYOUT.start[start]])
    steps = [s for s in range(start, 4) if f"{case}/{name}scale{s}" in golden]

    @jax.jit
    def score(weights):
        state, out = teacher.start(weights, cond, code, start), []
        for s in steps:
            logits, state = teacher.logits(weights, state, s)
            state = teacher.append(weights, state, s, LAYOUT.take(code, s))
            out.append(logits)
        return out

    for s, logits in zip(steps, score(params["teacher"]), strict=True):
        near(logits, golden[f"{case}/{name}scale{s}"], 5e-5)


@pytest.mark.parametrize(
    ("solver", "case"),
    [
        ("exact", "plain"),
        ("lastx0", "topk20_topp0.9"),
        ("official", "plain"),
        pytest.param("exact", "topk20_topp0.9", marks=pytest.mark.slow),
        pytest.param("lastx0", "plain", marks=pytest.mark.slow),
        pytest.param("official", "topk20_topp0.9", marks=pytest.mark.slow),
    ],
)
def test_algorithm_1(case, solver):
    golden = helpers.arrays("fm/alg1_tiny/alg1.npz")
    how = {
        "exact": FlowSolver(evaluations=400),
        "lastx0": dataclasses.replace(FlowSolver.literal(), readout="x0", evaluations=10, end=0.9),
        "official": FlowSolver.literal(),
    }[solver]
    filt = Filter() if case == "plain" else Filter(top_k=20, top_p=0.9)
    system, params = models(0, float(golden["cfg"]), filt, how, categorical=False)
    draft = run("T0:4", system, params, golden)
    assert_array_equal(draft.code_BxL, golden[f"{case}/{solver}/idx"])
    assert np.all(draft.exact_B == 4)
    if solver == "exact":
        near(painter()(draft.token_BxLxC), golden[f"{case}/{solver}/img"])
        cond = Cond(jnp.asarray(golden["label"]))
        logits = jax.jit(system.teacher.parallel)(params["teacher"], cond, draft.code_BxL)
        for s in range(4):
            wanted = golden[f"{case}/{solver}/cfg_logits_scale{s}"]
            near(LAYOUT.take(logits, s), wanted, 1e-4)


def test_what_a_student_inherits():
    student, (_, teacher, _, _) = make_student(TINY), load_teacher()
    fresh = jax.jit(student.init)(jax.random.key(1))
    start = student.init_from_teacher(jax.random.key(1), teacher["trunk"])
    theirs = helpers.weights("var/var_tiny/var_l2_unshared.safetensors")
    ours, new = (rules.export(params, var.student()) for params in (start, fresh))
    for key, value in ours.items():
        if key in ("lvl_embed.weight", "pos_1LC"):
            rows, own, old = value.reshape(-1, 64), new[key].reshape(-1, 64), theirs[key].reshape(-1, 64)
            assert_array_equal(np.delete(rows, 1, 0), old)
            assert_array_equal(rows[1], own[1])
        else:
            assert_array_equal(value, theirs[key] if key in theirs else new[key])
    assert_array_equal(ours["class_emb.weight"], theirs["class_emb.weight"])  # the reference redraws row 1


def test_a_students_mask_comes_from_its_file():
    state_dict = helpers.weights("var/dd_tiny/dd.safetensors")
    assert not var.same_step(state_dict, LAYOUT)
    seen = np.where(LAYOUT.student_mask(same_step=True), 0, -np.inf)[None, None]
    assert var.same_step({var.MASK: seen}, LAYOUT)
    assert not var.same_step({}, LAYOUT)
    with pytest.raises(UserError, match="neither mask"):
        var.same_step({var.MASK: np.zeros((1, 1, 31, 31))}, LAYOUT)
