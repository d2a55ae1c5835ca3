"""Checkpoints, the input's place in them, and how a training ends before its end."""

import dataclasses
import json
import os
import shutil
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from dd_jax.data.batches import index_batches, stream
from dd_jax.system import processes, stopping
from dd_jax.system.checkpoint import Checkpoints, checksum
from dd_jax.system.errors import UserError
from dd_jax.training import curves, sinks
from dd_jax.training.log import Extras, Log
from dd_jax.training.loop import Recipe, fit, init_state, update
from dd_jax.training.throughput import Throughput

RECIPE = Recipe(steps=12, batch=4, lr=0.1, warmup=0, checkpoint_every=5)


def tree():
    key = jax.random.key(0)
    return {"a": jax.random.normal(key, (3, 5)), "b": jnp.arange(7, dtype=jnp.bfloat16), "step": jnp.int32(3)}


def test_every_bit_counts():
    before = tree()
    total = checksum(before)
    for name, leaf in before.items():
        raw = bytearray(np.asarray(leaf).tobytes())
        for at in range(len(raw)):
            raw[at] ^= 1 << at % 8
            other = np.frombuffer(bytes(raw), leaf.dtype).reshape(leaf.shape)
            assert checksum(before | {name: jnp.asarray(other)}) != total
            raw[at] ^= 1 << at % 8
    moved = before | {"a": before["a"][::-1]}
    assert checksum(moved) != total
    assert checksum(before | {"a": before["a"].T}) != total


def test_a_saved_state_may_be_donated_at_once(tmp_path):
    state, kept = tree(), jax.device_get(tree())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(3, state, {"next_index": 3})
        jax.tree.map(lambda x: x.delete(), state)
        assert checkpoints.latest() is None  # until the devices have something else to do
        checkpoints.flush()
    with Checkpoints(tmp_path) as checkpoints:
        found, place = checkpoints.restore(jax.eval_shape(tree))
    jax.tree.map(np.testing.assert_array_equal, found, kept)
    assert place == {"next_index": 3}


@pytest.mark.parametrize("name", ["[exp]", "a*", "b?", "c\\d", "**"])
def test_folders_named_like_patterns(tmp_path, name):
    folder = tmp_path / name / "student"
    other = tmp_path / "another" / "student"  # that `a*` fits, too
    for where, state in ((other, {"x": jnp.zeros(2)}), (folder, tree())):
        with Checkpoints(where) as checkpoints:
            checkpoints.save(3, state)
    assert [path.name for path in folder.iterdir()] == ["3"]
    with Checkpoints(folder) as checkpoints:
        found, _ = checkpoints.restore(jax.eval_shape(tree))
    jax.tree.map(np.testing.assert_array_equal, found, tree())


def test_several_processes_want_a_plain_name(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "count", lambda: 2)
    with pytest.raises(UserError, match=r"cannot be written to .*\[exp\]: choose a --workdir without"):
        Checkpoints(tmp_path / "[exp]")


@pytest.mark.parametrize("state", [{"a.b": 0, "a": {"b": 1}}, {"a": [0], "a.0": 1}, {"a": {"b": {"c": 0}, "b.c": 1}}])
def test_two_arrays_of_one_name_are_refused_before_the_first_step(tmp_path, state):
    state = jax.tree.map(jnp.asarray, state)
    with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=r"saved under the name 'a\.(b|0|b\.c)'"):
        checkpoints.save(1, state)
    asked = []
    with pytest.raises(UserError, match="two arrays"):
        fit("toy", tmp_path, RECIPE, state, lambda *given: given, asked.append)
    assert not asked


