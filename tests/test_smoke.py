"""Full-size configs: what they say, and their smoke mode, here at toy widths."""

import importlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

import dd_jax
from dd_jax import factory, pipeline
from dd_jax.configs import llamagen, llamagen_t2i
from dd_jax.method.fewstep import generator
from dd_jax.method.filtering import Filter
from dd_jax.method.interfaces import Cond
from dd_jax.method.plans import cost
from dd_jax.metrics.lpips import LPIPS
from dd_jax.stages.parts import load_params
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.text.captions import EXAMPLES
from dd_jax.text.prompts import Prompts

SIZES = ("b", "l", "xl", "xxl", "3b")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("option", ["", "384"])
def test_every_config_builds(size, option):
    config = importlib.import_module(f"dd_jax.configs.llamagen_{size}").get_config(option)
    system = factory.build(config)
    assert system.layout.steps == (576 if option else 256)
    assert config.train.steps == 1_200_000 * 70 // 512
    assert system.teacher.guidance == {"b": 2.0, "l": 2.0, "xl": 1.75, "xxl": 1.75, "3b": 1.65}[size]


def test_an_unknown_option():
    with pytest.raises(ValueError, match="choose 256, 384, vq8"):
        llamagen.get("b", "512")


def test_published_plans_have_the_published_settings():
    models = factory.build(llamagen.get("l")).models
    assert (models.of("S0 S80").split, models.of("S0 S80").draw) == (130, Filter())
    assert (models.of("S0 T60:80 S80").split, models.of("S0 T60:80 S80").draw) == (180, Filter(top_k=8000))
    assert models.of("T0:80 S80").split == 220
    assert [cost(plan, 256) for plan in ("S0 T60:80 S80", "S0 T40:80 S80", "T0:80 S80")] == [22, 42, 81]
    assert factory.build(llamagen.get("b")).models.split == 80


def test_cfg_interval_counts_as_the_release_does():
    config = llamagen.get("b")
    config.cfg_interval = 5
    weight = factory.build(config).teacher.weight_S
    np.testing.assert_array_equal(weight[5:9], [2, 2, 1, 1])


def narrow(config):
    """Everything that costs time made small."""
    config.smoke = True
    config.data.update({"resolution": 8})
    config.tokenizer.update({"side": 4, "vocab": 64})
    config.tokenizer.stack.update({"ch": 8, "ch_mult": (1, 1), "z_channels": 8, "groups": 4})
    config.model.update({"width": 32, "heads": 2})
    return config


def toy():
    """LlamaGen-L's config at toy width."""
    config = narrow(llamagen.get("l"))
    config.student.split, config.train.timesteps = 8, (0, 8)
    config.sample.by_plan = {"S0 T6:8 S8": {"split": 12, "top_k": 5}}
    config.sample.plans = config.evaluate.plans = ("S0", "S0 T6:8 S8")
    config.speed.plans = ("decode", "S0")
    config.sample.labels = "golden retriever, 3"
    return config


def toy_of_captions():
    """The text-to-image config at toy width."""
    config = narrow(llamagen_t2i.get_config())
    config.text.sizes.update({"width": 32, "heads": 2, "head_dim": 16, "hidden": 32, "tokens": 8})
    config.model.update({"cond": 8, "caption_dim": 32})
    config.train.timesteps = (0, 8)
    config.sample.plans = config.evaluate.plans = config.speed.plans = ("S0", "S0 S8")
    return config


PAST = ("llamagen_l_flow", "var_d16_flow", "llamagen_l_csd", "var_d16_csd")


@pytest.mark.parametrize(
    "name", ["llamagen_l", "llamagen_xl:384", "llamagen_3b", "llamagen_t2i:512", "var_d30", "var_d36", *PAST]
)
def test_a_smoke_run_is_small(name):
    module, _, option = name.partition(":")
    get = importlib.import_module(f"dd_jax.configs.{module}").get_config
    config, full = (get(option) if option else get() for _ in range(2))
    config.train.update({"batch": 512, "accumulate": 4, "distance_batch": 64})
    factory.shrink(config)
    assert config.train.batch * (config.data.resolution / 256) ** 2 <= 4  # images of 256 px under LPIPS: 2 GB each
    assert (config.model.depth, config.train.accumulate, config.train.distance_batch) == (1, 1, 0)
    assert max(config.pairs.count, config.sample.count, config.evaluate.count, config.train.steps) <= 8
    assert max(config.pairs.batch, config.sample.batch, config.evaluate.batch, *config.speed.batches) <= 4
    assert tuple(config.mesh) == (1, 1)
    assert config.weights.random
    assert {one for part, one in config.weights.items() if part != "random"} == {None}
    for same in ("tokenizer", "data", "flow", "filter", "student"):  # full width, and the same path
        assert config[same] == full[same], same
    assert (config.model.width, config.train.distance) == (full.model.width, full.train.distance)
    factory.build(config)


