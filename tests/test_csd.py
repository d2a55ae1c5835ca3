"""Conditional score distillation: the teacher's score, whose gradient is zero when, what depends on what, and a toy."""

import dataclasses
import functools
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from dd_jax import factory
from dd_jax.configs import llamagen_l_csd, var_d16_csd
from dd_jax.data.conditions import Classes
from dd_jax.method import csd, flow
from dd_jax.method.csd import GENERATOR, HEAD, SCORE, START, Csd, Distiller
from dd_jax.method.fewstep import student_step
from dd_jax.method.filtering import Filter
from dd_jax.method.interfaces import Cond
from dd_jax.method.layout import Layout
from dd_jax.method.losses import Weights
from dd_jax.method.models import Models
from dd_jax.method.objectives import Objective
from dd_jax.stages.scores import Turns
from dd_jax.stages.train import begin, example, frozen_for, run, stepper
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.training.loop import Recipe, load_ema

FAMILIES = {"raster": tiny.raster, "scales": tiny.scales}
both = pytest.mark.parametrize("family", FAMILIES)
BATCH = 4


@functools.cache
def built(family, start="residual"):
    """(distiller, frozen parameters, student, score network, rows)."""
    models, params = FAMILIES[family](head="velocity")
    way = Distiller(models, Csd(start=start, start_steps=(1, 1), draws=2))
    frozen = {"codebook": params["tokenizer"]["codebook"], "teacher": params["teacher"]}
    score = jax.jit(lambda teacher: way.init(rng.key(0), teacher, frozen["codebook"]))(params["teacher"])
    rows = jax.jit(way.rows)({"id": jnp.arange(BATCH), "cond": tiny.cond(BATCH)}, 0)
    return way, frozen, params["student"], score, rows


def a_token():
    """x (3, C), t (3,), logits (3, V), codebook (V, C)."""
    draw = np.random.default_rng(0)
    codebook = flow.framed(jnp.asarray(draw.normal(size=(12, 4)), jnp.float32))
    logits = jnp.asarray(draw.normal(size=(3, 12)), jnp.float32).at[:, 0].set(-jnp.inf)
    t = jnp.asarray([0.9, 0.5, 0.1])
    code, eps = jnp.asarray([3, 5, 7]), jnp.asarray(draw.normal(size=(3, 4)), jnp.float32)
    return np.asarray((1 - t[:, None]) * codebook[code] + t[:, None] * eps), t, logits, codebook


def test_the_teachers_score_is_the_flows_velocity():
    x, t, logits, codebook = a_token()
    data = jax.jit(csd.teacher_data)(x, t, logits, codebook)
    velocity = jax.jit(jax.vmap(flow.velocity, (0, 0, 0, None)))(x, 1 - t, logits, codebook)
    np.testing.assert_allclose((data - x) / t[:, None], velocity, rtol=1e-5, atol=1e-5)

    def density(x, t, logits):
        far = jnp.sum((x - (1 - t) * codebook) ** 2, -1) / (2 * t**2)
        return jax.nn.logsumexp(jax.nn.log_softmax(logits) - far)

    by_gradient = jax.jit(jax.vmap(jax.grad(density)))(x, t, logits)
    np.testing.assert_allclose(csd.score_of(x, t, data), by_gradient, rtol=1e-4, atol=1e-4)


def test_the_teachers_score_is_a_mean_over_draws():
    _, _, logits, codebook = a_token()
    draw, t, p = np.random.default_rng(1), 0.8, np.asarray(jax.nn.softmax(logits[0]))
    code = draw.choice(len(p), 400_000, p=p / p.sum())
    noised = (1 - t) * np.asarray(codebook)[code] + t * draw.normal(size=(len(code), 4))
    x = np.asarray([0.2, -0.1, 0.3, 0.0])
    near = np.exp(-np.sum((noised - x) ** 2, -1) / (2 * 0.15**2))  # the draws that lie around x
    mean = (near[:, None] * np.asarray(codebook)[code]).sum(0) / near.sum()
    data = csd.teacher_data(jnp.asarray(x, jnp.float32), jnp.float32(t), logits[0], codebook)
    np.testing.assert_allclose(mean, data, atol=0.06)


@both
def test_a_students_token_sees_noise_of_earlier_steps_and_its_own(family):
    models, params = FAMILIES[family](head="velocity")
    step, cond = models.layout.step_L, tiny.cond(1)
    noise = jax.random.normal(rng.key(0), (models.layout.tokens, tiny.CODE))

    def first(x):
        return models.student(params["student"], cond, x[None], jnp.zeros(1, int))[1][0, :, 0]

    reads = np.abs(jax.jit(jax.jacobian(first))(noise)).sum(-1) > 0
    assert (reads == ((step[None] < step[:, None]) | np.eye(len(step), dtype=bool))).all()


