"""Porting what people bring: wrapped keys, other numbers of classes, exports for PyTorch, no network, no room."""

import dataclasses
import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

import dd_jax
from dd_jax.configs import llamagen as llamagen_configs
from dd_jax.configs import var as var_configs
from dd_jax.scripts.fake_release import state_dict
from dd_jax.system import hub, weights
from dd_jax.system.errors import UserError
from dd_jax.system.torch_old import open_torch
from dd_jax.system.torch_writer import write_torch
from port_weights import __main__ as cli
from port_weights import prefixes
from port_weights.catalog import CATALOG, find
from port_weights.source import StateDict, open_weights

VQ = "vq16"


def lean(config, side):
    """As few layers as there can be."""
    config.data.resolution, config.data.classes = 8, 7
    config.tokenizer.update({"vocab": 64})
    config.tokenizer.stack.update({"ch": 8, "ch_mult": (1, 1), "groups": 4, "encoder_blocks": 1, "decoder_blocks": 1})
    config.model.update({"width": 32, "depth": 1, "heads": 2})
    config.student.split, config.train.timesteps, config.sample.by_plan = side, (0, side), {}
    return config


def llamagen():
    config = lean(llamagen_configs.get("b"), 8)
    config.tokenizer.update({"side": 4})
    config.tokenizer.stack.update({"z_channels": 8})
    return config


def var():
    config = lean(var_configs.get(16), 2)
    config.tokenizer.update({"sides": (1, 2, 4)})
    return config


@pytest.fixture
def tiny(monkeypatch):
    """The catalog, at toy sizes."""
    for name, config in ((VQ, llamagen), ("llamagen_b", llamagen), ("var_vae", var), ("var_d16", var)):
        monkeypatch.setitem(CATALOG, name, dataclasses.replace(CATALOG[name], config=config))


def zeros(*keys):
    return StateDict(keys, lambda key: np.zeros(1, np.float32), dict.fromkeys(keys, "float32"))


WANTED = {"a.weight", "a.bias", "norm.weight"}


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "module._orig_mod.", "model.", "net.generator."])
def test_a_prefix_that_all_keys_share_comes_off(prefix):
    found = prefixes.bare(zeros(*(prefix + key for key in WANTED)), WANTED)
    assert set(found) == WANTED
    assert found["a.bias"].shape == (1,)
    assert found.notes == (f"taken off the keys: {prefix}",)


def test_wrappers_inside_keys_come_out():
    found = prefixes.bare(zeros("model.a._orig_mod.weight", "model.a._orig_mod.bias", "model.norm.weight"), WANTED)
    assert set(found) == WANTED
    assert found.notes == ("taken out of the keys: _orig_mod", "taken off the keys: model.")


def test_what_lies_beside_a_whole_model_is_left_aside():
    found = prefixes.bare(zeros("n_averaged", *(f"module.{key}" for key in WANTED)), WANTED)
    assert set(found) == WANTED
    assert found.notes[1] == "left aside, since it lies beside module.: n_averaged"


def test_two_models_in_one_are_not_chosen_between():
    both = zeros(*(prefix + key for key in WANTED for prefix in ("model.", "ema_model.")))
    with pytest.raises(UserError, match=r"twice, under \w+\. \(3 keys\) and \w+\. \(3 keys\): choose with --container"):
        prefixes.bare(both, WANTED)


def test_another_model_keeps_its_keys():
    odd = zeros("encoder.norm.weight", "decoder.x")
    assert prefixes.bare(odd, WANTED) is odd


def test_a_container_may_be_the_beginning_of_keys(tmp_path):
    path = write_torch(tmp_path / "w.pt", {"state_dict": {f"{x}.w": np.ones(2, np.float32) for x in ("model", "ema")}})
    assert list(open_weights(path, ("state_dict.ema",))) == ["w"]


def test_a_wrapped_file_ports_and_says_so(tiny, tmp_path, capsys):
    wrapped = {f"module.{key}": x for key, x in state_dict(VQ).items()}
    wrapped |= {"module.scale": np.ones(3, np.int16)}
    wrapped["module.post_quant_conv.bias"] = wrapped["module.post_quant_conv.bias"].astype(np.float64)
    folder = cli.port(find(VQ), write_torch(tmp_path / "w.pt", {"model": wrapped}), tmp_path / "out")
    said = capsys.readouterr().out
    for line in (
        "taken off the keys: module.",
        "no weight of the model: scale (int16)",
        "float32: post_quant_conv.bias",
    ):
        assert line in said
    plain = cli.port(find(VQ), write_torch(tmp_path / "p.pt", state_dict(VQ)), tmp_path / "plain")
    assert weights.describe(folder)["sha256"] == weights.describe(plain)["sha256"]


def fine_tuned(name, key, rows):
    found = state_dict(name)
    return found | {key: np.resize(found[key], (rows, found[key].shape[1]))}


CLASSES = [("llamagen_b", "cls_embedding.embedding_table.weight"), ("var_d16", "class_emb.weight")]


