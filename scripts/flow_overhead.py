"""python -m scripts.flow_overhead --config=configs/llamagen_l.py [--batch=8] [--repeats=3]

What Alg. 1's flow costs beside plain sampling: the whole teacher, guided, once with every token drawn through the flow
of its noise and once drawn categorically. In turns, and the best of each. Weights that config.weights does not name
are random.
"""

import dataclasses
import time
from pathlib import Path

import jax
import jax.numpy as jnp
from absl import flags
from ml_collections import config_flags

from dd_jax import factory, overrides, settings
from dd_jax.method.fewstep import generator
from dd_jax.stages.parts import load_params
from dd_jax.system import rng, runtime

CONFIG = config_flags.DEFINE_config_file("config", None, "Settings.")
BATCH = flags.DEFINE_integer("batch", 8, "Images at a time.", lower_bound=1)
REPEATS = flags.DEFINE_integer("repeats", 3, "Turns of each.", lower_bound=1)


def main(argv: list[str]) -> None:
    """Two times and their ratio."""
    runtime.setup()
    config = settings.spelled(CONFIG.value)
    system, parts = factory.build(config), ("tokenizer", "teacher")
    params = load_params(system, config, Path("runs/flow_overhead"), parts, random=parts)  # nothing is there
    batch = BATCH.value
    keys, cond = rng.example_keys(rng.stream(0, "pairs"), jnp.arange(batch)), system.teacher.blank(batch)
    plan, programs = f"T0:{system.layout.steps}", {}
    for name, categorical in (("plain", True), ("flow", False)):
        models = dataclasses.replace(system.models, categorical=categorical, draw=system.models.filter)
        programs[name] = jax.jit(generator(plan, models)).lower(params, cond, keys).compile()
    seconds = dict.fromkeys(programs, float("inf"))
    for _ in range(REPEATS.value):
        for name, program in programs.items():
            begin = time.perf_counter()
            jax.block_until_ready(program(params, cond, keys))
            seconds[name] = min(seconds[name], time.perf_counter() - begin)
    plain, flow = seconds["plain"], seconds["flow"]
    device = jax.devices()[0].device_kind
    print(f"{plan}, batch {batch}, {device}: plain {plain:.2f} s, flow {flow:.2f} s, {flow / plain - 1:+.1%}")


if __name__ == "__main__":
    overrides.start(main, __doc__)
