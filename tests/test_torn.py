"""Files of a run that a full disk, a copy or an editor has spoilt: named in one line with the way out, or made anew."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config

import dd_jax
from dd_jax import factory
from dd_jax.data import pairset
from dd_jax.data.sampleset import SampleSet
from dd_jax.report import build
from dd_jax.stages import pairs
from dd_jax.stages.workdir import Workdir
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from dd_jax.text import cache
from dd_jax.training import curves

pytestmark = pytest.mark.xdist_group("pipeline")
OTHER = (
    "[]",
    "3",
    "null",
    '"text"',
    '{"a": 1}',
    '{"a": ',
    "\0\0\0",
    "\ufeff",
    '{"settings": 3, "shards": [], "train": 5}',
)


def report(run: Path) -> None:
    record = {"train": {"done": True, "seconds": 1.0, "matmul_gflop": 1.0}}
    build.from_workdir(run, tiny_config("llamagen").to_dict(), record)


def samples(run: Path) -> None:
    manifest = json.loads((run / "whole.json").read_text())
    SampleSet(run / "samples/S0", manifest["settings"])


def drawn(run: Path) -> None:
    made = SampleSet.found(run / "samples/S0")
    assert made
    made.first(3)


def begun(run: Path) -> None:
    pairset.check_settings(run / "pairs", {"seed": 0})


def folder(run: Path) -> None:
    weights.load(run / "weights/classifier", {}, verify=True)


def works(run: Path) -> None:
    Workdir(run, factory.settled(tiny_config("llamagen")).to_dict()).check("speed")


@pytest.fixture
def copy(tiny_run, tmp_path):
    """All of a finished run but its checkpoints."""
    shutil.copytree(tiny_run[0], tmp_path / "run", ignore=shutil.ignore_patterns("12", "10", "*.png", "report.html"))
    run = tmp_path / "run"
    shutil.copy(run / "samples/S0/manifest.json", run / "whole.json")
    (run / "scores").mkdir(exist_ok=True)
    (run / "scores/S0.adm.10.json").write_text('{"plan": "S0", "fid": 3.0, "protocol": "adm"}')
    (run / "from.json").write_text('{"from": "/no/such/run"}')
    return run


def damaged(path: Path) -> list[bytes]:
    whole = path.read_bytes()
    half = whole[: len(whole) // 2].rstrip(b"}\n")  # never where a line ends, behind which nothing need be
    return [b"", half, *(text.encode() for text in OTHER)]


@pytest.mark.parametrize(
    ("file", "read", "way_out"),
    [
        ("config.json", dd_jax.load, "config"),
        ("stages.json", works, "delete it"),
        ("from.json", works, "--from=RUN"),
        ("pairs/manifest.json", lambda run: pairset.load(run / "pairs"), "--stage=pairs"),
        (
            "pairs/settings.json",
            lambda run: pairset.check_settings(run / "pairs", {"seed": 0}),
            "--stage=pairs|use another",
        ),
        ("pairs/shard-00001.npz", lambda run: pairset.load(run / "pairs"), "run --stage=pairs again"),
        ("samples/S0/manifest.json", samples, "delete"),
        (
            "samples/S0/shard-00000.npz",
            lambda run: SampleSet.found(run / "samples/S0").first(3),
            "--stage=sample again",
        ),
        ("results.jsonl", report, "run --stage=evaluate again"),
        ("grids.npz", report, "run --stage=evaluate again"),
        ("weights/classifier/config.json", folder, "port the weights again"),
        ("weights/classifier/weights.safetensors", folder, "port the weights again"),
    ],
)
def test_a_spoilt_file_is_named_with_the_way_out(copy, file, read, way_out):
    for data in damaged(copy / file):
        (copy / file).write_bytes(data)
        try:
            read(copy)
        except UserError as error:
            said = str(error)
        except Exception as error:
            raise AssertionError(f"{file} of {data[:40]!r}") from error
        else:
            assert file in ("stages.json", "from.json"), data  # what says nothing wrong does no harm
            continue
        assert "\n" not in said
        assert Path(file).name in said or str((copy / file).parent) in said, said
        assert any(word in said for word in way_out.split("|")), said


@pytest.mark.parametrize(
    "file",
    ["speed.json", "scores/S0.adm.10.json", "student/curve.jsonl", "samples/S0/manifest.json", "tokenizer/curve.jsonl"],
)
def test_the_report_leaves_out_what_it_cannot_read(copy, file):
    for data in damaged(copy / file):
        (copy / file).write_bytes(data)
        report(copy)


def test_stages_repair_what_they_own(copy):
    for data in damaged(copy / "pairs/manifest.json"):
        (copy / "pairs/manifest.json").write_bytes(data)
        assert pairs._known(copy / "pairs") in ({}, {"a": 1})  # looks at every shard, and writes it again
    (copy / "student/curve.jsonl").write_bytes(b'{"step": 1, "loss": 2.0}\n3\n{"step": "x"}\n{"st')
    with curves.Writer(copy / "student/curve.jsonl", resume=5) as writer:
        writer.write(5, loss=1.0)
    assert [row["step"] for row in curves.read(copy / "student/curve.jsonl")] == [1, 5]


def test_features_of_captions(tmp_path):
    about = {"format": 1, "encoder": "e", "prompts": "p", "count": 2, "tokens": 3, "width": 4, "shard": 2}
    numbers = np.zeros((3, 4), "uint16").tobytes()
    for file in ("features.json", "00000.json", "00000.bf16"):
        (tmp_path / "features.json").write_text(json.dumps(about))
        (tmp_path / "00000.json").write_text(json.dumps({"lengths": [1, 2], "sha256": ""}))
        (tmp_path / "00000.bf16").write_bytes(numbers)
        cache.Stored(tmp_path)
        for data in damaged(tmp_path / file):
            (tmp_path / file).write_bytes(data)
            with pytest.raises(UserError, match=r"(features.json|00000.bf16) is (not readable|damaged|not finished)"):
                cache.Stored(tmp_path)
