"""Where pictures of one's own may be, by the word before the colon of `config.data.name`."""

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dd_jax.data import array_record, beside, columns, folder, npz, parquet, tars, tfds
from dd_jax.data.source import Source, by_name
from dd_jax.data.threads import each
from dd_jax.system.errors import UserError
from dd_jax.system.files import local


def _folder(where: str, captioned: bool) -> Source:
    """A subfolder a class."""
    found = folder.find(Path(where), beside.KEPT if captioned else frozenset())
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
        beside.of_folder(local(where), files) if captioned else None,
    )


def _tfds(where: str, captioned: bool) -> Source:
    """A prepared set of tensorflow-datasets with `image` and `label`, `train` unless the name says another split.

    Pictures stay packed until they are asked for. Labels come record by record; names of classes from what the set
    says of itself, where it does. With captions, of a feature called as one, labels may be missing.
    """
    name = f"tfds:{where}"
    stored = tfds.open_source(where, decoders={"image": tfds.module(where).decode.SkipDecoding()})
    if not len(stored):
        raise UserError(f"config.data.name={name} has no pictures")
    features = stored.dataset_info.features
    tfds.field(where, features, "image")
    one_class = captioned and "label" not in features
    label = None if one_class else tfds.field(where, features, "label")

    def opened(number: int) -> Image.Image:
        found = tfds.field(where, stored[number], "image")
        if isinstance(found, bytes):
            return Image.open(io.BytesIO(found))
        return Image.fromarray(np.asarray(found).squeeze())

    def labels() -> np.ndarray:
        if one_class:
            return np.zeros(len(stored), np.int32)
        found = np.fromiter(_each(where, stored, lambda x: int(tfds.field(where, x, "label"))), np.int32, len(stored))
        if found.min() < 0:
            raise UserError(f"{name} has labels below 0, which means none: choose a split whose labels are known")
        return found

    names = tuple(getattr(label, "names", ())) or by_name([str(i) for i in labels()])[1]
    said = None
    if captioned:
        column = [*features][columns.column(name, [*features])]
        said = list(_each(where, stored, lambda record: beside.of_cell(record[column])))
    names = ("pictures",) if one_class else names

    def called(number: int) -> str:
        return f"picture {number} of {name}"

    return Source(name, len(stored), names, labels, opened, called, captions=said)


def _each(where: str, stored: Any, of: Callable[[Any], Any]) -> Iterator[Any]:
    """`of` every record."""

    def one(number: int) -> Any:
        try:
            return of(stored[number])
        except (RuntimeError, ValueError, TypeError) as error:  # a file that is torn; what is no number
            told = " ".join(str(error).split())[:120]
            raise UserError(f"record {number:,} of tfds:{where} cannot be read ({told}): prepare it again") from error

    return each(range(len(stored)), one)


# {kind: (what stands behind the colon, what opens it)}
KINDS: dict[str, tuple[str, Callable[[str, bool], Source]]] = {
    "folder": ("PATH", _folder),
    "tar": ("PATTERN", tars.open_source),
    "parquet": ("PATTERN", parquet.open_source),
    "array_record": ("PATTERN", array_record.open_source),
    "npz": ("FILE", npz.open_source),
    "tfds": ("NAME", _tfds),
}


def kind(name: str) -> str:
    """folder:PATH -> folder; "" for what is none of these."""
    found, colon, _ = name.partition(":")
    return found if colon and found in KINDS else ""


def told() -> list[str]:
    """All of them, as messages list them."""
    return [f"{name}:{behind}" for name, (behind, _) in KINDS.items()]


def open_source(name: str, captioned: bool = False, strict: bool = True) -> Source:
    """What `config.data.name` is called here. UserError for what is not there, or holds no pictures.

    `captioned`: with captions; pictures that have none are refused if `strict`, else left out.
    """
    found = KINDS[kind(name)][1](name.partition(":")[2], captioned)
    return found.captioned(strict) if captioned else found
