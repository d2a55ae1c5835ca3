#!/usr/bin/env bash
# The guess: with fixed steps, diffrax.diffeqsolve(..., StepTo(ts), SaveAt(t1=True)) compiles to about a lax.scan of
# solver.step over these steps, so that it costs about as much to compile.
#
# What happens: the loop of diffeqsolve is one made for adaptive steps, dense output, events and checked controllers,
# all of which are traced and compiled for fixed steps too. The same solver's steps in a scan of one's own compile in
# half of the time and give the same numbers. It matters where a field is small and solved in many programs, one a
# batch size, as in a sampler.
#
# Versions: jax 0.10.2, diffrax 0.7.2, equinox 0.13.8.
# Source: diffrax/_integrate.py (diffeqsolve, loop), diffrax/_step_size_controller/constant.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 diffrax==0.7.2 equinox==0.13.8
cd "$folder"

cat > look.py <<'PY'
import statistics
import time

import diffrax
import jax
import jax.numpy as jnp
import numpy as np

print("jax", jax.__version__, "diffrax", diffrax.__version__)
nodes = jnp.linspace(0, 1, 21)
term, solver = diffrax.ODETerm(lambda t, y, args: args * jnp.tanh(y) - t), diffrax.Heun()


def whole(y, args):
    controller = diffrax.StepTo(nodes)
    return diffrax.diffeqsolve(
        term, solver, nodes[0], nodes[-1], None, y, args, stepsize_controller=controller,
        adjoint=diffrax.ForwardMode(), saveat=diffrax.SaveAt(t1=True), max_steps=32, throw=False,
    ).ys[0]


def scanned(y, args):
    def step(carry, ends):
        y, state = carry
        y, _, _, state, _ = solver.step(term, *ends, y, args, state, made_jump=False)
        return (y, state), None

    state = solver.init(term, nodes[0], nodes[1], y, args)
    return jax.lax.scan(step, (y, state), (nodes[:-1], nodes[1:]))[0][0]


y, args = jnp.linspace(-1, 1, 4096), jnp.float32(0.7)
seconds, found = {"diffeqsolve": [], "scan of its steps": []}, {}
for _ in range(5):
    for name, solve in zip(seconds, (whole, scanned)):
        jax.clear_caches()
        begun = time.process_time()
        program = jax.jit(solve).lower(y, args).compile()
        seconds[name].append(time.process_time() - begun)
        found[name] = np.asarray(program(y, args))
for name, times in seconds.items():
    print(f"{name:18} traced and compiled in {statistics.median(times):.2f} CPU seconds")
a, b = found.values()
print("largest difference", np.abs(a - b).max())
assert np.abs(a - b).max() < 1e-6, "changed: other numbers"
one, other = map(statistics.median, seconds.values())
print(f"ratio {one / other:.1f}")
assert one > 1.4 * other, "changed: about as fast"
PY
venv/bin/python look.py
