#!/usr/bin/env bash
# Guess: the header of PyTorch's old format ({"protocol_version", "little_endian", "type_sizes"}) says how the numbers lie;
#   with "little_endian": False they have to be swapped, as the "byteorder" entry of the new (zip) format asks for.
# Really: the old header is read and ignored: numbers and counts are little-endian whatever machine wrote them (its writer
#   swaps on big-endian ones). In the zip format the entry is obeyed. A reader that treats both alike turns one into noise.
# Versions: torch 2.13.0, Python 3.11.
# Source: torch/serialization.py (_legacy_load: `_sys_info = pickle_module.load(f, ...)`, not used again; _load: byteorder),
#   torch/csrc/serialization.cpp (THPStorage_writeFileRaw)
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install -q torch==2.13.0 numpy
"$work/venv/bin/python" - "$work" <<'PYTHON'
import io, pickle, sys, zipfile

import torch

print("torch", torch.__version__)
weight = torch.arange(1.0, 4.0)

out = io.BytesIO()
torch.save({"w": weight}, out, _use_new_zipfile_serialization=False)
data, at = out.getvalue(), io.BytesIO(out.getvalue())
pickle.load(at), pickle.load(at)
start = at.tell()
facts = pickle.load(at)
facts["little_endian"] = False
other = data[:start] + pickle.dumps(facts, protocol=2) + data[at.tell() :]
old = torch.load(io.BytesIO(other), weights_only=True)["w"]
print("old format, little_endian False, numbers untouched:", old.tolist())

torch.save({"w": weight}, new := f"{sys.argv[1]}/w.pt")
with zipfile.ZipFile(new) as archive, zipfile.ZipFile(f"{sys.argv[1]}/big.pt", "w") as big:
    for name in archive.namelist():
        big.writestr(name, b"big" if name.endswith("/byteorder") else archive.read(name))
swapped = torch.load(f"{sys.argv[1]}/big.pt", weights_only=True)["w"]
print("zip format, byteorder big, numbers untouched:", swapped.tolist())
sys.exit(not (torch.equal(old, weight) and not torch.equal(swapped, weight)))
PYTHON
