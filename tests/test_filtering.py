"""Temperature, top-k, top-p: both families' reference filters are one."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.method.filtering import Filter
from dd_jax.system.errors import UserError

GOLDENS = Path(__file__).parent / "goldens"
LLAMAGEN = GOLDENS / "llamagen" / "sampling_filter" / "io.npz"
VAR = GOLDENS / "var" / "topk_topp" / "filter.npz"


@pytest.mark.parametrize("case", range(6))
def test_llamagen_probabilities(case):
    golden = np.load(LLAMAGEN)
    temperature, top_k, top_p = golden[f"cfg_{case}"]
    filt = Filter(float(temperature), int(top_k), float(top_p))
    got = jax.nn.softmax(jax.jit(filt)(golden["logits"][:, 0]))
    np.testing.assert_allclose(got, golden[f"probs_{case}"], atol=1e-6)
    np.testing.assert_array_equal(np.asarray(got) > 0, golden[f"probs_{case}"] > 0)


def test_llamagen_ties_at_the_threshold_stay():
    golden = np.load(LLAMAGEN)
    got = jax.nn.softmax(Filter(top_k=2)(jnp.asarray(golden["tie_logits"][:, 0])))
    np.testing.assert_allclose(got, golden["tie_probs_topk2"], atol=1e-6)


@pytest.mark.parametrize("name", [name for name in np.load(VAR).files if "keep" in name])
def test_var_kept_codes(name):
    golden = np.load(VAR)
    top_k, top_p = name.split("_")[-2:]
    filt = Filter(top_k=int(top_k[1:]), top_p=float(top_p[1:]) or 1.0)  # there 0 switches top-p off
    logits = golden["tie_logits" if name.startswith("tie") else "logits"]
    got = np.asarray(filt(logits))
    np.testing.assert_array_equal(np.isfinite(got), golden[name])
    np.testing.assert_array_equal(got[golden[name]], logits[golden[name]])


def test_something_always_stays():
    logits = jnp.array([[0.0, 5.0, 1.0], [-jnp.inf, -jnp.inf, 2.0]])
    for filt in (Filter(top_p=1e-9), Filter(top_k=1), Filter(top_k=3, top_p=0.01), Filter(0.1, 2, 0.5)):
        np.testing.assert_array_equal(np.isfinite(filt(logits)), [[0, 1, 0], [0, 0, 1]])


def test_codes_that_were_already_dropped_stay_dropped():
    logits = jnp.array([1.0, -jnp.inf, 0.5, -jnp.inf])
    for filt in (
        Filter(),
        Filter(top_k=3),
        Filter(top_k=9),
        Filter(top_p=0.999),
        Filter(top_k=3, top_p=0.999),
    ):
        np.testing.assert_array_equal(np.isfinite(filt(logits)), [1, 0, 1, 0])


@pytest.mark.parametrize("filt", [Filter(), Filter(top_k=2), Filter(top_p=0.5), Filter(top_k=2, top_p=0.5)])
def test_nan_is_not_hidden(filt):
    assert np.isnan(np.asarray(filt(jnp.array([0.0, jnp.nan, 3.0, 1.0])))).any()


@pytest.mark.parametrize(
    "wrong",
    [{"temperature": 0.0}, {"top_k": -1}, {"top_p": 0.0}, {"top_p": 1.1}, {"temperature": float("nan")}],
)
def test_a_wrong_value_is_named(wrong):
    with pytest.raises(UserError, match=next(iter(wrong))):
        Filter(**wrong)
