"""The drifting loss: what it compares, where it rests, what it makes of points; and codes that have a gradient."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import tiny_config

from dd_jax import factory
from dd_jax.configs import studies
from dd_jax.method import drift, flow, losses
from dd_jax.method.interfaces import Cond
from dd_jax.method.layout import Layout
from dd_jax.method.objectives import Objective, pairs_loss
from dd_jax.metrics.classifier import Classifier
from dd_jax.stages.train import distance_of, example, frozen_for, stepper
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.training.loop import Recipe, init_state

ALL = jnp.ones((64, 64), bool)


def two_heaps(seed: int, count: int = 64) -> jax.Array:
    """Half of the points around (-1, 0), half around (1, 0)."""
    points = 0.1 * jax.random.normal(jax.random.key(seed), (count, 2))
    return points.at[:, 0].add(jnp.where(jnp.arange(count) % 2, 1.0, -1.0))


def test_points_of_one_class_do_not_feel_another():
    x, y = two_heaps(0), two_heaps(1)
    label = jnp.arange(64) % 3
    same = label[:, None] == label
    moved = jnp.where((label == 1)[:, None], 0.5, 0.0)
    before, after = (drift.field(a, b, same, same, 0.2) for a, b in ((x, y), (x, y + moved)))
    np.testing.assert_allclose(after[label != 1], before[label != 1], atol=1e-6)
    assert np.abs(after - before)[label == 1].max() > 0.1


def test_who_is_alone_stays():
    x, y = two_heaps(0), two_heaps(1)
    assert (drift.field(x, y, ALL, jnp.eye(64, dtype=bool), 0.2) == 0).all()
    assert (drift.field(x, y, jnp.zeros_like(ALL), ALL, 0.2) == 0).all()


def test_where_both_lie_alike_the_field_nearly_vanishes():
    """Of 64 points each; heaps that lie .5 apart are felt at once."""
    x, y = two_heaps(0), two_heaps(1)
    rest, felt = (np.mean(drift.field(x, y + off, ALL, ALL, 0.2), 0) for off in (0.0, jnp.array([0.0, 0.5])))
    assert np.abs(rest).max() < 0.02
    assert felt[1] > 0.1


def test_a_heap_drifts_into_both_of_the_teacher_s():
    """Paired distances would leave it in the middle."""

    @jax.jit
    def step(x, seed):
        pull = jax.grad(lambda x: jnp.sum(drift.loss(x, two_heaps(seed), ALL)))(x)
        return x - 0.02 * pull

    x = 0.1 * jax.random.normal(jax.random.key(5), (64, 2))
    for seed in range(300):
        x = step(x, seed)
    left, right = x[x[:, 0] < 0], x[x[:, 0] >= 0]
    assert 16 <= len(left) <= 48
    for heap, centre in ((left, -1.0), (right, 1.0)):
        np.testing.assert_allclose(jnp.mean(heap, 0), [centre, 0.0], atol=0.2)


def test_likeliest_codes_are_compared_with_the_gradient_of_their_mean():
    codebook, layout = jnp.asarray([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]]), Layout.raster(2)
    code, t = jnp.asarray([[0, 1, 2, 0], [2, 2, 1, 1]]), jnp.array([0, 1])
    logits = jax.random.normal(jax.random.key(0), (2, 4, 3))

    def far(logits, look):
        given = code, t, codebook, layout, layout.steps, losses.Weights(0.0, 1.0), look
        return losses.distill_loss(logits, None, *given)[0]

    seen = []
    far(logits, lambda token, target: (seen.append(token), losses.mse(token, target))[1])
    known = layout.known(t)
    np.testing.assert_allclose(seen[0], codebook[jnp.where(known, code, jnp.argmax(logits, -1))], atol=1e-6)
    weight = jax.random.normal(jax.random.key(1), (2, 4, 2))
    got = jax.grad(far)(logits, lambda token, target: jnp.sum(token * weight, (1, 2)))
    free = jnp.where(known[..., None], 0.0, weight)
    want = jax.grad(lambda x: jnp.sum(jax.nn.softmax(x) @ codebook * free) / 2)(logits)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert (got[1, 0] == 0).all()


def test_behind_a_flow_head_the_codes_that_the_noises_draw_are_compared():
    models, params = tiny.raster(head="flow")
    objective = Objective((0, 2), models.layout.steps, losses.Weights(0.0, 1.0), "mse", tau=0.5)
    codebook, t = models.tokenizer.codebook(params["tokenizer"]), jnp.asarray([0, 0, 2, 2])
    code = jnp.arange(4 * models.layout.tokens).reshape(4, -1) % tiny.VOCAB
    noise = jax.random.normal(jax.random.key(0), (*code.shape, tiny.CODE))
    x = models.layout.mix(t, codebook[code], noise)
    rows = {"cond": tiny.cond(4), "x": x, "t": t, "code": code}
    logits = jax.random.normal(jax.random.key(1), (*code.shape, tiny.VOCAB))
    weight = jax.random.normal(jax.random.key(2), x.shape)
    seen = []

    def far(logits, look):
        out, frozen = (logits, None), {"codebook": codebook}
        return pairs_loss(out, rows, frozen, 0.0, models, objective, look)[0]

    far(logits, lambda token, target, cond: (seen.append(token), losses.mse(token, target))[1])
    known = models.layout.known(t)
    drawn = flow.transport(noise, logits / 0.5, codebook, models.solver)
    assert jnp.mean(drawn != jnp.argmax(logits, -1)) > 0.1
    np.testing.assert_allclose(seen[0], codebook[jnp.where(known, code, drawn)], atol=1e-6)
    got = jax.grad(far)(logits, lambda token, target, cond: jnp.sum(token * weight, (1, 2)))
    free = jnp.where(known[..., None], 0.0, weight)
    want = jax.grad(lambda x: jnp.sum(jax.nn.softmax(x / 0.5) @ codebook * free) / 4)(logits)
    np.testing.assert_allclose(got, want, atol=1e-5)
    assert (got[~known] != 0).any()


def test_what_is_compared_has_to_be_there():
    config = tiny_config("llamagen")
    config.train.update({"distance": "drift", "embedding": 0.1, "objective": "on_policy"})
    config.student.head = "flow"
    with pytest.raises(UserError, match=r"objective=on_policy has no pairs .*=drift .* mix some"):
        factory.build(config)
    config.train.objective = "mixed"
    assert factory.build(config).objective.fresh == 0.5
    config.train.objective, config.student.head = "csd", "velocity"
    with pytest.raises(UserError, match="head=velocity has no vectors to compare"):
        factory.build(config)


def test_by_name_it_reads_pictures_of_a_class():
    classifier = Classifier(8, patch=1)

    class Plain:
        @staticmethod
        def decode(params, token):
            return token.reshape(-1, 8, 8, 1)

    distance = distance_of(Objective((0,), 4, losses.Weights(0.0, 1.0), "drift"), Plain, classifier)
    frozen = {"tokenizer": {}, "classifier": jax.jit(classifier.init)(jax.random.key(0))}
    token, target = jax.random.normal(jax.random.key(1), (2, 6, 4, 16))
    pull = jax.jit(jax.grad(lambda x, y, c: distance(frozen, x, y, Cond(c)).sum()))
    label = jnp.array([0, 0, 0, 1, 1, 2])
    first, other = pull(token, target, label), pull(token, target.at[:3].multiply(-1.0), label)
    assert np.abs(first[:3]).max() > 0
    assert (first[5] == 0).all()  # no other picture of its class
    assert np.abs(first - other)[:3].max() > 1e-6
    with pytest.raises(UserError, match="needs a classifier"):
        distance_of(Objective((0,), 4, losses.Weights(0.0, 1.0), "drift"), Plain, None)


def test_captions_have_no_class():
    config = tiny_config("llamagen")
    config.text = {}
    config.train.update({"distance": "drift", "embedding": 1.0})
    with pytest.raises(UserError, match="compares pictures of one class, and captions have none"):
        factory._networks(config)


def test_a_line_of_the_study_can_be_asked_for_alone():
    """`scripts.study --only` separates names by commas."""
    assert all("," not in name for name in studies.METHODS)


def test_a_step_of_training_compares_the_pictures_of_a_class():
    """Its condition says what a class is. The likeliest codes are drawn, though there is a head of vectors too."""
    config = tiny_config("llamagen")
    config.train.update({"distance": "drift", "embedding": 1.0, "ce": 0.0})
    system = factory.build(config)
    key, batch = rng.key(0), example(8, system.objective, system.models)
    params = {"tokenizer": system.tokenizer.init(key), "classifier": system.classifier.init(key)}
    teacher = system.teacher_init(key, params["tokenizer"])
    recipe, distance = Recipe(1, 8, 1e-2, warmup=0), distance_of(system.objective, system.tokenizer, system.classifier)
    step = stepper(recipe, system.objective, system.models, distance, 0)
    student = system.student.init_from_teacher(key, teacher)
    batch["id"], batch["code"] = jnp.arange(8), batch["code"] + jnp.arange(8)[:, None] % system.tokenizer.vocab
    state = init_state(student, recipe.optimizer())
    _, seen = step(state, batch, frozen_for(system.objective, system.tokenizer, params))
    assert student["embedding_head"]
    assert seen["embedding"] > 0
    assert seen["grad_norm"] > 0
