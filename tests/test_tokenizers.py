"""Both tokenizers against the reference, the strict key mapping, and lean sizes."""

import dataclasses

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.families.llamagen.tokenizer import VQ
from dd_jax.families.var.tokenizer import VQVAE
from dd_jax.nn import codebook
from dd_jax.nn.conv import ConvStack, convolve, convolve_doubled, depth_to_space, space_to_depth
from dd_jax.system.errors import UserError
from port_weights import rules, tokenizers

LEAN = ConvStack(
    ch=8, ch_mult=(1, 2), z_channels=4, channels=1, encoder_blocks=0, decoder_blocks=0, groups=0,
    attention=False, mid=False, patch=2,
)  # fmt: skip


def near(actual, desired, atol):
    assert_allclose(np.asarray(actual), desired, rtol=1e-5, atol=atol)


@pytest.fixture(scope="module")
def vq():
    tokenizer, params = helpers.vq_tiny()
    return tokenizer, params, helpers.arrays("llamagen/vq_tiny/io.npz")


@pytest.fixture(scope="module")
def vqvae():
    tokenizer, params = helpers.vqvae_tiny()
    return tokenizer, params, helpers.arrays("var/vqvae_tiny/roundtrip.npz")


def test_vq_encodes_as_the_reference(vq):
    tokenizer, params, golden = vq
    img = helpers.nhwc(golden["img"])
    near(jax.jit(tokenizer.features)(params, img), helpers.nhwc(golden["z_prequant"]), 2e-5)
    code = jax.jit(tokenizer.encode)(params, img)
    assert_array_equal(np.ravel(code), golden["indices"])
    near(tokenizer.codebook(params), golden["codebook_normalized"], 1e-6)
    token = tokenizer.codebook(params)[code].reshape(2, 4, 4, 8)
    near(token, helpers.nhwc(golden["quant"]), 1e-6)


def test_vq_decodes_as_the_reference(vq):
    tokenizer, params, golden = vq
    code, decode = golden["indices"].reshape(2, 16), jax.jit(tokenizer.decode)
    near(decode(params, tokenizer.codebook(params)[code]), helpers.nhwc(golden["dec_from_codes"]), 2e-5)
    for latent, image in (("quant", "dec_from_quant"), ("cont_latent", "dec_from_cont")):
        token = helpers.nhwc(golden[latent]).reshape(2, 16, 8)
        near(decode(params, token), helpers.nhwc(golden[image]), 2e-5)


def test_vq_losses_are_the_reference_s(vq):
    tokenizer, params, golden = vq
    _, metrics = jax.jit(tokenizer.loss)(params, helpers.nhwc(golden["img"]))
    near(metrics["codebook"], golden["train_vq_loss"], 1e-6)
    near(metrics["commitment"], golden["train_commit_loss"], 1e-6)


def test_vqvae_round_trip_is_the_reference_s(vqvae):
    tokenizer, params, golden = vqvae
    f = jax.jit(tokenizer.features)(params, helpers.nhwc(golden["img"]))
    near(f, helpers.nhwc(golden["f"]), 1e-4)
    steps = jax.jit(tokenizer.quantizer.residuals)(params["quantizer"], f)
    assert_array_equal(np.concatenate([code for _, code, _ in steps], 1), golden["idx"])
    for s, (_, _, f_hat) in enumerate(steps):
        near(f_hat, helpers.nhwc(golden[f"f_hat_{s}"]), 1e-4)
    assert_array_equal(jax.jit(tokenizer.encode)(params, helpers.nhwc(golden["img"])), golden["idx"])


def test_vqvae_decodes_as_the_reference(vqvae):
    tokenizer, params, golden = vqvae
    token = tokenizer.codebook(params)[golden["idx"]]
    f_hat = jax.jit(tokenizer.quantizer.f_hat)(params["quantizer"], token)
    near(jax.jit(tokenizer.paint)(params, f_hat), helpers.nhwc(golden["img_preclamp"]), 1e-4)
    near(jax.jit(tokenizer.decode)(params, token), helpers.nhwc(golden["rec"]), 1e-4)
    found = jax.jit(tokenizer.quantizer.teacher_input)(params["quantizer"], golden["idx"])
    near(found, golden["var_input"], 1e-4)


