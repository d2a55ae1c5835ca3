"""VAR at full size: configs, published files and their masks, and the whole path at toy widths."""

import dataclasses
import importlib
import json

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file
from tiny import strong

import dd_jax
from dd_jax import factory, pipeline
from dd_jax.configs import var as configs
from dd_jax.method import ar, flow
from dd_jax.method.filtering import Filter
from dd_jax.method.layout import Layout
from dd_jax.method.plans import cost
from dd_jax.nn.attention import attend, pieces, work
from dd_jax.scripts.fake_release import state_dict, write_torch
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from dd_jax.training.loop import Recipe
from port_weights import __main__ as cli
from port_weights import models, rules, var
from port_weights.catalog import CATALOG, find

PARAMETERS = {
    "var_vae": 108_948_355,
    "var_d16": 310_283_520,
    "var_d20": 600_917_136,
    "var_d24": 1_033_399_360,
    "var_d30": 2_010_020_356,
    "var_d36": 2_353_893_904,
    "var_d16_dd": 328_165_664,
    "var_d20_dd": 635_399_088,
    "var_d24_dd": 1_092_478_560,
}
LISTS = {
    "var_vae": "vae_ch160v4096z32",
    **{f"var_d{depth}": f"var_d{depth}" for depth in (16, 20, 24, 30)},
    **{f"var_d{depth}_dd": f"var_dd_d{depth}" for depth in (16, 20, 24)},
}


def deep_ones_slow(names):
    """Tracing 24 blocks and more takes seconds, and shows what 16 and 20 show."""
    deep = ("var_d24", "var_d30", "var_d36")
    return [pytest.param(name, marks=[pytest.mark.slow] * name.startswith(deep)) for name in names]


@pytest.mark.parametrize("name", deep_ones_slow(PARAMETERS))
def test_published_parameter_counts(name):
    assert find(name).count() == find(name).parameters == PARAMETERS[name]


@pytest.mark.parametrize("name", deep_ones_slow(LISTS))
def test_published_keys(name):
    known, golden = find(name), helpers.read_json(f"var/keys_{LISTS[name]}.json")
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), known.expected())
    found = {key: list(x.shape) for key, x in rules.export(zeros, known.table()).items()}
    assert found == {key: shape for key, (shape, _) in golden["parameters"].items()}
    buffers = models.buffers(known.config(), known.part)
    assert {key: [list(x.shape), str(x.dtype)] for key, x in buffers.items()} == golden["buffers"]
    assert all(known.table().stray(key) for key in buffers)


@pytest.mark.parametrize("depth", configs.DEPTHS)
def test_every_config_builds(depth):
    config = importlib.import_module(f"dd_jax.configs.var_d{depth}").get_config()
    system = factory.build(config)
    assert system.layout.steps == 10
    assert config.data.resolution == 16 * config.tokenizer.sides[-1]
    assert config.train.steps == 1_200_000 * 120 // 512
    assert_allclose(system.teacher.weight_S[[0, 9]], [1, 3])
    assert system.models.filter == system.models.draw == Filter(top_k=900, top_p=0.95)


def test_published_plans_have_the_published_splits():
    models = {depth: factory.build(configs.get(depth)).models for depth in (16, 20, 24)}
    splits = {"S0": 5, "S0 S5": 5, "S0 T4:5 S5": 5, "S0 T3:5 S5": 8, "T0:5 S5": 9}
    assert {plan: models[16].of(plan).split for plan in splits} == splits
    assert [cost(plan, 10) for plan in splits] == [1, 2, 3, 4, 6]
    assert models[20].split == models[24].split == 4


def test_what_weight_decay_leaves_alone():
    assert {*configs.get(16).train.no_decay} == {"pos_1LC", "lvl_embed"}
    names = configs.get(36).train.no_decay  # its blocks have a row of the modulation each
    params = {"pos_1LC": jnp.ones((2, 2)), "class_emb": {"embedding": jnp.ones((2, 2))}, "bias": jnp.ones(2)}
    params |= {"lvl_embed": {"embedding": jnp.ones((2, 2))}, "block": {"ada_gss": jnp.ones((6, 2))}}
    decayed = Recipe(1, 1, 1.0, no_decay=names)._decayed(params)
    assert {key for key, value in decayed.items() if any(jax.tree.leaves(value))} == {"class_emb"}


