#!/usr/bin/env bash
# The guess: evaluators read 16-bit pictures alike, grey or colour: scaled to 8 bits, or refused.
#
# What happens: pytorch-fid, clean-fid and torch-fidelity all do Image.open(path).convert("RGB"). Pillow opens a 16-bit
# grey PNG as mode I;16, and convert cuts each level at 255: a picture of levels 256..65535 is white. A 16-bit colour PNG
# of the same levels is opened as 8-bit RGB, each level's upper byte: it looks right. Nothing warns in either case, so
# the two files of one scene are 155 levels apart on average here, and FID sees white pictures.
#
# Versions: Pillow 13.0.0 (and 11.3.0), numpy 2.x; pytorch-fid 0.3.0, clean-fid 0.1.35, torch-fidelity 0.4.0.
# Source: PIL/PngImagePlugin.py (_MODES: (16, 0) -> "I;16", (16, 2) -> "RGB" by "RGB;16B"), libImaging/Convert.c;
# pytorch_fid/fid_score.py, cleanfid/utils.py, torch_fidelity/datasets.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"

cat > look.py <<'PY'
import struct
import zlib

import numpy as np
import PIL
from PIL import Image


def png(path, level):
    """A PNG of 16 bits a channel (RFC 2083): grey for (rows, columns), colour for (rows, columns, 3)."""
    rows, columns = level.shape[:2]
    lines = level.astype(">u2").reshape(rows, -1)
    data = zlib.compress(b"".join(b"\0" + line.tobytes() for line in lines))
    head = struct.pack(">IIBBBBB", columns, rows, 16, 0 if level.ndim == 2 else 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for kind, body in ((b"IHDR", head), (b"IDAT", data), (b"IEND", b"")):
            file.write(struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)))


print("Pillow", PIL.__version__)
level = np.linspace(256, 51200, 64).astype(np.uint16).reshape(8, 8)  # a ramp from black to light grey
png("grey.png", level)
png("colour.png", np.dstack([level] * 3))
read = {}
for name in ("grey.png", "colour.png"):
    with Image.open(name) as picture:
        read[name] = np.asarray(picture.convert("RGB"))
        print(f"{name:11} opened as {picture.mode:5} -> {read[name].min()}..{read[name].max()}")
far = np.abs(read["grey.png"].astype(int) - read["colour.png"]).mean()
print(f"mean difference: {far:.0f} levels")
assert (read["grey.png"] == 255).all(), "changed: 16-bit grey is no longer cut"
assert (read["colour.png"][..., 0] == level >> 8).all(), "changed: 16-bit colour is no longer its upper byte"
PY
for version in 11.3.0 13.0.0; do
    python -m venv "venv$version"
    "venv$version/bin/pip" install -q --disable-pip-version-check "pillow==$version" "numpy>=2,<3"
    "venv$version/bin/python" look.py
done
