#!/usr/bin/env bash
# The guess: a jitted training step `state = step(state, weights)` whose arrays keep their shapes, types and device is
# compiled once.
#
# What happens: arrays that Orbax restores are committed to their device, those that a jitted initialiser makes are not.
# One committed argument makes every result committed, so the state is uncommitted in the first call and committed in
# the second: another key of jit's cache, and XLA compiles the same program again. Explaining cache misses
# (jax_explain_cache_misses) says nothing, since it was traced once. jax.device_put(x, x.sharding) of the state before
# the first call, which copies nothing, leaves one compilation.
#
# Versions: jax 0.10.2, orbax-checkpoint 0.12.8.
# Source: orbax-checkpoint (`StandardCheckpointHandler.restore` makes arrays with a sharding); jax, docs
# "faq: Controlling data and computation placement on devices" (committed and uncommitted), jax/_src/interpreters/pxla.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 orbax-checkpoint==0.12.8
cd "$folder"

cat > look.py <<'PY'
import pathlib

import jax
import jax.monitoring
import jax.numpy as jnp
import orbax.checkpoint as ocp

print("jax", jax.__version__, "orbax-checkpoint", ocp.__version__)
compiled = []
jax.monitoring.register_event_duration_secs_listener(
    lambda name, seconds, **more: compiled.append(name) if name.endswith("backend_compile_duration") else None
)
fresh = {"w": jnp.ones((8, 8))}
with ocp.StandardCheckpointer() as checkpointer:
    place = pathlib.Path("weights").absolute()
    checkpointer.save(place, fresh)
    checkpointer.wait_until_finished()
    restored = checkpointer.restore(place, jax.eval_shape(lambda: fresh))


def compilations(weights, settle=lambda state: state):
    """How often three steps are compiled."""
    step = jax.jit(lambda state, weights: jnp.tanh(state @ weights["w"]))
    state = settle(jax.jit(lambda: jnp.zeros((8, 8)))())
    before = len(compiled)
    for _ in range(3):
        state = step(state, weights)
    return len(compiled) - before


print("restored weights are committed:", restored["w"].committed, "; fresh ones:", fresh["w"].committed)
found = {
    "fresh weights": compilations(fresh),
    "restored weights": compilations(restored),
    "restored weights, the state committed": compilations(restored, lambda x: jax.device_put(x, x.sharding)),
}
for name, count in found.items():
    print(f"{name}: {count} compilations of one step")
assert list(found.values()) == [1, 2, 1], "the behaviour changed"
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" look.py
