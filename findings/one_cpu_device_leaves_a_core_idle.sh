#!/usr/bin/env bash
# The guess: JAX shows a CPU as one device, and XLA's pool of threads has one for each core, so a training step keeps all
# cores busy; pretending that the CPU is two devices is for tests of sharding, and costs time.
#
# What happens: of a small transformer's training step only large products and convolutions are cut into parts for the
# pool; smaller ones, fused loops, reductions and scatters run on one thread, one after the other. With
# jax_num_cpu_devices=2 (or XLA_FLAGS=--xla_force_host_platform_device_count=2) and the batch spread over both devices,
# the same step on two cores takes about two thirds of the time. A product on one of the two devices still has the whole
# pool, so nothing else gets slower.
#
# Versions: jax 0.10.2, numpy 2.3.5; two cores or more.
# Source: measured; jax/_src/xla_bridge.py (jax_num_cpu_devices, which must be set before the first device is used).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.3.5
cd "$folder"

cat > look.py <<'PY'
import os
import statistics
import time

os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:2])

import jax
import jax.numpy as jnp
from jax.sharding import AxisType, NamedSharding, PartitionSpec as P

assert len(os.sched_getaffinity(0)) == 2, "this wants two cores"
jax.config.update("jax_num_cpu_devices", 2)
print("jax", jax.__version__, "devices", jax.devices())
batch, length, width, heads, depth, vocab = 64, 64, 128, 2, 4, 512
draw = iter(jax.random.split(jax.random.key(0), 64))


def matrix(*shape):
    return jax.random.normal(next(draw), shape) * shape[0] ** -0.5


params = {
    "embed": matrix(vocab, width),
    "blocks": [{"qkv": matrix(width, 3 * width), "out": matrix(width, width), "up": matrix(width, 4 * width),
                "down": matrix(4 * width, width)} for _ in range(depth)],
}
code = jax.random.randint(next(draw), (batch, length), 0, vocab)


def norm(x):
    return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)


def loss(params, code):
    x = params["embed"][code]
    mask = jnp.tril(jnp.ones((length, length), bool))
    for block in params["blocks"]:
        q, k, v = jnp.split((norm(x) @ block["qkv"]).reshape(*x.shape[:2], heads, -1), 3, -1)
        score = jnp.where(mask, jnp.einsum("bqhd,bkhd->bhqk", q, k) * q.shape[-1] ** -0.5, -1e9)
        x += jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(score), v).reshape(x.shape) @ block["out"]
        x += jax.nn.gelu(norm(x) @ block["up"]) @ block["down"]
    logits = norm(x)[:, :-1] @ params["embed"].T
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), code[:, 1:, None], 2))


step = jax.jit(lambda params, code: jax.tree.map(lambda w, g: w - 0.1 * g, params, jax.grad(loss)(params, code)))
mesh = jax.make_mesh((2,), ("data",), (AxisType.Auto,))
one = jax.devices()[0]
given = {
    "one": (jax.device_put(params, one), jax.device_put(code, one)),
    "two": (jax.device_put(params, NamedSharding(mesh, P())), jax.device_put(code, NamedSharding(mesh, P("data")))),
}
seconds = {name: [] for name in given}
for turn in range(14):
    for name, args in given.items():
        begin = time.perf_counter()
        after = jax.block_until_ready(step(*args))
        seconds[name].append(time.perf_counter() - begin)
a, b = (jax.tree.leaves(jax.device_get(step(*args))) for args in given.values())
assert all(abs(x - y).max() < 1e-4 for x, y in zip(a, b)), "the two steps differ"
one, two = (1e3 * statistics.median(seconds[name][4:]) for name in given)
print(f"a step on one device {one:.0f} ms, on two devices of the same two cores {two:.0f} ms: {two / one:.2f}")
assert two < 0.85 * one, "one CPU device keeps both cores busy now"
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" look.py
