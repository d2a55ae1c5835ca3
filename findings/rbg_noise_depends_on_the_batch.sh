#!/usr/bin/env bash
# The guess: jax.vmap over keys draws for every key what that key alone draws, so that an example's noise does not
# depend on the batch it is in. So it is with JAX's default generator.
#
# What happens: with the `rbg` generator (jax_default_prng_impl, which launch scripts for TPUs set) a batched draw is
# made from the first key alone. An example drawn as one of two and as one of five has other numbers, the others' keys
# have no say at all, and a batch of equal keys has unequal rows. fold_in and split are as with threefry: keys are
# right, only what is drawn from them is not. JAX's documentation says that rbg is not invariant under vmap.
#
# Versions: jax 0.10.2.
# Source: jax/_src/random/prng.py (batching of random_bits), jax/_src/random/rbg.py; docs of jax.random.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2
cd "$folder"

cat > look.py <<'PY'
import jax
import jax.numpy as jnp
import numpy as np

print("jax", jax.__version__)
draw = jax.vmap(lambda key: jax.random.normal(key, (3,)))
for impl in ("threefry2x32", "rbg"):
    root = jax.random.key(0, impl=impl)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(root, jnp.arange(5))
    alone = np.stack([jax.random.normal(key, (3,)) for key in keys])
    of_five, of_two = draw(keys), draw(keys[3:])
    others = draw(jnp.concatenate([keys[:1], keys[4:0:-1]]))  # the first key, then the others from the back
    same = {
        "drawn alone": np.array_equal(alone, of_five),
        "drawn in another batch": np.array_equal(of_two, of_five[3:]),
        "drawn beside other keys in another order": np.array_equal(others[1:], of_five[:0:-1]),
    }
    print(f"{impl:13}", ", ".join(f"{name}: {'the same' if yes else 'other numbers'}" for name, yes in same.items()))
    assert all(same.values()) == (impl == "threefry2x32"), "changed"
    if impl == "rbg":
        assert not any(same.values()), "changed"
        assert np.array_equal(others, of_five), "changed: the other keys have a say"
PY
venv/bin/python look.py
