"""Models of the Hub by name: its own client against a small server, and what a person meets when something is wrong."""

import json
import socket
import sys
import time
import types
from pathlib import Path

import hub_server
import huggingface_hub
import numpy as np
import pytest
from huggingface_hub import constants, file_download

import dd_jax
from dd_jax import publish, settings
from dd_jax.stages.parts import named
from dd_jax.system import hub, weights
from dd_jax.system.errors import UserError

pytestmark = pytest.mark.xdist_group("hub")


@pytest.fixture
def server(monkeypatch, tmp_path):
    """A Hub of one's own with an empty cache before it."""
    with hub_server.serving() as found:
        monkeypatch.setenv("HF_ENDPOINT", found.endpoint)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        weights._fetched.cache_clear()
        yield found
        weights._fetched.cache_clear()


def upload(server: hub_server.Hub, repo: str, **folders: Path) -> None:
    """A repository with these folders of weights."""
    server.repos[repo] = {
        f"{name}/{path.name}": path.read_bytes() for name, folder in folders.items() for path in folder.iterdir()
    }


@pytest.fixture
def small(tmp_path):
    """The smallest folder of weights."""
    about = {"id": "small", "part": "teacher", "config": {}}
    return weights.save(tmp_path / "small", {"w": np.arange(30_000, dtype=np.float32)}, about)


def refusal(call) -> str:
    with pytest.raises(UserError) as error:
        call()
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 300
    return str(error.value)


def test_a_name_has_repository_revision_and_folder():
    address = hub.Address.of("hf://owner/na.me-1@v1.0/some/folder")
    assert address == hub.Address("owner/na.me-1", "v1.0", "some/folder")
    for text in ("hf://o/n", "hf://o/n/f", "hf://o/n@v1", "hf://o/n@refs/pr/3/f/g", "hf://o/n@feature%2Fx/f"):
        assert str(hub.Address.of(text)) == str(hub.Address.of(Path(text))) == text
    assert hub.Address.of("hf://o/n@feature%2Fx").revision == "feature/x"
    assert hub.Address.of("hf://models/o/n/") == hub.Address("o/n")
    assert str(address.beside("vq16")) == "hf://owner/na.me-1@v1.0/some/vq16"
    assert str(hub.Address.of("hf://o/n").beside("vq16")) == "hf://o/n/vq16"
    for text in (
        "hf://o",
        "hf://o/n@",
        "hf://o/n/../../x",
        "hf://o/n/a\\b",
        "hf://datasets/o/n",
        "hf:///n",
        "hf://o/n@a@b",
    ):
        assert "no name of a folder on the Hub" in refusal(lambda text=text: hub.Address.of(text))
    assert not any(map(hub.named, ("weights/hf", None, "gs://b/x")))


def test_a_published_run_draws_as_its_folder_does(server, tiny_run, monkeypatch):
    whole = dd_jax.load(tiny_run[0]).sample([3, 7])
    made = tiny_run[0] / "weights"
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    assert publish.publish(tiny_run[0], "owner/run") == f"{server.endpoint}/owner/run"
    card = huggingface_hub.ModelCard(server.repos["owner/run"]["README.md"].decode())
    assert card.data.library_name == "dd_jax"
    assert {one.metric_args["plan"] for one in card.data.eval_results} == {"S0"}
    assert "| student | `S0` | 1 |" in card.text
    pipe = dd_jax.load("hf://owner/run")
    assert {*pipe.params} == {"tokenizer", "teacher", "student"}
    np.testing.assert_array_equal(pipe.sample([3, 7]), whole)
    upload(server, "other/codes", vq=made / "tokenizer")
    pipe = dd_jax.load(
        f"hf://owner/run@{server.sha('owner/run')}/student", tokenizer="hf://other/codes@main/vq", teacher=None
    )
    np.testing.assert_array_equal(pipe.sample([3, 7]), whole)
    fetched = [path for method, path, _ in server.asked if method == "GET" and "/resolve/" in path]
    assert len(fetched) == len(set(fetched)), "each file once"
    assert all(path.endswith((weights.CONFIG, weights.WEIGHTS)) for path in fetched)
    assert "teacher" not in dd_jax.load(made, teacher=None).params  # the folder of all parts, and its student


