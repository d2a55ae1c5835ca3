"""The flow head and on-policy training: what each token depends on, and what a draft has in common with refinement."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import tiny

from dd_jax.method import flow, losses, objectives, on_policy
from dd_jax.method.fewstep import noise_for, run_plan, student_step
from dd_jax.method.models import Knobs
from dd_jax.method.objectives import Objective
from dd_jax.method.refine import refine
from dd_jax.stages.train import example, frozen_for, train_step
from dd_jax.system import rng
from dd_jax.training.loop import init_state

FAMILIES = {"raster": tiny.raster, "scales": tiny.scales}
both = pytest.mark.parametrize("family", FAMILIES)
twin_slow = pytest.mark.parametrize("family", ["raster", pytest.param("scales", marks=pytest.mark.slow)])
BATCH = 4


@functools.cache
def built(family, head="flow"):
    models, params = FAMILIES[family](head=head)
    noise = noise_for(rng.example_keys(rng.stream(0, "sample"), jnp.arange(BATCH)), models.layout.tokens, tiny.CODE)
    return models, params, noise


@both
def test_a_token_sees_noise_of_earlier_steps_alone(family):
    models, params, noise = built(family)
    step = models.layout.step_L
    cond, zero = tiny.cond(1), jnp.zeros(1, jnp.int32)

    run = jax.jit(jax.jacrev(lambda x: models.student(params["student"], cond, x[None], zero)[0][0, :, 0]))
    moved = np.abs(run(noise[0]))
    reads = moved.sum(-1) > 0  # (L, L): does p_i change with eps_j?
    assert (reads == (step[None] < step[:, None])).all()


@both
def test_with_the_teachers_logits_a_step_is_a_sweep_of_refinement(family):
    models, params, noise = built(family)
    cond, code = tiny.cond(BATCH), jnp.arange(BATCH * models.layout.tokens).reshape(BATCH, -1) % tiny.VOCAB

    @dataclasses.dataclass(frozen=True)
    class Oracle:
        head = "flow"

        def __call__(self, params, cond, x, t):
            return params["logits"], None

    codebook = params["tokenizer"]["codebook"]

    @jax.jit
    def both_ways(params):
        oracle = {"student": {"logits": models.teacher.parallel(params["teacher"], cond, code)}}
        drawn = student_step(dataclasses.replace(models, student=Oracle()), oracle, cond, noise, 0, codebook)
        return drawn, refine(models, params, cond, code, noise, jnp.zeros(BATCH, jnp.int32), 1)[0]

    drawn, swept = both_ways(params)
    assert (flow.nearest(drawn, codebook) == swept).all()


@both
def test_known_tokens_stay_and_tau_is_traced(family):
    models, params, noise = built(family)
    codebook, compiled = params["tokenizer"]["codebook"], []

    @jax.jit
    def draw(tau):
        compiled.append(tau)
        return run_plan(
            "S0 S1", models, params, tiny.cond(BATCH), noise, jax.random.split(rng.key(0), BATCH), Knobs(tau)
        )

    hot, cold = (np.asarray(draw(tau).code_BxL) for tau in (5.0, 0.01))
    assert len(compiled) == 1
    assert (hot != cold).any()
    zero = jnp.zeros(BATCH, jnp.int32)
    logits, _ = jax.jit(lambda p: models.student(p, tiny.cond(BATCH), noise, zero))(params["student"])
    first = models.layout.span(0)
    assert (cold[:, first] == np.argmax(logits, -1)[:, first]).all()  # without temperature: the likeliest
    known = jax.jit(lambda p, x: student_step(models, p, tiny.cond(BATCH), x, models.layout.steps, codebook))
    token = known(params, codebook[hot])
    assert (flow.nearest(token, codebook) == hot).all()


@twin_slow
def test_plans_go_on_behind_it(family):
    models, params, noise = built(family)
    steps = models.layout.steps
    keys = jax.random.split(rng.key(0), BATCH)
    draft = {
        plan: run_plan(plan, models, params, tiny.cond(BATCH), noise, keys)
        for plan in ("S0", "S0 J*", f"S0 T1:{steps}", f"T0:{steps}", "T0:1 S1")
    }
    assert (draft["S0 J*"].code_BxL == draft[f"T0:{steps}"].code_BxL).all()
    assert (draft["S0 J*"].exact_B == steps).all()
    first = models.layout.span(0)
    assert (draft["T0:1 S1"].code_BxL[:, first] == draft[f"T0:{steps}"].code_BxL[:, first]).all()
    assert (draft[f"S0 T1:{steps}"].code_BxL[:, first] == draft["S0"].code_BxL[:, first]).all()


@both
def test_a_student_begins_as_its_teacher_or_as_another_student(family):
    (models, params, _), (_, theirs, _) = built(family), built(family, "both")
    start = models.student.init_from_student(rng.key(0), theirs["student"])
    assert jax.tree.map(jnp.shape, start) == jax.tree.map(jnp.shape, params["student"])
    name = "layers_0" if family == "raster" else "blocks_0"
    same = jax.tree.map(np.array_equal, start["trunk"][name], theirs["student"]["trunk"][name])
    assert jax.tree.all(same)
    start = models.student.init_from_teacher(rng.key(0), params["teacher"]["trunk"])
    same = jax.tree.map(np.array_equal, start["trunk"][name], params["teacher"]["trunk"][name])
    assert jax.tree.all(same)
    if family == "scales":  # positions are the teacher's; a released student has one more
        assert (start["trunk"]["pos_1LC"] == params["teacher"]["trunk"]["pos_1LC"]).all()


def test_divergences_are_exact_and_finite():
    logits = jnp.log(jnp.array([[0.5, 0.25, 0.25]]))
    teacher = jnp.log(jnp.array([[0.25, 0.75, 0.0]]))
    forward, reverse = on_policy.divergences(logits, teacher)
    assert forward[0] == pytest.approx(0.25 * np.log(0.5) + 0.75 * np.log(3.0), abs=1e-6)
    floored = 0.5 * np.log(2.0) + 0.25 * np.log(1 / 3) + 0.25 * (np.log(0.25) - on_policy.FLOOR)
    assert reverse[0] == pytest.approx(floored, abs=1e-5)
    again = on_policy.divergences(teacher[:, :2], teacher[:, :2])
    assert max(abs(float(x[0])) for x in again) < 1e-6


def test_schedules_are_joined_by_lines():
    at = [float(on_policy.at((1.0, 1.0, 0.0), jnp.float32(p))) for p in (0, 0.5, 0.75, 1)]
    assert at == [1.0, 1.0, 0.5, 0.0]
    assert float(on_policy.at((0.3,), jnp.float32(0.7))) == pytest.approx(0.3)


def test_every_weight_follows_its_schedule():
    """Of pairs, and of both divergences: what a loss is at the begin, half way and at the end."""
    models, params, noise = built("raster")
    frozen = frozen_for(Objective((0,), 0, losses.Weights(), fresh=1.0), models.tokenizer, params)
    cond, zero = tiny.cond(BATCH), jnp.zeros(BATCH, jnp.int32)
    rows = {"cond": cond, "x": noise, "t": zero, "code": jnp.zeros(noise.shape[:2], jnp.int32)}
    given = (0,), models.layout.steps, losses.Weights(1.0, 0.0)
    schedules = {"pairs": (1.0, 0.0), "forward": (1.0, 3.0), "reverse": (0.0, 2.0)}

    @jax.jit
    def at(progress):
        out = models.student(params["student"], cond, noise, zero)
        rest = frozen, progress, models, Objective(*given, fresh=0.5, **schedules), None
        return objectives.pairs_loss(out, rows, *rest), objectives.fresh_loss(out, rows, *rest)

    for progress in (0.0, 0.5, 1.0):
        (paired, seen), (fresh, told) = at(jnp.float32(progress))
        assert paired == pytest.approx((1 - progress) * float(seen["ce"]), abs=1e-6)
        wanted = (1 + 2 * progress) * told["kl"] + 2 * progress * told["reverse_kl"]
        assert fresh == pytest.approx(float(wanted), rel=1e-5)


def test_rows_of_two_kinds_join_and_part():
    a, b = {"x": jnp.arange(4)}, {"x": 10 + jnp.arange(6)}
    joined = objectives.join([a, b])
    assert joined["x"].tolist() == [0, 1, 10, 11, 12, 2, 3, 13, 14, 15]
    back = objectives.split(joined, [4, 6])
    assert [part["x"].tolist() for part in back] == [a["x"].tolist(), b["x"].tolist()]


def stepped(family, objective, batch, tx, steps=1, accumulate=1, seed=0):
    models, params, _ = built(family)
    frozen = frozen_for(objective, models.tokenizer, params)
    step = jax.jit(
        functools.partial(
            train_step, models=models, objective=objective, tx=tx, ema=0.5, distance=None, seed=seed,
            steps=steps, accumulate=accumulate,
        )
    )  # fmt: skip
    state = init_state(params["student"], tx)
    told = []
    for i in range(steps):
        state, metrics = step(state, batch if isinstance(batch, dict) else batch(i), frozen)
        told.append(metrics)
    return state, *told


def numbered(models, pairs, fresh, step=0):
    """A batch with ids, labels and codes that differ from row to row."""
    ids = step * 16 + jnp.arange(16)
    rows = lambda n: {"id": ids[:n], "cond": jax.tree.map(lambda x: x, tiny.cond(n))}  # noqa: E731
    code = {"code": jnp.arange(pairs * models.layout.tokens).reshape(pairs, models.layout.tokens) % tiny.VOCAB}
    return (rows(pairs) | code if pairs else {}) | ({"fresh": rows(fresh)} if fresh else {})


@twin_slow
def test_on_policy_training_brings_student_and_teacher_together(family):
    models, _, _ = built(family)
    objective = Objective((0,), models.layout.steps, losses.Weights(1.0, 0.0), fresh=1.0)
    told = stepped(family, objective, lambda i: numbered(models, 0, 16, i), optax.adam(3e-3), steps=60)
    assert told[-1]["kl"] < 0.5 * told[1]["kl"]
    assert told[-1]["reverse_kl"] < 0.5 * told[1]["reverse_kl"]


def test_the_teacher_and_the_drawn_codes_have_no_gradient():
    models, params, noise = built("raster")

    def judged(teacher, logits):
        frozen = {"teacher": teacher, "tokenizer": params["tokenizer"]}
        return on_policy.judged(models, frozen, tiny.cond(BATCH), noise, logits, 1.0)[1].sum()

    logits = jnp.zeros((BATCH, models.layout.tokens, tiny.VOCAB))
    moved = jax.jit(jax.grad(judged, (0, 1)))(params["teacher"], logits)
    assert max(float(jnp.abs(x).max()) for x in jax.tree.leaves(moved)) == 0.0


@pytest.mark.parametrize("head", ["both", "flow"])
def test_refined_targets_are_one_sweep_of_the_student_s_own_draft(head):
    models, params, noise = built("raster", head)
    models = dataclasses.replace(models, split=models.layout.steps)  # codes are those of the logits
    frozen = {"codebook": models.tokenizer.codebook(params["tokenizer"]), **params}
    cond, key = tiny.cond(BATCH), jax.random.split(jax.random.key(0), BATCH)
    objective = Objective((0,), models.layout.steps, losses.Weights(2.0, 0.0), fresh=1.0, refined=True)
    rows = {"cond": cond, "x": noise, "t": jnp.zeros(BATCH, jnp.int32)}

    @jax.jit
    def both(student):
        out = models.student(student, cond, noise, rows["t"])
        drafts = [
            run_plan(plan, models, frozen | {"student": student}, cond, noise, key).code_BxL for plan in ("S0", "S0 J1")
        ]
        return out[0], objectives.refined_loss(out, rows, frozen, 0.0, models, objective, None), drafts

    logits, (loss, seen), (draft, code) = both(params["student"])
    nll = -jnp.take_along_axis(jax.nn.log_softmax(logits), code[..., None], -1)
    np.testing.assert_allclose(loss, 2 * nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(seen["agreement/refined"], (draft == code).mean(), atol=1e-6)
    assert 0 < (draft == code).mean() < 1


def test_micro_batches_of_a_mixed_step_add_up():
    models, _, _ = built("raster")
    objective = Objective((0, 1), models.layout.steps, losses.Weights(1.0, 0.0), fresh=0.5)
    batch = numbered(models, 8, 8)
    whole, seen = stepped("raster", objective, batch, optax.sgd(1.0))
    parts, also = stepped("raster", objective, batch, optax.sgd(1.0), accumulate=2)
    assert seen["kl"] == pytest.approx(float(also["kl"]), rel=1e-5)
    norm = jax.jit(optax.global_norm)
    far = norm(jax.tree.map(np.subtract, whole.params, parts.params))
    assert float(far) < 1e-5 * float(norm(whole.params))


def test_an_example_batch_has_the_structure_of_a_real_one():
    models, _, _ = built("raster")
    for share in (0.0, 0.5, 1.0):
        objective = Objective((0,), 0, losses.Weights(), fresh=share)
        given = numbered(models, *objective.rows(8))
        assert jax.tree.map(jnp.shape, example(8, objective, models)) == jax.tree.map(jnp.shape, given)


SILENT = {  # what the second of two blocks adds to the stream, and next scale's flags behind the first
    "raster": ("layers_1/attention/wo", "layers_1/feed_forward/w2"),
    "scales": ("blocks_1/ada_lin", "layerwise_n_d_embed_1", "layerwise_n_d_embed_2"),
}


@pytest.mark.parametrize(("family", "head"), [("raster", "flow"), ("raster", "both"), ("scales", "flow")])
def test_logits_at_mid_depth_are_those_of_half_the_blocks(family, head):
    models, params, noise = built(family, head)

    def still(path, x):
        return 0 * x if jax.tree_util.keystr(path, simple=True, separator="/").startswith(SILENT[family]) else x

    shallow = params["student"] | {"trunk": jax.tree_util.tree_map_with_path(still, params["student"]["trunk"])}
    given = tiny.cond(BATCH), noise, jnp.zeros(BATCH, jnp.int32)
    run = jax.jit(lambda p: models.student(p, *given)[0])
    logits, _, middle = jax.jit(lambda p: models.student.deeply(p, *given))(params["student"])
    np.testing.assert_allclose(logits, run(params["student"]), atol=1e-5)
    np.testing.assert_allclose(middle, run(shallow), atol=1e-5)


def test_a_loss_at_mid_depth_reaches_the_first_blocks():
    models, _, _ = built("raster")
    objective = Objective((0,), models.layout.steps, losses.Weights(1.0, 0.0), fresh=0.5)
    batch = numbered(models, 4, 4)
    plain, seen = stepped("raster", objective, batch, optax.sgd(1.0))
    deep, also = stepped("raster", dataclasses.replace(objective, middle=0.4), batch, optax.sgd(1.0))
    assert also["loss"] > seen["loss"]
    first = [state.params["trunk"]["layers_0"] for state in (plain, deep)]
    assert not jax.tree.all(jax.tree.map(np.array_equal, *first))
