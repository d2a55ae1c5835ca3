"""Captions as conditions: laws of a small text-to-image system, prompts of a user, pictures beside captions."""

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from numpy.testing import assert_allclose, assert_array_equal
from PIL import Image

from dd_jax import factory
from dd_jax.configs import common, emoji_t2i
from dd_jax.data import pairset
from dd_jax.data.conditions import Classes, assign
from dd_jax.method import baselines
from dd_jax.method.fewstep import generator
from dd_jax.metrics import clip
from dd_jax.metrics.classified import caption_found
from dd_jax.pipeline import Pipeline
from dd_jax.stages import checks, pairs, sample, teaching
from dd_jax.stages.pairs import sample_codes
from dd_jax.stages.teaching import train_teacher
from dd_jax.system import stopping
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE
from dd_jax.text.captions import Text, drop_words
from dd_jax.text.tokens import EOS, PAD
from dd_jax.training import preview
from dd_jax.training.course import Course
from dd_jax.training.loop import Recipe

LIST = ("red fox", "blue fox", "red house", "", "an old blue house on a red hill by the sea " * 300)


def small_config():
    """Text to image in miniature: 3 x 3 codes, 6 tokens a caption."""
    config = emoji_t2i.get_config()
    config.data.update({"name": "captions", "resolution": 12, "classes": len(LIST)})
    config.classifier = None
    config.tokenizer.update({"side": 3, "vocab": 12, "code_dim": 4})
    config.text.sizes.update({"width": 16, "depth": 1, "heads": 2, "head_dim": 8, "hidden": 16, "tokens": 6})
    config.model.update({"width": 32, "depth": 2, "heads": 2, "cond": 6, "caption_dim": 16})
    config.cache_chunk = None
    config.train.timesteps = (0, 4)
    config.baselines.onestep = False
    return config


@functools.cache
def system():
    """(system, strong random parameters)."""
    made = factory.build(small_config())
    text = dataclasses.replace(made.text, source=LIST)
    made = dataclasses.replace(made, text=text)
    key = jax.random.key(0)
    shapes = {part: jax.eval_shape(getattr(made, part).init, key) for part in ("tokenizer", "text", "student")}
    params = {part: tiny.strong(tree, i) for i, (part, tree) in enumerate(shapes.items())}
    trunk = tiny.strong(jax.eval_shape(made.teacher_init, key, params["tokenizer"]), 7)
    return made, params | {"teacher": made.teacher_params(trunk, params["tokenizer"])}


@functools.cache
def conditions():
    made, params = system()
    return made.conditions(params)


def codes(numbers, batch, ids=None):
    made, params = system()
    ids = np.arange(len(numbers), dtype=np.int32) if ids is None else ids
    drawn = sample_codes(made.models, params, jax.random.key(5), ids, np.asarray(numbers), batch, conditions())
    return np.concatenate(list(drawn))


def test_a_picture_depends_on_its_caption_and_noise_alone():
    whole = codes([0, 1, 2, 3, 4], 5)
    assert_array_equal(codes([2], 1, np.array([2], np.int32))[0], whole[2])
    assert_array_equal(codes([4, 0, 2], 2, np.array([4, 0, 2], np.int32)), whole[[4, 0, 2]])


def pairs_of_prompts(folder, prompts="these"):
    models, params = system()[0].models, system()[1]
    facts = {"teacher": "t", "prompts": prompts}
    return pairs.generate(folder, models, params, 10, 4, 5, 0, conditions(), "uniform", facts)


def test_resumed_pairs_of_prompts_equal_uninterrupted(tmp_path, monkeypatch):
    pairs_of_prompts(tmp_path / "whole")
    assert len({row.tobytes() for row in pairset.read(tmp_path / "whole/shard-00000.npz")["code"]}) == 4
    seen = iter([False, True])
    with monkeypatch.context() as patch:
        patch.setattr(stopping, "asked", lambda: next(seen))
        with pytest.raises(stopping.Stopped):
            pairs_of_prompts(tmp_path / "resumed")
    torn = tmp_path / "resumed/shard-00000.npz"
    torn.write_bytes(torn.read_bytes()[:-40])
    pairs_of_prompts(tmp_path / "resumed")
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "resumed" / path.name).read_bytes(), path.name
    with pytest.raises(UserError, match="prompts"):
        pairs_of_prompts(tmp_path / "resumed", "others")


