"""Stage `speed`: compile time, ms per image and images/s of every plan, and how near training is to the machine."""

import json
import os
import platform
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from dd_jax import factory, files, flops, rng
from dd_jax.factory import System
from dd_jax.fewstep import generator
from dd_jax.interfaces import Cond, Params
from dd_jax.loop import init_state
from dd_jax.pairs import PairSet
from dd_jax.plans import cost
from dd_jax.progress import Progress
from dd_jax.train import distance_of, frozen_for, stepper


def machine() -> dict[str, Any]:
    """What ran this, and its float32 matmul rate now."""
    device = jax.devices()[0]
    return {
        "device": f"{len(jax.devices())} x {device.device_kind} ({device.platform})",
        "cores": os.cpu_count(),
        "matmul_gflops": round(flops.matmul_rate() / 1e9, 1),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def time_plan(system: System, params: dict[str, Params], plan: str, batch: int, repeats: int) -> dict[str, Any]:
    """Noise to decoded pictures: one row of speed.json."""
    generate, root = generator(plan, system.models), rng.stream(0, "sample")

    @jax.jit
    def draw(params: dict[str, Params], id_B: jax.Array, label_B: jax.Array) -> jax.Array:
        draft = generate(params, Cond(label_B), rng.example_keys(root, id_B))
        return system.tokenizer.decode(params["tokenizer"], draft.token_BxLxC)

    ids = jnp.arange(batch)
    label = jnp.asarray(rng.labels(np.arange(batch), system.classes, "balanced", 0))
    begin = time.perf_counter()
    compiled = draw.lower(params, ids, label).compile()
    compile_s = time.perf_counter() - begin
    steady = flops.seconds(compiled, params, ids, label, repeats=repeats)
    return {
        "plan": plan,
        "batch": batch,
        "steps": cost(plan, system.layout.steps),
        "ms_per_image": 1e3 * steady / batch,
        "images_per_s": batch / steady,
        "compile_s": round(compile_s, 2),
    }


def time_training(system: System, config: ConfigDict, params: dict[str, Params], pairs: PairSet) -> dict[str, float]:
    """One student step: seconds, FLOPs of its matrix products, FLOP/s, and their share of the machine's rate."""
    recipe = factory.recipe(config.train)
    frozen = frozen_for(system.tokenizer, params)
    distance = distance_of(system.objective, system.tokenizer, system.judge)
    step = stepper(recipe, system.objective, system.student, distance, config.seed)
    at = slice(0, recipe.batch)
    batch = {"id": pairs.id[at], "label": pairs.label[at], "code": pairs.code[at].astype(np.int32)}
    batch = jax.tree.map(jnp.asarray, batch)
    state = init_state(params["student"], recipe.optimizer())
    needed = flops.count(step, state, batch, frozen)
    # Both rates are taken in turns, so that a noisy neighbour hits both.
    rates, times = [], []

    def advance() -> Any:
        nonlocal state
        state, metrics = step(state, batch, frozen)
        return metrics

    for _ in range(3):
        rates.append(flops.matmul_rate())
        times.append(flops.seconds(advance, repeats=7))
    seconds, rate = float(np.median(times)), float(np.median(rates))
    return {
        "step_ms": round(1e3 * seconds, 2),
        "step_gflop": round(needed / 1e9, 3),
        "step_gflops": round(needed / seconds / 1e9, 1),
        "matmul_gflops": round(rate / 1e9, 1),
        "share_of_matmul": round(needed / seconds / rate, 3),
    }


def run(system: System, params: dict[str, Params], config: ConfigDict, pairs: PairSet, workdir: Path) -> dict[str, Any]:
    """Everything -> speed.json."""
    steps, settings = system.layout.steps, config.speed
    plans = [f"T0:{steps}", *settings.plans]
    table = []
    with Progress(len(plans) * len(settings.batches) + 1, "speed", unit="rows") as progress:
        training = time_training(system, config, params, pairs)
        progress.update()
        for batch in settings.batches:
            for plan in plans:
                table.append(time_plan(system, params, plan, batch, settings.repeats))
                progress.update(ms=table[-1]["ms_per_image"])
    result = {"machine": machine(), "training": training, "plans": table}
    files.replace(workdir / "speed.json", json.dumps(result, indent=1).encode())
    return result