def toy():
    """VAR-d16's config, everything that costs time made small."""
    config = configs.get(16)
    config.data.update({"resolution": 8, "classes": 7})
    config.tokenizer.update({"sides": (1, 2, 3, 4), "vocab": 64, "code_dim": 8})
    config.tokenizer.stack.update({"ch": 8, "ch_mult": (1, 2), "z_channels": 8, "groups": 4})
    config.model.update({"width": 32, "depth": 2, "heads": 2})
    config.student.split, config.train.timesteps = 2, (0, 2)
    config.filter.top_k = config.sample.filter.top_k = 20
    config.sample.by_plan = {"S0 T1:2 S2": {"split": 3}}
    config.sample.plans = config.evaluate.plans = ("S0", "S0 T1:2 S2")
    config.speed.plans = ("S0",)
    return config


@pytest.fixture
def tiny(monkeypatch):
    for name in ("var_vae", "var_d16", "var_d16_dd"):
        monkeypatch.setitem(CATALOG, name, dataclasses.replace(CATALOG[name], config=toy))


def release(name, folder, **changed):
    """A file in the published format: container, buffers and all."""
    return write_torch(folder / f"{name}.pth", find(name).wrapped(state_dict(name) | changed))


@pytest.fixture
def ported(tiny, tmp_path):
    for name in ("var_vae", "var_d16", "var_d16_dd"):
        cli.port(find(name), release(name, tmp_path), tmp_path / "weights")
    return tmp_path / "weights"


def test_a_ported_student_samples_and_goes_back(ported, tmp_path):
    pipe = dd_jax.load(ported / "var_d16_dd")
    images = pipe.sample([0, 5], plan="S0 T1:2 S2", seed=1)
    assert images.shape == (2, 8, 8, 3)
    alone = pipe.sample([5], plan="S0 T1:2 S2", seed=1, ids=np.array([1]))
    assert np.mean(alone == images[1]) > 0.99  # a product may round otherwise in another batch
    for name in ("var_vae", "var_d16", "var_d16_dd"):
        back, wanted = load_file(cli.export(ported / name, tmp_path / "back.safetensors")), state_dict(name)
        assert back.keys() == wanted.keys()
        for key, x in back.items():
            assert_array_equal(x, wanted[key])


def test_weights_of_a_trainer_s_own_container(tiny, tmp_path):
    file = write_torch(tmp_path / "w.pth", {"trainer": {"var_wo_ddp": state_dict("var_d16_dd"), "ema_parameters": 0}})
    assert weights.describe(cli.port(find("var_d16_dd"), file, tmp_path))["id"] == "var_d16_dd"


def test_a_student_s_mask_is_compared_with_the_config(ported, tmp_path):
    seen = np.where(Layout.scales((1, 2, 3, 4)).student_mask(same_step=True), 0, -np.inf).astype(np.float32)[None, None]
    folder = cli.port(find("var_d16_dd"), release("var_d16_dd", tmp_path, **{var.MASK: seen}), tmp_path / "other")
    assert dd_jax.load(folder, tokenizer=ported / "var_vae").system.student.net.same_step
    config = toy()
    config.weights.update({"tokenizer": str(ported / "var_vae"), "student": str(folder)})
    config.sample.plans = ("S0",)
    with pytest.raises(UserError, match=r"tokens of one step see each other.* --config\.student\.same_step=true"):
        pipeline.run(config, str(tmp_path / "run"), "sample")
    for name in ("var_d16", "var_d16_dd"):
        with pytest.raises(UserError, match="another model"):
            cli.port(find(name), release(name, tmp_path, **{var.MASK: np.zeros_like(seen)}), tmp_path / "third")


@pytest.mark.slow
def test_smoke_runs_every_stage(tmp_path):
    config = toy()
    config.smoke = True
    config.data.resolution, config.tokenizer.stack.ch_mult = 16, (1, 1, 2)  # the least that LPIPS takes
    pipeline.run(config, str(tmp_path), "all")
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["plan"] for row in rows] == ["T0:4", "S0", "S0 T1:2 S2"]
    assert all(np.isfinite(row["nll"]) for row in rows)


@pytest.mark.parametrize(
    ("changed", "told"),
    [({"smooth": True, "categorical": False}, "mixes categorical draws"), ({"unmasked_prefix": True}, "next-scale")],
)
def test_settings_that_cannot_be(changed, told):
    config = toy() if "smooth" in changed else importlib.import_module("dd_jax.configs.llamagen_b").get_config()
    config.sample.update(changed)
    with pytest.raises(UserError, match=told):
        factory.build(config)


def test_the_release_s_prefix_is_a_setting():
    config = toy()
    assert not factory.build(config).teacher.unmasked_prefix
    config.sample.unmasked_prefix = True
    assert factory.build(config).teacher.unmasked_prefix


