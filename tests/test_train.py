"""Alg. 2: the loss, the step, the loop."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from conftest import tiny_config

from dd_jax import factory
from dd_jax.data.batches import index_batches
from dd_jax.method import losses
from dd_jax.method.fewstep import noise_for
from dd_jax.method.layout import Layout
from dd_jax.stages.parts import check_recipes
from dd_jax.stages.train import Objective, distance_of, train_step
from dd_jax.system import flops, rng
from dd_jax.system.errors import UserError
from dd_jax.training.loop import Recipe, init_state, update

LAYOUT = Layout.raster(2)
CODEBOOK = jnp.asarray([[0.0, 1.0], [1.0, 0.0], [-1.0, 0.0]])
CODE = jnp.asarray([[0, 1, 2, 0], [2, 2, 1, 1]])


def loss(logits, token, t, split=4, weights=losses.Weights(1.0, 1.0), distance=losses.mse):
    t_B = jnp.full(2, t)
    return losses.distill_loss(logits, token, CODE, t_B, CODEBOOK, LAYOUT, split, weights, distance)


def test_a_perfect_student_pays_nothing():
    total, seen = loss(100.0 * jax.nn.one_hot(CODE, 3), CODEBOOK[CODE], t=0, split=2)
    np.testing.assert_allclose(total, 0.0, atol=1e-6)
    assert seen["agreement"] == 1.0


def test_known_tokens_cost_nothing():
    wrong = jnp.zeros((2, 4, 3)), jnp.full((2, 4, 2), 9.0)
    logits = wrong[0].at[:, 2:].set(100.0 * jax.nn.one_hot(CODE, 3)[:, 2:])
    token = wrong[1].at[:, 2:].set(CODEBOOK[CODE][:, 2:])
    np.testing.assert_allclose(loss(logits, token, t=2, split=0)[0], 0.0, atol=1e-6)
    assert loss(logits, token, t=1, split=0)[0] > 0.1


def test_cross_entropy_is_the_mean_over_unknown_tokens():
    _, seen = loss(jnp.zeros((2, 4, 3)), CODEBOOK[CODE], t=1)
    np.testing.assert_allclose(seen["ce"], np.log(3), rtol=1e-6)


def test_only_tokens_behind_the_split_reach_the_distance():
    logits = 100.0 * jax.nn.one_hot(CODE, 3)
    grad = jax.grad(lambda token: loss(logits, token, t=0, split=3)[1]["embedding"])(jnp.zeros((2, 4, 2)))
    assert (grad[:, :3] == 0).all()
    assert (grad[:, 3] != 0).any()


def test_embedding_loss_has_no_gradient_in_the_logits():
    by_logits = jax.grad(lambda x: loss(x, jnp.zeros((2, 4, 2)), t=0, split=2)[1]["embedding"])
    assert (by_logits(jnp.ones((2, 4, 3))) == 0).all()


def test_a_teacher_s_loss_by_band_is_its_loss():
    layout, key = Layout.scales((1, 2)), jax.random.key(0)
    logits, code = jax.random.normal(key, (3, 5, 7)), jax.random.randint(key, (3, 5), 0, 7)
    loss, seen = losses.prediction(logits, code, layout)
    p = jax.nn.softmax(logits)
    nll = -np.log(np.take_along_axis(np.asarray(p), np.asarray(code)[..., None], 2)[..., 0])
    hit = np.asarray(p).argmax(-1) == np.asarray(code)
    np.testing.assert_allclose(loss, nll.mean(), rtol=1e-5)
    np.testing.assert_allclose(seen["nll/scale_1"], nll[:, 1:].mean(), rtol=1e-5)
    assert seen["accuracy/scale_0"] == hit[:, :1].mean(dtype=np.float32)
    assert seen["accuracy"] == hit.mean(dtype=np.float32)


def test_smoothed_targets_change_the_loss_alone():
    key, layout = jax.random.key(0), Layout.scales((1, 2))
    logits, code = jax.random.normal(key, (3, 5, 7)), jax.random.randint(key, (3, 5), 0, 7)
    plain, seen = losses.prediction(logits, code, layout)
    loss, told = losses.prediction(logits, code, layout, smoothing=0.1)
    target = 0.9 * jax.nn.one_hot(code, 7) + 0.1 / 7
    np.testing.assert_allclose(loss, -jnp.mean(jnp.sum(target * jax.nn.log_softmax(logits), -1)), rtol=1e-6)
    assert told == seen | {"loss": loss, "nll": plain}


def test_parts_of_the_loss_make_the_whole():
    """Timestep 0 has four unknown tokens here, timestep 1 three; steps are quarters."""
    logits = jax.random.normal(jax.random.key(0), (2, 4, 3))
    given = logits, CODEBOOK[CODE], CODE, jnp.array([0, 1]), CODEBOOK, LAYOUT, 4, losses.Weights(1.0, 1.0), losses.mse
    _, seen = losses.distill_loss(*given, (0, 1))
    for name in ("ce", "agreement"):
        np.testing.assert_allclose((4 * seen[f"{name}/t0"] + 3 * seen[f"{name}/t1"]) / 7, seen[name], rtol=1e-6)
    hits = [seen[f"agreement/steps_{i}-{i}"] for i in range(4)]
    np.testing.assert_allclose((hits[0] + 2 * sum(hits[1:])) / 7, seen["agreement"], rtol=1e-6)
    np.testing.assert_allclose((seen["embedding/t0"] + seen["embedding/t1"]) / 2, seen["embedding"], atol=1e-6)
    assert seen.keys() - losses.distill_loss(*given)[1].keys() == {key for key in seen if "/" in key}


def test_distance_by_name():
    objective = functools.partial(Objective, (0,), 4, losses.Weights(1.0, 1.0))
    assert distance_of(objective("none"), None, None) is None
    with pytest.raises(UserError, match="choose lpips, mse, perceptual, drift or none"):
        distance_of(objective("lpips9"), None, None)


@pytest.mark.parametrize("make", [tiny.raster, pytest.param(tiny.scales, marks=pytest.mark.slow)])
def test_overfits_a_small_pair_set(make):
    """Sixteen pairs, every code learnt from noise alone, at both boundaries."""
    models, params = make()
    layout, codebook = models.layout, params["tokenizer"]["codebook"]
    code = np.random.default_rng(0).integers(0, len(codebook), (16, layout.tokens)).astype(np.int32)
    cond = tiny.cond(16)
    batch = {"id": np.arange(16), "cond": cond, "code": code}
    recipe = Recipe(steps=250, batch=16, lr=3e-3, warmup=10, ema=0.9)
    tx, objective = recipe.optimizer(), Objective((0, 1), layout.steps, losses.Weights(1.0, 0.0))
    step = jax.jit(
        functools.partial(train_step, models=models, objective=objective, tx=tx, ema=recipe.ema, distance=None, seed=0)
    )
    state = init_state(models.student.init_from_teacher(jax.random.key(1), params["teacher"]["trunk"]), tx)
    for _ in range(recipe.steps):
        state, metrics = step(state, batch, {"codebook": codebook})
    assert metrics["agreement"] > 0.98
    noise = noise_for(rng.example_keys(rng.stream(0, "pairs"), jnp.arange(16)), layout.tokens, codebook.shape[-1])
    logits, _ = jax.jit(lambda p: models.student(p, cond, noise, jnp.zeros(16, jnp.int32)))(state.ema)
    assert np.mean(np.argmax(logits, -1) == code) > 0.95


def test_every_epoch_sees_every_example_once():
    at = index_batches(10, 4, seed=3)
    seen = np.concatenate([at(step) for step in range(5)])
    assert sorted(seen[:10]) == list(range(10)) == sorted(seen[10:])
    np.testing.assert_array_equal(at(2), index_batches(10, 4, seed=3)(2))
    assert (index_batches(10, 4, seed=4)(0) != at(0)).any()
    with pytest.raises(UserError, match="batch of 4 needs at least"):
        index_batches(3, 4, 0)


def test_average_is_warmed_up_and_vectors_do_not_decay():
    recipe = Recipe(steps=10, batch=1, lr=0.0, warmup=0, weight_decay=1.0, ema=0.5)
    tx = recipe.optimizer()
    params = {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}
    state = init_state(params, tx)
    state = state.replace(params=jax.tree.map(lambda x: 3 * x, params))
    state, _ = update(state, jax.tree.map(jnp.zeros_like, params), tx, recipe.ema)
    np.testing.assert_allclose(state.ema["bias"], 1 + (1 - 1 / 11) * 2, rtol=1e-6)
    moved = Recipe(steps=10, batch=1, lr=1.0, warmup=0, weight_decay=0.1).optimizer()
    change, _ = moved.update(jax.tree.map(jnp.zeros_like, params), moved.init(params), params)
    assert (change["bias"] == 0).all()
    assert (change["kernel"] < 0).all()


@pytest.mark.parametrize("muon", [False, True])
def test_decay_reaches_every_matrix_but_the_named_ones(muon):
    shapes = {"layers_0": {"w": {"kernel": (6, 4), "bias": (4,)}}, "output": {"kernel": (6, 4)}, "table": (9, 4)}
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda x: isinstance(x, tuple))
    recipe = Recipe(steps=2, batch=1, lr=1.0, warmup=0, muon=muon, weight_decay=0.1, no_decay=("table",))
    tx = recipe.optimizer()
    state, zero = tx.init(params), jax.tree.map(jnp.zeros_like, params)
    change, _ = jax.jit(tx.update)(zero, state, params)
    wanted = {"layers_0": {"w": {"kernel": -0.1, "bias": 0.0}}, "output": {"kernel": -0.1}, "table": 0.0}
    jax.tree.map(lambda x, size: np.testing.assert_allclose(x, size, atol=1e-7), change, wanted)
    plain = dataclasses.replace(recipe, weight_decay=0.0).optimizer()
    chex.assert_trees_all_equal_structs(plain.init(params), state)  # runs without decay go on as they began
    with pytest.raises(UserError, match=r"no_decay has 'tabel', and no parameter is called so: there are table"):
        dataclasses.replace(recipe, no_decay=("tabel",)).optimizer().init(params)


def test_names_that_stand_for_nothing_are_refused():
    given = "kernel , bias,", "table"
    recipe = Recipe.of({"steps": 1, "batch": 1, "lr": 1.0, "no_decay": given})
    assert recipe.no_decay == ("kernel", "bias", "table")
    config = tiny_config("llamagen")
    config.sample.plans, config.train.log = ("S0,S0 S5", "onestep*"), ("tensorboard,wandb",)
    assert factory.listed(config).sample.plans == ("S0", "S0 S5", "onestep*")
    assert config.train.log == ("tensorboard", "wandb")
    system = factory.build(config)
    for section, name, value, told in (
        ("sample", "plans", ("S0", "onestep"), "cannot read 'onestep'"),
        ("sample", "plans", ("skip-99",), "skips steps that there are not"),
        ("evaluate", "plans", ("S99",), "out of range"),
        ("evaluate", "check", "J", "cannot read 'J'"),
        ("speed", "plans", ("decod",), "cannot read 'decod'"),
        ("baselines", "skip", (16,), "skip 16: whole numbers less than 16"),
        ("baselines", "skip_drop", ("8",), "skip '8': whole numbers less than 16"),
        ("train", "log", ("wand",), "choose from tensorboard, wandb"),
    ):
        odd = tiny_config("llamagen")
        odd[section][name] = value
        with pytest.raises(UserError, match=told):
            factory.check_names(odd, system.layout.steps, "all")
        factory.check_names(odd, system.layout.steps, "pairs")
    for part, section in (("student", config.train), ("teacher", config.pretrain.teacher)):
        section.no_decay = ("head", "kernel")
        with pytest.raises(UserError, match=rf"config\..*{'train'}.*no_decay has 'head', and no parameter"):
            check_recipes(system, config, (part,))


def test_flops_are_counted_through_loops_and_gradients():
    def body(x, _):
        return x @ x, None

    def looped(x):
        return jax.lax.scan(body, x, None, length=5)[0].sum()

    assert flops.count(looped, jnp.ones((4, 4))) == 5 * 2 * 4**3
    assert flops.count(jax.grad(looped), jnp.ones((4, 4))) == 3 * 5 * 2 * 4**3
    kernel, img = jnp.ones((3, 3, 2, 8)), jnp.ones((1, 5, 5, 2))
    conv = functools.partial(
        jax.lax.conv_general_dilated, window_strides=(1, 1), padding="SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert flops.count(conv, img, kernel) == 2 * 25 * 8 * 9 * 2


WITHIN = {
    "jit": jax.jit,
    "rematerialised": jax.checkpoint,
    "a conditional": lambda f: lambda x: jax.lax.cond(x[0, 0] > 0, f, lambda x: (x, x), x),
    "a loop": lambda f: lambda x: jax.lax.scan(lambda carry, _: (carry, f(x)), x, None, length=1)[1],
    "a pull-back": lambda f: lambda x: (f(x)[0], jax.vjp(f, x)[1]((x, x))),
}


@pytest.mark.parametrize("within", WITHIN.values(), ids=WITHIN)
def test_products_that_no_output_needs_do_not_count(within):
    both = within(lambda x: (x @ x, (x @ x) @ x))
    assert flops.count(lambda x: both(x)[0], jnp.ones((4, 4))) == 2 * 4**3


def test_muon_takes_the_matrices_of_layers_alone():
    shapes = {"layers_0": {"w": {"kernel": (6, 4), "bias": (4,)}}, "output": {"kernel": (6, 4)}, "table": (9, 4)}
    params = jax.tree.map(jnp.ones, shapes, is_leaf=lambda x: isinstance(x, tuple))
    tx = Recipe(steps=2, batch=1, lr=1.0, warmup=0, muon=True, clip=1e9).optimizer()
    grads = jax.tree.map(lambda p: jax.random.normal(jax.random.key(p.size), p.shape), params)
    change, _ = jax.jit(tx.update)(grads, tx.init(params), params)
    spread = np.linalg.svd(np.asarray(change["layers_0"]["w"]["kernel"]), compute_uv=False)
    assert spread.max() < 2 * spread.min()  # orthogonalised: directions are worth the same
    for name in ("output", "table"):  # Adam's first step: every number is worth the same
        size = np.abs(jax.tree.leaves(change[name])[0])
        np.testing.assert_allclose(size, size.max(), rtol=1e-3)
