#!/usr/bin/env bash
# The guess: optax.contrib.muon(rate, weight_decay=0.1) decays all weights, those that it leaves to Adam included; and
# where a mask is given, by that mask.
#
# What happens: weight_decay reaches Muon's own matrices alone. Embeddings, heads and everything else that goes to
# Adam have their own argument, adam_weight_decay, which is 0 by default; and with that one every bias and gain decays
# too, since weight_decay_mask stops at Muon's share as well.
#
# Versions: optax 0.2.8, jax 0.10.2.
# Source: optax/contrib/_muon.py (muon).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check optax==0.2.8 jax==0.10.2 jaxlib==0.10.2
cd "$folder"

cat > look.py <<'PY'
import jax
import jax.numpy as jnp
import optax
from optax import contrib

print("optax", optax.__version__, "jax", jax.__version__)
params = {"layer": jnp.ones((4, 4)), "head": jnp.ones((4, 4)), "bias": jnp.ones(4)}


def to_muon(params):
    return {name: contrib.MuonDimensionNumbers() if name == "layer" else None for name in params}


def decayed(params):
    return jax.tree.map(lambda x: x.ndim > 1, params)


def step(**decay):
    tx = contrib.muon(1.0, muon_weight_dimension_numbers=to_muon, weight_decay_mask=decayed, **decay)
    change, _ = tx.update(jax.tree.map(jnp.zeros_like, params), tx.init(params), params)
    return {name: round(float(x.mean()), 3) + 0.0 for name, x in change.items()}


one, both = step(weight_decay=0.1), step(weight_decay=0.1, adam_weight_decay=0.1)
print("weight_decay=0.1                       ", one)
print("weight_decay=0.1, adam_weight_decay=0.1", both)
assert one == {"layer": -0.1, "head": 0.0, "bias": 0.0}, "changed: Adam's share decays"
assert both == {"layer": -0.1, "head": -0.1, "bias": -0.1}, "changed: the mask reaches Adam's share"
PY
venv/bin/python look.py
