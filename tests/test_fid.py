"""Scores of what was sampled: their settings, their files, and the stage that makes them."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest
from stand_in import POOL, SPATIAL, Stand, stand
from test_samples import BATCH, COUNT, sampling, small, system

from dd_jax import pipeline
from dd_jax.data import images
from dd_jax.method.baselines import marginals, onestep
from dd_jax.method.interfaces import Cond
from dd_jax.metrics import inception, reference, score
from dd_jax.metrics.inception import Inception
from dd_jax.stages import fid, sample
from dd_jax.stages.parts import PARTS, load_params
from dd_jax.stages.run import Run
from dd_jax.stages.sample import Sampling
from dd_jax.system import rng
from dd_jax.system.errors import UserError


@pytest.fixture(autouse=True)
def network(monkeypatch):
    """The stand-in, wherever the network is asked for."""
    monkeypatch.setattr(inception, "POOL", POOL)
    monkeypatch.setattr(inception, "SPATIAL", SPATIAL)
    monkeypatch.setattr(fid, "Extractor", Stand)
    monkeypatch.setattr(fid.inception, "load", lambda folder: Inception({}, {"id": "stand", "sha256": "a" * 64}))
    monkeypatch.setattr(fid.weights, "describe", lambda folder: {"id": "stand", "sha256": "a" * 64})


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """(work directory with samples, reference statistics)."""
    workdir = tmp_path_factory.mktemp("scored")
    real = np.random.default_rng(0).integers(0, 200, (60, 8, 8, 3), np.uint8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inception, "POOL", POOL)
        patch.setattr(inception, "SPATIAL", SPATIAL)
        reference.record(stand(), images.from_array(real), workdir / "ref.npz")
    sample.run(sampling(workdir))
    return workdir, workdir / "ref.npz"


def settings(ref, **changes):
    """config.evaluate."""
    found = small().evaluate
    found.update({"inception": "w", "reference_statistics": ref and str(ref), "features_batch": 5} | changes)
    return found


def results(paths):
    return [json.loads(path.read_text()) for path in paths]


def test_a_result_says_all_that_it_depends_on(run):
    workdir, ref = run
    paths = fid.run(sampling(workdir), settings(ref), workdir)
    assert [path.name.rsplit(".", 2)[0] for path in paths] == [f"S0.adm.{COUNT}", f"S0_S5.adm.{COUNT}"]
    one, two = results(paths)
    with np.load(workdir / "samples/S0.npz") as file:
        pixels = np.repeat(file["arr_0"], 3, -1)
    direct = score.score(stand(), images.from_array(pixels), reference.read(ref))
    keys = ("fid", "sfid", "inception_score", "precision", "recall")
    assert [one[key] for key in keys] == [direct[key] for key in keys]
    assert (one["plan"], one["steps"], one["n"], one["fast"]) == ("S0", 1, COUNT, True)
    assert (two["plan"], two["steps"]) == ("S0 S5", 2)
    assert (one["split"], one["guidance"], one["label_scheme"], one["seed"]) == (8, 2.0, "balanced", 0)
    assert one["reference"]["sha256"]
    assert one["weights"]["sha256"] == "a" * 64
    assert len(one["sampling"]["weights"]["student"]["sha256"]) == 16
    assert one["ms_per_image"] > 0
    assert one["sampled_on"]
    assert one["device"]


def test_what_is_there_is_not_computed_again(run, monkeypatch):
    workdir, ref = run
    paths = fid.run(sampling(workdir), settings(ref), workdir)
    before = {path: path.read_bytes() for path in paths}
    monkeypatch.setattr(fid, "score", None)
    assert fid.run(sampling(workdir), settings(ref), workdir) == paths
    assert {path: path.read_bytes() for path in paths} == before
    with pytest.raises(TypeError):  # another setting is another result
        fid.run(sampling(workdir), settings(ref, distances="float16"), workdir)


def test_from_memory_as_from_disk(run, tmp_path):
    workdir, ref = run
    stored = results(fid.run(sampling(workdir), settings(ref), workdir))
    drawn = results(fid.run(sampling(tmp_path), settings(ref, memory=True), tmp_path))
    assert [row["fid"] for row in drawn] == [row["fid"] for row in stored]
    assert not (tmp_path / "samples").exists()


def test_baselines_are_sampled_and_scored_like_plans(run, tmp_path):
    """The rows of Table 1 that are nobody's student."""
    config, (_, ref) = small(plans=("onestep*", "skip-15"), count=2 * BATCH), run
    code = np.repeat(np.arange(30, dtype=np.int32)[:, None], 16, 1)  # one code all over each of three samples a class

    def load(*parts):
        networks = [part for part in parts if part != "marginals"]
        given = load_params(system(), config, tmp_path, networks, PARTS)
        return given | {"marginals": marginals(code, np.arange(30) % 10, np.arange(10))}

    made = Sampling(system(), config, tmp_path, load)
    sample.run(made)
    one, skipped = results(fid.run(made, settings(ref), tmp_path))
    assert (one["plan"], one["steps"], skipped["plan"], skipped["steps"]) == ("onestep*", 1, "skip-15", 1)
    assert one["sampling"]["weights"].keys() == {"tokenizer", "marginals"}
    assert skipped["sampling"]["weights"].keys() == {"tokenizer", "teacher", "marginals"}
    assert one["fid"] != skipped["fid"]
    drawn = onestep(system().models)(
        made.params, Cond(jnp.arange(8) % 10), rng.example_keys(rng.stream(config.seed, "sample"), jnp.arange(8))
    )
    wanted = sample.Finish()(system().tokenizer.decode(made.params["tokenizer"], drawn.token_BxLxC))
    np.testing.assert_array_equal(made.set_of("onestep*").first(8)[0], wanted)
    with pytest.raises(UserError, match="'skip-16' skips steps that there are not: n must be less than 16"):
        sample.run(Sampling(system(), small(plans=("skip-16",)), tmp_path, load))


