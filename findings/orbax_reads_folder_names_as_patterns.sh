#!/usr/bin/env bash
# The guess: a folder's name is only a name. Orbax writes a checkpoint below /data/[exp]/run as below any other.
#
# What happens: Orbax finds what its processes wrote by globbing the whole path, unescaped. Below `[exp]` the glob finds
# nothing: saving ends without an error, nothing is merged, and restoring raises NOT_FOUND. Below `a**` the first save
# raises NotImplementedError. Below `c\d` TensorStore takes the backslash for a slash: the arrays are written below a new
# folder c/d, and the checkpoint, which is finished to all appearance, has none. A link of another name to the folder
# is a way round all of them.
#
# Versions: orbax-checkpoint 0.12.8, tensorstore 0.1.86, jax 0.10.2.
# Source: orbax/checkpoint/_src/serialization/ocdbt_utils.py (merge_ocdbt_per_process_files), etils/epath/gpath.py (glob).
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


def save(folder, state):
    folder.mkdir(parents=True)
    with ocp.CheckpointManager(folder) as manager:
        manager.save(1, args=ocp.args.StandardSave(state))
        manager.wait_until_finished()
        print(f"{str(folder.relative_to(Path.cwd())):14} holds steps", manager.all_steps())


def restore(folder, state):
    with ocp.CheckpointManager(folder) as manager:
        try:
            return manager.restore(1, args=ocp.args.StandardRestore(state))
        except ValueError as error:
            print("  restore:", str(error)[:90])


state, here = {"w": jnp.ones(3)}, Path.cwd()
save(here / "plain/run", state)
assert restore(here / "plain/run", state) is not None
save(here / "[exp]/run", state)
assert restore(here / "[exp]/run", state) is None, "changed: it can be restored"
save(here / "c\\d/run", state)
assert restore(here / "c\\d/run", state) is None, "changed: it can be restored"
assert (here / "c/d/run").exists(), "changed: a backslash is a backslash"
print("  and there is a folder c/d/run")

try:
    save(here / "a**/run", state)
    raise SystemExit("changed: it can be saved")
except NotImplementedError as error:
    print(f"{'a**/run':14} save:", str(error)[:90])
PY
venv/bin/python look.py 2> errors.txt || { tail -5 errors.txt; exit 1; }
