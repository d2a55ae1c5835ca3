#!/usr/bin/env bash
# Guess: an EXIF orientation means the same in every format: what Image.open gives is not turned yet, and a loader that
#   reads the tag and then turns the pixels (transpose by the tag's value) is right for all of them.
# What happens: so it is for JPEG, PNG and WebP. TIFF alone turns itself when its pixels are loaded, while the tag, read
#   before that, still asks for it: turned by that loader it is turned twice, and half a turn off. After load() the tag
#   is gone. ImageOps.exif_transpose, which loads first, is right for all.
# Versions: pillow 13.0.0 and 10.4.0, numpy 2.2.6.
# Source: pillow, PIL/TiffImagePlugin.py, TiffImageFile.load_end: ImageOps.exif_transpose(self, in_place=True).
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
for pillow in 13.0.0 10.4.0; do
    "$work/venv/bin/pip" install -q --disable-pip-version-check pillow==$pillow numpy==2.2.6
    "$work/venv/bin/python" - <<'PYTHON'
import io

import numpy as np
import PIL
from PIL import Image, ImageOps

ORIENTATION, TURNED = 0x0112, 6  # to be turned a quarter clockwise
print("pillow", PIL.__version__, "numpy", np.__version__)
pixels = np.zeros((32, 32), np.uint8)
pixels[:8] = 255  # the first rows: on the right once it is upright


def bright(img):
    x = np.asarray(img.convert("L")).astype(int)
    edges = {"top": x[0], "bottom": x[-1], "left": x[:, 0], "right": x[:, -1]}
    return max(edges, key=lambda edge: edges[edge].mean())


found = {}
for kind in ("JPEG", "PNG", "WEBP", "TIFF"):
    exif, file = Image.Exif(), io.BytesIO()
    exif[ORIENTATION] = TURNED
    Image.fromarray(pixels).convert("RGB").save(file, kind, exif=exif)

    def opened(file=file):
        return Image.open(io.BytesIO(file.getvalue()))

    loader = opened()
    tag = loader.getexif().get(ORIENTATION)
    assert tag == TURNED, (kind, tag)
    by_hand = bright(loader.convert("RGB").transpose(Image.Transpose.ROTATE_270))
    after = opened()
    after.load()
    found[kind] = bright(opened()), by_hand, bright(ImageOps.exif_transpose(opened())), after.getexif().get(ORIENTATION)
    print(f"{kind:5} as opened {found[kind][0]:6} turned by its tag {by_hand:6} exif_transpose {found[kind][2]:6} "
          f"tag before load {tag}, after {found[kind][3]}")
assert all(found[kind] == ("top", "right", "right", TURNED) for kind in ("JPEG", "PNG", "WEBP")), found
assert found["TIFF"] == ("right", "bottom", "right", None), found
PYTHON
done
