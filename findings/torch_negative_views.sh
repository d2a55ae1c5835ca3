#!/usr/bin/env bash
# Guess: what torch.save stores of a tensor are its numbers (offset, shape and strides say which of the storage).
# Really: a real tensor can be a lazily negated view, e.g. the imaginary part of a conjugated one. torch.save then stores the
#   numbers as they lie in memory, with the other sign, and {"neg": True} as a seventh argument of the rebuild call,
#   which other tensors do not have. A reader that stops at the strides gets every number with the wrong sign, and no error.
#   clone() and arithmetic resolve the bit, detach() and nn.Parameter(...) keep it; contiguous() keeps it unless it has to copy.
# Versions: torch 2.13.0, Python 3.11.
# Source: torch/_tensor.py (_reduce_ex_internal), torch/_utils.py (get_tensor_metadata, _rebuild_tensor_v2)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy
"$work/venv/bin/python" - "$work" <<'PYTHON'
import pickletools, sys, zipfile

import numpy as np
import torch

print("torch", torch.__version__)


def stored(tensor):
    """All stored numbers, and whether the pickle speaks of a negation."""
    torch.save({"w": tensor}, path := f"{sys.argv[1]}/w.pt")
    archive = zipfile.ZipFile(path)
    words = [word for _, word, _ in pickletools.genops(archive.read("w/data.pkl"))]
    return np.frombuffer(archive.read("w/data/0"), np.float32), "neg" in words


weight = torch.tensor([1.0, 2.0, 3.0])
view = torch.complex(torch.zeros(3), weight).conj().imag
numbers, negated = stored(view)
print("PyTorch shows", view.tolist(), "stored", numbers.tolist(), "neg in the pickle:", negated)
ways = {
    "clone()": view.clone(),
    "* 1": view * 1,
    "contiguous()": view.contiguous(),
    "detach()": view.detach(),
    "nn.Parameter": torch.nn.Parameter(view),
}
kept = {name: x.is_neg() for name, x in ways.items()}
print("bit kept by", kept)
fine = view[0] == -1 and negated and numbers[1] == 1 and not stored(weight)[1]
sys.exit(not (fine and kept["nn.Parameter"] and kept["detach()"] and not kept["clone()"] and not kept["* 1"]))
PYTHON
