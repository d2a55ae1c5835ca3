"""The flow from noise to code: Eq. 3 and Eq. 4 against goldens, an exact solve, and their laws."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.method import flow, solvers
from dd_jax.method.filtering import Filter
from dd_jax.method.flow import FlowSolver, transport
from dd_jax.system.errors import UserError

GOLDEN = np.load(Path(__file__).parent / "goldens" / "fm" / "V64_C8" / "fm.npz")
NOISE, LOGITS, CODEBOOK = GOLDEN["noise"], GOLDEN["logits"], GOLDEN["codebook"]
EACH = 1250  # fresh noises for each of the 16 conditionals
run = jax.jit(transport, static_argnums=3)


@functools.partial(jax.jit, static_argnums=3)
def exact_flow(noise_NxC, logits_V, codebook_VxC, steps=100):
    """Codes of the exact flow: Runge-Kutta 4 on dx/dtau = E[c | x] - x, tau = -log(1 - u) in [0, 6]."""
    half_square_V = jnp.sum(codebook_VxC**2, -1) / 2

    def score(tau, x):
        u, r = 1 - jnp.exp(-tau), jnp.expm1(tau)
        return logits_V + r / jnp.exp(-tau) * (x @ codebook_VxC.T) - r**2 * half_square_V, u

    def slope(tau, x):
        return jax.nn.softmax(score(tau, x)[0]) @ codebook_VxC - x

    def step(x, k):
        h, tau = 6 / steps, 6 / steps * k
        a = slope(tau, x)
        b = slope(tau + h / 2, x + h / 2 * a)
        c = slope(tau + h / 2, x + h / 2 * b)
        d = slope(tau + h, x + h * c)
        return x + h / 6 * (a + 2 * b + 2 * c + d), None

    x, _ = jax.lax.scan(step, noise_NxC, jnp.arange(steps))
    return jnp.argmax(score(6.0, x)[0], -1)


@pytest.fixture(scope="module")
def fresh():
    """(noise, logits, exact code) of 16 x 1250 tokens."""
    noise = np.random.default_rng(11).normal(size=(16, EACH, 8))
    with jax.enable_x64(True):
        code = [exact_flow(noise[j], LOGITS[j].astype(float), CODEBOOK.astype(float)) for j in range(16)]
    logits = np.broadcast_to(LOGITS[:, None], (16, EACH, 64))
    return noise.astype(np.float32), logits, np.stack([np.asarray(c) for c in code])


def total_variation(code_JxN):
    """Mean over the conditionals of TV(histogram of codes, p)."""
    p = np.asarray(jax.nn.softmax(jnp.asarray(LOGITS)))
    freq = np.stack([np.bincount(c, minlength=64) / c.size for c in np.asarray(code_JxN)])
    return np.abs(freq - p).sum(-1).mean() / 2


@pytest.fixture(scope="module")
def floor():
    """The same of true samples: what a finite number of noises costs."""
    rng = np.random.default_rng(12)
    p = np.asarray(jax.nn.softmax(jnp.asarray(LOGITS, jnp.float32))).astype(float)
    p /= p.sum(-1, keepdims=True)
    draws = [np.stack([rng.choice(64, EACH, p=row) for row in p]) for _ in range(8)]
    return np.mean([total_variation(draw) for draw in draws])


# Eq. 3


@pytest.mark.parametrize("i", range(7))
def test_velocity_and_data_prediction(i):
    u, x = float(GOLDEN["point_t"][i]), GOLDEN[f"point{i}/x"]
    with jax.enable_x64(True):
        field = jax.vmap(flow.velocity, (0, None, 0, None))
        v = np.asarray(field(x, u, LOGITS.astype(float), CODEBOOK.astype(float)))
    np.testing.assert_allclose(v, GOLDEN[f"point{i}/velocity"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(x + (1 - u) * v, GOLDEN[f"point{i}/data_pred"], rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose(x - u * v, GOLDEN[f"point{i}/noise_pred"], rtol=1e-8, atol=1e-8)
    # float32 rounds the scores by 1e-7 (1 - u)^-2: harmless here, as every golden point past .9 is decided.
    v = np.asarray(jax.vmap(flow.velocity, (0, None, 0, None))(x.astype(np.float32), u, LOGITS, CODEBOOK))
    for got, name in ((v, "velocity"), (x + (1 - u) * v, "data_pred")):
        want = GOLDEN[f"point{i}/{name}"]
        assert np.abs(got - want).max() < 1e-5 * np.abs(want).max(), name


def test_data_prediction_is_the_posterior_mean():
    """Over draws (z, c), c - E[c | x] is uncorrelated with any function of x."""
    rng = np.random.default_rng(0)
    n, u = 200_000, 0.4
    p = np.asarray(jax.nn.softmax(jnp.asarray(LOGITS[0], jnp.float32))).astype(float)
    c = CODEBOOK[rng.choice(64, n, p=p / p.sum())]
    x = (1 - u) * rng.normal(size=c.shape).astype(np.float32) + u * c
    v = jax.jit(jax.vmap(flow.velocity, (0, None, None, None)))(x, u, LOGITS[0], CODEBOOK)
    residual = c - (x + (1 - u) * np.asarray(v))
    for test in (np.ones_like(x), x, np.tanh(3 * x), x[:, ::-1]):
        moment, spread = (residual * test).mean(0), (residual * test).std(0) / np.sqrt(n)
        assert np.all(np.abs(moment) < 5 * spread)


def test_frame_is_the_normalised_codebook():
    """The affine map inside `velocity` equals a codebook that was really moved and scaled."""
    mean, scale, x = CODEBOOK[3] + 0.2, 0.4, NOISE[0]
    got = flow.velocity(x, 0.5, LOGITS[0], CODEBOOK, mean, scale)
    want = flow.velocity(x, 0.5, LOGITS[0], (CODEBOOK - mean) / scale)
    np.testing.assert_allclose(got, want, rtol=2e-5, atol=2e-5)


# Eq. 4


@pytest.mark.parametrize("evaluations", [10, 16, 20, 32])
def test_golden_codes(evaluations):
    np.testing.assert_array_equal(
        run(NOISE, LOGITS, CODEBOOK, FlowSolver(evaluations=evaluations)), GOLDEN["exact_idx"]
    )


def test_exact_reference_reproduces_goldens():
    with jax.enable_x64(True):
        code = [exact_flow(NOISE[j, None].astype(float), LOGITS[j], CODEBOOK)[0] for j in range(16)]
    np.testing.assert_array_equal(np.stack(code), GOLDEN["exact_idx"])


@pytest.mark.parametrize(("evaluations", "bar"), [(10, 0.99), (16, 0.995), (20, 0.998)])
def test_agreement_with_the_exact_flow(fresh, evaluations, bar):
    noise, logits, code = fresh
    got = run(noise, logits, CODEBOOK, FlowSolver(evaluations=evaluations))
    assert np.mean(np.asarray(got) == code) >= bar


@pytest.mark.parametrize("scale", [0.1, 0.3, 1.0, 3.0])
def test_codes_follow_p_at_every_codebook_scale(fresh, floor, scale):
    noise, logits, code = fresh
    for offset in (0.0, 2.0):
        for evaluations in (10, 20):
            moved = (scale * CODEBOOK + offset).astype(np.float32)
            got = np.asarray(run(noise, logits, moved, FlowSolver(evaluations=evaluations)))
            assert total_variation(got) <= floor + 0.01
            assert np.mean(got == code) >= (0.99 if evaluations == 10 else 0.998)
    assert total_variation(code) <= floor + 0.005


def test_scale_and_offset_do_not_change_the_code(fresh):
    noise, logits, _ = fresh
    want = np.asarray(run(noise, logits, CODEBOOK, FlowSolver()))
    shift = np.linspace(-1, 1, 8, dtype=np.float32)
    for moved in (0.1 * CODEBOOK, 3 * CODEBOOK + shift, CODEBOOK - 5 * shift):
        assert np.mean(np.asarray(run(noise, logits, moved, FlowSolver())) == want) > 0.9995


def test_filtered_codes_never_appear(fresh):
    noise, logits, _ = fresh
    filtered = Filter(top_k=12, top_p=0.9)(jnp.asarray(logits))
    for solver in (FlowSolver(), FlowSolver(evaluations=4), FlowSolver("euler", 6), FlowSolver("tsit5", 9)):
        code = np.asarray(run(noise, filtered, CODEBOOK, solver))
        assert np.all(np.isfinite(np.take_along_axis(np.asarray(filtered), code[..., None], -1)))


# The official solver, and the order of every solver


@pytest.mark.parametrize(
    ("case", "name", "evaluations", "end"),
    [
        ("official_time_uniform", "dpmpp3m", 10, 0.999),
        ("official_time_uniform_20nfe", "dpmpp3m", 20, 0.999),
        ("official_time_uniform_order2", "dpmpp2m", 10, 0.999),
        ("official_time_uniform_order1", "dpmpp1", 10, 0.999),
        ("official_time_uniform_tend1e-2", "dpmpp3m", 10, 0.99),
    ],
)
def test_official_solver(case, name, evaluations, end):
    solver = FlowSolver(name, evaluations, "snap", 1e-3, end, normalise=False)
    np.testing.assert_allclose(1 - solver.nodes, GOLDEN[f"{case}/s_grid"], rtol=1e-12)
    np.testing.assert_array_equal(run(NOISE, LOGITS, CODEBOOK, solver), GOLDEN[f"{case}/idx_f32"])
    with jax.enable_x64(True):
        x = end_point(solver)
        np.testing.assert_allclose(x, GOLDEN[f"{case}/x_end"], atol=1e-9)


def test_literal_setting():
    assert FlowSolver.literal() == FlowSolver("dpmpp3m", 10, "snap", 1e-3, 0.999, normalise=False)
    code = np.asarray(run(NOISE, LOGITS, CODEBOOK, FlowSolver.literal()))
    np.testing.assert_array_equal(code, GOLDEN["official_time_uniform/idx"])
    assert np.sum(code == GOLDEN["exact_idx"]) == 5  # what the paper's setting does to unit-norm codes


def end_point(solver, logits=LOGITS):
    """x at the last node, codebook as it is, in the precision of the context."""
    noise = jnp.asarray(NOISE, float)
    x, ok = jax.jit(flow._end_point, static_argnums=5)(
        noise,
        jnp.asarray(logits, float),
        jnp.asarray(CODEBOOK, float),
        0 * noise,
        1 + 0 * noise[:, 0],
        solver,
    )
    assert ok
    return np.asarray(x)


@pytest.mark.parametrize(
    ("name", "order"),
    [("euler", 1), ("dpmpp1", 1), ("heun", 2), ("dpmpp2m", 2), ("dpmpp3m", 2), ("adams3", 3), ("tsit5", 5)],
)
def test_order_of_convergence(name, order):
    """The slope of log error against log step, all from u = .01 to .7.

    The published 3M is asymptotically of order 2: it starts with an Euler step, and carries half of the
    second moment. It gains on 2M by its smaller constant, at these steps by its slope of 2.4 too.
    """
    stages = solvers.SOLVERS[name].evaluations
    with jax.enable_x64(True):
        at = functools.partial(FlowSolver, readout="snap", start=0.01, end=0.7, normalise=False)
        logits = np.where(np.isfinite(LOGITS), LOGITS, -8) / 2
        exact = end_point(at("tsit5", 6 * 400 + 1), logits)
        steps = np.array([5, 10, 20] if name == "tsit5" else [20, 40, 80])
        ends = [end_point(at(name, int(n) * stages + (name == "tsit5")), logits) for n in steps]
    error = [np.sqrt(np.mean((x - exact) ** 2)) for x in ends]
    slope = -np.polyfit(np.log(steps), np.log(error), 1)[0]
    assert order - 0.15 < slope < order + 1, slope


@pytest.mark.parametrize(("readout", "normalise"), [("x0", True), ("snap", False)])
@pytest.mark.parametrize("name", solvers.SOLVERS)
def test_evaluations_are_what_was_asked_for_and_stay_below_one(monkeypatch, name, readout, normalise):
    seen = []
    inner = flow._velocity_B

    def spy(x, u, *args):
        jax.debug.callback(lambda u: seen.append(float(u)), u)
        return inner(x, u, *args)

    monkeypatch.setattr(flow, "_velocity_B", spy)
    solver = FlowSolver(name, 16, readout, normalise=normalise)
    jax.jit(lambda noise: transport(noise, LOGITS, CODEBOOK, solver))(NOISE).block_until_ready()
    jax.effects_barrier()
    passes = len(seen) + (readout == "x0") + normalise
    assert 16 - solvers.SOLVERS[name].evaluations < passes <= 16
    assert max(seen) < 1


# Contract


def test_leading_dimensions_and_batch_do_not_matter():
    logits = LOGITS.reshape(2, 8, 64)
    code = run(NOISE.reshape(2, 8, 8), logits, CODEBOOK, FlowSolver())
    assert code.shape == (2, 8)
    assert code.dtype == jnp.int32
    one = [int(run(NOISE[j], LOGITS[j], CODEBOOK, FlowSolver())) for j in (0, 9, 14)]
    assert one == [int(code.reshape(-1)[j]) for j in (0, 9, 14)]


def test_inside_scan_and_jit():
    @jax.jit
    def loop(noise, logits, codebook):
        return jax.lax.scan(lambda _, zl: (0, transport(*zl, codebook)), 0, (noise, logits))[1]

    code = loop(NOISE[:, None], LOGITS[:, None], CODEBOOK)[:, 0]
    np.testing.assert_array_equal(code, run(NOISE, LOGITS, CODEBOOK, FlowSolver()))


@pytest.mark.parametrize("solver", [FlowSolver(), FlowSolver.literal(), FlowSolver("heun")])
def test_what_is_not_finite_gets_no_code(solver):
    noise, logits = NOISE.copy(), LOGITS.copy()
    noise[0, 0], noise[1, 1] = np.nan, np.inf
    logits[2, 0], logits[3, 0], logits[4] = np.nan, np.inf, -np.inf
    code = np.asarray(run(noise, logits, CODEBOOK, solver))
    np.testing.assert_array_equal(code[:5], -1)
    np.testing.assert_array_equal(code[5:], np.asarray(run(NOISE, LOGITS, CODEBOOK, solver))[5:])


def test_degenerate_p_and_codebook():
    one_hot = np.where(np.eye(64, dtype=bool), 0, -np.inf)[:16]
    np.testing.assert_array_equal(run(NOISE, one_hot, CODEBOOK + 7, FlowSolver()), np.arange(16))
    nearly = np.where(np.eye(64, dtype=bool), 30.0, 0.0)[:16]
    np.testing.assert_array_equal(run(NOISE, nearly, CODEBOOK, FlowSolver()), np.arange(16))
    assert np.all(np.asarray(run(NOISE, LOGITS, 0 * CODEBOOK, FlowSolver())) >= 0)


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"name": "rk9"}, "'rk9' is unknown; choose one of adams3, dpmpp1"),
        ({"readout": "x1"}, "'x1' is unknown; choose x0 or snap"),
        ({"evaluations": 1}, "1 evaluations are no step"),
        ({"name": "tsit5", "evaluations": 6}, "6 evaluations are no step of tsit5"),
        ({"end": 1.0}, r"must rise inside \[0, 1\)"),
        ({"start": 0.95, "end": 0.9}, "must rise"),
        ({"name": "dpmpp3m", "start": 0.0}, "for dpmpp inside"),
    ],
)
def test_a_wrong_solver_is_told(wrong, told):
    with pytest.raises(UserError, match=told):
        FlowSolver(**wrong)


def test_shapes_that_do_not_fit_are_told():
    with pytest.raises(UserError, match=r"noise \(16, 8\).*do not fit"):
        transport(NOISE, LOGITS[:, :60], CODEBOOK)
