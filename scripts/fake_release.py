"""Make a file in exactly the published format, with random weights: the whole path without a download.

    python -m scripts.fake_release llamagen_l_dd --out llamagen-L.pt
    python -m scripts.fake_release lpips_vgg --out vgg16.pth vgg.pth
    python -m scripts.fake_release flan_t5_xl --out FOLDER [--format bin] [--tiny] [--dtype bfloat16] [--shards 2]

Keys, shapes, container and PyTorch's format are those of the real file; the pictures will be noise. VGG16 comes without
the matrices of its classifier, which nothing here reads.
"""

import argparse
import sys
import zlib
from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np

from dd_jax.scripts import fake_shards
from dd_jax.system import files
from dd_jax.system.errors import UserError
from dd_jax.system.torch_writer import write_old_torch, write_torch
from port_weights import models, rules
from port_weights.catalog import find


def state_dict(name: str) -> dict[str, np.ndarray]:
    """Random weights of a known model, under the published keys."""
    known = find(name)
    shapes = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), known.expected())
    weights = {key: _random(key, x.shape) for key, x in rules.export(shapes, known.table()).items()}
    if known.part == "lpips":
        weights |= {f"classifier.{i}.bias": np.zeros(n, np.float32) for i, n in ((0, 4096), (3, 4096), (6, 1000))}
    return weights | models.buffers(known.config(), known.part)


def _random(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers of a size that keeps activations finite; gains and variances are about one."""
    draw = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, np.float32)
    if len(shape) < 2:
        return np.float32(key.endswith(("weight", "running_var"))) + 0.02 * draw
    return draw * np.float32(np.prod(shape[1:]) ** -0.5 if "embedding" not in key else 1)


def release(name: str, *paths: str | Path) -> list[Path]:
    """Write a known model's file, or files, as published."""
    weights = state_dict(name)
    if find(name).part != "lpips":
        return [write_torch(path, find(name).wrapped(weights)) for path in paths]
    heads = {key: x for key, x in weights.items() if key.startswith("lin")}
    vgg = {key: x for key, x in weights.items() if key not in heads}
    return [write_old_torch(path, OrderedDict(part)) for path, part in zip(paths, (vgg, heads), strict=True)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="an id of `python -m port_weights list`")
    parser.add_argument("--out", type=Path, nargs="+", required=True, help="files; a folder for a model in shards")
    shards = parser.add_argument_group("models in shards")
    shards.add_argument("--format", choices=("safetensors", "bin"), default="safetensors")
    shards.add_argument("--tiny", action="store_true", help="toy sizes, the same keys")
    shards.add_argument("--dtype", choices=("float32", "float16", "bfloat16"), default="float32")
    shards.add_argument("--shards", type=int, default=2)
    args = parser.parse_args()
    try:
        files.spelled_in(args)
        known = find(args.model)
    except UserError as error:
        sys.exit(f"error: {error}")
    wanted = max(1, len(known.urls))
    if args.shards < 1:
        parser.error(f"--shards={args.shards}: one or more")
    if len(args.out) != wanted:
        parser.error(f"{args.model} is published in {wanted}: --out takes as many names")
    try:
        for path in args.out:
            files.check_folder(path if known.shards else path.parent)
        if known.shards:
            cfg = fake_shards.TINY if args.tiny else fake_shards.T5Config(**known.config())
            how = (write_torch, _random, args.format, args.dtype, args.shards)
            print("wrote", *fake_shards.release(args.out[0], cfg, *how))
        else:
            print("wrote", *release(args.model, *args.out))
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