def test_numbers_and_captions_are_one_condition():
    by_number, by_words = conditions()(np.array([1, 2])), conditions().of([LIST[1], LIST[2]])
    assert_array_equal(by_number.caption_BxPxF, by_words.caption_BxPxF)
    assert_array_equal(by_number.valid_BxP, by_words.valid_BxP)
    assert_array_equal(by_number.label_B, [1, 2])


def test_empty_and_endless_captions():
    valid = np.asarray(conditions()(np.array([3, 4])).valid_BxP)
    assert valid.sum(1).tolist() == [1, 6]  # the end mark alone, and as much as fits
    assert np.isfinite(conditions()(np.array([3, 4])).caption_BxPxF).all()
    assert codes([3, 4], 2).shape == (2, 9)


@functools.cache
def forward():
    """The teacher without guidance."""
    made, params = system()
    return functools.partial(jax.jit(made.teacher.forward), params["teacher"])


def test_guidance_of_one_is_the_conditional_branch():
    made, params = system()
    plain = dataclasses.replace(made.teacher, guidance=1.0)
    cond, code = conditions()(np.array([0, 2])), jnp.zeros((2, 9), jnp.int32)
    assert_allclose(jax.jit(plain.parallel)(params["teacher"], cond, code), forward()(cond, code), rtol=1e-5, atol=1e-6)
    guided = jax.jit(made.teacher.parallel)(params["teacher"], cond, code)
    assert np.abs(guided - forward()(cond, code)).max() > 1e-2


def test_another_word_changes_every_token():
    made, params = system()
    cond, other = conditions()(np.array([0])), conditions()(np.array([1]))
    code, x = jnp.zeros((1, 9), jnp.int32), jnp.ones((1, 9, 4))
    moved = forward()(cond, code) - forward()(other, code)
    assert (np.abs(moved).max(-1) > 1e-4).all()
    t = jnp.zeros(1, jnp.int32)
    student = jax.jit(made.student)
    outputs = (student(params["student"], one, x, t) for one in (cond, other))
    for a, b in zip(*outputs, strict=True):
        assert (np.abs(a - b).max(-1) > 1e-5).all()


def test_the_teacher_sees_no_later_token():
    cond, code = conditions()(np.array([4])), jnp.zeros((1, 9), jnp.int32)
    before, after = forward()(cond, code), forward()(cond, code.at[0, 5].set(3))
    assert_allclose(before[:, :6], after[:, :6], atol=1e-6)
    assert np.abs(before[:, 6:] - after[:, 6:]).max() > 1e-3


def test_the_student_starts_from_its_teacher_without_a_null_caption():
    made, params = system()
    start = made.student.init_from_teacher(jax.random.key(0), params["teacher"]["trunk"])
    assert "uncond_embedding" not in start["trunk"]["cls_embedding"]
    assert jax.tree.structure(start) == jax.tree.structure(params["student"])
    assert_array_equal(
        start["trunk"]["cls_embedding"]["fc1"]["kernel"], params["teacher"]["trunk"]["cls_embedding"]["fc1"]["kernel"]
    )


def test_pipeline_takes_captions():
    made, params = system()
    pipe = Pipeline(made, params)
    images = pipe.sample(["red fox", "a fox nobody has seen"], plan="S0 S4", seed=3)
    assert images.shape == (2, 12, 12, 3)
    assert_array_equal(pipe.sample(["red fox"], plan="S0 S4", seed=3)[0], images[0])
    with pytest.raises(UserError, match="there are 5 captions"):
        pipe.sample([5])


