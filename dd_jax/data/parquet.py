"""Pictures in parquet files, as Hugging Face's data sets are stored: a column of files, a column of labels.

Nothing in such a file can be read alone, so each is unpacked once, into a tar shard in the user's cache; `tars` reads
that one. The cache may be deleted at any time.
"""

import dataclasses
import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from dd_jax.data import columns, tars
from dd_jax.data.source import Source
from dd_jax.system import files
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress

IMAGES = ("image", "img", "jpg", "png", "picture", "pixel_values")
LABELS = ("label", "labels", "class", "fine_label", "coarse_label", "cls")
ROWS = 64  # that are in memory at a time
SUFFIX = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp", b"GIF8": "gif", b"BM": "bmp", b"II": "tif"}
SUFFIX |= {b"MM": "tif"}


@dataclasses.dataclass(frozen=True)
class Columns:
    """Which columns are read; names of the classes, where the file says them and labels are numbers."""

    image: str
    label: str | None
    names: tuple[str, ...]
    caption: str | None = None  # where captions are asked for


def open_source(where: str, captioned: bool = False) -> Source:
    """`where`: a file, a folder of them, or several by * and ? and {00..12} and {a,b}. UserError for none.

    Pictures are bytes, or structs of `bytes` and `path`; labels numbers or words. Without labels all are one class.
    """
    shards = tars.shards(where, "parquet")
    _needed(shards[0])
    found = [_columns(shard, captioned) for shard in shards]
    unpacked = [_unpacked(*both) for both in zip(shards, found, strict=True)]
    source = tars.of_shards(f"parquet:{where}", unpacked, tars.indexed(unpacked, captioned))
    names = found[0].names
    called = {str(_place(shard, captioned)): str(shard) for shard in shards}

    def call(number: int) -> str:
        shard, _, row = source.called(number).rpartition("/")
        return f"row {int(row):,} of {called.get(shard, shard)}"

    fits = len(names) >= source.classes and all(name.isdecimal() for name in source.names)
    return dataclasses.replace(source, called=call, names=names if fits else source.names)


def _needed(shard: Path) -> None:
    try:
        import pyarrow.parquet  # noqa: F401  # only here: nothing else needs it
    except ImportError:
        raise UserError(f"reading {shard} needs pyarrow: pip install 'dd_jax[parquet]'") from None


def _columns(shard: Path, captioned: bool) -> Columns:
    """By what Hugging Face's metadata say, else by name. UserError for a file without pictures in it."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        schema = pq.read_schema(shard)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{shard} is no readable parquet file ({error}): fetch it again") from error
    try:
        said = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        features = {name: dict(one) for name, one in said.items() if isinstance(one, dict)}
    except (KeyError, TypeError, ValueError, AttributeError):
        features = {}
    typed = [name for name, one in features.items() if one.get("_type") == "Image"]
    image = next((name for name in (*typed, *IMAGES) if name in schema.names), None)
    if image is None:
        raise UserError(f"{shard} has the columns {', '.join(schema.names)}, and none is called {' or '.join(IMAGES)}")
    typed = [name for name, one in features.items() if one.get("_type") == "ClassLabel"]
    label = next((name for name in (*typed, *LABELS) if name in schema.names and name != image), None)
    names = features.get(label or "", {}).get("names") or ()
    caption = schema.names[columns.column(shard, schema.names)] if captioned else None
    return Columns(image, label, tuple(map(str, names)), caption)


def _place(shard: Path, captioned: bool) -> Path:
    """Where it is unpacked to: another name for another file, size or time. UserError without a cache."""
    if (folder := files.cache()) is None:
        raise UserError(f"there is no cache to unpack {shard} to: set XDG_CACHE_HOME to a folder with room for it")
    about = shard.stat()
    key = f"{shard.absolute()} {about.st_size} {about.st_mtime_ns}{' captions' * captioned}"
    return folder / "shards" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.tar"


def _unpacked(shard: Path, held: Columns) -> Path:
    """The tar shard of a file: made under another name first, so that a half one is never read."""
    import pyarrow as pa

    place = _place(shard, held.caption is not None)
    if place.exists():
        return place
    place.parent.mkdir(parents=True, exist_ok=True)
    half = place.with_name(f"{place.name}.{os.getpid()}")
    try:
        with tarfile.open(half, "w") as tar:
            for number, (packed, label, said) in enumerate(_rows(shard, held)):
                for suffix, content in ((_suffix(packed), packed), ("cls", label), ("json", said)):
                    if content:
                        member = tarfile.TarInfo(f"{number:09}.{suffix}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
        half.replace(place)
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{shard} could not be unpacked to {place.parent} ({error})") from error
    finally:
        half.unlink(missing_ok=True)
    return place


def _rows(shard: Path, held: Columns) -> Iterator[tuple[bytes, bytes, bytes]]:
    """(a picture's file, its label as text, its captions as JSON) of every row; each may be empty."""
    import pyarrow.parquet as pq

    read = [name for name in (held.image, held.label, held.caption) if name]
    with pq.ParquetFile(shard) as file, Progress(file.metadata.num_rows, f"unpacking {shard.name}", unit="rows") as bar:
        for batch in file.iter_batches(ROWS, columns=read):
            for row in batch.to_pylist():
                label = row.get(held.label or "")
                said = json.dumps({"caption": row[held.caption]}).encode() if held.caption else b""
                yield _packed(shard, row[held.image]), b"" if label is None else str(label).encode(), said
            bar.update(batch.num_rows)


def _packed(shard: Path, cell: Any) -> bytes:
    """A picture's file. UserError where it lies somewhere else."""
    found = cell.get("bytes") if isinstance(cell, dict) else cell
    if found is None and isinstance(cell, dict) and cell.get("path"):
        raise UserError(f"{shard} names files such as {cell['path']}, and does not hold them: fetch them, folder:PATH")
    return found if isinstance(found, bytes) else b""


def _suffix(packed: bytes) -> str:
    return next((suffix for magic, suffix in SUFFIX.items() if packed.startswith(magic)), "png")
