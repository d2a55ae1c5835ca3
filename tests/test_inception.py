"""The FID network against the reference's outputs: published keys, every block, features under all protocols."""

import hashlib
import json
import os
import subprocess
import sys

import helpers
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from inception_recipe import recipe, state_dict
from PIL import Image

import dd_jax
from dd_jax.data import images
from dd_jax.metrics import features, inception, protocols, resize
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from dd_jax.system.torch_writer import write_torch
from port_weights import __main__ as cli
from port_weights import rules
from port_weights.catalog import find

SIDES = (64, 256, 384, 512)


@pytest.fixture(scope="module", autouse=True)
def usual_compiles():
    """The network runs five times faster than under `quick_compiles`, which is more than compiling costs."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)


@pytest.fixture(scope="module")
def published():
    known = find("inception")
    return rules.convert(state_dict(), known.table(), known.expected())


@pytest.fixture(scope="module")
def network(published):
    return inception.Inception(inception.fold(published), {"id": "recipe", "sha256": "0" * 64})


@pytest.fixture(scope="module")
def golden():
    return helpers.arrays("eval/inception/outputs.npz")


def test_the_recipe_is_the_goldens_own():
    checks = helpers.read_json("eval/inception/checks.json")["weights_[sum,first,last]"]
    assert hashlib.sha256(recipe.images(256).tobytes()).hexdigest() == checks.pop("images256_sha256")
    for key, (total, first, last) in checks.items():
        x = state_dict()[key]
        np.testing.assert_allclose([x.sum(dtype=np.float64), x.flat[0], x.flat[-1]], [total, first, last], rtol=1e-6)


def test_published_keys_are_what_the_table_gives(published):
    golden = helpers.read_json("eval/keys_inception.json")
    for name in ("inception", "inception_fidelity"):
        known = find(name)
        assert known.count() == known.parameters == golden["n_values"] == 23_885_392
        found = rules.export(published, known.table())
        assert {key: list(x.shape) for key, x in found.items()} == golden["keys"]
        for key in ("Conv2d_1a_3x3.conv.weight", "Mixed_6d.branch7x7_2.bn.running_var", "fc.weight"):
            np.testing.assert_array_equal(found[key], state_dict()[key])
    assert (
        find("inception")
        .urls[0]
        .startswith("https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_")
    )


@pytest.mark.parametrize("name", protocols.PROTOCOLS)
def test_features(name, network, golden):
    """Within 1e-5 of the largest value; measured 4e-7, 2e-6 for the spatial ones."""
    extractor = features.Extractor(network, protocols.find(name), batch=4)
    found, digest = extractor.collect(images.from_array(recipe.images(256)))
    assert digest == hashlib.sha256(recipe.images(256).tobytes()).hexdigest()
    for ours, theirs in (("pool3", "pool3"), ("logits", "logits"), ("logits_unbiased", "logits_unbiased")) + (
        (("spatial", "spatial2023"),) if name == "adm" else ()
    ):
        if (want := golden.get(f"{name}/{theirs}")) is not None:
            np.testing.assert_allclose(found[ours], want, rtol=0, atol=1e-5 * np.abs(want).max())


def test_every_block(network, golden):
    """Means, corners (where padding shows) and centres after each block."""
    img = jnp.asarray(recipe.images(256))[:2]

    @jax.jit
    def run(params, img):
        x = protocols.find("adm").prepare(img)
        net = inception.InceptionNet()
        _, state = net.apply({"params": params}, x, capture_intermediates=True, mutable=["intermediates"])
        return {name: found["__call__"][0] for name, found in state["intermediates"].items() if name != "__call__"}

    maps = run(network.params, img)
    for name in sorted({key.split("/")[1] for key in golden if key.startswith("tap/") and "Pool" not in key}):
        x = np.asarray(maps[name][0] if isinstance(maps[name], tuple) else maps[name])
        assert x.shape[1:] == tuple(golden[f"tap/{name}/shape_nhwc"])[1:], name
        views = {"mean": x.mean((1, 2)), "corner00": x[:, 0, 0], "center": x[:, x.shape[1] // 2, x.shape[2] // 2]}
        for view, found in views.items():
            want = golden[f"tap/{name}/{view}"][:2]
            np.testing.assert_allclose(found, want, rtol=0, atol=1e-5 * np.abs(x).max(), err_msg=f"{name} {view}")


def test_a_short_last_batch_is_padded(network, golden):
    extractor = features.Extractor(network, protocols.find("adm"), batch=4)
    twice = np.concatenate([recipe.images(256), recipe.images(256)[:3]])
    found, _ = extractor.collect(images.from_array(twice), ("pool3",))
    want = golden["adm/pool3"][[0, 1, 2, 3, 0, 1, 2]]
    np.testing.assert_allclose(found["pool3"], want, rtol=0, atol=1e-5 * want.max())


@pytest.mark.parametrize("side", SIDES)
def test_resize(side):
    """Within 0.003 grey levels; measured 5e-5."""
    img = recipe.images(side).astype(np.float32)
    tf1 = helpers.arrays("eval/resize/tf1.npz")
    other = helpers.arrays("eval/resize/pytorch_fid_and_clean.npz")
    for matrix, golden, name in (
        (resize.tf1_bilinear, tf1, f"tf1_{side}"),
        (resize.half_pixel_bilinear, other, f"halfpixel_{side}"),
        (resize.pil_bicubic, other, f"clean_{side}"),
    ):
        x = np.asarray(resize.resize(jnp.asarray(img), 299, matrix))
        x = np.clip(x, 0, 255)  # only bicubic overshoots
        np.testing.assert_allclose(x[:, ::13, ::13], golden[f"{name}/strided13"], atol=3e-4, rtol=0)
        np.testing.assert_allclose(x[:, -1], golden[f"{name}/last_row"], atol=3e-4, rtol=0)
        if f"{name}/mean" in golden:
            np.testing.assert_allclose(x.mean((1, 2), dtype=np.float64), golden[f"{name}/mean"], rtol=1e-6)


@pytest.mark.parametrize(("rows", "columns"), [(20, 31), (299, 299), (500, 333)])
def test_bicubic_is_pillows_own(rows, columns):
    img = np.random.default_rng(0).integers(0, 256, (rows, columns, 3)).astype(np.float32)
    found = resize.resize(jnp.asarray(img)[None], 299, resize.pil_bicubic)[0]
    for channel in range(3):
        picture = Image.fromarray(img[..., channel]).resize((299, 299), Image.Resampling.BICUBIC)
        np.testing.assert_allclose(found[..., channel], np.asarray(picture), atol=3e-4)


@pytest.mark.parametrize("matrix", [resize.tf1_bilinear, resize.half_pixel_bilinear, resize.pil_bicubic])
def test_resizing_keeps_constants(matrix):
    for side in (8, 64, 299, 1000):
        np.testing.assert_allclose(matrix(side, 299).sum(1), 1, atol=1e-6)
    np.testing.assert_allclose(matrix(299, 299), np.eye(299), atol=1e-6)


def test_folding_is_the_batch_norm():
    rng = np.random.default_rng(0)
    norm = {name: rng.uniform(0.5, 1.5, 4).astype(np.float32) for name in ("scale", "running_mean", "running_var")}
    layer = {"kernel": rng.standard_normal((3, 3, 2, 4)).astype(np.float32), "bias": np.ones(4, np.float32), **norm}
    folded = inception.fold({"a": layer})["a"]
    np.testing.assert_allclose(
        folded["kernel"] * np.sqrt(norm["running_var"] + 1e-3), layer["kernel"] * norm["scale"], rtol=1e-5
    )
    np.testing.assert_allclose(
        folded["bias"], 1 - norm["running_mean"] * norm["scale"] / np.sqrt(norm["running_var"] + 1e-3), rtol=1e-4
    )
    with pytest.raises(UserError, match="a has a negative variance"):
        inception.fold({"a": layer | {"running_var": -norm["running_var"]}})


def test_a_published_file_becomes_a_folder(tmp_path, published):
    """With the counters that some copies of the file hold; and back again."""
    counters = {"Mixed_7c.branch1x1.bn.num_batches_tracked": np.zeros((), np.int64)}
    file = write_torch(tmp_path / "pt_inception.pth", state_dict() | counters)
    folder = cli.port(find("inception"), file, tmp_path)
    assert weights.describe(folder)["source"]["dropped"] == list(counters)
    back = inception.load(folder)
    for a, b in zip(jax.tree.leaves(back.params), jax.tree.leaves(inception.fold(published)), strict=True):
        np.testing.assert_array_equal(a, b)
    assert back.about["licence"] == "Apache-2.0"
    with pytest.raises(UserError, match=r"holds inception, which draws no images"):
        dd_jax.load(folder)
    out = cli.export(folder, tmp_path / "back.safetensors")
    assert helpers.load_file(out).keys() == state_dict().keys()


def test_wrong_files_are_refused(tmp_path):
    bad = {**state_dict(), "AuxLogits.fc.bias": np.zeros(3, np.float32)}
    del bad["fc.bias"]
    with pytest.raises(UserError, match=r"1 missing: fc.bias; 1 unknown: AuxLogits.fc.bias"):
        cli.port(find("inception"), write_torch(tmp_path / "bad.pth", bad), tmp_path)
    weights.save(tmp_path / "other", {"x": np.zeros(2, np.float32)}, {"id": "vq16", "part": "tokenizer"})
    with pytest.raises(UserError, match="holds vq16: --inception takes what"):
        inception.load(tmp_path / "other")
    with pytest.raises(UserError, match="no weights in"):
        inception.load(tmp_path / "nothing")


def test_offline_it_says_what_to_fetch(monkeypatch, tmp_path):
    def offline(*args, **kwargs):
        raise OSError("no network")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(UserError, match=r"fetch https://github.com/mseitzer/.*6726825d.pth .* --src pt_inception"):
        cli.fetch(find("inception"), tmp_path)


def test_unknown_choices_are_named(network):
    with pytest.raises(UserError, match="unknown protocol 'fid': choose one of adm, pytorch_fid, clean"):
        protocols.find("fid")
    with pytest.raises(UserError, match="precision 'exact': choose one of highest, high, default"):
        features.Extractor(network, protocols.find("adm"), precision="exact")
    with pytest.raises(UserError, match="batches of 0 images"):
        features.Extractor(network, protocols.find("adm"), batch=0)


@pytest.mark.slow
def test_the_commands_from_the_published_file_to_scores(tmp_path):
    """Port, record, score: as a person would, on four devices; then a result for one set is that of itself."""
    write_torch(tmp_path / "pt_inception.pth", state_dict())
    rng = np.random.default_rng(0)
    np.savez(tmp_path / "real.npz", rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8))
    how = ["--protocol", "adm", "--inception", "w/inception"]
    score = ["dd_jax.metrics.score", "real.npz", "--reference", "ref.npz", *how, "--json", "out.json", "--batch", "6"]
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": os.getcwd()}
    for words in (
        ["port_weights", "inception", "--src", "pt_inception.pth", "--out", "w"],
        ["dd_jax.metrics.reference", "real.npz", *how, "--out", "ref.npz"],
        score,
    ):
        done = subprocess.run(
            [sys.executable, "-m", *words], cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "out.json").read_text())
    assert result["device"].startswith("4 x")
    assert result["fid"] == pytest.approx(0, abs=1e-3)
    assert result["precision"] == result["recall"] == 1.0
    assert result["weights"]["id"] == "inception"
