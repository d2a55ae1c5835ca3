"""python -m scripts.publish_pairs to PAIRS DATA_DIR     a finished pair set -> a tfds data set (dd_pairs) in DATA_DIR
python -m scripts.publish_pairs from DATASET PAIRS     ... and back: DATASET is .../dd_pairs/1.0.0

The files are array_record: tfds.data_source("dd_pairs", split="train", data_dir=DATA_DIR) reads them; no TensorFlow.
The manifest travels along, and what comes back is the same shards, byte by byte, which is checked.
It needs pip install -e '.[data]'.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.data import pairset
from dd_jax.data import tfds as sets
from dd_jax.system import files
from dd_jax.system.errors import UserError

ABOUT = "Noise-code pairs of Distilled Decoding (arXiv 2412.17153): noise follows from `id` and the manifest's seed."


def publish(folder: Path, data_dir: Path) -> Path:
    """Write the pair set in `folder` as a tfds data set -> its folder."""
    tfds, found, manifest = sets.module("dd_pairs"), pairset.load(folder), pairset.manifest_of(folder)
    shape = found.shards[0]["code"].shape[1:]

    class DdPairs(tfds.core.GeneratorBasedBuilder):  # type: ignore[name-defined]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> Any:
            features = {"id": np.int32, "label": np.int32}
            features["code"] = tfds.features.Tensor(shape=shape, dtype=np.uint16)
            kept = tfds.core.MetadataDict({"manifest": json.dumps(manifest)})
            given = {"builder": self, "description": ABOUT, "features": tfds.features.FeaturesDict(features)}
            return tfds.core.DatasetInfo(**given, metadata=kept)

        def _split_generators(self, manager: Any) -> dict[str, Any]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
            for shard in found.shards:
                for id, label, code in zip(*(shard[name] for name in pairset.FIELDS), strict=True):
                    yield int(id), {"id": int(id), "label": int(label), "code": np.asarray(code)}

    builder = DdPairs(data_dir=str(data_dir), file_format="array_record")
    builder.download_and_prepare()
    return Path(builder.data_dir)


def fetch(dataset: Path, folder: Path) -> pairset.PairSet:
    """Write the data set in `dataset` as a pair set. UserError if it does not give the shards of its manifest."""
    builder = sets.module(str(dataset)).builder_from_directory(str(dataset))
    manifest, source = json.loads(builder.info.metadata["manifest"]), builder.as_data_source(split="train")
    rows = [source[i] for i in range(len(source))]
    rows.sort(key=lambda row: row["id"])
    arrays = {name: np.array([row[name] for row in rows]) for name in pairset.FIELDS}
    arrays["id"], arrays["label"] = (arrays[name].astype(np.int32) for name in ("id", "label"))
    which = arrays["id"] // manifest["shard"]
    for number in np.unique(which):
        shard = {name: x[which == number] for name, x in arrays.items()}
        name = pairset.name_of(int(shard["id"][0]), manifest["shard"])
        if pairset.write(folder / name, shard) != manifest["shards"].get(name):
            raise UserError(f"{dataset} does not give {name} as its manifest has it: fetch the data set again")
    facts = {key: value for key, value in manifest.items() if key != "shards"}
    pairset.check_settings(folder, facts)
    pairset.close(folder, facts, manifest["shards"])
    return pairset.load(folder)


def main(argv: list[str]) -> None:
    """One way or the other."""
    parser = argparse.ArgumentParser("python -m scripts.publish_pairs", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("way", choices=("to", "from"))
    parser.add_argument("source", type=Path)
    parser.add_argument("target", type=Path)
    args = parser.parse_args(argv)
    try:
        files.spelled_in(args)
        if args.way == "to":
            print(publish(args.source, args.target))
        else:
            print(f"{args.target}: {len(fetch(args.source, args.target))} pairs")
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
