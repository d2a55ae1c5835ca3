"""A text encoder's published shards -> a folder: strict, streamed, with the features that transformers makes."""

import dataclasses
import functools
import json
import os
import subprocess
import sys

import ml_dtypes
import numpy as np
import pytest
from ml_collections import ConfigDict
from numpy.testing import assert_allclose, assert_array_equal
from safetensors.numpy import load_file, save_file

from dd_jax.scripts import fake_shards
from dd_jax.scripts.fake_release import _random, write_torch
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from dd_jax.text.features import TextEncoder
from port_weights import __main__ as cli
from port_weights import shards
from port_weights.catalog import CATALOG, find
from port_weights.source import open_weights

NAME = "flan_t5_xl"


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """The catalog, at toy size."""
    config = functools.partial(ConfigDict, fake_shards.TINY.sizes())
    monkeypatch.setitem(CATALOG, NAME, dataclasses.replace(CATALOG[NAME], config=config))


def release(folder, end="safetensors", **more):
    fake_shards.release(folder, fake_shards.TINY, write_torch, _random, end, **more)
    return folder


def leaves(folder):
    return load_file(folder / weights.WEIGHTS)


def test_both_formats_give_the_same(tmp_path, capsys):
    ported = [
        cli.port(find(NAME), release(tmp_path / end, end), tmp_path / f"{end}-out") for end in ("safetensors", "bin")
    ]
    first, second = map(leaves, ported)
    assert first.keys() == second.keys()
    for key, x in first.items():
        assert_array_equal(second[key], x)
    assert "left out, since it is not needed: decoder." in capsys.readouterr().out
    about = weights.describe(ported[1])
    assert about["licence"] == "Apache-2.0"
    assert (about["part"], about["config"]) == ("text", fake_shards.TINY.sizes())
    assert about["parameters"] == find(NAME).count()
    source = (tmp_path / "bin" / "spiece.model").read_bytes()
    assert (ported[1] / "spiece.model").read_bytes() == source


@pytest.mark.parametrize("how", ["folder", "index", "files", "shards"])
def test_a_set_may_be_named_in_any_way(tmp_path, how):
    folder = release(tmp_path / "src", count=3)
    parts = sorted(folder.glob("model-*"))
    given = {
        "folder": [folder],
        "index": [folder / "model.safetensors.index.json"],
        "files": sorted(folder.iterdir()),
        "shards": parts[:1],  # the others are beside it
    }[how]
    assert cli.deal([find(NAME)], given) == [given]
    ported = cli.port(find(NAME), given, tmp_path)
    assert (ported / "spiece.model").exists()
    assert weights.describe(ported)["parameters"] == find(NAME).count()


def test_there_and_back(tmp_path):
    folder = release(tmp_path / "src")
    out = cli.export(cli.port(find(NAME), folder, tmp_path), tmp_path / "back.safetensors")
    encoder = {k: x for f in folder.glob("*.safetensors") for k, x in load_file(f).items() if "decoder" not in k}
    back = load_file(out)
    assert back.keys() == encoder.keys() - {"lm_head.weight"}
    for key, x in back.items():
        assert_array_equal(x, encoder[key])
    again = cli.port(find(NAME), out, tmp_path / "again")
    assert weights.describe(again)["sha256"] == weights.describe(tmp_path / NAME)["sha256"]


def test_half_precision(tmp_path):
    folder = release(tmp_path / "src")
    half = leaves(cli.port(find(NAME), folder, tmp_path / "half", dtype="bfloat16"))
    full = leaves(cli.port(find(NAME), folder, tmp_path / "full"))
    assert {x.dtype for x in half.values()} == {np.dtype(ml_dtypes.bfloat16)}
    for key, x in full.items():
        assert_array_equal(x.astype(ml_dtypes.bfloat16), half[key])


def shard(folder, number=1):
    return next(folder.glob(f"model-0000{number}-of-*"))


