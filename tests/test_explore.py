"""The explorer without a browser: what is shown is what a call of the library draws, and files bring it back."""

import dataclasses
import io
import json
import types
import zipfile

import numpy as np
import pytest
from PIL import Image

import dd_jax
from dd_jax.explore import uploads
from dd_jax.explore.scene import Locks, Scene
from dd_jax.explore.shown import DRAWING, Coming, Shown, archive, film, table
from dd_jax.explore.studio import KEPT, Studio
from dd_jax.method.layout import Layout
from dd_jax.system.errors import UserError


@pytest.fixture(scope="module")
def studio(tiny_run):
    return Studio(dd_jax.load(tiny_run[0]))


def again(pipe, folder, columns):
    """What the calls in a downloaded archive draw."""
    with zipfile.ZipFile(io.BytesIO(archive(columns, "RUN"))) as file:
        file.extractall(folder)
    drawn = []
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()):
        (call,) = inner.glob("*.json")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(inner)
            drawn.append(getattr(pipe, call.stem)(**json.loads(call.read_text())))
        pictures = [np.asarray(Image.open(path)) for path in sorted(inner.glob("[0-9]*.png"))]
        assert np.array_equal(np.stack(pictures).reshape(drawn[-1].shape), drawn[-1])
    return drawn


def test_what_is_shown_can_be_drawn_again_from_its_file(studio, tmp_path):
    """Noise of one's own and float settings come back from JSON to the last bit; so do pictures and masks."""
    scene = Scene((3, 3), seed=5, settings={"guidance": 2.3, "temperature": 0.85})
    noise = np.asarray(studio.pipe.noise(2, 9))
    picture = studio.draw(scene, "S0").images[:1]
    hole = np.zeros((16, 16), bool)
    hole[:8] = True
    columns = [
        studio.draw(scene, "S0 J2"),
        studio.draw(Scene((3, 3), noise=noise), "S0"),
        studio.repainted(picture, hole, 4, 2, plan="S0 J4", candidates=2, seed=1),
        studio.varied(picture, 4, 2, share=0.5, plan="S0", candidates=1, seed=1),
    ]
    assert columns[0].arguments["guidance"] == 2.3
    for column, drawn in zip(columns, again(studio.pipe, tmp_path, columns), strict=True):
        assert np.array_equal(column.images, drawn), column.call


def test_a_setting_that_changes_nothing_is_left_out(studio):
    """So a teacher's slider draws no student anew."""
    told = [Scene((1,), settings={"guidance": x, "tau": 1.0}).arguments("S0 S5") for x in (1.0, 2.0)]
    assert told[0] == told[1]
    assert "tau" in told[0]
    assert studio.draw(Scene((1,), settings={"guidance": 1.0}), "S0") is studio.draw(
        Scene((1,), settings={"guidance": 2.0}), "S0"
    )


def test_only_the_last_answers_are_remembered(studio):
    for seed in range(KEPT + 3):
        studio.draw(Scene((0,), seed=seed), "S0")
    assert len(studio._answers) == KEPT
    assert len(studio._jobs) < 12


def test_locked_tokens_keep_their_noise():
    """Of several seeds: each token that of the seed under which it was locked."""
    layout = Layout.raster(3)
    noises = np.random.default_rng(0).standard_normal((4, 2, 9, 5)).astype(np.float32)
    locks = Locks.none(noises[0]).toggled(noises[0], layout, 1, 1)
    locks = locks.toggled(noises[1], layout, 2, 0)
    now = locks.over(noises[2])
    assert np.array_equal(now[:, 4], noises[0][:, 4])
    assert np.array_equal(now[:, 6], noises[1][:, 6])
    others = [i for i in range(9) if i not in (4, 6)]
    assert np.array_equal(now[:, others], noises[2][:, others])
    free = locks.toggled(noises[3], layout, 1, 1)
    assert free.held_L.sum() == 1
    assert free.any


def test_coarse_tokens_are_locked_with_all_of_their_square():
    layout = Layout.scales((1, 2, 4))
    noise = np.zeros((1, 21, 3), np.float32)
    locks = Locks.none(noise)
    for row, column in [(0, 0), (0, 1), (1, 0)]:
        locks = locks.toggled(noise, layout, row, column)
    assert locks.held_L.sum() == 3
    locks = locks.toggled(noise, layout, 1, 1)
    assert locks.held_L[1]
    assert locks.held_L.sum() == 5


