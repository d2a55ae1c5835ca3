"""Published files -> folders -> published keys: strict both ways, and used like a trained run."""

import dataclasses
import json
import subprocess
import sys

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import dd_jax
from dd_jax.configs import llamagen as configs
from dd_jax.scripts.fake_release import state_dict, write_torch
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from port_weights import __main__ as cli
from port_weights import catalog, rules
from port_weights.catalog import CATALOG, find

PARAMETERS = {
    "llamagen_b": 110_888_448,
    "llamagen_l": 342_910_976,
    "llamagen_xl_384": 774_699_520,
    "llamagen_xxl_384": 1_410_972_672,
    "llamagen_3b_384": 3_096_659_200,
    "llamagen_b_dd": 98_321_672,
    "llamagen_l_dd": 326_155_272,
    "vq16": 71_883_403,
    "vq8": 70_109_835,
    "vq16_t2i": 71_883_403,
    "llamagen_t2i_xl_256": 777_678_080,
    "llamagen_t2i_xl_512": 777_678_080,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_published_parameter_counts(name):
    assert find(name).count() == find(name).parameters == PARAMETERS[name]


def small():
    """LlamaGen-B and VQ-16 in their own shape, at toy sizes."""
    config = configs.get("b")
    config.data.resolution, config.data.classes = 64, 7
    config.tokenizer.update({"side": 4, "vocab": 64})
    config.tokenizer.stack.update({"ch": 8, "z_channels": 8, "groups": 4})
    config.model.update({"width": 32, "depth": 2, "heads": 2})
    config.student.split, config.train.timesteps, config.sample.by_plan = 8, (0, 8), {}
    return config


@pytest.fixture
def tiny(monkeypatch):
    """The catalog, at toy sizes."""
    for name in ("vq16", "llamagen_b", "llamagen_b_dd"):
        monkeypatch.setitem(CATALOG, name, dataclasses.replace(CATALOG[name], config=small))


@pytest.fixture
def released(tiny, tmp_path):
    """name -> a file in the published format."""
    return {
        name: write_torch(tmp_path / f"{name}.pt", find(name).wrapped(state_dict(name)))
        for name in ("vq16", "llamagen_b", "llamagen_b_dd")
    }


@pytest.fixture
def ported(released, tmp_path):
    for name, file in released.items():
        cli.port(find(name), file, tmp_path / "weights")
    return tmp_path / "weights"


def test_a_ported_student_samples(ported):
    pipe = dd_jax.load(ported / "llamagen_b_dd")
    images = pipe.sample([0, 5], plan="S0 T6:8 S8", seed=1)
    assert images.shape == (2, 64, 64, 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(pipe.sample([0, 5], plan="S0 T6:8 S8", seed=1), images)


def test_one_compilation_a_plan_and_shape(ported):
    pipe = dd_jax.load(ported / "llamagen_b_dd")
    for plan in ("S0", "S0 T6:8 S8"):
        for labels, seed in (([0, 5], 1), ([3, 3], 2), ([6, 1], 3)):
            pipe.sample(labels, plan=plan, seed=seed)
    assert [program._cache_size() for program in pipe._compiled.values()] == [1, 1]


def test_companions_by_hand(ported, tmp_path):
    (ported / "vq16").rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match="needs its tokenizer vq16: python -m port_weights vq16 --out"):
        dd_jax.load(ported / "llamagen_b_dd")
    (ported / "llamagen_b").rename(tmp_path / "teacher")
    pipe = dd_jax.load(ported / "llamagen_b_dd", tokenizer=tmp_path / "elsewhere")
    assert pipe.sample([3]).shape == (1, 64, 64, 3)
    with pytest.raises(UserError, match=r"needs a teacher: dd_jax.load\(folder, teacher=FOLDER\)"):
        pipe.sample([3], plan="T0:16")


@pytest.mark.parametrize("name", ["vq16", "llamagen_b", "llamagen_b_dd"])
def test_there_and_back(ported, released, tmp_path, name):
    out = cli.export(ported / name, tmp_path / "back.safetensors")
    wanted, found = state_dict(name), load_file(out)
    assert wanted.keys() == found.keys()
    for key, x in wanted.items():
        np.testing.assert_array_equal(found[key], x)
    again = cli.port(find(name), out, tmp_path / "again")
    assert weights.describe(again)["sha256"] == weights.describe(ported / name)["sha256"]


def test_a_folder_says_what_it_is(ported, released):
    about = weights.describe(ported / "llamagen_b_dd")
    assert about["id"] == "llamagen_b_dd"
    assert about["licence"] == "MIT"
    source = {"file": "llamagen_b_dd.pt", "sha256": weights.sha256(released["llamagen_b_dd"]), "dropped": []}
    assert about["source"] == source
    assert about["config"]["model"]["width"] == 32


def test_half_precision_stays_half(tiny, tmp_path):
    half = {key: x.astype(ml_dtypes.bfloat16) for key, x in state_dict("llamagen_b").items()}
    file = write_torch(tmp_path / "half.pt", {"model": half})
    folder = cli.port(find("llamagen_b"), file, tmp_path)
    assert 2 * find("llamagen_b").count() < (folder / weights.WEIGHTS).stat().st_size < file.stat().st_size
    params = weights.load(folder, find("llamagen_b").expected())
    assert {x.dtype for x in jax.tree.leaves(params)} == {np.dtype(np.float32)}


def spoil(weights, how):
    key = next(key for key in weights if key.endswith("w1.weight"))
    if how == "missing":
        del weights[key]
    elif how == "unknown":
        weights["layers.0.attention.bias"] = np.zeros(3, np.float32)
    elif how == "misshaped":
        weights[key] = weights[key][:-1]
    elif how == "mistyped":
        weights[key] = weights[key].astype(np.int32)
    elif how == "not finite":
        weights[key] = np.where(np.arange(weights[key].shape[1]) == 5, np.float32(np.nan), weights[key])
    return weights


@pytest.mark.parametrize("how", ["missing", "unknown", "misshaped", "mistyped", "not finite"])
def test_a_wrong_file_is_refused_and_leaves_nothing(tiny, tmp_path, how):
    file = write_torch(tmp_path / "bad.pt", {"model": spoil(state_dict("llamagen_b"), how)})
    with pytest.raises(UserError, match=how):
        cli.port(find("llamagen_b"), file, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))