def test_smooth_draws_are_gumbel_softmax_mixtures_that_sharpen():
    layout, codebook = Layout.scales((1, 2, 3, 4)), jax.random.normal(jax.random.key(0), (32, 5))
    keys, filt = jax.random.split(jax.random.key(1), 3), Filter(top_k=6)
    logits = jax.random.normal(jax.random.key(2), (3, 4, 32))
    pick, spread = ar.by_mixture(keys, codebook, layout, filt), []
    for s in range(4):
        code, token = pick(logits, s)
        ratio = s / 3
        gumbel = np.stack([jax.random.gumbel(jax.random.fold_in(key, s), (4, 32)) for key in keys])
        score = np.asarray(filt(logits), np.float64) * (1 + ratio) + gumbel
        weight = np.exp((score - score.max(-1, keepdims=True)) / max(0.27 * (1 - ratio * 0.95), 0.005))
        weight /= weight.sum(-1, keepdims=True)
        assert_allclose(token, weight @ np.asarray(codebook), atol=1e-5)
        assert_array_equal(code, score.argmax(-1))
        spread.append(np.linalg.norm(token - codebook[code], axis=-1).mean())
    assert spread[3] < 0.2 * spread[0]


@pytest.mark.slow
def test_smooth_tokens_are_what_is_drawn_and_painted():
    config = toy()
    config.sample.smooth = True
    system, key = factory.build(config), jax.random.key(0)
    tokenizer = jax.jit(system.tokenizer.init)(key)
    params = {
        "tokenizer": tokenizer,
        "teacher": system.teacher_params(jax.jit(system.teacher_init)(key, tokenizer), tokenizer),
    }
    pipe = dd_jax.pipeline.Pipeline(system, params)
    draft = pipe.tokens([1, 2], plan="T0:4")
    off = np.abs(draft.token_BxLxC - system.tokenizer.codebook(tokenizer)[draft.code_BxL]).max()
    assert 1e-4 < off < 10
    assert not draft.exact_B.any()


@pytest.mark.parametrize("same_step", [False, True, None])
def test_pieces_of_a_mask_attend_as_the_whole(same_step):
    layout = Layout.scales((1, 2, 3, 4, 5, 6))
    mask = layout.teacher_mask(layout.step_L) if same_step is None else layout.student_mask(same_step)
    count = len(mask)
    q, k, v = jax.random.normal(jax.random.key(0), (3, 2, 2, count, 8))
    whole = attend(q, k, v, jnp.asarray(mask), 0.4)
    assert_allclose(attend(q, k, v, mask, 0.4), whole, atol=2e-6)
    cut = pieces(mask, 8)
    assert len(cut) > 2
    assert sum(piece.pairs for piece in cut) < (0.5 if same_step is False else 0.75) * count**2
    seen = np.zeros_like(mask)
    for piece in cut:
        seen[piece.rows, : piece.keys] = True
    assert (mask <= seen | np.eye(count, dtype=bool)).all()
    assert len(pieces(Layout.raster(5).student_mask())) == 1


def test_the_work_of_the_released_mask():
    layout = Layout.scales(configs.SIDES[256])
    found = work(layout.student_mask())
    assert found["needed"] == 177_327 <= found["computed"] < 1.06 * found["needed"]
    assert found["unmasked"] == 681**2


def test_the_nearest_code_takes_no_table_of_differences():
    """At batch 64 the reference's search holds 22.8 GB."""
    x, codebook = jax.ShapeDtypeStruct((64, 680, 32), jnp.float32), jax.ShapeDtypeStruct((4096, 32), jnp.float32)
    memory = jax.jit(flow.nearest).lower(x, codebook).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 1.1 * 4 * 64 * 680 * 4096


def test_pieces_hide_what_the_mask_hides():
    """By gradient: a token of the student reads no other token of its scale."""
    layout = Layout.scales((1, 3, 8, 10))
    mask = layout.student_mask()
    q, k, v = jax.random.normal(jax.random.key(0), (3, 1, 1, len(mask), 4))
    assert len(pieces(mask, 64)) > 1
    for row in (5, 30, 75, 174):
        grad = jax.grad(lambda v, row=row: attend(q, k, v, mask, 1.0)[0, row].sum())(v)[0, 0, :, 0]
        assert_array_equal(np.asarray(grad) != 0, mask[row])


def test_class_embeddings_are_inherited_untouched():
    """The release redraws class 1's instead of the new level's."""
    system, key = factory.build(toy()), jax.random.key(3)
    trunk = strong(jax.eval_shape(system.teacher_init, key, jax.eval_shape(system.tokenizer.init, key)))
    student = system.student.init_from_teacher(key, trunk)["trunk"]
    assert_array_equal(student["class_emb"]["embedding"], trunk["class_emb"]["embedding"])
    assert_array_equal(np.delete(student["lvl_embed"]["embedding"], 1, 0), trunk["lvl_embed"]["embedding"])
    assert not np.isin(student["lvl_embed"]["embedding"][1], trunk["lvl_embed"]["embedding"]).any()
