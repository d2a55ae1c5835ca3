"""The T5 encoder: against the reference, and captions that do not meet each other."""

import dataclasses
import functools
import math
import os
import subprocess
import sys
from pathlib import Path

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from dd_jax.system.errors import UserError
from dd_jax.system.sharding import Placement, make_mesh
from dd_jax.text import t5
from dd_jax.text.features import Live, TextEncoder
from dd_jax.text.prompts import Prompts
from dd_jax.text.tokens import Words
from port_weights import rules
from port_weights import t5 as published

CFG = t5.T5Config(vocab=120, width=32, depth=3, heads=4, head_dim=16, hidden=48)
GOLDEN = helpers.arrays("text/t5_tiny.npz")
VALID = GOLDEN["mask"] == 1


@functools.cache
def params():
    expected = helpers.shapes(functools.partial(t5.init, CFG))
    state_dict = helpers.weights("text/t5_tiny.safetensors")
    return jax.tree.map(jnp.asarray, rules.convert(state_dict, published.table(), expected))


def test_the_reference():
    run = jax.jit(lambda p: t5.T5(CFG).apply({"params": p}, GOLDEN["ids"], VALID, method="run"))
    feature, stream = run(params())
    assert_allclose(np.asarray(feature)[VALID], GOLDEN["last_hidden_state"][VALID], atol=2e-5)
    for i in range(3):
        assert_allclose(np.asarray(stream[i])[VALID], GOLDEN[f"hidden_{i}"][VALID], atol=2e-5)
    caption, valid = t5.left_pad(feature, jnp.asarray(VALID))
    assert_allclose(caption, GOLDEN["caption_left"], atol=2e-5)
    assert_array_equal(valid, GOLDEN["mask_left"] == 1)
    assert (np.asarray(caption)[~np.asarray(valid)] == 0).all()


def test_buckets():
    table = t5.bucket_table(121)
    for away, bucket in GOLDEN["bucket_memory_minus_query"].T:
        query = max(0, -away)
        assert table[query, query + away] == bucket


def test_the_published_model():
    expected = helpers.shapes(functools.partial(t5.init, t5.T5Config()))
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), expected)
    golden = helpers.read_json("text/keys_flan_t5_xl_encoder.json")
    assert {key: list(x.shape) for key, x in rules.export(zeros, published.table()).items()} == golden["keys"]
    assert len(golden["keys"]) == 219
    assert sum(math.prod(x.shape) for x in jax.tree.leaves(expected)) == golden["parameters"] == 1_223_527_424


def test_padding_length_does_not_matter():
    run = jax.jit(lambda ids, valid: t5.encode(CFG, params(), ids, valid)[0])
    short = run(GOLDEN["ids"][1:2, :9], VALID[1:2, :9])
    assert_allclose(short, run(GOLDEN["ids"][1:2], VALID[1:2])[:, -9:], atol=2e-6)


def test_padding_is_seen_by_nobody():
    def caption(ids):
        return t5.encode(CFG, params(), ids, VALID)[0]

    caption = jax.jit(caption)
    other = np.where(VALID, GOLDEN["ids"], 77)
    assert_array_equal(caption(other), caption(GOLDEN["ids"]))


def test_half_precision_is_near():
    half = t5.T5(dataclasses.replace(CFG, dtype=jnp.bfloat16))
    feature = jax.jit(half.apply)({"params": params()}, GOLDEN["ids"], VALID)
    assert feature.dtype == jnp.bfloat16
    away = np.asarray(feature, np.float32)[VALID] - GOLDEN["last_hidden_state"][VALID]
    assert np.sqrt((away**2).mean()) < 0.05 * GOLDEN["last_hidden_state"][VALID].std()


def test_blocks_computed_again_have_the_same_gradient():
    def loss(cfg, p):
        return jnp.sum(t5.encode(cfg, p, GOLDEN["ids"][:2, :12], VALID[:2, :12])[0] ** 2)

    plain, again = (
        jax.jit(jax.grad(functools.partial(loss, dataclasses.replace(CFG, remat=remat))))(params())
        for remat in (False, True)
    )
    jax.tree.map(functools.partial(assert_allclose, rtol=1e-4, atol=1e-4), plain, again)
    assert all(np.abs(x).max() > 0 for x in jax.tree.leaves(plain))


