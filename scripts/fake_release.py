"""Make a file in exactly the published format, with random weights: the whole path without a download.

    python -m scripts.fake_release llamagen_l_dd --out llamagen-L.pt
    python -m scripts.fake_release lpips_vgg --out vgg16.pth vgg.pth
    python -m scripts.fake_release flan_t5_xl --out FOLDER [--format bin] [--tiny] [--dtype bfloat16] [--shards 2]

Keys, shapes, container and PyTorch's format are those of the real file; the pictures will be noise. VGG16 comes without
the matrices of its classifier, which nothing here reads.
"""

import argparse
import io
import pickle
import struct
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from dd_jax.method.layout import Layout
from dd_jax.system.torch_file import STORAGES
from dd_jax.system.torch_old import MAGIC
from port_weights import rules, var
from port_weights.catalog import find
from scripts import fake_shards

KINDS = {str(np.dtype(kind)): name for name, kind in STORAGES.items()}


class _Global:
    """A name that the reader has to look up."""

    def __init__(self, module: str, name: str):
        self.text = f"c{module}\n{name}\n".encode()


class _Pickler(pickle._Pickler):
    """Writes arrays as PyTorch writes tensors: a call of _rebuild_tensor_v2 on a reference to a storage."""

    def __init__(self, file: io.BytesIO, arrays: list[np.ndarray], *more: Any):
        super().__init__(file, protocol=2)
        self.arrays, self.more = arrays, more

    def persistent_id(self, obj: Any) -> Any:
        return (*obj.pid, *self.more) if isinstance(obj, _Storage) else None

    def save(self, obj: Any, save_persistent_id: bool = True) -> Any:
        if isinstance(obj, _Global):
            return self.write(obj.text)
        if isinstance(obj, np.ndarray | fake_shards.Lazy):
            return self._tensor(obj)
        return super().save(obj, save_persistent_id)

    def _tensor(self, x: Any) -> None:
        found = [i for i, other in enumerate(self.arrays) if other is x]  # two names of one tensor share its storage
        if not found:
            self.arrays.append(x)
        storage = _Storage(str(found[0] if found else len(self.arrays) - 1), x)
        strides = tuple(step // x.dtype.itemsize for step in np.empty(x.shape, x.dtype).strides)
        self.save(_Global("torch._utils", "_rebuild_tensor_v2"))
        self.save((storage, 0, x.shape, strides, False, OrderedDict()))
        self.write(pickle.REDUCE)


class _Storage:
    def __init__(self, key: str, x: Any):
        self.pid = ("storage", _Global("torch", KINDS[str(x.dtype)]), key, "cpu", x.size)


def write_torch(path: str | Path, tree: Any) -> Path:
    """Save nested containers of arrays as `torch.save` does."""
    buffer, arrays = io.BytesIO(), []
    _Pickler(buffer, arrays).dump(tree)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", buffer.getvalue())
        archive.writestr("archive/byteorder", "little")
        for i, x in enumerate(arrays):
            with archive.open(f"archive/data/{i}", "w", force_zip64=True) as entry:
                entry.write(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
        archive.writestr("archive/version", "3\n")
    return Path(path)


def write_old_torch(path: str | Path, tree: Any) -> Path:
    """The same in PyTorch's format before 1.6."""
    buffer, arrays = io.BytesIO(), []
    for head in (MAGIC, 1001, {"protocol_version": 1001, "little_endian": True}):
        pickle.dump(head, buffer, protocol=2)
    _Pickler(buffer, arrays, None).dump(tree)  # None: no view of another storage
    pickle.dump([str(i) for i in range(len(arrays))], buffer, protocol=2)
    for x in arrays:
        buffer.write(struct.pack("<q", x.size) + np.ascontiguousarray(x).tobytes())
    Path(path).write_bytes(buffer.getvalue())
    return Path(path)


def state_dict(name: str) -> dict[str, np.ndarray]:
    """Random weights of a known model, under the published keys."""
    known = find(name)
    shapes = jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), known.expected())
    weights = {key: _random(key, x.shape) for key, x in rules.export(shapes, known.table()).items()}
    return weights | _buffers(known.config(), known.part)


def _buffers(config: ConfigDict, part: str) -> dict[str, np.ndarray]:
    """What published files hold besides the weights that are used."""
    if part == "lpips":
        return {f"classifier.{i}.bias": np.zeros(n, np.float32) for i, n in ((0, 4096), (3, 4096), (6, 1000))}
    if config.get("family") != "var":
        return {}
    layout, zeros = Layout.scales(config.tokenizer.sides), np.zeros(config.model.width, np.float32)
    if part == "tokenizer":
        return {"quantize.ema_vocab_hit_SV": np.zeros((layout.steps, config.tokenizer.vocab), np.float32)}
    student = part == "student"
    level = layout.step_N + 1 if student else layout.step_L
    mask = layout.student_mask(config.student.same_step) if student else layout.teacher_mask(layout.step_L)
    bias = np.where(mask, 0, -np.inf).astype(np.float32)[None, None]
    keys = {f"blocks.{i}.attn.zero_k_bias": zeros for i in range(config.model.depth)}
    return keys | {"lvl_1L": level[None].astype(np.int64), var.MASK: bias}


def _random(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """Normal numbers of a size that keeps activations finite; gains and variances are about one."""
    draw = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, np.float32)
    if len(shape) < 2:
        return np.float32(key.endswith(("weight", "running_var"))) + 0.02 * draw
    return draw * np.float32(np.prod(shape[1:]) ** -0.5 if "embedding" not in key else 1)


def wrapped(name: str, weights: Mapping[str, np.ndarray]) -> Any:
    """As the published file holds it: inside its first container."""
    tree: Any = OrderedDict(weights)
    for part in reversed([part for part in find(name).containers[0].split(".") if part]):
        tree = {part: tree}
    return tree


def release(name: str, *paths: str | Path) -> list[Path]:
    """Write a known model's file, or files, as published."""
    weights = state_dict(name)
    if find(name).part != "lpips":
        return [write_torch(path, wrapped(name, weights)) for path in paths]
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
    known = find(args.model)
    wanted = max(1, len(known.urls))
    if len(args.out) != wanted:
        parser.error(f"{args.model} is published in {wanted}: --out takes as many names")
    if known.shards:
        cfg = fake_shards.TINY if args.tiny else fake_shards.T5Config(**known.config())
        how = (write_torch, _random, args.format, args.dtype, args.shards)
        print("wrote", *fake_shards.release(args.out[0], cfg, *how))
    else:
        print("wrote", *release(args.model, *args.out))


if __name__ == "__main__":
    main()