def test_a_walk_begins_and_ends_at_its_seeds(studio):
    scene = Scene((2,) * 4, seed=1)
    walk = studio.walk(scene, "S0", to=8, frames=5)
    assert len(walk.images) == 5
    for frame, seed in ((0, 1), (-1, 8)):
        own = studio.pipe.sample([2], seed=seed)[0]
        assert np.abs(walk.images[frame].astype(int) - own).max() <= 1  # another batch's sums
    with pytest.raises(UserError, match="2 to 32 frames"):
        studio.walk(scene, "S0", to=8, frames=1)


def test_a_picture_is_drawn_again_from_its_own_noise(studio):
    steps = studio.pipe.system.layout.steps
    picture = studio.pipe.sample([3], seed=2)
    drawn = studio.relabelled(picture, 3, [3, 5], f"T0:{steps}")
    assert np.array_equal(drawn.images[:1], studio.kept(picture).images)
    noise = np.repeat(studio.pipe.invert(picture, [3]), 2, 0)
    assert np.array_equal(drawn.images, studio.pipe.sample([3, 5], f"T0:{steps}", noise=noise))


def test_plans_are_checked_before_anything_is_compiled(studio):
    assert studio.told("S0 J4") == "5 passes"
    assert studio.told("S0") == "1 pass"
    assert studio.told("S0 J*") == "as many passes as it takes"
    for plan, told in {"S0 S3": "trained for", "S1": "needs steps", "X": "cannot read"}.items():
        with pytest.raises(UserError, match=told):
            studio.told(plan)
    assert studio.presets[0] == "S0"
    assert studio.presets[-1].startswith("T0:")


def test_without_a_teacher_there_is_one_step(tiny_run):
    alone = Studio(dd_jax.load(tiny_run[0], parts=("student",)))
    assert {word[0] for plan in alone.presets for word in plan.split()} == {"S"}
    with pytest.raises(UserError, match="needs a teacher"):
        alone.ready(Scene((0,)), "S0 J4")


def test_a_failed_program_is_tried_again(studio, monkeypatch):
    scene = Scene((0,) * 3)

    def fail(**_):
        raise MemoryError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(studio.pipe, "sample", fail)
        with pytest.raises(MemoryError):
            studio.draw(scene, "S0 J1/2")
    assert len(studio.draw(scene, "S0 J1/2").images) == 3


def test_a_slow_column_does_not_hold_up_the_others(studio, monkeypatch):
    scene, names, clock, draw = Scene((0, 1), 77), studio.presets[:2], [0.0], studio.draw
    for name in names:
        draw(dataclasses.replace(scene, seed=78), name)  # its program is there

    def slow(scene, plan):
        clock[0] += not studio.drawn(scene, plan)
        return draw(scene, plan)

    monkeypatch.setattr(studio, "draw", slow)
    monkeypatch.setattr("dd_jax.explore.studio.time", types.SimpleNamespace(perf_counter=lambda: clock[0]))
    first, second = studio.columns(scene, names)
    assert (type(first), second) == (Shown, Coming(names[1], DRAWING))
    assert [one.title for one in studio.columns(scene, names) if isinstance(one, Shown)] == names
    assert clock == [2.0]


def test_tables_hold_every_picture_and_no_markup_of_captions():
    images = np.zeros((2, 8, 8, 1), np.uint8)
    page = table([Shown("<b>", images, "sample", {}, 2, 1234.0), Coming("T0:16")], ["<i>one", "two"])
    assert page.count("<img") == 2
    assert "<b>" not in page
    assert "<i>" not in page
    assert "2 passes, 1.2 s" in page
    assert "compiling" in page
    assert film(np.zeros((3, 8, 8, 3), np.uint8), "x").count("base64") == 1


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (b"no picture", "is no picture"),
        (b"", "is no picture"),
        ((5000, 5000), "5000 x 5000 pixels"),
        (b"\0" * (uploads.BYTES + 1), "has 20 MB"),
    ],
    ids=["text", "empty", "megapixels", "bytes"],
)
def test_uploads_that_are_refused(content, told, tmp_path):
    file = tmp_path / "picture.png"
    if isinstance(content, tuple):
        Image.new("1", content).save(file)
    else:
        file.write_bytes(content)
    with pytest.raises(UserError, match=told):
        uploads.read(file, 8, 1)


def test_an_upload_is_read_as_the_library_reads_it(studio, tmp_path):
    file = tmp_path / "a photograph.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)).save(file)
    read = studio.read(str(file), "crop")
    assert np.array_equal(studio.pipe.encode(read), studio.pipe.encode(str(file)))
