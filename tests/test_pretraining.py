"""Tokenizer, teacher and classifier on pictures of one's own: what they do when a loss, a disk or a picture fails."""

import json
import os
import shutil
import signal
from pathlib import Path

import numpy as np
import pytest
from conftest import tiny_config
from PIL import Image

from dd_jax import pipeline
from dd_jax.stages import tokenizing
from dd_jax.system import stopping
from dd_jax.system.errors import UserError
from dd_jax.training import course, loop

pytestmark = pytest.mark.xdist_group("pretraining")
TRAINED = ("classifier", "tokenizer", "teacher")
COUNT = 40  # pictures of each class, of which two each are held out


def own(pictures: Path):
    """The tiny config on a folder; its tokenizer plays against a discriminator from the first checkpoint on."""
    config = tiny_config("llamagen")
    plain = dict.fromkeys(("rotate", "scale", "shear", "shift"), 0.0)
    config.data.update({"name": f"folder:{pictures}", "classes": 2, "channels": 3, **plain})
    config.pretrain.tokenizer.update({"gan_weight": 0.5, "gan_start": 5, "gan_width": 4, "gan_layers": 1, "l1": 1.0})
    return config


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A folder of pictures, and a run that was pretrained on it."""
    here, draw = tmp_path_factory.mktemp("own"), np.random.default_rng(0)
    for i in range(2 * COUNT):
        file = here / "pictures" / ("apples", "pears")[i % 2] / f"{i:02}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (9, 9, 3), np.uint8)).save(file)
    pipeline.run(own(here / "pictures"), str(here / "run"), "pretrain")
    return here


@pytest.fixture
def copy(whole, tmp_path):
    """Both, to be spoilt: (folder, config)."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    return tmp_path, own(tmp_path / "pictures")


def again(copy, part: str) -> None:
    """Train `part` anew; what lies before it is there."""
    here, config = copy
    for name in TRAINED[TRAINED.index(part) :]:
        shutil.rmtree(here / "run" / name)
    (here / "run/stages.json").unlink()
    pipeline.run(config, str(here / "run"), "pretrain")


def left(folder: Path, part: str) -> tuple[int, bytes, str]:
    """What a training has left: the sum over all of its last state, its published weights, its curve."""
    state, run = json.loads((folder / "run" / part / "12/meta/metadata").read_text()), folder / "run"
    return state["sum"], (run / "weights" / part / "weights.safetensors").read_bytes(), curve(folder, part)


def curve(folder: Path, part: str) -> str:
    return (folder / "run" / part / "curve.jsonl").read_text()


@pytest.mark.parametrize("part", TRAINED)
def test_a_loss_that_is_not_finite_names_the_files_of_its_batch(copy, part):
    copy[1].pretrain[part].update({"lr": 1e9, "clip": 1e9, "weight_decay": 1e9})
    file = r"\S+/pictures/(apples|pears)/\d\d\.png"
    told = rf"^{part}: the \w+ is (nan|inf) at step \d+ \(examples {file}(, {file}){{4}} and 2\d more; see "
    with pytest.raises(UserError, match=told):
        again(copy, part)
    noted = json.loads((copy[0] / "run" / part / "not_finite.json").read_text())
    assert len(noted["names"]) == len({i % (2 * COUNT - 4) for i in noted["ids"]}) > 16
    assert all(Path(name).is_file() for name in noted["names"])


def test_told_to_stop_each_saves_and_goes_on_to_the_same_end(copy, whole, monkeypatch):
    """SIGTERM in every one of the three, one after the other; the tokenizer's adversary plays by then."""
    here, config = copy
    shutil.rmtree(here / "run")
    told = []

    def fit(name, folder, recipe, state, step_fn, batch_at, *more):
        def at(step):
            if step == 7 and name not in told:
                told.append(name)
                os.kill(os.getpid(), signal.SIGTERM)
            return batch_at(step)

        return loop.fit(name, folder, recipe, state, step_fn, at, *more)

    monkeypatch.setattr(course, "fit", fit)
    monkeypatch.setattr(tokenizing, "fit", fit)
    for part in TRAINED:
        monkeypatch.setattr(stopping, "_asked", False)
        with pytest.raises(stopping.Stopped, match=rf"{part}: stopped at step \d+ of 12, which is saved"):
            pipeline.run(config, str(here / "run"), "pretrain")
    monkeypatch.undo()
    pipeline.run(config, str(here / "run"), "pretrain")
    for part in TRAINED:
        assert left(here, part) == left(whole, part), part


@pytest.mark.parametrize("part", ["tokenizer", pytest.param("teacher", marks=pytest.mark.slow)])
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(copy, whole, part):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, before[1]))
        with pytest.raises(UserError, match=rf"^cannot write checkpoints to .*/{part}: File too large; .* free some"):
            again(copy, part)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    pipeline.run(copy[1], str(copy[0] / "run"), "pretrain")
    assert left(copy[0], part) == left(whole, part)


def tear(folder: Path) -> list[Path]:
    """Pictures whose header is whole."""
    torn = sorted((folder / "pictures").glob("*/*.png"))[::9]
    for path in torn:
        os.truncate(path, path.stat().st_size * 2 // 3)
    return torn


@pytest.mark.parametrize("cache", [1024, 0])
def test_torn_pictures_are_refused(copy, cache):
    """All of them before training where they are decoded then, else the one that is met."""
    here, config = copy
    torn, config.data.cache, config.data.flip = [str(path) for path in tear(here)], cache, True
    with pytest.raises(UserError, match=r"\.png .*--config\.data\.strict=false$") as told:
        again(copy, "tokenizer")
    named = [path for path in torn if path in str(told.value)]
    assert len(named) == (min(len(torn), 6) if cache else 1)
    assert not (here / "run/tokenizer/12").exists()


@pytest.mark.slow
def test_without_strict_others_stand_in_and_are_counted(copy, whole, capfd):
    """However they are read, a training sees the same: its curve is that of pictures that are all kept."""
    here, config = copy
    torn, config.data.strict, curves = tear(here), False, []
    for cache in (1024, 0):
        config.data.cache = cache
        again(copy, "tokenizer")
        curves.append([curve(here, part) for part in ("tokenizer", "teacher")])
        out = capfd.readouterr().out
        assert f"pretrain: {len(torn)} pictures could not be read, others of the same class stood in: {torn[0]}" in out
    assert curves[0] == curves[1] != [curve(whole, part) for part in ("tokenizer", "teacher")]