def run_all(config, workdir):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(factory, "LPIPS", lambda: LPIPS(((4,), (8,))))  # VGG16 would take most of the time
        pipeline.run(config, str(workdir), "all")
    return workdir


@pytest.fixture(scope="module")
def smoke_run(tmp_path_factory):
    return run_all(toy(), tmp_path_factory.mktemp("smoke"))


@pytest.mark.slow
def test_captions_go_through_every_stage(tmp_path):
    run_all(toy_of_captions(), tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    assert [row["plan"] for row in rows] == ["T0:16", "S0", "S0 S8"]
    manifest = json.loads((tmp_path / "pairs/settings.json").read_text())
    assert manifest["prompts"] == Prompts.of(*EXAMPLES).sha256
    assert len(list((tmp_path / "samples/S0_S8_images/images").glob("*.png"))) == 4
    captions = (tmp_path / "samples/S0_images/captions.txt").read_text().splitlines()
    assert len(captions) == 4
    assert set(captions) <= set(EXAMPLES)  # drawn at random, as the config says
    assert "Table 3" in (tmp_path / "report.html").read_text()


def test_the_text_to_image_student_has_the_published_size():
    system = factory.build(llamagen_t2i.get_config())
    shapes = jax.eval_shape(system.student.init, jax.random.key(0))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == 756_733_448
    assert system.layout.cond == 120
    assert factory.build(llamagen_t2i.get_config("512")).layout.tokens == 1024
    with pytest.raises(ValueError, match="choose 256 or 512"):
        llamagen_t2i.get_config("384")


def test_smoke_runs_every_stage(smoke_run):
    rows = [json.loads(line) for line in (smoke_run / "results.jsonl").read_text().splitlines()]
    assert [row["plan"] for row in rows] == ["T0:16", "S0", "S0 T6:8 S8"]
    assert all(row["fd"] is None and np.isfinite(row["nll"]) for row in rows)
    assert "weights of tokenizer, teacher" in (smoke_run / "report.html").read_text()
    speed = json.loads((smoke_run / "speed.json").read_text())
    assert speed["random_weights"] == ["tokenizer", "teacher"]
    assert [(row["plan"], row["steps"]) for row in speed["plans"]] == [("T0:16", 16), ("decode", 0), ("S0", 1)]
    assert all(row["share_of_matmul"] > 0 and row["memory_gb"] > 0 for row in speed["plans"])
    with np.load(smoke_run / "samples/named/S0.npz") as file:
        assert file["arr_0"].shape == (4, 8, 8, 3)
        np.testing.assert_array_equal(file["label"], [207, 3, 207, 3])


def test_a_trained_student_is_a_folder_like_a_ported_one(smoke_run):
    about = json.loads((smoke_run / "weights/student/config.json").read_text())
    assert about["part"] == "student"
    with pytest.raises(UserError, match="needs its tokenizer"):
        dd_jax.load(smoke_run / "weights/student")  # random tokenizers are not kept


def test_categorical_images_do_not_depend_on_their_batch():
    system = factory.build(factory.shrink(toy()))  # one layer, not 24
    models, key = system.models, jax.random.key(0)
    tokenizer = tiny.strong(jax.eval_shape(system.tokenizer.init, key))
    teacher = tiny.strong(jax.eval_shape(system.teacher_init, key, tokenizer))
    params = {"tokenizer": tokenizer, "teacher": {"trunk": teacher}}

    @jax.jit
    def codes(ids):
        return generator("T0:16", models)(params, Cond(ids), rng.example_keys(key, ids)).code_BxL

    def draw(ids):
        return np.asarray(codes(jnp.asarray(ids)))

    three = draw([1, 2, 3])
    assert (three[0] != three[1]).any()
    np.testing.assert_array_equal(draw([3])[0], three[2])


def test_a_part_that_is_nowhere_says_what_to_do(tmp_path):
    config = toy()
    config.smoke = False
    with pytest.raises(
        UserError, match=r"no tokenizer for this config: .* port_weights vq16 .* --config\.weights\.tokenizer="
    ):
        load_params(factory.build(config), config, tmp_path, ("tokenizer", "teacher"))


def test_without_weights_it_says_what_to_do(tmp_path):
    config = toy()
    config.smoke = False
    with pytest.raises(
        UserError, match=r"no tokenizer and no teacher for this config: .*port_weights vq16 llamagen_l "
    ):
        pipeline.run(config, tmp_path, "pretrain")
