#!/usr/bin/env bash
# Guess: Image.open is lazy in every format: size, mode and the orientation tag of a picture cost its header, some
#   kilobytes, so a first look over a large set of pictures (sizes, torn headers) reads a thousandth of it.
# What happens: so it is for JPEG, PNG, TIFF, GIF, BMP and JPEG 2000. WebP and AVIF are read to their last byte by
#   Image.open itself, since their decoders are handed the whole file: the first look at a set of WebP pictures, which
#   is what many data sets are published in, reads all of it, over a network too.
# Versions: pillow 13.0.0 and 11.3.0 (AVIF inside since then), numpy 2.2.6.
# Source: pillow, PIL/WebPImagePlugin.py and PIL/AvifImagePlugin.py, _open: the decoder is made of self.fp.read().
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
img = Image.fromarray(np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8))


class Counted(io.BytesIO):
    """Counts the bytes that are read, of whichever part of the file."""

    count = 0

    def read(self, size=-1):
        data = super().read(size)
        self.count += len(data)
        return data


shares = {}
for kind in ("JPEG", "PNG", "TIFF", "GIF", "BMP", "JPEG2000", "WEBP", "AVIF"):
    file = io.BytesIO()
    img.save(file, kind)
    looked = Counted(file.getvalue())
    opened = Image.open(looked)
    assert opened.size == (700, 700)
    shares[kind] = looked.count / len(file.getvalue())
    print(f"{kind:9}{len(file.getvalue()):10,} bytes, read by Image.open: {looked.count:10,}")
assert all(share >= 1 for kind, share in shares.items() if kind in ("WEBP", "AVIF")), shares
assert all(share < 0.05 for kind, share in shares.items() if kind not in ("WEBP", "AVIF")), shares
PYTHON
done