def test_what_differs_is_said(tmp_path):
    saved = init_state({"w": jnp.ones((4, 3)), "b": jnp.zeros(3)}, RECIPE.optimizer())
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(2, saved)
    wide = {"w": jnp.ones((4, 5)), "b": jnp.zeros(3)}
    narrow = {"w": jnp.ones((4, 3), jnp.bfloat16), "b": jnp.zeros(3)}
    renamed = {"v": jnp.ones((4, 3)), "b": jnp.zeros(3)}
    muon = dataclasses.replace(RECIPE, muon=True).optimizer()
    parts = optax.chain(optax.identity(), RECIPE.optimizer())
    for params, tx, told in (
        (wide, RECIPE.optimizer(), r"params\.w is float32 \(4, 3\) there, float32 \(4, 5\) here"),
        (narrow, RECIPE.optimizer(), r"params\.w is float32 \(4, 3\) there, bfloat16 \(4, 3\) here"),
        (renamed, RECIPE.optimizer(), r"params\.v is not there, float32 \(4, 3\) here; params\.w is float32"),
        (saved.params, muon, r"opt\.1\.0\.count is int32 \(\) there, not here"),
        (saved.params, parts, r"opt\.1\..*there"),
    ):
        like = jax.eval_shape(lambda params=params, tx=tx: init_state(params, tx))
        with Checkpoints(tmp_path) as checkpoints, pytest.raises(UserError, match=told) as error:
            checkpoints.restore(like)
        assert "is of another model or optimizer" in str(error.value)
        assert "delete" not in str(error.value)
        assert "\n" not in str(error.value)


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    folder = tmp_path_factory.mktemp("two")
    with Checkpoints(folder) as checkpoints:
        for step in (5, 10):
            checkpoints.save(step, tree(), {"next_index": step})
    return folder