def test_a_file_of_the_other_family_is_refused(tiny, tmp_path):
    import helpers

    file = write_torch(tmp_path / "var.pth", helpers.weights("var/var_tiny/var_l2_unshared.safetensors"))
    with pytest.raises(UserError, match=r"var\.pth as llamagen_b: .* missing: cls_embedding.* unknown: "):
        cli.port(find("llamagen_b"), file, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_known_strays_are_named_and_dropped(tiny, tmp_path, capsys):
    more = {**state_dict("llamagen_b"), "freqs_cis": np.zeros((17, 8, 2), np.float32)}
    folder = cli.port(find("llamagen_b"), write_torch(tmp_path / "w.pt", {"model": more}), tmp_path)
    assert weights.describe(folder)["source"]["dropped"] == ["freqs_cis"]
    assert "left out, since it is not needed: freqs_cis" in capsys.readouterr().out


def test_another_models_folder_is_named(ported):
    with pytest.raises(UserError, match="holds llamagen_b, which is not the configured model"):
        weights.load(ported / "llamagen_b", find("vq16").expected())


def test_damage_is_found(ported):
    path = ported / "vq16" / weights.WEIGHTS
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(UserError, match="checksum differs"):
        weights.load(ported / "vq16", find("vq16").expected(), verify=True)
    path.write_bytes(data[:100])
    with pytest.raises(UserError, match="is damaged"):
        weights.load(ported / "vq16", find("vq16").expected())


def test_a_file_that_is_here_may_be_safetensors(tiny, tmp_path):
    save_file(state_dict("vq16"), tmp_path / "vq.safetensors")
    folder = cli.port(find("vq16"), tmp_path / "vq.safetensors", tmp_path)
    params = weights.load(folder, find("vq16").expected())
    np.testing.assert_array_equal(params["quantizer"]["embedding"], state_dict("vq16")["quantize.embedding.weight"])


def command(*words):
    return subprocess.run([sys.executable, "-m", "port_weights", *map(str, words)], capture_output=True, text=True)


def test_the_command_lists_and_explains(tmp_path):
    listed = command("list")
    assert "llamagen_3b_384" in listed.stdout
    assert "c2i_L_256.pt" in listed.stdout
    assert "342,910,976" in listed.stdout
    unknown = command("llamagen_9")
    assert unknown.returncode == 1
    assert unknown.stderr.startswith("error: unknown model 'llamagen_9'")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(catalog.CATALOG))
def test_noted_counts_are_true(name):
    assert find(name).parameters == find(name).count()


def test_offline_it_says_what_to_fetch(monkeypatch, tmp_path):
    def offline(*args):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(UserError, match=r"fetch https://huggingface.co/.*c2i_B_256.pt .* --src c2i_B_256.pt"):
        cli.fetch(catalog.find("llamagen_b"), tmp_path)


def test_published_key_lists_are_what_the_tables_give():
    """Every published key and shape, by table and config alone (goldens hold the lists)."""
    import helpers

    lists = {
        "llamagen_b": "c2i_GPT-B",
        "llamagen_xl_384": "c2i_GPT-XL",
        "llamagen_xxl_384": "c2i_GPT-XXL",
        "llamagen_3b_384": "c2i_GPT-3B",
        "llamagen_l_dd": "LlamaGen-DD_GPT-L",
        "llamagen_t2i_xl_256": "t2i_GPT-XL",
        "vq8": "VQ-8",
    }
    for name, golden in lists.items():
        known = find(name)
        zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), known.expected())
        found = {key: list(x.shape) for key, x in rules.export(zeros, known.table()).items()}
        wanted = helpers.read_json(f"llamagen/keys_{golden}.json")
        wanted = wanted.get("state_dict", wanted)
        assert {k: v for k, v in wanted.items() if k != "quantize.codebook_used"} == found, json.dumps(golden)
