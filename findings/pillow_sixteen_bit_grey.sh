#!/usr/bin/env bash
# Guess: Image.open(f).convert("RGB"), the loader of most training code, treats 16-bit PNGs alike: all scaled to 8 bits.
# What happens: the same pixels (40,000 of 65,535) come out as 156 from a colour PNG, from one with alpha, and even from
#   grey with alpha; from plain grey they come out as 255. Plain grey opens as "I;16", whose conversion to "L" or "RGB"
#   clips at 255 instead of scaling; the others open as 8 bits, their high bytes. No warning: a folder of 16-bit scans
#   becomes white pictures, and only those that were saved without alpha. PGM is like grey PNG, PPM like colour.
# Versions: pillow 13.0.0, numpy 2.3.5.
# Source: pillow, PIL/PngImagePlugin.py, _MODES: (16, 0) is "I;16", (16, 2) "RGB" of "RGB;16B"; src/libImaging/Convert.c,
#   I16_L clips. torchvision's pil_loader (torchvision/datasets/folder.py) is that one line.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q --disable-pip-version-check pillow==13.0.0 numpy==2.3.5
"$work/venv/bin/python" - <<'PYTHON'
import io
import struct
import zlib

import numpy as np
import PIL
from PIL import Image

print("pillow", PIL.__version__, "numpy", np.__version__)
VALUE = 40_000
KINDS = {"grey": (0, 1), "colour": (2, 3), "grey, alpha": (4, 2), "colour, alpha": (6, 4)}


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(colour_type, channels):
    head = struct.pack(">IIBBBBB", 8, 8, 16, colour_type, 0, 0, 0)
    row = b"\0" + struct.pack(">H", VALUE) * 8 * channels
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")


files = {f"PNG, {kind}": png(*of) for kind, of in KINDS.items()}
files["PGM"] = b"P5 8 8 65535\n" + struct.pack(">H", VALUE) * 64
files["PPM"] = b"P6 8 8 65535\n" + struct.pack(">H", VALUE) * 192
found = {}
for kind, data in files.items():
    img = Image.open(io.BytesIO(data))
    found[kind] = int(np.asarray(img.convert("RGB"))[0, 0, 0])
    print(f'{kind:20} {VALUE} of 65535, mode {img.mode:5} convert("RGB"): {found[kind]}')
wanted = {"PNG, grey": 255, "PNG, colour": 156, "PNG, grey, alpha": 156, "PNG, colour, alpha": 156, "PGM": 255, "PPM": 156}
assert found == wanted, found
PYTHON