def test_quick_scores_never_mix_with_full_ones(run, monkeypatch):
    workdir, ref = run
    monkeypatch.setattr(sample, "FAST", 10)
    quick, adm = sampling(workdir, small(fast=True)), fid.protocols.PROTOCOLS["adm"]
    with pytest.raises(UserError, match=r"no finished samples in .*samples/fast/S0: run --stage=sample first"):
        fid.run(quick, settings(ref), workdir)
    sample.run(quick)
    monkeypatch.setitem(fid.protocols.PROTOCOLS, "adm", dataclasses.replace(adm, count=COUNT))
    full, fast = (fid.run(some, settings(ref, extras=True), workdir) for some in (sampling(workdir), quick))
    assert not {*full} & {*fast}
    assert [row["fast"] for row in results(full + fast)] == [False, False, True, True]


def test_protocols_do_not_mix(run):
    workdir, ref = run
    with pytest.raises(UserError, match="recorded under adm: its numbers mean nothing under clean"):
        fid.run(sampling(workdir), settings(ref, protocol="clean"), workdir)
    with pytest.raises(UserError, match="unknown protocol 'fid'"):
        fid.run(sampling(workdir), settings(ref, protocol="fid"), workdir)


def test_what_is_missing_is_named(run, tmp_path):
    workdir, ref = run
    with pytest.raises(UserError, match=r"config.evaluate.reference_statistics is not: no FID without the network"):
        fid.run(sampling(workdir), settings(None), workdir)
    with pytest.raises(UserError, match=r"reference_statistics: no file .*nowhere.npz"):
        fid.run(sampling(workdir), settings(tmp_path / "nowhere.npz"), workdir)
    with pytest.raises(UserError, match="no finished samples"):
        fid.run(sampling(tmp_path), settings(ref), tmp_path)


def test_the_stages(tmp_path, run, monkeypatch, capsys):
    """Sample, evaluate and report of ported weights: no training, no teacher."""
    config = small(plans=("S0",))
    config.published = "LlamaGen-L"
    config.weights.update({"tokenizer": "t", "student": "s"})
    config.evaluate.update(settings(run[1]).to_dict())
    monkeypatch.setattr(pipeline.factory, "build", lambda config, workdir: system())  # compiled already
    monkeypatch.setattr(Run, "params", lambda self, *parts: sampling(tmp_path)._load(*parts))
    for stage in ("sample", "evaluate", "report"):
        pipeline.run(config, str(tmp_path), stage)
    (path,) = (tmp_path / "scores").glob("*.json")
    result = json.loads(path.read_text())
    assert result["model"] == "LlamaGen-L"
    assert result["sampling"]["weights"]["student"] == {"id": "stand", "sha256": "a" * 64}
    assert f"fast, {COUNT} samples" in capsys.readouterr().out
    page = (tmp_path / "report.html").read_text()
    assert "Quick scores" in page
    assert "Samples by class" in page
    assert "All scores" not in page
    assert not (tmp_path / "results.jsonl").exists()
