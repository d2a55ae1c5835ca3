#!/usr/bin/env bash
# Guess: a 16-bit grey TIFF is resized alike whatever its byte order, as the format allows both (ImageJ writes
#   big-endian, most other tools little-endian), or refused, as Pillow 10.1 did ("image has wrong mode").
# What happens: both open with the same values, as modes "I;16" and "I;16B", and both are resized without a word. The
#   big-endian one comes out wrong: resampling takes its bytes in little-endian order, filters these numbers, and
#   writes them back. Lanczos of a smooth ramp, 500..42,500, is off by tens of thousands; BOX hides it, off by some
#   hundreds. Thumbnails and training crops of such scans are noise. Converted to "I" or "F" first, it is right.
# Versions: pillow 13.0.0 and 11.3.0, numpy 2.2.6.
# Source: pillow, PIL/Image.py, Image.resize (src/libImaging/Resample.c); PIL/TiffImagePlugin.py, OPEN_INFO, "I;16B".
#   The last check below shows which order the bytes are taken in.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for pillow in 13.0.0 11.3.0; do
    "$work/venv/bin/pip" install -q --disable-pip-version-check pillow==$pillow numpy==2.2.6
    "$work/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import PIL
from PIL import Image

print("pillow", PIL.__version__, "numpy", np.__version__)
ramp = (np.add.outer(np.arange(8), np.arange(8)) * 3000 + 500).astype(np.uint16)


def tiff(mode, order):
    file = io.BytesIO()
    Image.frombytes(mode, ramp.shape, ramp.astype(order).tobytes()).save(file, "TIFF")
    img = Image.open(file)
    assert img.mode == mode
    assert np.array_equal(np.asarray(img), ramp), "both open with the same values"
    return img


def levels(img):
    return np.asarray(img).astype(int)


little, big = tiff("I;16", "<u2"), tiff("I;16B", ">u2")
off = {}
for name in ("LANCZOS", "BICUBIC", "BOX"):
    how = Image.Resampling[name]
    right = levels(little.resize((4, 4), how))
    assert np.abs(right - levels(big.convert("I").resize((4, 4), how))).max() <= 1, "converted first, it is right"
    wrong = levels(big.resize((4, 4), how))
    off[name] = int(np.abs(wrong - right).max())
    print(f"{name:8} first row, little-endian {right[0]}, big-endian {wrong[0]}; off by up to {off[name]}")
how = Image.Resampling.LANCZOS
taken = Image.frombytes("I;16", ramp.shape, ramp.astype(">u2").tobytes()).resize((4, 4), how)
assert np.array_equal(np.asarray(taken).byteswap(), levels(big.resize((4, 4), how))), "as if its bytes were swapped"
assert off["LANCZOS"] > 10_000 and off["BICUBIC"] > 10_000 and off["BOX"] > 50, off
PYTHON
done
