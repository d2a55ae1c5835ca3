"""Interpolation and the residual pyramid against the reference."""

import helpers
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.families.var.quantizer import Quantizer, down_matrix, phi_of_step, resize, up_matrix
from dd_jax.method.layout import Layout
from dd_jax.system.errors import UserError
from port_weights import rules, tokenizers

SIDES = (1, 2, 3, 4, 5, 6, 8, 10, 13, 16)


def flat(x):
    """(B, C, h, w) -> (B, G, C)."""
    return jnp.asarray(helpers.nhwc(x).reshape(len(x), -1, x.shape[1]))


@pytest.fixture(scope="module")
def interp():
    return helpers.arrays("var/interp/interp.npz")


@pytest.fixture(scope="module")
def pyramid():
    quantizer = Quantizer(SIDES, vocab=64, code_dim=8)
    table = tokenizers.vqvae()
    keys = {f"quantize.{key}": x for key, x in helpers.weights("var/quant_real_pyramid/quantize.safetensors").items()}
    params = rules.convert(keys, table, {"quantizer": helpers.shapes(quantizer.init)})["quantizer"]
    return quantizer, params, helpers.arrays("var/quant_real_pyramid/quant.npz")


@pytest.mark.parametrize("side", SIDES)
def test_matrices_and_maps_are_the_reference_s(interp, side):
    assert_allclose(up_matrix(side, 16), interp[f"W_up_{side}"], atol=1e-12)
    assert_allclose(down_matrix(16, side), interp[f"W_down_{side}"], atol=1e-12)
    up = resize("up", flat(interp[f"up_in_{side}"]), side, 16)
    assert_allclose(up, flat(interp[f"up_bicubic_{side}"]), atol=1e-6)
    down = resize("down", flat(interp["down_in"]), 16, side)
    assert_allclose(down, flat(interp[f"down_area_{side}"]), atol=1e-6)


@pytest.mark.parametrize("side", [1, 2, 3])
def test_matrices_to_a_small_side(interp, side):
    assert_allclose(up_matrix(side, 4), interp[f"W_up4_{side}"], atol=1e-12)
    assert_allclose(down_matrix(4, side), interp[f"W_down4_{side}"], atol=1e-12)


def test_resizing_keeps_constants():
    for side in SIDES:
        assert_allclose(up_matrix(side, 16).sum(1), 1)
        assert_allclose(down_matrix(16, side).sum(1), 1)


def test_phi_table_is_pinned(pyramid):
    assert phi_of_step(10, 4) == tuple(pyramid[2]["phi_index"]) == (0, 0, 1, 1, 1, 2, 2, 3, 3, 3)
    assert phi_of_step(4, 4) == (0, 1, 2, 3)
    assert phi_of_step(5, 4) == (0, 1, 2, 2, 3)
    assert phi_of_step(3, 4) == (0, 2, 3)
    assert phi_of_step(1, 4) == (0,)
    assert phi_of_step(3, 1) == (0, 0, 0)


def test_pyramid_of_ten_scales(pyramid):
    quantizer, params, golden = pyramid
    steps = quantizer.residuals(params, jnp.asarray(helpers.nhwc(golden["f"])))
    assert_array_equal(np.concatenate([code for _, code, _ in steps], 1), golden["idx"])
    for s, f_hat in zip(golden["f_hat_scales"], golden["f_hat"], strict=True):
        assert_allclose(steps[s][2], helpers.nhwc(f_hat), atol=1e-4)
    assert_allclose(quantizer.teacher_input(params, golden["idx"]), golden["var_input"], atol=1e-4)


def test_continuous_tokens(pyramid):
    quantizer, params, golden = pyramid
    f_hat = quantizer.f_hat(params, jnp.asarray(golden["cont"]))
    assert_allclose(f_hat, helpers.nhwc(golden["cont_f_hat"]), atol=1e-4)


def test_one_scale_at_a_time_is_all_at_once(pyramid):
    quantizer, params, golden = pyramid
    layout, f_hat, inputs = Layout.scales(SIDES), quantizer.zeros(2), []
    token = quantizer.codebook(params)[golden["idx"]]
    for s in range(len(SIDES)):
        f_hat = quantizer.accumulate(params, s, layout.take(token, s), f_hat)
        inputs += [quantizer.next_input(f_hat, s)] if s + 1 < len(SIDES) else []
    assert_array_equal(np.concatenate(inputs, 1), quantizer.teacher_input(params, golden["idx"]))
    assert_array_equal(f_hat, quantizer.f_hat(params, token))


def test_bad_scales_are_the_user_s_to_fix(pyramid):
    with pytest.raises(UserError, match="scales must grow"):
        Quantizer((1, 4, 2), 8, 4)
    with pytest.raises(UserError, match="the last must be its side"):
        pyramid[0].encode(pyramid[1], jnp.zeros((1, 8, 8, 8)))
