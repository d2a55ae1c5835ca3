"""SIGKILL at random moments: what the resumed run leaves is bit-identical to an uninterrupted run's."""

import contextlib
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
import streamed
from safetensors.numpy import load_file

import dd_jax

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("kill")]
ROOT = Path(__file__).parents[1]
KILLS = 10  # of each training, and of pairs, pairs and student by one process and by two: eighty in all
SMALL = {
    "data.copies": 1,
    "pretrain.classifier.steps": 20,
    "pretrain.tokenizer.steps": 200,
    "pretrain.tokenizer.checkpoint_every": 10,
    "pretrain.tokenizer.gan_weight": 0.5,
    "pretrain.tokenizer.gan_start": 15,
    "pretrain.tokenizer.gan_width": 8,
    "pretrain.tokenizer.gan_layers": 1,
    "pretrain.teacher.steps": 200,
    "pretrain.teacher.checkpoint_every": 10,
    "pairs.count": 6000,
    "pairs.shard": 500,
    "pairs.batch": 250,
    "train.steps": 120,
    "train.checkpoint_every": 10,
}
# What is made -> (its stage, the first file of it, the last step of what is trained). Tokenizer and teacher have a new
# checkpoint before they are killed, and their adversary plays at most of them.
MADE = {
    "pairs": ("pairs", "shard-*.npz", 0),
    "student": ("train", "student/*", SMALL["train.steps"]),
    "tokenizer": ("pretrain", "tokenizer/[0-9]*", SMALL["pretrain.tokenizer.steps"]),
    "teacher": ("pretrain", "teacher/[0-9]*", SMALL["pretrain.teacher.steps"]),
}


def command(workdir: Path, stage: str, more: dict | None = None) -> list[str]:
    """`more` settings; "base" is the config that they change."""
    settings = SMALL | (more or {})
    config = f"--config={ROOT}/configs/{settings.pop('base', 'digits_llamagen')}.py"
    overrides = [f"--config.{key}={value}" for key, value in settings.items()]
    flags = [config, f"--workdir={workdir}", f"--stage={stage}", *overrides]
    return [sys.executable, "-m", "dd_jax.main", *flags]


def commands(workdir: Path, stage: str, count: int = 1, more: dict | None = None) -> list[list[str]]:
    """One for each process."""
    line = command(workdir, stage, more)
    if count == 1:
        return [line]
    with socket.socket() as free:
        free.bind(("localhost", 0))
        where = f"--coordinator=localhost:{free.getsockname()[1]}"
    return [[*line, where, f"--processes={count}", f"--process={i}"] for i in range(count)]


def on_one_core() -> None:
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def environment(devices: int = 1) -> dict[str, str]:
    """Whoever is killed has that of who finishes: other flags of XLA make other code, which rounds otherwise."""
    return os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}


def finish(workdir: Path, stage: str, count: int = 1, devices: int = 1, more: dict | None = None) -> None:
    first = on_one_core if devices > 1 else None  # where programs over devices have the fewest threads
    running = [
        subprocess.Popen(line, cwd=ROOT, env=environment(devices), preexec_fn=first)
        for line in commands(workdir, stage, count, more)
    ]
    assert [process.wait(timeout=1200) for process in running] == [0] * count


def stamps(workdir: Path) -> dict[Path, int]:
    """When everything there was last written; what vanishes meanwhile is left out."""
    found = {}
    for folder, folders, names in os.walk(workdir):  # which passes over folders that are gone; rglob raises
        for path in (Path(folder, name) for name in (*folders, *names)):
            with contextlib.suppress(OSError):
                found[path] = path.stat().st_mtime_ns
    return found


def kill_while_it_works(
    workdir: Path, stage: str, started: str, moment: float, count: int, more: dict | None = None
) -> bool:
    """Start a stage, wait for its first file, and SIGKILL all of it `moment` seconds later -> was it still running?"""
    before = stamps(workdir)
    given = {"cwd": ROOT, "env": environment(), "stdout": subprocess.DEVNULL}
    running = [subprocess.Popen(line, **given) for line in commands(workdir, stage, count, more)]
    deadline = time.time() + 300
    while running[0].poll() is None and time.time() < deadline:
        if any(before.get(path) != when and path.match(started) for path, when in stamps(workdir).items()):
            break
        time.sleep(0.02)
    time.sleep(moment)
    for process in running:
        if process.poll() is None:
            os.kill(process.pid, signal.SIGKILL)
    return -signal.SIGKILL in [process.wait() for process in running]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("pretrained")
    finish(workdir, "pretrain")
    return workdir


