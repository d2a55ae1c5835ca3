#!/usr/bin/env bash
# The guess: a checkpoint keeps every leaf of a tree apart, or says that it cannot.
#
# What happens: Orbax stores a leaf under the parts of its path joined by dots. {"a.b": x, "a": {"b": y}} has two
# leaves and one name: both are written there, nothing is raised, and both come back with the numbers of one of them.
# So do a list's first item and a key "a.0". A slash in a key is harmless. Flat state dicts of PyTorch, whose keys are
# dotted paths, meet this as soon as they lie beside a nested tree.
#
# Versions: orbax-checkpoint 0.12.8, tensorstore 0.1.86, jax 0.10.2.
# Source: orbax/checkpoint/_src/handlers/base_pytree_checkpoint_handler.py (names of parameters, joined by ".").
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check orbax-checkpoint==0.12.8 jax==0.10.2 jaxlib==0.10.2 tensorstore==0.1.86
cd "$folder"

cat > look.py <<'PY'
from pathlib import Path

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

print("orbax", ocp.__version__, "jax", jax.__version__)
zero, one = jnp.zeros(2), jnp.ones(2)
trees = {
    "dict": {"a.b": zero, "a": {"b": one}},
    "list": {"a.0": zero, "a": [one]},
    "slash": {"a/b": zero, "a": {"b": one}},
}
for name, tree in trees.items():
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(Path.cwd() / name, tree)
        checkpointer.wait_until_finished()
        found = checkpointer.restore(Path.cwd() / name, tree)
    leaves, were = ([x.tolist() for x in jax.tree.leaves(t)] for t in (found, tree))
    print(f"{name:6} saved {were}, restored {leaves}")
    lost = leaves[0] == leaves[1]
    assert lost == (name != "slash"), "changed"
PY
venv/bin/python look.py
