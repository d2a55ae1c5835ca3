"""A set of samples on disk: shards of uint8 images, and one .npz of all of them that other evaluators read.

    S0/manifest.json      the settings; checksum and time of every shard
    S0/shard-00000.npz    arr_0 (uint8, images x R x R x channels), label, id
    S0.npz                arr_0 and label of the whole set, streamed: never in memory
    S0.png                the first ones, to look at
    S0_images/            each as a file of its own, where classes were named or captions given (see `captioned`)

A shard is whole or not there, so a set can be left at any moment and goes on with what is missing.
"""

import contextlib
import hashlib
import io
import json
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from dd_jax.data.images import Images
from dd_jax.system import files, weights
from dd_jax.system.errors import UserError

MANIFEST = "manifest.json"
KINDS = {"settings": dict, "shards": dict, "ms": dict, "devices": list}
COLUMNS = 10  # of a picture, at most
PICTURE = 1000  # pixels of a side from which on a picture has fewer rows


class SampleSet:
    """The set in `folder`, made (or to be made) with `settings`, which hold `count` and `shard` (images of one)."""

    def __init__(self, folder: Path, settings: dict[str, Any], replace: bool = False) -> None:
        """UserError if the folder has a set with other settings; with `replace` that one is thrown away."""
        self.folder, self.settings = folder, json.loads(json.dumps(settings))
        self.manifest: dict[str, Any] = {"settings": self.settings, "shards": {}, "ms": {}, "devices": []}
        path = folder / MANIFEST
        if not path.exists():
            return
        found = files.read_json(path, f"delete {folder}, or use another --workdir")
        if not all(isinstance(found.get(key), kind) for key, kind in KINDS.items()):
            raise UserError(f"{path} is damaged (it lacks a field): delete {folder}, or use another --workdir")
        changed = _differences(found["settings"], self.settings)
        if not changed:
            self.manifest = found
        elif replace:
            for name in found["shards"]:
                (folder / name).unlink(missing_ok=True)
        else:
            key, before, now = changed[0]
            raise UserError(
                f"samples in {folder} were begun with {key}={before}, now it is {now}: "
                f"use another --workdir, or delete that folder"
            )

    @classmethod
    def found(cls, folder: Path) -> "SampleSet | None":
        """The finished set of a folder, if there is one."""
        try:
            made = cls(folder, files.read_json(folder / MANIFEST, default={})["settings"])
        except (OSError, ValueError, KeyError):
            return None
        return made if made.finished else None

    @property
    def npz(self) -> Path:
        """The whole set as one file."""
        return self.folder.with_name(self.folder.name + ".npz")

    @property
    def count(self) -> int:
        return self.settings["count"]

    @property
    def shards(self) -> dict[str, np.ndarray]:
        """Name -> ids of the images that it holds."""
        size = self.settings["shard"]
        firsts = range(0, self.count, size)
        return {f"shard-{i // size:05d}.npz": np.arange(i, min(i + size, self.count), dtype=np.int32) for i in firsts}

    @property
    def finished(self) -> bool:
        """Has every shard been written?"""
        return self.shards.keys() <= self.manifest["shards"].keys()

    @property
    def digest(self) -> str:
        """One checksum of all images."""
        return hashlib.sha256("".join(self.manifest["shards"][name] for name in self.shards).encode()).hexdigest()

    @property
    def ms_per_image(self) -> float | None:
        """Wall time of an image while sampling at full batches, the host's work included: the median shard's."""
        times = [self.manifest["ms"][name] for name in self.shards if name in self.manifest["ms"]]
        return float(np.median(times)) if times else None

    def missing(self) -> dict[str, np.ndarray]:
        """The shards that are not there or not as they were written."""
        return {name: ids for name, ids in self.shards.items() if not self._whole(name)}

    def write(
        self, name: str, images: np.ndarray, label: np.ndarray, ms: float, device: str, batch: int | None = None
    ) -> None:
        """Store one shard, then its checksum. UserError if the disk is full: what is there stays.

        `ms`: wall time of an image, drawn on `device`, `batch` at once.
        """
        with files.writing(self.folder / name) as file:
            np.savez(file, arr_0=images, label=label, id=self.shards[name])
        self.manifest["shards"][name] = weights.sha256(self.folder / name)
        self.manifest["ms"][name] = round(ms, 3)
        self.manifest["devices"] = sorted({*self.manifest["devices"], device})
        self.manifest["batches"] = sorted({*self.manifest.get("batches", ()), *([batch] if batch else [])})
        files.replace(self.folder / MANIFEST, json.dumps(self.manifest, indent=1).encode())

    def export(self) -> Path:
        """Write the .npz, unless it is there and of these shards."""
        made = {"of": self.digest, "bytes": self.npz.stat().st_size if self.npz.exists() else None}
        if made["bytes"] is None or self.manifest.get("npz") != made:
            with files.writing(self.npz) as file:
                self._stream(file)
            self.manifest["npz"] = made | {"bytes": self.npz.stat().st_size}
            files.replace(self.folder / MANIFEST, json.dumps(self.manifest, indent=1).encode())
        return self.npz

    def picture(self) -> Path:
        """Write <plan>.png: the first images in rows."""
        images, _ = self.first(COLUMNS * COLUMNS)
        rows = max(1, min(COLUMNS, PICTURE // images.shape[1]))
        buffer = io.BytesIO()
        sheet(images[: rows * COLUMNS]).save(buffer, "PNG")
        return files.replace(self.folder.with_name(self.folder.name + ".png"), buffer.getvalue())

    def images(self) -> Images:
        """For scoring: a single channel is repeated. UserError for a shard that is missing or damaged."""
        return Images(self.folder.name, self.count, lambda size: (rgb(x) for x in self._batches(size)))

    def first(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """(images, labels) 0..count-1, or all if there are fewer."""
        images, labels = [], []
        for name in list(self.shards)[: -(-count // self.settings["shard"])]:
            with self._open(name) as shard:
                images.append(shard["arr_0"])
                labels.append(shard["label"])
        return np.concatenate(images)[:count], np.concatenate(labels)[:count]

    def parts(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(images, labels) shard by shard. UserError for one that is missing or damaged."""
        for name in self.shards:
            with self._open(name) as shard:
                yield shard["arr_0"], shard["label"]

    def _whole(self, name: str) -> bool:
        path = self.folder / name
        return path.exists() and self.manifest["shards"].get(name) == weights.sha256(path)

    @contextlib.contextmanager
    def _open(self, name: str) -> Iterator[Any]:
        if not self._whole(name):
            state = "damaged" if (self.folder / name).exists() else "missing"
            raise UserError(f"{self.folder / name} is {state}: run --stage=sample again, it makes only that one anew")
        with np.load(self.folder / name) as shard:
            yield shard

    def _batches(self, size: int) -> Iterator[np.ndarray]:
        """All images in order, `size` at a time."""
        rest: np.ndarray | None = None
        for name in self.shards:
            with self._open(name) as shard:
                images = shard["arr_0"] if rest is None else np.concatenate([rest, shard["arr_0"]])
            whole = len(images) // size * size
            yield from (images[i : i + size] for i in range(0, whole, size))
            rest = images[whole:].copy()
        if rest is not None and len(rest):
            yield rest

    def _stream(self, file: IO[bytes]) -> None:
        """All shards into one uncompressed .npz, byte by byte the same whenever it is made."""
        labels = []
        with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            with archive.open(zipfile.ZipInfo("arr_0.npy"), "w", force_zip64=True) as images:
                for i, name in enumerate(self.shards):
                    with self._open(name) as shard:
                        part = shard["arr_0"]
                        labels.append(shard["label"])
                    if i == 0:
                        _header(images, part.dtype, (self.count, *part.shape[1:]))
                    images.write(part.data)
            with archive.open(zipfile.ZipInfo("label.npy"), "w", force_zip64=True) as label:
                np.lib.format.write_array(label, np.concatenate(labels))


def slug(plan: str) -> str:
    """A plan as a file's name: `S0 T60:80 S80` -> S0_T60-80_S80."""
    return plan.replace(" ", "_").replace(":", "-").replace("*", "x").replace("/", "w")


def to_uint8(img: jax.Array) -> np.ndarray:
    """Images in [-1, 1] -> uint8, truncating clamp(127.5 x + 128, 0, 255)."""
    return np.asarray(as_uint8(img))


def as_uint8(img: jax.Array) -> jax.Array:
    """The same, traced."""
    return jnp.clip(127.5 * img + 128.0, 0, 255).astype(jnp.uint8)


def rgb(img_BxRxRxc: np.ndarray) -> np.ndarray:
    """Three channels, as networks for photographs take them."""
    return np.repeat(img_BxRxRxc, 3, -1) if img_BxRxRxc.shape[-1] == 1 else img_BxRxRxc


def sheet(images: Sequence[np.ndarray] | np.ndarray, columns: int = COLUMNS) -> Image.Image:
    """Images in rows, small ones enlarged."""
    images = np.asarray(images)
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    blank = np.zeros((rows * columns - len(images), *images.shape[1:]), np.uint8)
    grid = np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
    flat = grid.transpose(0, 2, 1, 3, 4).reshape(rows * images.shape[1], columns * images.shape[2], -1)
    picture = Image.fromarray(flat[..., 0] if flat.shape[-1] == 1 else flat)
    scale = max(1, 64 // images.shape[1])
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)


def _header(file: IO[bytes], dtype: np.dtype, shape: tuple[int, ...]) -> None:
    about = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, about)


def _differences(old: dict[str, Any], new: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    return [(key, old.get(key), new.get(key)) for key in sorted({*old, *new}) if old.get(key) != new.get(key)]