def spoil(folder, how):
    path = shard(folder)
    arrays = load_file(path)
    key = "encoder.block.1.layer.0.SelfAttention.q.weight"
    if how == "missing":
        del arrays[key]
    elif how == "unknown":
        arrays["encoder.block.7.layer.9.surprise"] = np.zeros(3, np.float32)
    elif how == "misshaped":
        arrays[key] = arrays[key][:-1]
    elif how == "mistyped":
        arrays[key] = arrays[key].astype(np.int32)
    elif how == "not finite":
        arrays[key] = np.full_like(arrays[key], np.nan)
    elif how == "different numbers":
        arrays["encoder.embed_tokens.weight"] = arrays["shared.weight"] + 1
    save_file(arrays, path)


@pytest.mark.parametrize("how", ["missing", "unknown", "misshaped", "mistyped", "not finite", "different numbers"])
def test_a_wrong_shard_is_refused(tmp_path, how):
    folder = release(tmp_path / "src")
    (folder / "model.safetensors.index.json").unlink()
    spoil(folder, how)
    with pytest.raises(UserError, match=how):
        cli.port(find(NAME), folder, tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.*"))


@pytest.mark.parametrize("how", ["missing", "unknown"])
def test_an_index_and_shards_that_disagree(tmp_path, how):
    folder = release(tmp_path / "src")
    spoil(folder, how)
    with pytest.raises(UserError, match=r"disagree about 1 keys: encoder\.block"):
        cli.port(find(NAME), folder, tmp_path / "out")


@pytest.mark.parametrize("with_index", [True, False])
def test_a_missing_shard_is_named(tmp_path, with_index):
    folder = release(tmp_path / "src")
    shard(folder, 2).unlink()
    if not with_index:
        (folder / "model.safetensors.index.json").unlink()
    with pytest.raises(UserError, match=r"missing: .*model-00002-of-00002.safetensors; all files"):
        cli.port(find(NAME), folder, tmp_path / "out")


def test_other_broken_sets(tmp_path):
    folder = release(tmp_path / "src")
    index = folder / "model.safetensors.index.json"
    with pytest.raises(UserError, match=r"other.safetensors: not in .*index.json"):
        shards.find([index, tmp_path / "other.safetensors"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty has no weights"):
        shards.find([tmp_path / "empty"])
    whole = index.read_text()
    for text in ("{", "[]", '{"weight_map": 3}', '{"weight_map": {"a": "../b"}}'):
        index.write_text(text)
        with pytest.raises(UserError, match="index"):
            cli.port(find(NAME), folder, tmp_path / "out")
    index.write_text(json.dumps({"weight_map": {**json.loads(whole)["weight_map"], "x": "model-00009-of-00009.bin"}}))
    with pytest.raises(UserError, match=r"missing: .*model-00009-of-00009.bin"):
        cli.port(find(NAME), folder, tmp_path / "out")
    shard(folder).write_bytes(shard(folder).read_bytes()[:-10])
    index.write_text(whole)
    with pytest.raises(UserError, match="no readable safetensors file"):
        cli.port(find(NAME), folder, tmp_path / "out")


def test_either_name_of_the_embedding_will_do(tmp_path):
    folder = release(tmp_path / "src")
    (folder / "model.safetensors.index.json").unlink()
    arrays = load_file(shard(folder))
    arrays["encoder.embed_tokens.weight"] = arrays.pop("shared.weight")
    save_file(arrays, shard(folder))
    assert leaves(cli.port(find(NAME), folder, tmp_path))["shared/embedding"].shape == (128, 32)


def test_without_a_tokenizer_it_says_what_is_missing(tmp_path, capsys):
    folder = release(tmp_path / "src")
    (folder / "spiece.model").unlink()
    ported = cli.port(find(NAME), folder, tmp_path)
    assert "put spiece.model, published beside the weights, into" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"spiece\.model does not exist"):
        TextEncoder.load(ported)


def test_a_folder_of_another_part_is_refused(tmp_path):
    weights.save(tmp_path / "x", {"w": np.zeros(3, np.float32)}, {"id": "other", "part": "lpips"})
    with pytest.raises(UserError, match="holds other: captions take what"):
        TextEncoder.load(tmp_path / "x")


def test_offline_it_names_every_file(monkeypatch, tmp_path):
    def offline(*args):
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", offline)
    with pytest.raises(UserError) as told:
        cli.fetch(find(NAME), tmp_path)
    for name in ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "index.json", "spiece.model"):
        assert f"huggingface.co/google/flan-t5-xl/resolve/main/{name}".replace(
            "/index", "/model.safetensors.index"
        ) in str(told.value)
    assert "--src model.safetensors.index.json" in str(told.value)


def test_arrays_are_mapped_not_read(tmp_path):
    save_file({"a": np.arange(6, dtype=np.float32).reshape(2, 3)}, tmp_path / "a.safetensors")
    x = open_weights(tmp_path / "a.safetensors")["a"]
    assert isinstance(x, np.memmap)
    assert_array_equal(x, [[0, 1, 2], [3, 4, 5]])


MEASURE = """
import dataclasses, functools, resource, sys
from pathlib import Path
from ml_collections import ConfigDict
from dd_jax.text.t5 import T5Config
from port_weights import __main__ as cli
from port_weights.catalog import find
cfg = T5Config(vocab=2048, width=512, depth=8, heads=8, head_dim=64, hidden=1024)
known = dataclasses.replace(find("flan_t5_xl"), config=functools.partial(ConfigDict, cfg.sizes()))
cli.rules.convert({}, cli.rules.Table([]), {})
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for end in ("safetensors", "bin"):
    cli.port(known, Path(sys.argv[1]) / end, Path(sys.argv[1]) / "out", dtype="bfloat16")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


@pytest.mark.slow
def test_memory(tmp_path):
    """Peak over what the imports take: far below a shard and the encoder, in either format."""
    cfg = fake_shards.T5Config(vocab=2048, width=512, depth=8, heads=8, head_dim=64, hidden=1024)
    for end in ("safetensors", "bin"):
        fake_shards.release(
            tmp_path / end, cfg, write_torch, lambda key, shape: np.ones(shape, np.float32), end, count=8
        )
    run = [sys.executable, "-c", MEASURE, str(tmp_path)]
    done = subprocess.run(run, capture_output=True, text=True, check=True, env=os.environ)
    part = max(path.stat().st_size for path in tmp_path.glob("*/*-of-*"))
    encoder = (tmp_path / "out" / NAME / weights.WEIGHTS).stat().st_size
    assert int(done.stdout.split()[-1]) <= 1.3 * part + encoder


@pytest.mark.slow
def test_features_are_those_of_transformers(tmp_path):
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    tiny = fake_shards.TINY
    config = transformers.T5Config(
        vocab_size=tiny.vocab,
        d_model=tiny.width,
        d_kv=tiny.head_dim,
        d_ff=tiny.hidden,
        num_layers=tiny.depth,
        num_heads=tiny.heads,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    )
    folder = release(tmp_path / "src")
    state_dict = {key: torch.tensor(x) for path in folder.glob("*.safetensors") for key, x in load_file(path).items()}
    theirs = transformers.T5EncoderModel(config).eval()
    wanted = {key for key in state_dict if key.startswith(("encoder", "shared"))}
    missing, _ = theirs.load_state_dict({key: state_dict[key] for key in wanted}, strict=False)
    assert set(missing) <= {"encoder.embed_tokens.weight"}
    encoder = TextEncoder.load(cli.port(find(NAME), folder, tmp_path), "float32", batch=4)
    captions = ["A red fox in the SNOW!", "", "two dogs on a beach", "one photo of an old city " * 100]
    caption, valid = encoder(captions)
    ids, mask = encoder.tokenizer(["a red fox in the snow!", "", captions[2], captions[3].strip()])
    with torch.no_grad():
        found = theirs(input_ids=torch.tensor(ids).long(), attention_mask=torch.tensor(mask).long())
    for i, keep in enumerate(mask):
        assert valid[i].sum() == keep.sum()
        assert_allclose(caption[i][valid[i]], found.last_hidden_state[i].numpy()[keep], atol=2e-5)
