"""python -m scripts.serving MODEL [--plan S0] [--requests 64] [--most 64] [--turns 3]

Images a second of requests for 1 to 8 images each, with classes, seeds and settings of their own (guidance of the
teacher, tau of a student's flow head): one call of `sample` after another, and all at once through `serving.Queue`.
In turns, after one of each that compiles; the median. MODEL: a finished run, a folder of weights, or hf://owner/name.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

import dd_jax
from dd_jax.method.plans import parse
from dd_jax.serving import Queue
from dd_jax.system import files, hub, runtime
from dd_jax.system.errors import UserError

MOST = 8  # images of a request
Request = tuple[np.ndarray, dict[str, Any]]  # labels, and what else `sample` takes


def requests(pipe: dd_jax.Pipeline, plan: str, count: int, seed: int = 0) -> list[Request]:
    """So many, drawn at random. UserError for a model that reads captions."""
    if pipe.system.text is not None:
        raise UserError("this model reads captions: name one that draws classes")
    draw, taught = np.random.default_rng(seed), any(op.kind in "TJ" for op in parse(plan, pipe.system.layout.steps))
    settings = ["guidance"] if taught and hasattr(pipe.system.teacher, "guidance") else []
    settings += ["tau"] if "S" in plan and pipe.system.student.head == "flow" else []
    found = []
    for i in range(count):
        labels = draw.integers(pipe.system.classes, size=draw.integers(1, MOST + 1))
        found.append((labels, {"plan": plan, "seed": i, **{name: draw.uniform(0.5, 4) for name in settings}}))
    return found


def alone(pipe: dd_jax.Pipeline, given: Sequence[Request], _: int) -> list[np.ndarray]:
    """One call a request."""
    return [pipe.sample(labels, **more) for labels, more in given]


def together(pipe: dd_jax.Pipeline, given: Sequence[Request], most: int) -> list[np.ndarray]:
    """All of them at once."""
    with Queue(pipe, most) as queue:
        futures = [queue.submit(labels, **more) for labels, more in given]
        return [future.result() for future in futures]


def measure(pipe: dd_jax.Pipeline, given: Sequence[Request], most: int, turns: int) -> None:
    """Print both rates, their ratio and how many images are equal."""
    ways: dict[str, Callable] = {"one by one": alone, "together": together}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    images = {}
    for turn in range(turns + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            images[name] = np.concatenate(way(pipe, given, most))
            if turn:
                seconds[name].append(time.perf_counter() - begin)
    count = len(images["together"])
    rates = {name: count / float(np.median(times)) for name, times in seconds.items()}
    same = (images["together"] == images["one by one"]).reshape(count, -1).all(1).sum()
    print(f"{len(given)} requests, {count} images, plan {given[0][1]['plan']}, {jax.devices()[0].device_kind}")
    for name, rate in rates.items():
        print(f"{name:10}  {rate:8.2f} images/s  ({min(seconds[name]):.2f} to {max(seconds[name]):.2f} s)")
    print(f"ratio {rates['together'] / rates['one by one']:.2f}, {same} of {count} images equal to the last bit")


def main() -> None:
    parser = argparse.ArgumentParser("python -m scripts.serving", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("model", type=hub.path, help="a run, weights, or hf://owner/name")
    parser.add_argument("--plan", default="S0")
    parser.add_argument("--requests", type=int, default=64)
    parser.add_argument("--most", type=int, default=64, help="images that are drawn together (default: 64)")
    parser.add_argument("--turns", type=int, default=3, help="of each (default: 3)")
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        for name in ("requests", "most", "turns"):
            if getattr(args, name) < 1:
                raise UserError(f"--{name}={getattr(args, name)}: give a whole number, 1 or more")
        runtime.setup()
        pipe = dd_jax.load(args.model)
        measure(pipe, requests(pipe, args.plan, args.requests), args.most, args.turns)
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