def test_a_student_without_its_tokenizer_says_where_that_is(server, tiny_run):
    upload(server, "owner/alone", student=tiny_run[0] / "weights" / "student")
    told = refusal(lambda: dd_jax.load("hf://owner/alone", teacher=None))
    assert 'needs its tokenizer tokenizer: python -m port_weights tokenizer --out weights, then tokenizer="' in told


def test_settings_take_names_wherever_a_folder_of_weights_goes(server, small, tiny_run):
    upload(server, "owner/parts", teacher=small)
    config = tiny_run[1].copy_and_resolve_references()
    config.weights.teacher = "hf://owner/parts/teacher"
    config.evaluate.inception = "hf://owner/parts/inception"
    settings.spelled(config)
    folder = named(config, "teacher", tiny_run[0])
    assert folder is not None
    assert weights.describe(config.weights.teacher) == weights.describe(folder) == weights.describe(small)
    config.weights.teacher = "hf://owner"
    assert refusal(lambda: settings.spelled(config)).startswith("config.weights.teacher: hf://owner is no name")
    config.weights.teacher, config.data.name = None, "hf://owner/pictures"
    assert "config.data.name" in refusal(lambda: settings.spelled(config))


def test_an_interrupted_download_goes_on(server, small, monkeypatch):
    upload(server, "owner/long", teacher=small)

    size = (small / weights.WEIGHTS).stat().st_size
    server.cut = size // 2
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1024)  # what is written at a time
    monkeypatch.setattr(file_download, "time", types.SimpleNamespace(sleep=lambda _: None, time=time.time))
    folder = weights.place("hf://owner/long/teacher")
    assert weights.sha256(folder / weights.WEIGHTS) == weights.describe(small)["sha256"]
    assert [asked for *_, asked in server.asked if asked] == [f"bytes={size // 2 // 1024 * 1024}-"]


def test_a_file_that_is_not_the_one_described_is_fetched_again(server, small):
    upload(server, "owner/torn", teacher=small)
    good = server.repos["owner/torn"][f"teacher/{weights.WEIGHTS}"]
    server.repos["owner/torn"][f"teacher/{weights.WEIGHTS}"] = good[:-1] + b"?"
    assert "another checksum" in refusal(lambda: weights.place("hf://owner/torn/teacher"))
    assert "another checksum" in refusal(lambda: weights.place("hf://owner/torn/teacher"))
    server.repos["owner/torn"][f"teacher/{weights.WEIGHTS}"] = good
    assert weights.describe("hf://owner/torn/teacher")["id"] == "small"


def test_what_is_not_there_is_one_line(server, small):
    upload(server, "owner/there", teacher=small)
    upload(server, "owner/gated", teacher=small)
    server.gated.add("owner/gated")
    cases = {
        "hf://owner/none": r"hf://owner/none: there is no such repository, or it is private",
        "hf://owner/there@v9": "hf://owner/there@v9: the repository has no such revision",
        "hf://owner/gated": "hf://owner/gated: its owner wants to know who takes it",
        "hf://owner/there/student": "hf://owner/there/student holds no config.json and weights.safetensors",
        "hf://owner/there--x..y/f": "the Hub takes no such name",
    }
    for name, told in cases.items():
        assert told in refusal(lambda name=name: dd_jax.load(name)), name


def test_without_a_network_the_cache_answers(server, small, monkeypatch):
    upload(server, "owner/kept", teacher=small)
    weights.place("hf://owner/kept/teacher")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # nobody listens
        nowhere = f"http://127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("HF_ENDPOINT", nowhere)
        weights._fetched.cache_clear()
        assert weights.describe("hf://owner/kept/teacher")["id"] == "small"
        for name in ("hf://owner/kept/student", "hf://owner/never"):
            told = refusal(lambda name=name: weights.place(name))
            assert told.startswith(name), told
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    weights._fetched.cache_clear()
    assert weights.describe("hf://owner/kept/teacher")["id"] == "small"
    assert "HF_HUB_OFFLINE is set; it is not in the cache" in refusal(lambda: weights.place("hf://owner/never"))


