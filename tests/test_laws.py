"""Laws of teachers, students and the AR driver, for any weights and both families."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.method import ar
from dd_jax.method.fewstep import generator, run_plan
from dd_jax.method.filtering import Filter
from dd_jax.method.plans import cost
from dd_jax.nn.stored import restored, stored

FAMILIES = {"raster": tiny.raster, "scales": tiny.scales}
UNGUIDED = {"raster": 1.0, "scales": 0.0}
BATCH = 2


@functools.cache
def system(family, **kwargs):
    return FAMILIES[family](**kwargs)


def codes(layout, seed=0):
    return jax.random.randint(jax.random.key(seed), (BATCH, layout.tokens), 0, tiny.VOCAB)


def cached(teacher, params, code, s0):
    """Logits of steps >= s0, one after the other, behind a prefilled prefix."""
    layout, out = teacher.layout, []
    state = teacher.reserve(teacher.start(params, tiny.cond(BATCH), code, s0), layout.steps)
    for s in range(s0, layout.steps):
        logits, state = teacher.logits(params, state, s)
        state = teacher.append(params, state, s, layout.take(code, s))
        out.append(logits)
    return jnp.concatenate(out, 1)


@pytest.mark.parametrize("guided", [True, False])
@pytest.mark.parametrize(("family", "s0"), [("raster", 5), ("scales", 0), ("scales", 2)])
def test_steps_and_one_pass_agree(family, s0, guided):
    models, params = system(family) if guided else system(family, guidance=UNGUIDED[family])
    teacher, code, cond = models.teacher, codes(models.layout), tiny.cond(BATCH)
    both = jax.jit(lambda p: (cached(teacher, p, code, s0), teacher.parallel(p, cond, code)))
    stepwise, parallel = both(params["teacher"])
    assert_allclose(stepwise, parallel[:, models.layout.start[s0] :], atol=1e-5, rtol=1e-5)
    plain = jax.jit(teacher.forward)(params["teacher"], cond, code)
    assert guided != np.allclose(plain, parallel, atol=1e-3)


@pytest.mark.parametrize(("family", "s0"), [("raster", 5), ("scales", 2)])
def test_int8_weights_are_those_that_they_round_to(family, s0):
    """Step by step and in one pass; and the logits are near those of the weights as they were."""
    models, params = system(family)
    teacher, code, cond, given = models.teacher, codes(models.layout), tiny.cond(BATCH), params["teacher"]
    both = jax.jit(lambda p: (cached(teacher, p, code, s0), teacher.parallel(p, cond, code)))
    trunk = stored(given["trunk"], "int8")
    stepwise, parallel = both({**given, "trunk": trunk})
    _, exact = both({**given, "trunk": restored(trunk)})
    _, before = both(given)
    assert_allclose(stepwise, parallel[:, models.layout.start[s0] :], atol=1e-5, rtol=1e-5)
    assert_allclose(parallel, exact, atol=1e-5, rtol=1e-5)
    assert 1e-4 < np.abs(parallel - before).mean() / np.std(before) < 0.05


@pytest.mark.parametrize("guided_steps", [0, 3, 9])
def test_guidance_can_stop_early(guided_steps):
    cond, code = tiny.cond(BATCH), None
    logits = {}
    for name, kwargs in (
        ("cut", {"guided_steps": guided_steps}),
        ("all", {}),
        ("none", {"guidance": 1.0}),
    ):
        models, params = system("raster", **kwargs)
        code = codes(models.layout)
        logits[name] = jax.jit(models.teacher.parallel)(params["teacher"], cond, code)
    assert_allclose(logits["cut"][:, :guided_steps], logits["all"][:, :guided_steps], atol=1e-5)
    assert_allclose(logits["cut"][:, guided_steps:], logits["none"][:, guided_steps:], atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_teacher_never_sees_its_own_or_later_steps(family):
    models, params = system(family)
    layout, code, other = models.layout, codes(models.layout), codes(models.layout, 1)
    score = jax.jit(lambda code: models.teacher.parallel(params["teacher"], tiny.cond(BATCH), code))
    logits = score(code)
    for s in range(layout.steps):
        changed = score(jnp.where(layout.known(s), code, (other + (other == code)) % tiny.VOCAB))
        end = layout.start[s + 1]
        assert_array_equal(changed[:, :end], logits[:, :end])
        assert s + 1 == layout.steps or np.all(np.any(changed != logits, -1)[:, end:])


@pytest.mark.parametrize(("family", "same_step"), [("raster", False), ("scales", False), ("scales", True)])
@pytest.mark.parametrize("head", ["logits", "embedding"])
def test_a_student_sees_itself_and_earlier_steps_only(family, same_step, head):
    models, params = system(family)
    layout, student = models.layout, models.student
    student = type(student)(student.net.clone(same_step=same_step), student.inherit)
    x = jax.random.normal(jax.random.key(0), (layout.tokens, tiny.CODE))

    def outputs(x):
        logits, token = student(params["student"], tiny.cond(1), x[None], jnp.array([1]))
        return jnp.sin(logits[0] if head == "logits" else token[0]).sum(-1)

    moved = np.abs(jax.jit(jax.jacrev(outputs))(x)).sum(-1) > 0  # (output, input)
    step = layout.step_L
    earlier, own = step[None] < step[:, None], step[None] == step[:, None]
    assert_array_equal(moved, earlier | (own if same_step else np.eye(layout.tokens, dtype=bool)))


def test_a_student_reads_its_boundary():
    """The data/noise flag of a token moves what depends on it, and nothing before."""
    models, params = system("scales")
    x = jnp.zeros((1, models.layout.tokens, tiny.CODE))
    run = jax.jit(lambda t: models.student(params["student"], tiny.cond(1), x, t[None])[0][0])
    noise, data = run(jnp.array(1)), run(jnp.array(2))
    assert_array_equal(noise[:1], data[:1])
    assert np.all(np.any(noise[1:] != data[1:], -1))


@pytest.mark.parametrize("family", FAMILIES)
def test_the_teachers_plan_is_algorithm_1(family):
    models, params = system(family)
    layout, cond = models.layout, tiny.cond(BATCH)
    noise = jax.random.normal(jax.random.key(3), (BATCH, layout.tokens, tiny.CODE))
    keys = jax.random.split(jax.random.key(0), BATCH)
    plan = f"T0:{layout.steps}"

    @jax.jit
    def both(params):
        codebook = params["tokenizer"]["codebook"]
        pick = ar.by_flow(noise, codebook, layout, models.filter, models.solver)
        empty = jnp.zeros((BATCH, layout.tokens), jnp.int32)
        code = ar.decode(models.teacher, params["teacher"], cond, pick, 0, layout.steps, empty)
        return code, run_plan(plan, models, params, cond, noise, keys)

    code, draft = both(params)
    assert_array_equal(draft.code_BxL, code)
    assert_array_equal(draft.token_BxLxC, params["tokenizer"]["codebook"][code])
    assert np.all(draft.exact_B == layout.steps)
    assert cost(plan, layout.steps) == layout.steps
    assert len(np.unique(code)) > 2


def test_a_cache_that_grows_changes_nothing():
    code = {}
    for chunk in (None, 1, 4):
        models, params = system("raster", chunk=chunk)
        cond, drafted = tiny.cond(BATCH), codes(models.layout)

        def run(p, models=models, drafted=drafted, cond=cond):
            return ar.decode(models.teacher, p, cond, ar.greedy, 2, 9, drafted)

        code[chunk] = jax.jit(run)(params["teacher"])
        assert_array_equal(code[chunk][:, :2], drafted[:, :2])
    assert_array_equal(code[1], code[None])
    assert_array_equal(code[4], code[None])


def test_draws_by_chance_follow_the_filtered_logits_and_the_example_alone():
    logits = jnp.tile(jnp.log(jnp.array([0.5, 0.3, 0.15, 0.05])), (4000, 2, 1))
    keys = jax.vmap(jax.random.key)(jnp.arange(4000))
    code = np.asarray(ar.by_chance(keys, Filter(top_k=3))(logits, 1))
    for g in range(2):
        share = np.bincount(code[:, g], minlength=4) / 4000
        assert_allclose(share, np.array([0.5, 0.3, 0.15, 0]) / 0.95, atol=0.03)
    assert_array_equal(ar.by_chance(keys[7:9], Filter(top_k=3))(logits[7:9], 1), code[7:9])
    assert np.mean(code == ar.by_chance(keys, Filter(top_k=3))(logits, 2)) < 0.6


def test_samples_do_not_depend_on_their_batch():
    models, params = system("raster")
    keys = jax.random.split(jax.random.key(0), 4)
    sample = generator("S0 S4", models)
    whole = sample(params, tiny.cond(4), keys)
    part = sample(params, jax.tree.map(lambda x: x[2:], tiny.cond(4)), keys[2:])
    assert_allclose(part.token_BxLxC, whole.token_BxLxC[2:], atol=1e-5)
    assert_array_equal(part.code_BxL, whole.code_BxL[2:])