RELEASED = {
    "llamagen/keys_VQ-16.json": (VQ(ConvStack(), 16384, 8), tokenizers.vq(5)),
    "llamagen/keys_VQ-8.json": (VQ(ConvStack(ch_mult=(1, 2, 2, 4)), 16384, 8), tokenizers.vq(4)),
}


@pytest.mark.parametrize("name", RELEASED)
def test_released_files_map_onto_the_model(name):
    tokenizer, table = RELEASED[name]
    listing = helpers.read_json(name)
    state_dict = {key: np.broadcast_to(np.float32(0), shape) for key, shape in listing["state_dict"].items()}
    expected = helpers.shapes(tokenizer.init)
    params = rules.convert(state_dict, table, expected)
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda leaf: leaf.shape, expected)
    assert sum(x.size for x in jax.tree.leaves(params)) == listing["params"]


@pytest.mark.parametrize("family", ["llamagen", "var"])
def test_export_gives_the_file_back(family):
    if family == "llamagen":
        (_, params), table = helpers.vq_tiny(), tokenizers.vq(3)
        keys = helpers.read_json("llamagen/vq_tiny/keys.json")
        state_dict = {key: helpers.recipe(key, shape) for key, shape in keys.items()}
    else:
        (_, params), table = helpers.vqvae_tiny(), tokenizers.vqvae()
        state_dict = helpers.weights("var/vqvae_tiny/vae.safetensors")
    back = rules.export(params, table)
    assert set(state_dict) - set(back) <= {"quantize.codebook_used", "quantize.ema_vocab_hit_SV"}
    for key, x in back.items():
        assert_array_equal(x, state_dict[key])


def test_whatever_does_not_fit_is_listed():
    expected = {"a": {"kernel": np.zeros((2, 3)), "bias": np.zeros(3)}, "gain": np.zeros(4)}
    table = rules.Table(
        [
            rules.Rule("a.weight", "a/kernel", rules.LINEAR),
            rules.Rule("a.bias", "a/bias"),
            rules.Rule("g", "gain"),
        ],
        strays=(r"ema\.\d+",),
    )
    shapes = {"a.weight": (3, 2), "a.bias": (3,), "g": (4,), "ema.7": (9,)}
    good = {key: np.ones(shape, np.float32) for key, shape in shapes.items()}
    assert rules.convert(good, table, expected)["a"]["kernel"].shape == (2, 3)
    bad = {"a.weight": good["a.weight"].T, "g": good["g"].astype(np.int32), "b.weight": np.ones(1)}
    with pytest.raises(UserError) as error:
        rules.convert(bad, table, expected)
    message = str(error.value)
    assert "1 missing: a.bias" in message
    assert "1 unknown: b.weight" in message
    assert "1 misshaped: a.weight is (2, 3), should be (3, 2)" in message
    assert "1 mistyped: g (int32)" in message
    twice = rules.Table([*table.rules[:2], rules.Rule("a.bias", "gain")])
    with pytest.raises(UserError, match=r"duplicate: a\.bias"):
        rules.convert({**good, "a.bias": np.ones(3)}, twice, expected)


def test_transforms_are_inverse_pairs():
    x = np.arange(24.0).reshape(2, 3, 4)
    split = rules.reshape((2, 3, 4), (6, 4))
    for how, arrays in (
        (split, [x]),
        (rules.chain(split, rules.LINEAR), [x]),
        (rules.concat(rules.LINEAR, 3), [x[0], x[1], x[0]]),
    ):
        for before, after in zip(arrays, how.theirs(how.ours(arrays)), strict=True):
            assert_array_equal(before, after)


