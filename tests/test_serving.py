"""Requests that are drawn together are those drawn alone."""

import threading

import numpy as np
import pytest

import dd_jax
from dd_jax.serving import Queue
from dd_jax.system.errors import UserError

MANY = (
    ([1, 2, 3], {"ids": [5, 6, 7], "seed": 3}),
    (["4"], {"tau": 0.7, "temperature": 0.5}),
    ([5, 5], {"seed": 4, "top_k": [2, 9]}),
    ([0, 9], {"top_p": 0.4}),
)


@pytest.fixture(scope="module")
def pipe(tiny_run):
    return dd_jax.load(tiny_run[0])


@pytest.fixture
def gate(pipe, monkeypatch):
    """(an event that lets calls begin, pictures of every call so far)."""
    opened, counts, drawn = threading.Event(), [], pipe.drawn

    def held(order):
        counts.append(order.count)
        assert opened.wait(60)
        return drawn(order)

    monkeypatch.setattr(pipe, "drawn", held)
    return opened, counts


def wait_for_the_worker(counts):
    for _ in range(6000):
        if counts:
            return
        threading.Event().wait(0.01)
    raise AssertionError("nothing was drawn")


@pytest.mark.parametrize(("plan", "guidance"), [("S0", (None,) * 4), ("T0:16", (1.0, 3.5, [2.0, 0.5], 4.0))])
def test_together_as_alone(pipe, gate, plan, guidance):
    opened, counts = gate
    orders = [(labels, given | {"guidance": g}) for (labels, given), g in zip(MANY, guidance, strict=True)]
    with Queue(pipe) as queue:
        first = queue.submit([7], plan)
        wait_for_the_worker(counts)
        found = [queue.submit(labels, plan, **given) for labels, given in orders]
        opened.set()
    assert counts == [1, 8]
    np.testing.assert_array_equal(first.result(), pipe.sample([7], plan))
    for future, (labels, given) in zip(found, orders, strict=True):
        np.testing.assert_array_equal(future.result(), pipe.sample(labels, plan, **given))


def test_what_does_not_fit_waits(pipe, gate):
    opened, counts = gate
    with Queue(pipe, most=4) as queue:
        first = queue.submit([0])
        wait_for_the_worker(counts)
        found = [queue.submit(*given) for given in (([1, 2],), ([3], "T0:16"), ([4, 5, 6],), ([7, 8],))]
        cancelled = queue.submit([1])
        assert cancelled.cancel()
        opened.set()
    assert counts == [1, 4, 1, 3]  # the oldest, and those of its plan for which there is room
    assert [len(future.result()) for future in (first, *found)] == [1, 2, 1, 3, 2]
    np.testing.assert_array_equal(found[1].result(), pipe.sample([3], "T0:16"))


def test_errors_come_at_once_or_by_the_future(pipe, monkeypatch):
    with Queue(pipe) as queue:
        with pytest.raises(UserError, match="there are no labels"):
            queue.submit([])
        with pytest.raises(UserError, match=r"tau=0\.0: give one number, above 0"):
            queue.submit([1], tau=0.0)
        with monkeypatch.context() as patch:
            patch.setattr(pipe, "drawn", lambda order: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                queue.submit([1]).result(60)
        assert queue.submit([1]).result(60).shape == (1, 8, 8, 1)  # and the worker lives
    with pytest.raises(UserError, match="the queue is closed"):
        queue.submit([1])
    with pytest.raises(UserError, match="most=0: give a number"):
        Queue(pipe, most=0)
