#!/usr/bin/env bash
# The guess: a convolution behind jax.lax.cond takes as long as the same convolution without it: the branch is decided
# once a call, and what is inside is compiled by the same compiler.
#
# What happens: XLA's CPU backend hands convolutions to a library that uses all cores, but not those inside the
# computations of conditionals and loops: they run on one core, several times as slowly, forward and backward. A part of
# a training step that begins late (a discriminator's, say) is better a second program than a branch in the first.
# Products of matrices keep their speed.
#
# Versions: jax 0.10.2.
# Source: jaxlib's XLA, the CPU backend (xla/backends/cpu, how convolutions are emitted outside of the entry
# computation); https://docs.jax.dev/en/latest/_autosummary/jax.lax.cond.html says nothing of it.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"

cat > look.py <<'PY'
import statistics
import time

import jax
import jax.numpy as jnp

print("jax", jax.__version__)
x = jax.random.normal(jax.random.key(0), (16, 64, 64, 64))
kernel = jax.random.normal(jax.random.key(1), (4, 4, 64, 64)) * 0.03
a, b = jax.random.normal(jax.random.key(2), (2048, 1024)), jax.random.normal(jax.random.key(3), (1024, 1024))


def convolved(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


def both(fn, *given):
    """The function, and the same in a branch that is always taken."""
    shape = jax.eval_shape(fn, *given)
    plain = jax.jit(lambda yes, *given: fn(*given))
    branch = jax.jit(lambda yes, *given: jax.lax.cond(yes, fn, lambda *_: jnp.zeros(shape.shape, shape.dtype), *given))
    times = {"plain": [], "branch": []}
    for turn in range(9):
        for name, run in (("plain", plain), ("branch", branch)):
            begin = time.perf_counter()
            jax.block_until_ready(run(True, *given))
            times[name].append(time.perf_counter() - begin)
    return [1e3 * statistics.median(times[name][2:]) for name in times]


slower = {}
for name, fn, given in (("convolution", convolved, (x, kernel)), ("matrix product", jnp.matmul, (a, b))):
    plain, branch = both(fn, *given)
    slower[name] = branch / plain
    print(f"{name}: {plain:.1f} ms, in a branch {branch:.1f} ms, {slower[name]:.2f} times")
assert slower["convolution"] > 2, "convolutions in branches are no longer slow"
assert slower["matrix product"] < 1.5, "matrix products in branches are slow too"
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" look.py
