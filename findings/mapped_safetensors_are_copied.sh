#!/usr/bin/env bash
# The guess: arrays of a memory-mapped safetensors file, handed to JAX on a CPU with jax.device_put(x, may_alias=True)
# or jax.dlpack.from_dlpack(x), stay where they are: nothing is read before it is used, and memory holds them once.
#
# What happens: XLA's CPU client shares host memory only if it begins at a multiple of 64 bytes, and copies it silently
# otherwise. safetensors pads its header to 8 bytes, and arrays follow each other without gaps, so that as a rule none
# of a file's arrays is aligned: a model is in memory twice (the mapped pages, and the copies). The same arrays behind a
# header padded with spaces to a multiple of 64, which the format allows, are shared. jnp.asarray copies in any case.
#
# Versions: jax 0.10.2, safetensors 0.8.0, numpy 2.4.6.
# Source: safetensors' format (header padded to 8 bytes: safetensors/src/tensor.rs, `prepare`); jaxlib, the CPU client's
# BufferFromHostBuffer (kImmutableZeroCopy asks for the alignment of cpu_function_runtime, 64).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 safetensors==0.8.0 numpy==2.4.6
cd "$folder"

cat > look.py <<'PY'
import json
import struct

import jax
import numpy as np
import safetensors
from safetensors.numpy import save_file

print("jax", jax.__version__, "safetensors", safetensors.__version__, "numpy", np.__version__)
arrays = {f"layer{i}": np.full((256, 256), i, np.float32) for i in range(8)}
save_file(arrays, "plain.safetensors")


def mapped(path):
    """(where the numbers begin, the arrays as views of the mapped file)."""
    with open(path, "rb") as file:
        first = 8 + struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(first - 8))
    whole = np.memmap(path, np.uint8, "c")
    views = {}
    for name, about in header.items():
        begin, end = about["data_offsets"]
        views[name] = np.asarray(whole[first + begin : first + end]).view(np.float32).reshape(about["shape"])
    return first, views


def shared(views):
    """How many stay where they are, by both ways of asking."""
    put = sum(jax.device_put(x, may_alias=True).unsafe_buffer_pointer() == x.ctypes.data for x in views.values())
    given = sum(jax.dlpack.from_dlpack(x).unsafe_buffer_pointer() == x.ctypes.data for x in views.values())
    return put, given


first, views = mapped("plain.safetensors")
print(f"as saved: numbers begin at byte {first}, {first % 64} past a multiple of 64; shared, of 8: {shared(views)}")
assert first % 8 == 0 and first % 64, "the header is padded further now"
assert shared(views) == (0, 0), "unaligned arrays are shared now"

with open("plain.safetensors", "rb") as file:
    size = struct.unpack("<Q", file.read(8))[0]
    text, numbers = file.read(size), file.read()
text += b" " * (-(8 + len(text)) % 64)
with open("padded.safetensors", "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + numbers)
assert set(safetensors.numpy.load_file("padded.safetensors")) == set(arrays)
first, views = mapped("padded.safetensors")
print(f"padded: numbers begin at byte {first}; shared, of 8: {shared(views)}")
assert shared(views) == (8, 8), "aligned arrays are copied now"
PY
JAX_PLATFORMS=cpu "$folder/venv/bin/python" look.py