def test_a_missing_client_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    assert "pip install huggingface_hub" in refusal(lambda: dd_jax.load("hf://owner/name"))


@pytest.fixture
def run(tmp_path):
    """As much of a finished run as is published; its tokenizer is somebody else's."""
    folder, others = tmp_path / "run", tmp_path / "own" / "vq16"
    weights.save(others, {"v": np.ones(3, np.float32)}, {"id": "vq16", "part": "tokenizer", "licence": "MIT"})
    config = {"family": "mine", "guidance": 2.0, "data": {"name": f"folder:{tmp_path}/pictures"}}
    config["weights"] = {"tokenizer": str(others), "teacher": None, "student": None, "text": None, "random": False}
    about = {"id": "run/student", "part": "student", "companions": {"tokenizer": str(others), "teacher": "teacher"}}
    weights.save(folder / "weights/student", {"w": np.ones(3, np.float32)}, about | {"config": config})
    (folder / "config.json").write_text(json.dumps(config))
    row = {"generator": "student", "plan": "S0", "steps": 1, "agreement": 0.5, "n": 100}
    (folder / "results.jsonl").write_text(json.dumps(row) + "\n")
    score = {"plan": "S0", "protocol": "adm", "n": 100, "fast": True, "fid": 12.5, "reference": {"file": "ref.npz"}}
    (folder / "scores").mkdir()
    (folder / "scores/S0.json").write_text(json.dumps(score | {"samples": {"source": f"{tmp_path}/S0"}}))
    return folder


def test_a_dry_run_shows_files_and_card_and_asks_nobody(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(hub, "reach", None)
    monkeypatch.setattr(sys, "argv", ["publish", str(run), "owner/name", "--dry-run", "--license", "cc-by-4.0"])
    publish.main()
    told = capsys.readouterr().out
    for line in (
        "  student/weights.safetensors\n",
        "  scores/S0.json\n",
        "license: cc-by-4.0\n",
        'pipe = dd_jax.load("hf://owner/name", tokenizer="weights/vq16")\n',
        "`python -m port_weights vq16 --out weights` fetches what others published.",
        "- tokenizer `vq16`: MIT\n",
        "| `S0` | adm | 100 (quick: compare with none of another count) | ref.npz | 12.5 |",
        "name: agreement, plan S0\n",
    ):
        assert line in told, line
    assert "vq16/weights" not in told
    assert str(tmp_path) not in told


def test_no_path_of_this_machine_is_uploaded(server, run, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    publish.publish(run, "owner/both", private=True, with_ported=True)
    assert "owner/both" in server.private
    found = server.repos["owner/both"]
    assert not any(str(tmp_path).encode() in data for data in found.values())
    about = weights.describe("hf://owner/both/student")
    assert about["companions"] == {"tokenizer": "vq16", "teacher": "teacher"}
    assert about["config"]["data"]["name"] == "folder:pictures"
    assert about["config"]["weights"]["tokenizer"] is None
    beside = weights.beside("hf://owner/both/student", "vq16")
    assert weights.describe(beside)["licence"] == "MIT"


def test_what_cannot_be_published_is_one_line(server, run, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "none"))
    assert "without a token that may write: log in (hf auth login" in refusal(lambda: publish.publish(run, "o/n"))
    monkeypatch.setenv("HF_TOKEN", "hf_reads")
    server.readers.add("hf_reads")
    assert "says 403; the account has no right" in refusal(lambda: publish.publish(run, "o/n"))
    monkeypatch.setenv("HF_TOKEN", "hf_writes")
    upload(server, "o/public")
    assert "is there already, and public" in refusal(lambda: publish.publish(run, "o/public", private=True))
    assert server.repos["o/public"] == {}
    assert "name a repository alone" in refusal(lambda: publish.publish(run, "o/n/folder"))
    assert "no name of a folder on the Hub" in refusal(lambda: publish.publish(run, "name"))
    assert "no trained weights to publish" in refusal(lambda: publish.publish(tmp_path, "o/n"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "cannot publish hf://o/n: HF_HUB_OFFLINE is set" in refusal(lambda: publish.publish(run, "o/n"))
