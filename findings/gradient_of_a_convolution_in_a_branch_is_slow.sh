#!/usr/bin/env bash
# The guess: a step of a convolutional network behind jax.lax.cond takes as long as the same step without it: the branch
# is decided once a call, and what is inside is compiled by the same compiler.
#
# What happens: on a CPU the forward pass does, and its gradients take ten to forty times as long in a branch, and in the
# body of a loop too. Outside, XLA rewrites the convolutions of a gradient, whose dimensions are permuted, so that its
# library takes them; inside the computations of conditionals and loops they stay as they are, and run in plain loops.
# A part of a training that begins late (a discriminator, say) is better a second program than a branch in the first.
#
# Versions: jax 0.10.2.
# Source: measured; jaxlib's XLA, the CPU backend, whose convolutions reach Eigen only in a canonical order of dimensions
# (xla/service/cpu/conv_canonicalization). https://docs.jax.dev/en/latest/_autosummary/jax.lax.cond.html says nothing.
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
x = jax.random.normal(jax.random.key(0), (16, 32, 32, 32))
kernel = jax.random.normal(jax.random.key(1), (4, 4, 32, 64)) * 0.03


def convolved(x, kernel):
    return jax.lax.conv_general_dilated(x, kernel, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))


gradients = jax.grad(lambda x, kernel: (convolved(x, kernel) ** 2).sum(), (0, 1))


def ratio(fn):
    """Time in a branch that is always taken, by the time without it."""

    def zeros(*given):
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), jax.eval_shape(fn, *given))

    runs = {"plain": jax.jit(lambda yes, *given: fn(*given))}
    runs["branch"] = jax.jit(lambda yes, *given: jax.lax.cond(yes, fn, zeros, *given))
    times = {name: [] for name in runs}
    for turn in range(7):
        for name, run in runs.items():
            begin = time.perf_counter()
            jax.block_until_ready(run(True, x, kernel))
            times[name].append(time.perf_counter() - begin)
    plain, branch = (1e3 * statistics.median(times[name][2:]) for name in runs)
    print(f"{plain:.1f} ms, in a branch {branch:.1f} ms: {branch / plain:.1f} times")
    return branch / plain


print("forward: ", end="")
assert ratio(convolved) < 3, "the forward pass is slow in a branch now"
print("gradients: ", end="")
assert ratio(gradients) > 5, "gradients in a branch are no longer slow"
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" look.py