def test_every_matrix_has_a_rule():
    shapes = helpers.shapes(functools.partial(t5.init, t5.T5Config()))
    placement = Placement(make_mesh((1, 1)), t5.RULES)
    found = {jax.tree_util.keystr(path, simple=True, separator="/"): leaf.shape for path, leaf in _leaves(shapes)}
    assert all(placement.rule(path)[0] or len(shape) == 1 for path, shape in found.items())


def _leaves(tree):
    return jax.tree_util.tree_leaves_with_path(tree)


WORDS = tuple(f"w{i}" for i in range(100))
CAPTIONS = ("w1 w2 w3", "", " ".join(WORDS[:31]), " ".join(WORDS[:32]), " ".join(WORDS * 10), "w3 w2 w1", "unknown")


@functools.cache
def encoder(batch=3, **more):
    return TextEncoder(CFG, params(), Words(WORDS, 120), batch, cleaned=False, **more)


def test_features_depend_on_the_caption_alone():
    caption, valid = encoder()(CAPTIONS)
    assert caption.shape == (7, 120, 32)
    assert valid.sum(1).tolist() == [4, 1, 32, 33, 120, 4, 2]
    assert (caption[~valid] == 0).all()
    for i in range(len(CAPTIONS)):
        alone, mask = encoder()(CAPTIONS[i : i + 1])
        assert_array_equal(mask[0], valid[i])
        assert_array_equal(alone[0], caption[i])
    backwards, _ = encoder()(CAPTIONS[::-1])
    assert_array_equal(backwards[::-1], caption)
    assert_allclose(encoder(5)(CAPTIONS)[0], caption, atol=5e-6)
    assert_allclose(encoder(3, lengths=())(CAPTIONS)[0], caption, atol=5e-6)
    assert encoder()._run._cache_size() == 2


def test_captions_are_cleaned_unless_told_otherwise():
    cleaned = dataclasses.replace(encoder(), cleaned=True)
    assert_array_equal(cleaned(["  W1 W2  <b>W3</b>"])[0], encoder()(["w1 w2 w3"])[0])
    assert cleaned.key != encoder().key == encoder(5).key


def test_the_key_follows_the_weights():
    other = dataclasses.replace(encoder(), params={**params(), "norm": {"weight": params()["norm"]["weight"] + 1}})
    half = dataclasses.replace(encoder(), cfg=dataclasses.replace(CFG, dtype=jnp.bfloat16))
    words = dataclasses.replace(encoder(), tokenizer=Words(WORDS[:50], 120))
    assert len({other.key, half.key, words.key, encoder().key}) == 4


def test_what_does_not_belong_together_is_refused():
    with pytest.raises(UserError, match="203 tokens, the encoder knows 120"):
        dataclasses.replace(encoder(), tokenizer=Words(tuple(f"w{i}" for i in range(200)), 120))
    with pytest.raises(UserError, match="7 tokens a caption, the encoder takes 120"):
        dataclasses.replace(encoder(), tokenizer=Words(WORDS, 7))


EIGHT = """
import numpy as np
import test_text_t5 as t
from dd_jax.sharding import Placement, make_mesh
wanted, valid = t.encoder(8)(t.CAPTIONS)
for shape in ((8, 1), (2, 4)):
    placement = Placement(make_mesh(shape), t.t5.RULES, least=64)
    spread = t.dataclasses.replace(t.encoder(5), placement=placement, params=placement.put(t.params()))
    q = spread.params["block_0"]["attention"]["q"]["kernel"]
    assert not q.is_fully_replicated
    np.testing.assert_allclose(spread(t.CAPTIONS)[0], wanted, atol=1e-5)
"""


@pytest.mark.slow
def test_eight_devices_give_the_same():
    more = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8", "JAX_PLATFORMS": "cpu"}
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parent)])
    subprocess.run([sys.executable, "-c", EIGHT], check=True, env={**os.environ, **more, "PYTHONPATH": path})


def test_no_captions_and_rounded_ones():
    assert encoder()([])[0].shape == (0, 120, 32)
    assert Live(encoder(), Prompts.of(*CAPTIONS)).rows([2, 0])[0].dtype == "bfloat16"


def test_the_gradient_reaches_the_words_of_the_caption_only():
    def first(embedding):
        p = {**params(), "shared": {"embedding": embedding}}
        return jnp.sum(t5.encode(CFG, p, GOLDEN["ids"][:2, :12], VALID[:2, :12])[0][1])

    touched = np.abs(jax.jit(jax.grad(first))(params()["shared"]["embedding"])).max(1) > 0
    assert set(np.flatnonzero(touched)) == set(GOLDEN["ids"][1][VALID[1]].tolist())