def test_a_caption_repaints():
    made, params = system()
    pipe = Pipeline(made, params)
    code, keep = np.zeros((2, 9), int), np.arange(9) % 3 < [[1], [2]]
    best = pipe.repaint(code, keep, ["red fox", "a fox nobody has seen"], "J1", candidates=2, seed=3)
    assert_array_equal(best.code_BxL[keep], code[keep])
    assert (best.code_BxL[~keep] != 0).any()


def test_no_encoder_no_captions():
    made, params = system()
    with pytest.raises(UserError, match="captions need their encoder"):
        Pipeline(made, {k: v for k, v in params.items() if k != "text"}).sample(["red fox"])
    with pytest.raises(UserError, match="no class is called"):
        Classes(10).of(["red fox"])
    published = dataclasses.replace(made.text, words=False)
    with pytest.raises(UserError, match="port_weights flan_t5_xl"):
        _ = published.tokenizer


def test_held_out_captions_are_not_drawn_from():
    unseen = (False, True, False, True, False)
    text = Text(system()[0].text.sizes, LIST, unseen=unseen, words=True)
    made = text.conditions(text.init(jax.random.key(0)))
    assert sorted(made.pool) == [0, 2, 4]
    assert sorted(made.held_out) == [1, 3]
    assert set(assign(made.pool, np.arange(40), "uniform", 0)) == {0, 2, 4}
    assert not len(conditions().held_out)


def test_words_are_dropped_but_not_the_end():
    text = system()[0].text
    token = text.tokens(LIST, np.zeros(4000, int))
    kept = np.asarray(drop_words(jax.random.key(0), jnp.asarray(token), 0.25))
    assert not kept[token == PAD].any()
    assert kept[token == EOS].all()
    assert_allclose(kept[:, :2].mean(), 0.75, atol=0.02)


def test_corrupted_codes():
    code = jnp.asarray(np.random.default_rng(0).integers(0, 1000, (400, 50)))
    changed = np.asarray(teaching.corrupt(jax.random.key(0), code, 0.4)) != code
    assert_allclose(changed.mean(), 0.2, atol=0.02)
    assert changed.mean(1).max() > 0.3
    assert teaching.corrupt(jax.random.key(0), code, 0.0) is code


def test_the_encoder_learns_with_the_teacher():
    made, params = system()
    text, token = made.text, jnp.asarray(made.text.tokens(LIST, np.array([0, 1])))
    code = jnp.zeros((2, 9), jnp.int32)

    def loss(encoder):
        read = text.read(encoder, token)
        return jnp.mean(made.teacher.forward(params["teacher"], read, code) ** 2)

    grads = jax.jit(jax.grad(loss))(params["text"])
    assert all(float(jnp.abs(g).max()) > 0 for g in jax.tree.leaves(grads))


def test_marginals_need_only_captions_that_are_drawn():
    code, label = np.zeros((4, 9), np.int32), np.array([0, 2, 4, 4])
    assert baselines.marginals(code, label, np.array([0, 2, 4]))["start"].tolist() == [0, 1, 1, 2, 2, 4]
    with pytest.raises(UserError, match="no teacher sample of class 1"):
        baselines.marginals(code, label, np.array([0, 1]))


def test_pictures_without_captions_train_no_teacher_of_captions():
    config = emoji_t2i.get_config()
    checks.pretraining(factory.build(config), config, lambda: ALONE)
    config.data.update({"name": "digits", "channels": 1, "classes": 10})
    with pytest.raises(UserError, match=r"config\.data\.name=digits has no captions for a teacher that reads them"):
        checks.pretraining(factory.build(config), config, lambda: ALONE)
    config.weights.random = True
    checks.pretraining(factory.build(config), config, lambda: ALONE)


def test_caption_found():
    label = np.arange(60)
    perfect = 10.0 * np.eye(60)
    assert caption_found(perfect, label) == 1
    assert caption_found(-perfect, label) == 0
    chance = caption_found(np.random.default_rng(1).normal(size=(3000, 60)), np.arange(3000) % 60)
    assert_allclose(chance, 1 / 51, atol=0.008)


