#!/usr/bin/env bash
# The guess: jax.export is a part of JAX, so `pip install jax` brings what it needs to write a program and to read it.
#
# What happens: exporting works, and the program runs in memory; only `serialize` and `deserialize` raise an
# ImportError, on a machine that just installed JAX: the file format's package, flatbuffers, is no dependency of jax or
# jaxlib, and no extra of jax names it. With it beside, the same program goes there and back.
#
# Versions: jax and jaxlib 0.10.2, flatbuffers 25.12.19.
# Source: jax/_src/export/serialization.py (imports flatbuffers when it is called), jax's own METADATA (Requires-Dist).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"

cat > look.py <<'PY'
import importlib.metadata
import importlib.util
import sys

import jax
import jax.numpy as jnp

needs = [line for name in ("jax", "jaxlib") for line in importlib.metadata.requires(name) or ()]
print("jax", jax.__version__, "names flatbuffers:", any("flatbuffers" in line for line in needs))
there = importlib.util.find_spec("flatbuffers") is not None
program = jax.export.export(jax.jit(lambda x: x + 1))(jax.ShapeDtypeStruct((2,), jnp.float32))
print("in memory:", program.call(jnp.zeros(2)))
try:
    again = jax.export.deserialize(program.serialize())
    print("there and back:", again.call(jnp.zeros(2)))
    wrote = True
except ImportError as error:
    print("serialize:", type(error).__name__, error)
    wrote = False
sys.exit(0 if wrote == there and not any("flatbuffers" in line for line in needs) else "changed")
PY
"$folder/venv/bin/python" look.py
"$folder/venv/bin/pip" install -q --disable-pip-version-check flatbuffers==25.12.19
"$folder/venv/bin/python" look.py
