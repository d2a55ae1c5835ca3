#!/usr/bin/env bash
# Guess: torch.save writes a zip with a CRC-32 for every tensor, so torch.load notices a damaged checkpoint.
# Really: PyTorch's zip reader is built without the check. A flipped bit in a tensor is loaded without a word, though
#   the checksum beside it is right and Python's own zipfile refuses the entry. Readers have to check for themselves.
#   (torch.utils.serialization.config.save.compute_crc32 = False writes zeros instead, which zipfile then calls damage.)
# Versions: torch 2.13.0, Python 3.11.
# Source: torch, cmake/Dependencies.cmake (MINIZ_DISABLE_ZIP_READER_CRC32_CHECKS); torch/utils/serialization/config.py
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy
"$work/venv/bin/python" - "$work" <<'PYTHON'
import sys, zipfile

import torch

print("torch", torch.__version__)
path = f"{sys.argv[1]}/w.pt"
weight = torch.arange(1000.0)
torch.save({"w": weight}, path)
data = bytearray(open(path, "rb").read())
at = data.index(weight.numpy().tobytes())
data[at + 4 * 500 + 3] ^= 0x80  # the sign of number 500
open(path, "wb").write(data)
loaded = torch.load(path, weights_only=True)["w"]
print("torch.load: no error; number 500 is", loaded[500].item())
broken = zipfile.ZipFile(path).testzip()
print("zipfile.testzip: damaged entry", broken)
sys.exit(not (loaded[500] == -500 and broken == "w/data/0"))
PYTHON