def sampling(tmp_path, **settings):
    made, params = system()
    config = small_config()
    config.sample.update({"plans": ("S0",), "count": 7, "few": 3, "batch": 4, "shard": 4, **settings})
    return sample.Sampling(made, config, tmp_path, lambda *parts: {part: params[part] for part in parts})


def test_pictures_lie_beside_their_captions(tmp_path):
    prompts = tmp_path / "mine.txt"
    prompts.write_text("red house\nblue fox\n\na red fox by the sea\n")
    wrote = sample.run(sampling(tmp_path, prompts=str(prompts)))
    folder = tmp_path / "samples" / "prompts" / "S0_images"
    assert folder in wrote
    texts = (folder / "captions.txt").read_text().splitlines()
    rows = [json.loads(line) for line in (folder / "result.jsonl").read_text().splitlines()]
    assert texts == ["red house", "blue fox", "a red fox by the sea"]
    assert [row["text"] for row in rows] == texts
    assert clip.rows(folder) == [(row["text"], folder / row["image_path"]) for row in rows]
    made, params = system()
    same = Pipeline(made, params).sample(texts, plan="S0", seed=0)
    for row, image in zip(rows, same, strict=True):
        assert_array_equal(np.asarray(Image.open(folder / row["image_path"])), image)


def test_one_prompt_and_none(tmp_path):
    sample.run(sampling(tmp_path, prompt="blue house"))
    assert (tmp_path / "samples/named/S0_images/captions.txt").read_text() == "blue house\n" * 3
    sample.run(sampling(tmp_path))
    assert len((tmp_path / "samples/S0_images/captions.txt").read_text().splitlines()) == 7
    with pytest.raises(UserError, match="give one of them"):
        sampling(tmp_path, prompt="a", prompts="b.txt")
    with pytest.raises(UserError, match="does not exist"):
        sampling(tmp_path, prompts=str(tmp_path / "none.txt"))


def test_classes_take_no_prompts(tmp_path):
    config = common.demo("llamagen")
    config.sample.prompt = "a fox"
    made = dataclasses.replace(system()[0], text=None)
    with pytest.raises(UserError, match="use --labels"):
        sample.Sampling(made, config, tmp_path, lambda *parts: {})


def test_clip_scores_read_what_sampling_wrote(tmp_path):
    with pytest.raises(UserError, match=r"no .*result\.jsonl"):
        clip.rows(tmp_path)
    (tmp_path / "result.jsonl").write_text('{"text": "fox"}\n')
    with pytest.raises(UserError, match="line 1"):
        clip.rows(tmp_path)
    (tmp_path / "result.jsonl").write_text('{"text": "fox", "image_path": "images/0.png"}\n')
    with pytest.raises(UserError, match="is missing"):
        clip.rows(tmp_path)
    assert_allclose(clip.cosines(np.array([[3.0, 4], [1, 0]]), np.array([[6.0, 8], [0, 2]])), [1, 0], atol=1e-12)


def test_two_steps_start_from_one(tmp_path):
    made, params = system()
    cond, keys = conditions()(np.array([0, 1])), jax.random.split(jax.random.key(0), 2)
    one, two = (jax.jit(generator(plan, made.models))(params, cond, keys) for plan in ("S0", "S0 S4"))
    assert_array_equal(one.code_BxL[:, :4], two.code_BxL[:, :4])
    assert (one.code_BxL[:, 4:] != two.code_BxL[:, 4:]).any()


def test_a_teacher_of_captions_draws_while_it_learns(tmp_path, monkeypatch):
    monkeypatch.setattr(preview, "COUNT", 4)
    made, params = system()
    code = np.random.default_rng(0).integers(0, 12, (10, 9))
    course = Course("teacher", tmp_path, Recipe(steps=2, batch=4, lr=1e-2, warmup=1))
    token = made.text.tokens(LIST, np.arange(10) % len(LIST))
    trained = train_teacher(made, course, params["tokenizer"], code, token, grid_every=2)
    assert {*trained} == {"trunk", "text"}
    assert np.ptp(np.asarray(Image.open(tmp_path / "grids" / "step-00000002.png"))) > 0