@pytest.fixture(scope="module")
def own(tmp_path_factory) -> tuple[Path, dict]:
    """The same in next-scale order, of pictures that are streamed; and the settings that say so."""
    folder = tmp_path_factory.mktemp("own")
    more = {"base": "digits_var", **streamed.settings(folder / "pictures"), "pretrain.teacher.views": 40}
    more |= {f"pretrain.{part}.batch": 32 for part in ("classifier", "tokenizer", "teacher")}
    finish(folder / "run", "pretrain", more=more)
    return folder / "run", more


@pytest.fixture(scope="module")
def whole(pretrained, tmp_path_factory) -> Path:
    workdir = tmp_path_factory.mktemp("runs") / "whole"
    shutil.copytree(pretrained, workdir)
    for stage in ("pairs", "train"):
        finish(workdir, stage)
    return workdir


def flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.write_bytes(data)


def damage(workdir: Path, made: str, draw: random.Random) -> None:
    """What a bad disk or a careless hand does to what is finished: a flipped byte in a shard, a lost checkpoint."""
    if made == "pairs" and (workdir / "pairs/manifest.json").exists():
        flip(draw.choice(sorted((workdir / "pairs").glob("shard-*.npz"))), draw.randrange(1 << 30))
    if ends(workdir, made).is_dir():
        shutil.rmtree(ends(workdir, made))


def ends(workdir: Path, made: str) -> Path:
    """The last checkpoint of a training."""
    return workdir / made / str(MADE[made][2])


def killed_copy(
    whole: Path, workdir: Path, made: str, count: int = 1, more: dict | None = None, wanted: int = KILLS
) -> None:
    """A copy of the run without `made`, killed at random moments of its making, damaged when done, then finished."""
    shutil.copytree(whole, workdir)
    stage, started, _ = MADE[made]
    shutil.rmtree(workdir / made)
    draw, kills = random.Random(count), 0
    for _ in range(10 * wanted):
        if kills == wanted:
            break
        damage(workdir, made, draw)
        killed = kill_while_it_works(workdir, stage, started, draw.uniform(0.0, 1.5), count, more)
        kills += killed and (stage != "pretrain" or not ends(workdir, made).is_dir())  # not in what comes behind it
    assert kills == wanted
    finish(workdir, stage, count, more=more)


@pytest.mark.parametrize("count", [1, 2])
def test_pairs(whole, tmp_path, count):
    killed_copy(whole, tmp_path / "run", "pairs", count)
    names = sorted(path.name for path in (whole / "pairs").iterdir())
    assert sorted(path.name for path in (tmp_path / "run/pairs").iterdir() if path.suffix != ".tmp") == names
    for name in names:
        assert (tmp_path / "run/pairs" / name).read_bytes() == (whole / "pairs" / name).read_bytes(), name


@pytest.mark.parametrize("count", [1, 2])
def test_training(whole, tmp_path, count):
    killed_copy(whole, tmp_path / "run", "student", count)
    if count > 1:  # sums over two processes have an order of their own
        shutil.copytree(whole, tmp_path / "reference")
        shutil.rmtree(tmp_path / "reference/student")
        finish(tmp_path / "reference", "train", count)
        whole = tmp_path / "reference"
    a, b = dd_jax.load(whole).params["student"], dd_jax.load(tmp_path / "run").params["student"]
    jax.tree.map(np.testing.assert_array_equal, a, b)


FLOW = {"student.head": "flow", "train.embedding": 0.0, "train.distance": "none", "train.timesteps": "(0,)"}
SCORES = {f"train.csd.{name}": value for name, value in {"start_steps": "(20,20)", "align_at": 40, "align": 8}.items()}
PAST = {
    "mixed": FLOW | {"train.objective": "mixed", "train.middle": 0.4},
    "on_policy": FLOW | {"train.objective": "on_policy"},
    "refined": FLOW | {"train.objective": "refined", "student.head": "logits"},
    "csd": FLOW | {"train.objective": "csd", "student.head": "velocity"} | SCORES,
    "flow_drift": FLOW | {"train.objective": "mixed", "train.distance": "drift", "train.embedding": 0.1},
    "drift": FLOW | {"train.distance": "drift", "train.embedding": 0.1, "student.head": "logits"},
}


