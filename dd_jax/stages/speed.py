"""Stage `speed`: compile time, ms per image and images/s of every plan, and how near all of it is to the machine.

Weights need not be there: what is missing is drawn at random, which changes no time but that of `J*`.
"""

import dataclasses
import functools
import json
import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dd_jax.method.fewstep import generator
from dd_jax.method.interfaces import Params
from dd_jax.method.plans import cost, parse
from dd_jax.nn.attention import work as attention_work
from dd_jax.stages.parts import System
from dd_jax.stages.train import begin, distance_of, example, frozen_for, stepper
from dd_jax.system import files, flops, rng
from dd_jax.system.progress import Progress
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.training.loop import Recipe
from dd_jax.training.throughput import PEAK

DECODE = "decode"  # in the place of a plan: code vectors to pictures, which every plan ends with
COLUMNS = (
    "plan",
    "batch",
    "steps",
    "ms_per_image",
    "images_per_s",
    "compile_s",
    "share_of_matmul",
    "share_of_stream",
    "memory_gb",
)


def machine() -> dict[str, Any]:
    """What ran this, and its float32 matmul rate now."""
    device = jax.devices()[0]
    return {
        "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
        "cores": os.cpu_count(),
        "matmul_gflops": round(flops.matmul_rate(repeats=5) / 1e9, 1),
        "stream_gbs": round(flops.stream_rate() / 1e9, 1),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


@dataclasses.dataclass(frozen=True)
class Program:
    """A compiled program, what it is called with, and what compiling told: FLOPs of its products, bytes it holds."""

    run: Callable
    given: tuple
    compile_s: float
    flop: float
    held: int  # temporaries and results

    @classmethod
    def of(cls, fn: Callable, *given: Any) -> "Program":
        begin = time.perf_counter()
        traced = jax.jit(fn).trace(*given)
        run = traced.lower().compile()
        took, memory = time.perf_counter() - begin, run.memory_analysis()
        held = sum(getattr(memory, f"{kind}_size_in_bytes", 0) for kind in ("output", "temp"))
        return cls(run, given, took, flops.count_jaxpr(traced.jaxpr.jaxpr), held)


def compiled(system: System, params: dict[str, Params], plans: Sequence[str], batch: int) -> dict[str, Program]:
    """Noise to code vectors by each plan, and `DECODE`, which all of them end with: compiled side by side."""
    ids, root, blank = jnp.arange(batch), rng.stream(0, "sample"), system.teacher.blank(batch)

    def tokens(plan: str) -> Program:
        generate = generator(plan, system.models)
        used = {part: params[part] for part in ("tokenizer", "teacher", "student") if _needs(plan, part)}
        keys = functools.partial(rng.example_keys, root)
        return Program.of(lambda params, ids: generate(params, blank, keys(ids)).token_BxLxC, used, ids)

    def decode() -> Program:
        shape = batch, system.layout.tokens, system.tokenizer.codebook(params["tokenizer"]).shape[-1]
        return Program.of(system.tokenizer.decode, params["tokenizer"], jnp.zeros(shape))

    with ThreadPoolExecutor() as pool:
        found = {DECODE: pool.submit(decode)}
        found |= {plan: pool.submit(tokens, plan) for plan in plans if plan != DECODE}
        return {plan: program.result() for plan, program in found.items()}


def time_plan(
    system: System, params: dict[str, Params], programs: Mapping[str, Program], plan: str, batch: int, repeats: int
) -> dict[str, Any]:
    """Noise to decoded pictures, or `DECODE` alone: one row of speed.json, with the machine's rates measured beside it.

    FLOPs are those of matrix products; `share_of_stream` is the time that it takes to read the weights once a
    pass, as a share of the whole; memory is what the programs hold at once, weights included.
    """
    used = {part: params[part] for part in ("tokenizer", "teacher", "student") if _needs(plan, part)}
    show, chain = programs[DECODE], [programs[name] for name in dict.fromkeys((plan, DECODE))]

    def draw() -> jax.Array:
        token = show.given[1] if plan == DECODE else programs[plan].run(*programs[plan].given)
        return show.run(show.given[0], token)

    before = flops.matmul_rate(repeats=3)
    # In turns: on a shared machine the rate drifts within the time that a long plan takes.
    jax.block_until_ready(draw())
    turns = [(flops.seconds(draw, repeats=1, warm=True), flops.stream_rate(repeats=5)) for _ in range(repeats)]
    steady, stream = np.median(turns, 0).tolist()
    rate = (before + flops.matmul_rate(repeats=3)) / 2
    needed = sum(program.flop for program in chain)
    held = sum(x.nbytes for x in jax.tree.leaves(used)) + max(program.held for program in chain)
    steps = 0 if plan == DECODE else cost(plan, system.layout.steps)
    known = steps is not None
    return {
        "plan": plan,
        "batch": batch,
        "steps": steps,
        "ms_per_image": 1e3 * steady / batch,
        "images_per_s": batch / steady,
        "compile_s": round(max(program.compile_s for program in chain), 2),
        "gflop_per_image": round(needed / batch / 1e9, 3) if known else None,
        "share_of_matmul": round(needed / steady / rate, 3) if known else None,
        "share_of_stream": round(_read(plan, system, used) / steady / stream, 3) if known else None,
        "memory_gb": round(held / 1e9, 6),
    }


def _read(plan: str, system: System, params: dict[str, Params]) -> float:
    """Bytes of weights that a plan reads, each pass reading all kernels of its network."""
    size = {}
    for part, tree in params.items():
        leaves = jax.tree_util.tree_leaves_with_path(tree)
        size[part] = sum(x.nbytes for path, x in leaves if path[-1].key == "kernel" and path[0].key != "encoder")
    total = size["tokenizer"]
    for op in () if plan == DECODE else parse(plan, system.layout.steps):
        passes = {"S": 1, "T": op.b - op.a, "J": op.sweeps or 0}[op.kind]
        total += passes * size["student" if op.kind == "S" else "teacher"]
    return float(total)


def _needs(plan: str, part: str) -> bool:
    """Does a plan use a part?"""
    return part == "tokenizer" or (part == "student" and "S" in plan) or (part == "teacher" and bool({*plan} & {*"TJ"}))


def time_training(
    system: System, config: ConfigDict, params: dict[str, Params], placement: Placement = ALONE
) -> dict[str, Any]:
    """One student step: seconds, FLOPs of its matrix products, FLOP/s, their share of the machine's rate, and MFU.

    That of one device, times the number of those that share the step; a CPU has one rate, however many it stands for.
    """
    recipe, devices = Recipe.of(config.train), 1 if placement.mesh is None else placement.mesh.size
    frozen = placement.whole(frozen_for(system.objective, system.tokenizer, params))
    distance = distance_of(system.objective, system.tokenizer, system.classifier, system.lpips)
    step = stepper(recipe, system.objective, system.models, distance, config.seed, placement)
    batch = placement.batch(example(recipe.batch, system.objective, system.models))
    state = begin(recipe, system.objective, system.models, params["student"], params, config.seed, placement)
    needed = flops.count(step, state, batch, frozen)

    def advance() -> Any:
        nonlocal state
        state, metrics = step(state, batch, frozen)
        return metrics

    # In turns, and the best of each: on a shared machine a neighbour slows the one or the other for a while. Both take
    # the same time in every turn: a burst too short for a step must not count for the matrix product alone.
    about, first = flops.matmul_rate(repeats=3), flops.seconds(advance, repeats=1)
    products = max(3, round(3 * first * about / (2 * flops.SIDE**3)))
    turns = [
        (flops.seconds(advance, repeats=3), flops.matmul_rate(repeats=products)) for _ in range(3 if first < 1.0 else 2)
    ]
    seconds, rate = min(time for time, _ in turns), max(rate for _, rate in turns)
    rate *= 1 if jax.default_backend() == "cpu" else devices
    peak = devices * PEAK.get(jax.devices()[0].device_kind, 0.0)
    return {
        "step_ms": round(1e3 * seconds, 2),
        "step_gflop": round(needed / 1e9, 3),
        "step_gflops": round(needed / seconds / 1e9, 1),
        "matmul_gflops": round(rate / 1e9, 1),
        "share_of_matmul": round(needed / seconds / rate, 3),
        "mfu": round(needed / seconds / peak, 3) if peak else None,
    }


def run(
    system: System,
    params: dict[str, Params],
    config: ConfigDict,
    workdir: Path,
    random: Sequence[str],
    placement: Placement = ALONE,
) -> str:
    """Everything -> speed.json; returns the table. `random` names the parts whose weights are drawn.

    Plans are timed on one device, training on those that share it.
    """
    steps, settings = system.layout.steps, config.speed
    plans = dict.fromkeys([f"T0:{steps}", *settings.plans])
    attention = attention_work(system.layout.student_mask(config.student.same_step))
    result: dict[str, Any] = {"machine": machine(), "random_weights": list(random), "training": None, "plans": []}
    result["student_attention"] = attention

    def keep() -> None:  # a run that is stopped has its rows
        files.replace(workdir / "speed.json", json.dumps(result, indent=1).encode())

    with Progress(len(plans) * len(settings.batches) + settings.training, "speed", unit="rows") as progress:
        if settings.training:
            result["training"] = time_training(system, config, params, placement)
            progress.update(share=result["training"]["share_of_matmul"])
            keep()
        for batch in settings.batches:
            programs = compiled(system, params, list(plans), batch)
            for plan in plans:
                result["plans"].append(time_plan(system, params, programs, plan, batch, settings.repeats))
                progress.update(ms=result["plans"][-1]["ms_per_image"])
                keep()
    keep()
    counts = ", ".join(f"{count:,} {kind}" for kind, count in attention.items())
    return f"{table(result['plans'], random)}\nproducts of queries and keys in the student: {counts}"


def table(rows: Sequence[dict[str, Any]], random: Sequence[str]) -> str:
    """Rows of speed.json for a terminal."""
    cells = [COLUMNS, *([_cell(row[key]) for key in COLUMNS] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(COLUMNS))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in cells]
    return "\n".join([*lines, *([f"random weights: {', '.join(random)}"] if random else [])])


def _cell(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
