#!/usr/bin/env bash
# The guess: a tensorflow-datasets set prepared as array_record is read without TensorFlow, since tfds.data_source says
# so; and what can be read without it can be prepared without it.
#
# What happens: a name that tfds knows is looked up as code first, and the code of many sets (coco_captions, which is
# COCO 2014 with captions) imports TensorFlow: data_source("coco_captions") raises ModuleNotFoundError before it looks
# for the files, which are there. builder_from_directory(FOLDER).as_data_source() reads the same files, as does
# read_only_builder.builder_from_files(NAME). Preparing: features.Text and Tensor are written without TensorFlow,
# features.Image of an array is not (tf.image.encode_png), while a picture that is a file already passes through.
#
# Versions: tensorflow-datasets 4.9.10 without tensorflow, array_record 0.8.x, Python 3.11 on Linux.
# Source: tensorflow_datasets/core/load.py (builder), core/read_only_builder.py, core/features/image_feature.py.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check tensorflow-datasets==4.9.10 importlib_resources pillow
export TFDS_DATA_DIR="$folder/data"
cd "$folder"

cat > write.py <<'PY'
import io
import sys

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

picture = np.zeros((4, 4, 3), np.uint8)
file = io.BytesIO()
Image.fromarray(picture).save(file, "PNG")
features = {"tensor": tfds.features.Tensor(shape=(4, 4, 3), dtype=np.uint8), "array": tfds.features.Image()}
features["file"] = tfds.features.Image()
given = {"tensor": picture, "array": picture, "file": file}
kind = sys.argv[1]


class CocoCaptions(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2014")]

    def _info(self):
        kinds = tfds.features.FeaturesDict({"caption": tfds.features.Text(), "image": features[kind]})
        return tfds.core.DatasetInfo(builder=self, description="two captions", features=kinds)

    def _split_generators(self, manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(2):
            file.seek(0)
            yield i, {"caption": f"caption {i}", "image": given[kind]}


CocoCaptions(data_dir=sys.argv[2], file_format="array_record").download_and_prepare()
PY

cat > read.py <<'PY'
import sys
from importlib.metadata import version

import tensorflow_datasets as tfds

print("tensorflow-datasets", version("tensorflow-datasets"))
try:
    tfds.data_source("coco_captions", split="train", download=False)
    sys.exit("changed: the name is read without TensorFlow")
except ModuleNotFoundError as error:
    print("data_source('coco_captions'):", str(error).splitlines()[-1][-60:])
source = tfds.builder_from_directory(f"{sys.argv[1]}/coco_captions/2014/1.1.0").as_data_source(split="train")
print("builder_from_directory:", [example["caption"] for example in source])
again = tfds.core.read_only_builder.builder_from_files("coco_captions").as_data_source(split="train")
assert len(source) == len(again) == 2
PY

python=venv/bin/python
"$python" write.py tensor data > log 2>&1 || { tail -5 log; echo "changed: text and tensors are not written"; exit 1; }
"$python" read.py data 2> log || { tail -5 log; exit 1; }
"$python" write.py file data2 > log 2>&1 || { tail -5 log; echo "changed: a picture's file is not written"; exit 1; }
echo "features.Image of a file: written"
if "$python" write.py array data3 > log 2>&1; then echo "changed: an array is encoded without TensorFlow"; exit 1; fi
echo "features.Image of an array: $(tail -1 log)"
grep -q "No module named 'tensorflow'" log
