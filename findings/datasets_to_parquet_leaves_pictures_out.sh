#!/usr/bin/env bash
# The guess: `Dataset.to_parquet` of a column of type Image writes a file that holds the pictures, as those have that
# people fetch from Hugging Face's hub: structs of `bytes` and `path`.
#
# What happens: it holds them only where they were in memory. Pictures that came as paths, which is how a folder of
# files becomes a data set, stay paths: `bytes` is null, `path` what it was on the machine that wrote it, and the
# file is of no use anywhere else. Nothing is said. The files of the hub come from push_to_hub, which embeds pictures
# first (embed_external_files=True); `to_parquet` has no such argument. datasets.table.embed_table_storage does the same
# by hand, and then the bytes are there.
#
# Versions: datasets 5.2.0, pyarrow 26.0.1, pillow 13.0.0.
# Source: datasets, arrow_dataset.py (`push_to_hub` and its embed_external_files; `to_parquet`), io/parquet.py
# (ParquetDatasetWriter), features/image.py (`Image.encode_example`, `embed_storage`).
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pyarrow==26.0.1 pillow==13.0.0
cd "$folder"

cat > look.py <<'PY'
import datasets
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Features, Image
from datasets.table import embed_table_storage
from PIL import Image as Pillow

datasets.disable_progress_bars()
print("datasets", datasets.__version__, "pyarrow", pa.__version__)
picture = Pillow.new("RGB", (8, 8), "red")
picture.save("red.png")
features = Features({"image": Image()})
sets = {
    "in memory": Dataset.from_dict({"image": [picture]}, features),
    "by path": Dataset.from_dict({"image": ["red.png"]}, features),
}
sets["by path, embedded first"] = sets["by path"].with_format("arrow").map(embed_table_storage, batched=True)
held = {}
for name, made in sets.items():
    made.to_parquet("made.parquet")
    cell = pq.read_table("made.parquet")["image"][0].as_py()
    held[name] = cell["bytes"] is not None
    print(f"{name}: bytes {'are there' if held[name] else 'are null'}, path {cell['path']!r}")
assert list(held.values()) == [True, False, True], "the behaviour changed"
PY
HF_HOME="$folder/home" HF_HUB_OFFLINE=1 "$folder/venv/bin/python" look.py
