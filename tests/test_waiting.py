"""Whether the input of a training keeps up: only time with nothing left to compute counts, and a line says so once."""

import json
import time

import jax.numpy as jnp
import numpy as np
import pytest

from dd_jax.data.examples import Examples
from dd_jax.training.course import Course
from dd_jax.training.loop import Recipe
from dd_jax.training.waiting import STEPS, Waiting


class Machine(Waiting):
    """One whose time is made: a device that computes in turn, a reader that is two batches ahead."""

    def __init__(self, step: float, read: float) -> None:
        super().__init__(lambda: self.now)
        self.now, self.step, self.read = 0.0, step, read
        self.busy, self.came = 0.0, [0.0, 0.0]

    def __next__(self) -> None:
        ready = self.came.pop(0)
        self.now = max(self.now, ready)
        self.came.append(max(self.came[-1], self.now) + self.read)

    def _done(self, metrics: float) -> float:
        return metrics

    def run(self, steps: int, every: int = STEPS) -> list[float]:
        found = []
        for done in range(1, steps + 1):
            self.take(self)
            self.busy = max(self.busy, self.now) + self.step
            self.computing(self.busy)
            if done % every == 0:
                self.now = max(self.now, self.busy)  # metrics are read
                found += self.look(done).values()
        return found


@pytest.mark.parametrize(("step", "read", "share"), [(1.0, 0.9, 0), (1.0, 0.1, 0), (1.0, 1.25, 0.2), (0.1, 1.0, 0.9)])
def test_decoding_beside_a_step_is_no_waiting(step, read, share):
    found = Machine(step, read).run(40 * STEPS)
    assert len(found) == 39
    np.testing.assert_allclose(found[1:], share, atol=0.03)
    assert len(Machine(step, read).run(40 * STEPS, every=1)) == 39


def test_a_training_that_waits_says_so_once(tmp_path, capsys):
    """And learns the same; one whose pictures are in memory tells nothing."""
    img = np.random.default_rng(0).normal(size=(16, 2, 2, 1)).astype(np.float32)

    def read(at):
        time.sleep(0.01)
        return img[at]

    def loss(params, batch, frozen):
        found = jnp.mean((batch["img"] - params["x"]) ** 2)
        return found, {"loss": found}

    curves = []
    for name, data in (("streamed", Examples(read, 16, (2, 2, 1))), ("kept", img)):
        recipe = Recipe(steps=4 * STEPS, batch=4, lr=0.1)
        Course(name, tmp_path / name, recipe).train({"x": jnp.zeros(())}, loss, {"img": data})
        curves.append((tmp_path / name / "curve.jsonl").read_bytes())
    assert curves[0] == curves[1]
    speed = [json.loads(line) for line in (tmp_path / "streamed/speed.jsonl").open()]
    assert [row["step"] for row in speed] == [1 + STEPS, 1 + 2 * STEPS, 1 + 3 * STEPS]
    assert all(0.1 < row["input_wait"] <= 1 for row in speed)
    assert not (tmp_path / "kept/speed.jsonl").exists()
    told = [line for line in capsys.readouterr().out.splitlines() if "wait for" in line]
    assert len(told) == 1
    assert told[0].startswith("streamed: for ")
    assert "--config.data.cache=MIB" in told[0]