def lean_cases():
    full = dataclasses.replace(LEAN, encoder_blocks=1, decoder_blocks=1, groups=4, mid=True, attention=True)
    one_level = dataclasses.replace(LEAN, ch_mult=(1,))
    for side, sides, stack in ((28, (1, 3, 7), LEAN), (28, (1, 3, 7), full), (8, (1, 2, 4), one_level)):
        marks = [pytest.mark.slow] * (stack is full)
        yield pytest.param(side, VQ(stack, vocab=16, code_dim=4), marks=marks)
        yield pytest.param(side, VQVAE(stack, vocab=16, code_dim=4, sides=sides, moments=1.0), marks=marks)


@pytest.mark.parametrize(("side", "tokenizer"), lean_cases())
def test_lean_sizes_train(side, tokenizer):
    img = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (4, side, side, 1)), jnp.float32)
    key = jax.random.key(0)
    params = jax.jit(tokenizer.init)(key)
    params = jax.jit(tokenizer.init_codebook)(params, jax.jit(tokenizer.vectors)(params, img), key)
    (loss, metrics), grads = jax.jit(jax.value_and_grad(tokenizer.loss, has_aux=True))(params, img)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves((loss, metrics, grads)))
    for path, grad in jax.tree_util.tree_leaves_with_path(jax.device_get(grads)):
        assert bool((grad != 0).any()) or "quantizer" in str(path[0]), f"no gradient reaches {path}"
    again = lambda p: tokenizer.decode(p, tokenizer.codebook(p)[tokenizer.encode(p, img)])  # noqa: E731
    assert jax.eval_shape(again, params).shape == img.shape


def test_revival_replaces_unused_codes_only():
    table = jnp.arange(12.0).reshape(4, 3)
    vectors = -jnp.ones((9, 3))
    new = codebook.revive(table, jnp.asarray([2, 0, 1, 0]), vectors, jax.random.key(0))
    assert_array_equal(new, np.where(np.asarray([[0], [1], [0], [1]]), -1, table))


@pytest.mark.parametrize("tokenizer", [VQ(LEAN, 64, 4), VQVAE(LEAN, 64, 4, sides=(1, 3, 7))])
def test_revival_brings_codes_into_use(tokenizer):
    img = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (8, 28, 28, 1)), jnp.float32)
    key = jax.random.key(1)
    params = jax.jit(tokenizer.init)(key)
    params = jax.jit(tokenizer.init_codebook)(params, jax.jit(tokenizer.vectors)(params, img), key)
    table = tokenizer.raw_codebook(params)
    params = tokenizer.with_codebook(params, table.at[4:].set(1e3 * table[0]))
    encode = jax.jit(tokenizer.encode)
    used = lambda p: len(np.unique(encode(p, img)))  # noqa: E731
    revived = jax.jit(tokenizer.revive)(params, img, key)
    assert 2 * used(params) < used(revived)
    assert_array_equal(tokenizer.raw_codebook(revived).shape, (64, 4))


def test_space_to_depth_and_back():
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 4, 6, 3)))
    folded = space_to_depth(x, 2)
    assert folded.shape == (2, 2, 3, 12)
    assert_array_equal(folded[0, 1, 2, 3:6], x[0, 2, 5])  # second in its patch: upper right
    assert_array_equal(depth_to_space(folded, 2), x)


def test_doubling_is_repeating_and_convolving():
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, 3, 5, 4)), rng.normal(size=(3, 3, 4, 6))
    x, kernel, bias = jnp.float32(x), jnp.float32(kernel), jnp.arange(6.0)
    repeated = jnp.repeat(jnp.repeat(x, 2, 1), 2, 2)
    near(convolve_doubled(x, kernel, bias), convolve(repeated, kernel, bias), 1e-4)


def test_bad_sizes_are_the_user_s_to_fix():
    tokenizer = VQ(LEAN, 16, 4)
    params = helpers.shapes(tokenizer.init)  # it answers before a number is needed
    with pytest.raises(UserError, match="multiples of 4"):
        tokenizer.encode(params, jnp.zeros((1, 30, 30, 1)))
    with pytest.raises(UserError, match="groups=32"):
        ConvStack(ch=24)