def halved(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def only(name, text):
    """Writes `text` into the file `name` of a checkpoint."""
    return lambda step: (step / name).write_text(text)


def each(pattern, spoil):
    """Spoils every file of a checkpoint that fits."""
    return lambda step: [spoil(path) for path in step.glob(pattern) if path.is_file()]


TEARS = {
    "nothing but a folder": lambda step: (shutil.rmtree(step), step.mkdir()),
    "no numbers": lambda step: shutil.rmtree(step / "state"),
    "no word on the input": lambda step: shutil.rmtree(step / "meta"),
    "empty files": each("**/*", lambda path: path.write_bytes(b"")),
    "zeros": each("**/*", lambda path: path.write_bytes(bytes(path.stat().st_size))),
    "halves": each("**/*", halved),
    "half of the numbers": each("state/d/*", halved),
    "no numbers in their files": each("state/d/*", lambda path: path.unlink()),
    "no list of them": each("state/manifest.ocdbt", lambda path: path.unlink()),
    "half of a description": each("state/_METADATA", halved),
    "another description": only("state/_METADATA", '{"tree_metadata": 3}'),
    "half of the input's place": each("meta/metadata", halved),
    "another thing as the input's place": only("meta/metadata", "[3]"),
}


@pytest.mark.parametrize("tear", TEARS.values(), ids=TEARS)
def test_a_torn_checkpoint_is_one_line_and_the_one_before_it_goes_on(two, tmp_path, tear):
    run = tmp_path / "run"
    shutil.copytree(two, run)
    tear(run / "10")
    with Checkpoints(run) as checkpoints:
        told = rf"^checkpoint {run}/10 is damaged \(.+\); move or delete that folder to go on from step 5$"
        with pytest.raises(UserError, match=told):
            checkpoints.restore(jax.eval_shape(tree))
    (run / "10").rename(tmp_path / "10")
    with Checkpoints(run) as checkpoints:
        found, place = checkpoints.restore(jax.eval_shape(tree))
    jax.tree.map(np.testing.assert_array_equal, found, tree())
    assert place == {"next_index": 5}


def test_a_torn_word_on_the_whole_does_no_harm_and_a_wrong_one_is_named(two, tmp_path):
    shutil.copytree(two, tmp_path / "run")
    word = tmp_path / "run/10/_CHECKPOINT_METADATA"
    for spoil in (halved, lambda path: path.write_bytes(b""), lambda path: path.unlink()):
        spoil(word)
        with Checkpoints(tmp_path / "run") as checkpoints:
            assert checkpoints.restore(jax.eval_shape(tree))[1] == {"next_index": 10}
    word.write_text("[3]")
    with pytest.raises(UserError, match=r"_CHECKPOINT_METADATA: Metadata .*\): delete that file, the arrays do not"):
        Checkpoints(tmp_path / "run")


def test_no_checkpoint_and_no_other_one(two, tmp_path):
    with Checkpoints(tmp_path / "none") as checkpoints, pytest.raises(UserError, match=r"no checkpoint in .*none: run"):
        checkpoints.restore(jax.eval_shape(tree))
    shutil.copytree(two / "10", tmp_path / "run/10")
    (tmp_path / "run/10/meta/metadata").unlink()
    with Checkpoints(tmp_path / "run") as checkpoints, pytest.raises(UserError, match=r"that folder to begin anew$"):
        checkpoints.restore(jax.eval_shape(tree))


def test_a_checkpoint_that_may_not_be_read_is_not_called_damaged(two, monkeypatch):
    def refused(*args, **named):
        raise ValueError("PERMISSION_DENIED: Error opening ...")

    with Checkpoints(two) as checkpoints:
        monkeypatch.setattr(checkpoints._manager, "restore", refused)
        with pytest.raises(UserError, match=r"cannot be read now \(PERMISSION_DENIED: .*\), it may be whole: retry"):
            checkpoints.restore(jax.eval_shape(tree))


def test_a_disk_that_is_full_is_one_line(tmp_path):
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    small, large = {"x": jnp.zeros(3)}, {"x": jax.random.normal(jax.random.key(0), (40_000,))}
    with Checkpoints(tmp_path) as checkpoints:
        checkpoints.save(1, small)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(2, large)  # written when it is closed
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
        with pytest.raises(UserError, match=r"cannot write checkpoints to .*: File too large; those that it holds are"):
            checkpoints.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 1
        checkpoints.restore(small)


def test_the_stream_is_the_function_of_the_step():
    at = index_batches(10, 4, 0)
    whole = list(stream(at, 8))
    np.testing.assert_array_equal(whole, [at(step) for step in range(8)])
    found = stream(at, 8)
    next(found), next(found)
    np.testing.assert_array_equal(list(stream(at, 8, 2, found.get_state())), whole[2:])
    assert list(stream(at, 8, 8)) == []
    with pytest.raises(UserError, match="checkpoint of step 3 has its input at"):
        stream(at, 8, 3, found.get_state())


def train(folder, extras=None, at=lambda step: None, spoil=None, recipe=RECIPE):
    """A matrix that learns to be the mean of what it sees; `at(step)` is called when a batch is read."""
    tx, indices = recipe.optimizer(), index_batches(20, recipe.batch, 0)

    @jax.jit
    def step(state, batch):
        loss, grad = jax.value_and_grad(lambda w: jnp.mean((w["w"] - batch["x"]) ** 2))(state.params)
        state, _ = update(state, grad, tx, recipe.ema)
        return state, {"loss": loss, "loss/odd": loss}

    def batch_at(number):
        at(number)
        ids = indices(number)
        return {"id": ids, "x": ids[:, None] + (np.nan if number == spoil else 0.0)}

    state = init_state({"w": jnp.zeros((4, 1))}, tx)
    return fit("toy", folder, recipe, state, step, batch_at, extras=extras)


def test_a_step_that_reads_restored_weights_is_compiled_once(tmp_path):
    tx = RECIPE.optimizer()
    with Checkpoints(tmp_path / "read") as checkpoints:
        checkpoints.save(1, {"w": jnp.ones((4, 1))})
    with Checkpoints(tmp_path / "read") as checkpoints:
        read, _ = checkpoints.restore({"w": jax.ShapeDtypeStruct((4, 1), jnp.float32)})

    @jax.jit
    def step(state, batch, read):
        loss, grad = jax.value_and_grad(lambda w: jnp.mean((w["w"] - read["w"]) ** 2))(state.params)
        return update(state, grad, tx, RECIPE.ema)[0], {"loss": loss}

    state = init_state({"w": jnp.zeros((4, 1))}, tx)
    batch_at = index_batches(8, RECIPE.batch, 0)
    fit("toy", tmp_path / "toy", RECIPE, state, lambda s, b: step(s, b, read), lambda n: {"id": batch_at(n)})
    assert step._cache_size() == 1


def test_told_to_stop_it_saves_and_goes_on_to_the_same_end(tmp_path, monkeypatch):
    whole = train(tmp_path / "whole")
    before = signal.getsignal(signal.SIGTERM)

    def terminate(step):
        if step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(stopping, "_asked", False)
    with pytest.raises(stopping.Stopped, match=r"toy: stopped at step \d+ of 12, which is saved") as told:
        train(tmp_path / "run", at=terminate)
    assert signal.getsignal(signal.SIGTERM) == before
    saved = str(told.value).split()[4]
    assert (tmp_path / "run" / saved).is_dir()
    monkeypatch.setattr(stopping, "_asked", False)
    again = train(tmp_path / "run")
    jax.tree.map(np.testing.assert_array_equal, again, whole)
    assert (tmp_path / "run/curve.jsonl").read_text() == (tmp_path / "whole/curve.jsonl").read_text()


def test_a_loss_that_is_not_finite_names_its_examples(tmp_path):
    with pytest.raises(UserError, match=r"toy: the loss is nan at step 8 \(examples .*last good checkpoint is step 5"):
        train(tmp_path, spoil=7)
    told = json.loads((tmp_path / "not_finite.json").read_text())
    assert told["step"] == 8
    assert told["ids"] == index_batches(20, 4, 0)(7).tolist() == [*map(int, told["names"])]
    with Checkpoints(tmp_path) as checkpoints:
        assert checkpoints.latest() == 5
    assert int(train(tmp_path).step) == 12  # the cause removed, it goes on


def test_a_gradient_that_is_not_finite_is_found_before_it_is_saved(tmp_path):
    """The loss of its own step is finite still: that of the next one would tell, behind a checkpoint."""
    log = Log("toy", tmp_path, 1000, 0, lambda step: {"id": np.arange(9)}, lambda: 4, Extras(called="{}.png".format))
    log.note(5, {"loss": jnp.float32(1), "other_grad_norm": jnp.float32(np.nan), "psnr": jnp.float32(np.inf)}, None)
    with pytest.raises(UserError, match=r"the other_grad_norm is nan at step 5 \(examples 0.png, 1.png, .* 4 more"):
        log.check()
    assert json.loads((tmp_path / "not_finite.json").read_text())["names"][-1] == "8.png"


def test_numbers_go_to_every_sink(tmp_path, monkeypatch):
    seen = []

    class Recorder:
        def __init__(self, folder, resume):
            seen.append(resume)

        def write(self, step, **numbers):
            seen.append((step, numbers))

        def close(self):
            seen.append("closed")

    monkeypatch.setitem(sinks.KINDS, "tensorboard", Recorder)
    throughput = Throughput(
        lambda *args: jax.make_jaxpr(lambda x: x @ x)(jnp.ones((4, 4))).jaxpr, tokens=100, devices=1
    )
    extras = Extras(("tensorboard",), throughput, lambda step, state: {"nll": step / 2}, preview_every=6)
    train(tmp_path, extras)
    assert seen[0] == 1
    assert seen[-1] == "closed"
    assert set(seen[2][1]) == {"loss", "loss/odd", "tokens_per_s", "mfu"}
    curve, speed = (curves.read(tmp_path / f"{name}.jsonl") for name in ("curve", "speed"))
    assert [row["step"] for row in curve if "nll" in row] == [6, 12]
    assert [row["step"] for row in speed] == list(range(2, 13))
    assert all(row["tokens_per_s"] > 0 for row in speed)
    with pytest.raises(UserError, match="choose from tensorboard, wandb"):
        train(tmp_path / "other", Extras(("sacred",)))


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboardX")
    train(tmp_path, Extras(("tensorboard",)))
    assert list((tmp_path / "tensorboard").glob("events.*"))