@pytest.mark.slow
@both
def test_the_score_network_sees_codes_of_earlier_steps(family):
    way, frozen, _, score, _ = built(family)
    step, L = way.models.layout.step_L, way.models.layout.tokens
    code = np.repeat(np.zeros((1, L), int), L + 1, 0)
    code[np.arange(L), np.arange(L)] = 1  # one token another one each
    seen = np.asarray(jax.jit(way.features)(score, frozen, Cond(jnp.zeros(L + 1, int)), jnp.asarray(code))[0])
    reads = np.abs(seen[:-1] - seen[-1]).max(-1).T > 1e-5
    assert (reads == (step[None] < step[:, None])).all()


@pytest.mark.slow
@both
def test_the_gradient_is_zero_where_score_network_and_teacher_agree(family):
    way, frozen, student, score, rows = built(family)
    grads, seen = jax.jit(jax.grad(way.csd, has_aux=True))(student, rows, frozen, score)
    assert float(seen["gap"]) == 0.0
    assert max(np.abs(x).max() for x in jax.tree.leaves(grads)) == 0.0


def test_turns_are_as_published():
    plan = Csd(start_steps=(2, 3), updates=(5, 2), align_at=12, align=4)
    turns = plan.turn(np.arange(5 + 12 + 4 + 6), np).tolist()
    five, two = [SCORE] * 5 + [GENERATOR], [SCORE] * 2 + [GENERATOR]
    assert turns == [HEAD] * 2 + [START] * 3 + five * 2 + [SCORE] * 4 + two * 2
    assert [int(plan.turn(jnp.int32(i))) for i in (0, 4, 10, 17, 23)] == [turns[i] for i in (0, 4, 10, 17, 23)]
    assert plan.counts(27) == (10 + 4 + 4, 4)
    full = factory.build(var_d16_csd.get_config()).objective.csd
    assert full.counts(var_d16_csd.get_config().train.steps) == (40_000 + 8_000 + 15_000, 8_000 + 7_500)
    full = factory.build(llamagen_l_csd.get_config()).objective.csd
    assert full.counts(llamagen_l_csd.get_config().train.steps) == (60_000, 12_000)


def test_objective_and_head_belong_together():
    config = var_d16_csd.get_config()
    for name, value in (("student.head", "flow"), ("train.objective", "pairs"), ("train.timesteps", (0, 5))):
        other = var_d16_csd.get_config()
        other.update_from_flattened_dict({name: value})
        with pytest.raises(UserError, match="csd"):
            factory.build(other)
    config.train.steps = 330_000
    with pytest.raises(UserError, match="start_steps take 330000"):
        factory.build(config)


# A toy: two tokens of four codes in a plane, p(c_1) and p(c_2 | c_1).

