"""Where pictures of one's own may be, by the word before the colon of `config.data.name`."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dd_jax.data import array_record, folder, npz, parquet, tars, tfds
from dd_jax.data.source import Source, by_name
from dd_jax.data.threads import each
from dd_jax.system.errors import UserError


def _folder(where: str) -> Source:
    """A subfolder a class."""
    found = folder.find(Path(where))
    files = found.files
    label = np.repeat(np.arange(len(found.classes), dtype=np.int32), [len(x) for x in found.classes.values()])
    return Source(
        f"folder:{Path(where)}",
        len(files),
        tuple(found.classes),
        lambda: label,
        lambda number: Image.open(files[number]),
        lambda number: str(files[number]),
        found.left_out,
        found.notes,
    )


def _tfds(where: str) -> Source:
    """A prepared set of tensorflow-datasets with `image` and `label`, `train` unless the name says another split.

    Pictures stay packed until they are asked for. Labels come record by record; names of classes from what the set
    says of itself, where it does.
    """
    name = f"tfds:{where}"
    stored = tfds.open_source(where, decoders={"image": tfds.module(where).decode.SkipDecoding()})
    if not len(stored):
        raise UserError(f"config.data.name={name} has no pictures")
    _, label = (tfds.field(where, stored.dataset_info.features, wanted) for wanted in ("image", "label"))

    def opened(number: int) -> Image.Image:
        found = tfds.field(where, stored[number], "image")
        if isinstance(found, bytes):
            return Image.open(io.BytesIO(found))
        return Image.fromarray(np.asarray(found).squeeze())

    def labels() -> np.ndarray:
        found = np.fromiter(_labels(where, stored), np.int32, len(stored))
        if found.min() < 0:
            raise UserError(f"{name} has labels below 0, which means none: choose a split whose labels are known")
        return found

    names = tuple(getattr(label, "names", ())) or by_name([str(i) for i in labels()])[1]
    return Source(name, len(stored), names, labels, opened, lambda number: f"picture {number} of {name}")


def _labels(where: str, stored: Any) -> Iterator[int]:
    def label(number: int) -> int:
        try:
            return int(tfds.field(where, stored[number], "label"))
        except (RuntimeError, ValueError, TypeError) as error:  # a file that is torn; what is no number
            told = " ".join(str(error).split())[:120]
            raise UserError(f"record {number:,} of tfds:{where} cannot be read ({told}): prepare it again") from error

    return each(range(len(stored)), label)


# {kind: (what stands behind the colon, what opens it)}
KINDS: dict[str, tuple[str, Callable[[str], Source]]] = {
    "folder": ("PATH", _folder),
    "tar": ("PATTERN", tars.open_source),
    "parquet": ("PATTERN", parquet.open_source),
    "array_record": ("PATTERN", array_record.open_source),
    "npz": ("FILE", npz.open_source),
    "tfds": ("NAME", _tfds),
}
NAMED = ("folder", "tar", "parquet", "array_record", "npz")  # whose classes have names that a run notes


def kind(name: str) -> str:
    """folder:PATH -> folder; "" for what is none of these."""
    found, colon, _ = name.partition(":")
    return found if colon and found in KINDS else ""


def told() -> list[str]:
    """All of them, as messages list them."""
    return [f"{name}:{behind}" for name, (behind, _) in KINDS.items()]


def open_source(name: str) -> Source:
    """What `config.data.name` is called here. UserError for what is not there, or holds no pictures."""
    return KINDS[kind(name)][1](name.partition(":")[2])