@pytest.mark.parametrize(("name", "key"), CLASSES)
def test_a_teacher_of_other_classes_ports(tiny, tmp_path, capsys, name, key):
    file = write_torch(tmp_path / "w.pt", fine_tuned(name, key, 4))
    folder = cli.port(find(name), file, tmp_path / "out")
    assert weights.describe(folder)["config"]["data"]["classes"] == 3
    assert "3 classes" in capsys.readouterr().out
    assert cli.port(find(name), file, tmp_path / "out", classes=3) == folder
    with pytest.raises(UserError, match=r"has 4 rows: 3 classes and one for none; asked: 5"):
        cli.port(find(name), file, tmp_path / "out", classes=5)
    with pytest.raises(UserError, match="has 4 rows, and none for no class: guidance needs one"):
        cli.port(find(name), file, tmp_path / "out", classes=4)


def test_a_model_without_classes_is_asked_for_none(tiny, tmp_path):
    with pytest.raises(UserError, match="it has no classes: leave --classes out"):
        cli.port(find(VQ), write_torch(tmp_path / "w.pt", state_dict(VQ)), tmp_path, classes=3)


def test_a_fine_tuned_teacher_samples(tiny, tmp_path):
    name, key = CLASSES[0]
    cli.port(find(VQ), write_torch(tmp_path / "vq.pt", state_dict(VQ)), tmp_path)
    folder = cli.port(find(name), write_torch(tmp_path / "w.pt", fine_tuned(name, key, 4)), tmp_path)
    pipe = dd_jax.load(folder)
    assert pipe.sample([0, 2], plan="T0:16").shape == (2, 8, 8, 3)


def test_a_config_of_other_classes_is_told_how_many(tiny, tmp_path):
    from dd_jax import factory
    from dd_jax.stages.parts import load_params

    name, key = CLASSES[0]
    cli.port(find(VQ), write_torch(tmp_path / "vq.pt", state_dict(VQ)), tmp_path)
    folder = cli.port(find(name), write_torch(tmp_path / "w.pt", fine_tuned(name, key, 4)), tmp_path)
    config = llamagen()
    config.weights.tokenizer, config.weights.teacher = str(tmp_path / VQ), str(folder)
    with pytest.raises(UserError, match=r"has 3 classes and config\.data\.classes is 7: set --config\.data\.classes=3"):
        load_params(factory.build(config), config, tmp_path, ("tokenizer", "teacher"))


@pytest.mark.parametrize("name", [VQ, "var_vae", "var_d16"])
def test_an_export_has_the_published_buffers(tiny, tmp_path, name):
    """All keys of the published file, in either format, in its container: strict loaders ask for them."""
    published = state_dict(name)
    folder = cli.port(find(name), write_torch(tmp_path / "w.pt", find(name).wrapped(published)), tmp_path / "out")
    flat = load_file(cli.export(folder, tmp_path / "w.safetensors"))
    with safe_open(tmp_path / "w.safetensors", "numpy") as file:
        assert file.metadata() == {"format": "pt"}
    tree = open_torch(cli.export(folder, tmp_path / "back.pth")).tree
    assert ("model" in tree) == (name == VQ)
    back = open_weights(tmp_path / "back.pth", find(name).containers)
    assert flat.keys() == back.keys() == published.keys()
    for key, x in published.items():
        np.testing.assert_array_equal(flat[key], x)
        np.testing.assert_array_equal(back[key], x)
        assert flat[key].dtype == back[key].dtype == x.dtype


def test_an_export_is_named_for_its_format(tiny, tmp_path):
    with pytest.raises(UserError, match=r"name it \.safetensors, or \.pt"):
        cli.export(tmp_path, tmp_path / "w.npz")


def test_a_place_that_cannot_be_written_is_found_first(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("port_weights.__main__.open_weights", lambda *more: pytest.fail("the file was read first"))
    with pytest.raises(UserError, match=r"cannot write into .*vq16: .*file is no folder"):
        cli.port(find(VQ), tmp_path / "w.pt", tmp_path / "file")
    with pytest.raises(UserError, match=r"cannot write into .*file"):
        cli.export(tmp_path / "vq16", tmp_path / "file/w.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_offline_it_answers_at_once_and_once(tmp_path):
    """The client of huggingface.co would try again for half a minute."""
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    start = time.monotonic()
    command = [sys.executable, "-m", "port_weights", "vq16", "--out", str(tmp_path / "out")]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | closed)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert "no connection to 127.0.0.1" in done.stderr
    assert "--src vq_ds16_c2i.pt" in done.stderr
    assert time.monotonic() - start < 20


def test_a_host_that_never_answers_is_given_up(monkeypatch):
    monkeypatch.setattr(hub, "PATIENCE", 0.05)

    def silent(*more):
        time.sleep(0.3)
        raise TimeoutError

    monkeypatch.setattr(socket, "create_connection", silent)
    with pytest.raises(ConnectionError, match=r"no connection to example\.org"):
        hub.reach("https://example.org/x")


def test_light_commands_import_no_jax():
    code = "import sys, port_weights.__main__; sys.exit('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