PLANE = jnp.asarray([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
FIRST = np.asarray([0.5, 0.25, 0.2, 0.05])
SECOND = np.asarray([[0.7, 0.1, 0.1, 0.1], [0.05, 0.8, 0.1, 0.05], [0.1, 0.4, 0.4, 0.1], [0.02, 0.03, 0.05, 0.9]])


class Toy:
    """The teacher, and a backbone of its kind: a row for each code before."""

    layout = Layout((1, 1), 1)

    def blank(self, batch):
        return Cond(jnp.zeros(batch, jnp.int32))

    def parallel(self, params, cond, code):
        first = jnp.broadcast_to(jnp.log(FIRST), (len(code), 1, 4))
        return jnp.concatenate([first, jnp.log(SECOND)[code[:, :1]]], 1).astype(jnp.float32)

    def features(self, params, cond, code):
        rows = jnp.stack([jnp.zeros(len(code), int), 1 + code[:, 0]], 1)
        return params["trunk"]["rows"][rows], jnp.zeros((len(code), 1))


class ToyStudent:
    """f_1 is constant, f_2 follows from eps_1."""

    head = "velocity"

    def __call__(self, params, cond, x, t):
        y = jax.nn.silu(x[:, :1] @ params["a"] + params["b"])
        y = jax.nn.silu(y @ params["c"] + params["d"])
        h = jnp.concatenate([jnp.broadcast_to(params["e"], y.shape), y], 1)
        cond = jnp.zeros((len(x), 1))
        return jnp.zeros((len(x), 2, 0)), x - csd.VelocityHead(2).apply(
            {"params": params["head"]}, x, jnp.ones(x.shape[:2]), h, cond
        )

    def backbone(self, teacher):
        return teacher

    def init_from_score(self, params, score):
        return {**params, "head": score["head"]}


WIDTH = 32
MODELS = Models(Toy(), ToyStudent(), tiny.Table(), Filter(), flow.FlowSolver(), 2)


@functools.cache
def _toy_head():
    given = jnp.zeros((1, 2, 2)), jnp.zeros((1, 2)), jnp.zeros((1, 2, WIDTH)), jnp.zeros((1, 1))
    return jax.jit(lambda key: rng.fresh(csd.VelocityHead(2), key, *given))(rng.key(0))


def toy():
    """(the student's parameters, tokenizer and teacher)."""
    draw = np.random.default_rng(0)
    normal = lambda *shape: np.asarray(draw.normal(size=shape) / shape[0] ** 0.5, np.float32)  # noqa: E731
    student = {"a": 2 * normal(2, WIDTH), "b": normal(1, WIDTH), "c": normal(WIDTH, WIDTH), "d": normal(1, WIDTH)}
    params = {"tokenizer": {"codebook": PLANE}, "teacher": {"trunk": {"rows": jnp.asarray(8 * normal(5, WIDTH))}}}
    return jax.tree.map(jnp.asarray, student | {"e": normal(1, WIDTH), "head": _toy_head()}), params


def drawn(start):
    """(distiller, student, score network with a head that is not zero, frozen, rows)."""
    way, (student, params) = Distiller(MODELS, Csd(start)), toy()
    student["head"] = tiny.strong(student["head"])
    frozen = {"codebook": PLANE, "teacher": params["teacher"]}
    score = jax.jit(lambda teacher: way.init(rng.key(0), teacher, PLANE))(params["teacher"])
    cond = Cond(jnp.zeros(BATCH, jnp.int32))
    return way, student, score, frozen, jax.jit(way.rows)({"id": jnp.arange(BATCH), "cond": cond}, 0)


def test_the_toys_gradient_is_zero_where_score_network_and_teacher_agree():
    way, student, score, frozen, rows = drawn("residual")
    grad = jax.jit(jax.grad(way.csd, has_aux=True))
    grads, seen = grad(student, rows, frozen, score)
    assert float(seen["gap"]) == 0.0
    assert max(np.abs(x).max() for x in jax.tree.leaves(grads)) == 0.0
    grads, seen = grad(student, rows, frozen, {**score, "head": tiny.strong(score["head"])})
    assert float(jnp.abs(grads["head"]["last"]["kernel"]).max()) > 1e-3


def test_the_gradient_is_that_of_sids_loss():
    """Written out, with prefixes, codes and the divisor as constants."""
    way, student, score, frozen, rows = drawn("gts")
    score, codebook = {**score, "head": tiny.strong(score["head"])}, flow.framed(PLANE)

    @jax.jit
    def by_hand(student):
        q0, pull = jax.vjp(lambda student: way.generate(student, rows, codebook), student)
        code = flow.nearest(q0, codebook)
        logits, seen = way.judged(frozen, rows["cond"], code), way.features(score, frozen, rows["cond"], code)

        def loss(q):
            x, t = csd.noised(rows["key"], q, 1)
            teacher = csd.teacher_data(x, t, logits, codebook)
            network = x - t[..., None] * csd.VelocityHead(2).apply({"params": score["head"]}, x, t, *seen)
            q = q[:, None]
            still = jax.lax.stop_gradient(jnp.mean(jnp.abs(q - teacher), -1, keepdims=True))
            return jnp.mean((teacher - network) * (network - q) / jnp.maximum(still, csd.SHORT))

        return pull(jax.grad(loss)(q0))[0], jax.grad(way.csd, has_aux=True)(student, rows, frozen, score)[0]

    expected, found = by_hand(student)
    assert max(np.abs(x).max() for x in jax.tree.leaves(found)) > 1e-3
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-3, atol=1e-5)


def test_a_student_draws_the_nearest_codes():
    student = toy()[0] | {"head": tiny.strong(_toy_head())}
    noise, books = jax.random.normal(rng.key(1), (64, 2, 2)), 3 * PLANE + 1
    step = jax.jit(lambda student: student_step(MODELS, {"student": student}, Cond(jnp.zeros(64)), noise, 0, books))
    token, (_, q) = step(student), jax.jit(MODELS.student)(student, None, noise, None)
    assert (token == books[flow.nearest(q, flow.framed(books))]).all()


ALL = Csd(start_steps=(1, 1), updates=(1, 1), align_at=2, align=1, draws=2)
RECIPE = Recipe(6, BATCH, 3e-3, warmup=0, ema=0.5, weight_decay=0.1)


@functools.cache
def program():
    objective = Objective((0,), 2, Weights(0.0, 0.0), fresh=1.0, csd=ALL)
    return stepper(RECIPE, objective, MODELS, None, 0), objective


@functools.cache
def trained(first=0):
    """[(state, metrics)] of six steps, or of those behind the first ones."""
    (step, objective), (student, params) = program(), toy()
    frozen = frozen_for(objective, MODELS.tokenizer, params)
    state = trained()[first - 1][0] if first else Turns(MODELS, ALL, RECIPE).begin(student, params)
    seen = []
    for i in range(first, RECIPE.steps):
        batch = example(BATCH, objective, MODELS)
        batch["id"] = batch["id"] + jnp.arange(BATCH)
        batch["fresh"]["id"] = BATCH * i + batch["id"]
        state, metrics = step(jax.tree.map(jnp.copy, state), batch, frozen)
        seen.append((state, metrics))
    return seen


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def test_every_turn_moves_its_own_network():
    states = [state for state, _ in trained()]
    score, student = [s.params["score"] for s in states], [s.params["student"] for s in states]
    began, teacher = toy()
    assert same(score[0]["trunk"], teacher["teacher"]["trunk"])  # the head alone, and no decay
    assert not same(score[1]["trunk"], score[0]["trunk"])
    assert same(student[1], began)
    assert not same(student[2], began)
    assert same(student[2]["head"], score[1]["head"])  # begun again, as the score network was
    assert same(score[3], score[2])
    assert not same(student[3], student[2])
    assert not same(states[3].ema, student[3])
    assert same(student[4], states[3].ema)  # aligned
    assert not same(score[4], score[3])
    assert not same(score[5], score[4])
    assert [int(s.opt["count"]) for s in states] == [0, 0, 0, 1, 1, 1]
    assert {name for name, x in trained()[0][1].items() if float(x)} == {"gts", "loss", "grad_norm"}


def test_a_state_goes_on_to_the_same_bits():
    assert same(trained(first=3)[-1][0], trained()[-1][0])


@pytest.mark.slow
def test_a_training_that_was_stopped_ends_as_another_one_in_any_micro_batches(tmp_path):
    student, params = toy()
    objective = Objective((0,), 2, Weights(0.0, 0.0), fresh=1.0, csd=Csd("residual", updates=(1, 1), draws=1))
    recipe = dataclasses.replace(RECIPE, steps=4, checkpoint_every=2)
    frozen = frozen_for(objective, MODELS.tokenizer, params)

    def train_in(folder, recipe):
        run(folder, recipe, objective, MODELS, student, frozen, None, None, Classes(3), "balanced", 0)
        return load_ema(folder, recipe, lambda: student, lambda x: begin(recipe, objective, MODELS, x, params, 0))

    whole = train_in(tmp_path / "a", recipe)
    shutil.copytree(tmp_path / "a" / "2", tmp_path / "b" / "2")
    again = train_in(tmp_path / "b", dataclasses.replace(recipe, accumulate=2))
    for a, b, c in zip(*map(jax.tree.leaves, (again, whole, student)), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)
        assert (a != c).any() or not a.any()


@pytest.mark.slow
def test_a_toy_converges_to_the_teachers_joint_distribution():
    plan, batch = Csd(start="residual", score_lr=4e-3, updates=(5, 5), draws=2), 192
    recipe = Recipe(6 * 1500, batch, 2e-3, warmup=50, ema=0.98, b1=0.0, b2=0.99, final_lr=0.05, clip=10.0)
    student, params = toy()
    turns, frozen = Turns(MODELS, plan, recipe), {"codebook": PLANE, **params}

    def step(state, i):
        fresh = {"id": batch * i + jnp.arange(batch), "cond": Cond(jnp.zeros(batch, jnp.int32))}
        return turns.step(state, {"fresh": fresh}, frozen)

    state, seen = jax.jit(lambda state: jax.lax.scan(step, state, jnp.arange(recipe.steps)))(
        turns.begin(student, params)
    )
    noise = jax.random.normal(rng.key(9), (20_000, 2, 2))
    code = np.asarray(flow.nearest(MODELS.student(state.ema, None, noise, None)[1], flow.framed(PLANE)))
    found, joint = np.zeros((4, 4)), FIRST[:, None] * SECOND
    np.add.at(found, (code[:, 0], code[:, 1]), 1 / len(code))
    far = 0.5 * np.abs(found - joint).sum()
    independent = 0.5 * np.abs(joint.sum(1)[:, None] * joint.sum(0) - joint).sum()
    print(far, independent, {name: float(x[-1]) for name, x in seen.items()}, found.round(3))
    assert far < 0.12 < 0.5 * independent