@pytest.mark.parametrize("objective", PAST)
def test_training_past_the_paper(whole, tmp_path, objective):
    """Every turn of score distillation, networks and optimizers of both; noises that no file has."""
    more = PAST[objective] | {"baselines.onestep": False}
    shutil.copytree(whole, tmp_path / "whole", ignore=shutil.ignore_patterns("student", "config.json", "stages.json"))
    finish(tmp_path / "whole", "train", more=more)
    killed_copy(tmp_path / "whole", tmp_path / "run", "student", more=more, wanted=3)
    same(tmp_path / "run", tmp_path / "whole", "student")


def state(workdir: Path, part: str) -> tuple[int, bytes]:
    """The sum over all of a training's last state, its adversary's too; its published weights."""
    meta = json.loads((ends(workdir, part) / "meta/metadata").read_text())
    return meta["sum"], (workdir / "weights" / part / "weights.safetensors").read_bytes()


def same(run: Path, whole: Path, part: str) -> None:
    assert state(run, part) == state(whole, part)
    assert (run / part / "curve.jsonl").read_text() == (whole / part / "curve.jsonl").read_text()


@pytest.mark.parametrize("part", ["tokenizer", "teacher"])
def test_pretraining(pretrained, tmp_path, part):
    killed_copy(pretrained, tmp_path / "run", part)
    same(tmp_path / "run", pretrained, part)


@pytest.mark.parametrize("part", ["tokenizer", "teacher"])
def test_pretraining_on_a_stream(own, tmp_path, part):
    whole, more = own
    killed_copy(whole, tmp_path / "run", part, more=more)
    same(tmp_path / "run", whole, part)


def test_while_pictures_are_encoded(own, tmp_path):
    """A ninth of the codes and a torn row are there; killed when it has added some, the next one adds the rest."""
    (whole, more), run = own, tmp_path / "run"
    shutil.copytree(whole, run)
    shutil.rmtree(run / "teacher")
    codes = run / "codes/codes.bin"
    wanted = codes.read_bytes()
    codes.write_bytes(wanted[: len(wanted) // 9 + 5])
    assert kill_while_it_works(run, "pretrain", "codes/codes.bin", 0.0, 1, more)
    assert len(wanted) // 9 + 5 < codes.stat().st_size < len(wanted)
    assert not (run / "teacher").exists()
    finish(run, "pretrain", more=more)
    assert codes.read_bytes() == wanted
    same(run, whole, "teacher")


def test_samples(whole, tmp_path):
    """A finished set and one that was killed three times: every byte but the times."""
    more = {"sample.count": 12_000, "sample.shard": 500, "sample.batch": 250}
    for name in ("a", "b"):
        shutil.copytree(whole, tmp_path / name)
    subprocess.run(command(tmp_path / "a", "sample", more), cwd=ROOT, check=True, capture_output=True)
    draw = random.Random(1)
    times = [draw.uniform(0.0, 0.4) for _ in range(3)]
    killed = [kill_while_it_works(tmp_path / "b", "sample", "S0/shard-*.npz", moment, 1, more) for moment in times]
    assert any(killed)
    subprocess.run(command(tmp_path / "b", "sample", more), cwd=ROOT, check=True, capture_output=True)
    names = [path.relative_to(tmp_path / "a") for path in (tmp_path / "a/samples").rglob("*.npz")]
    assert len(names) == 25
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.parametrize("part", ["student", "tokenizer", "teacher"])
def test_another_mesh_goes_on(part, tmp_path, request):
    """The last checkpoint lost, two devices train the rest of what one began."""
    whole = request.getfixturevalue("whole" if part == "student" else "pretrained")
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(ends(tmp_path / "run", part))
    finish(tmp_path / "run", MADE[part][0], devices=2)
    a, b = (load_file(folder / "weights" / part / "weights.safetensors") for folder in (whole, tmp_path / "run"))
    far = sum(float(((a[name] - b[name]) ** 2).sum()) for name in a)
    print(part, (far / sum(float((x**2).sum()) for x in a.values())) ** 0.5)
    assert far < 1e-10 * sum(float((x**2).sum()) for x in a.values())


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"train.stepz": 3}, "stepz"),
        ({"train.steps": "many"}, "train.steps"),
        ({"family": "gan"}, "config.family is 'gan': choose one of"),
        ({"flow.name": "rk9"}, "rk9"),
    ],
)
def test_bad_settings_are_one_clear_line(tmp_path, more, message):
    run = subprocess.run(command(tmp_path, "pretrain", more), cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 1
    assert message in run.stderr + run.stdout
    assert "Traceback" not in run.stderr
