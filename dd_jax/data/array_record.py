"""Pictures in array_record files whose records are TensorFlow's examples, read by number and without TensorFlow.

A record holds the file of a picture and a class's number or name, by the names in `IMAGES` and `LABELS`. All records
are read once for their labels, which stay in the user's cache, by the file's size and time.
"""

import dataclasses
import functools
import io
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from dd_jax.data import beside, columns, tars
from dd_jax.data.source import Source
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress

IMAGES = ("image", "image/encoded", "jpg", "jpeg", "png")
LABELS = ("label", "image/class/label", "cls")
OPEN = 64  # files that are open at a time
ROWS = 16  # records that are in memory at a time
OTHER = "it is no tf.train.Example"
OPTIONS = "readahead_buffer_size:0"  # what is read is asked for one by one


def open_source(where: str, captioned: bool = False) -> Source:
    """`where`: a file, a folder of them, or several by * and ? and {00..12} and {a,b}. UserError for none.

    Pictures are files (PNG, JPEG, ...) in one of the features `IMAGES`, labels numbers or words in one of `LABELS`.
    Without labels all are one class. Captions are in a feature called as one, whatever stands before a /.
    """
    shards = tars.shards(where, "array_record", "array_record*")
    how = functools.partial(scan, captioned=captioned)
    found = [tars.index(shard, how, f"array_record{' captions' * captioned}") for shard in shards]
    reader = functools.lru_cache(OPEN)(_reader)

    def read(shard: Path, number: int, _: int) -> IO[bytes]:
        return io.BytesIO(_value(features(reader(shard).read([number])[0]), IMAGES))

    source = tars.of_shards(f"array_record:{where}", shards, found, read)

    def called(number: int) -> str:
        shard, _, record = source.called(number).rpartition("/")
        return f"record {int(record):,} of {shard}"

    return dataclasses.replace(source, called=called, notes=_notes(shards[0], reader(shards[0])))


def _reader(shard: Path) -> Any:
    """What reads records by number, from several threads. UserError for a file that is damaged."""
    try:
        from array_record.python.array_record_module import ArrayRecordReader
    except ImportError:
        raise UserError(f"reading {shard} needs array_record: pip install 'dd_jax[data]'") from None
    reader = ArrayRecordReader(str(shard), options=OPTIONS, file_reader_buffer_size=1 << 15)
    if not reader.ok():
        with shard.open("rb"):  # what is not there says so itself
            raise UserError(f"{shard} is cut off or damaged, or no array_record file: fetch or write it again")
    return reader


def _notes(shard: Path, reader: Any) -> list[str]:
    """A word on records that lie in groups."""
    size = re.search(r"group_size:(\d+)", reader.writer_options_string())
    if not size or size[1] == "1":
        return []
    return [
        f"{shard} has groups of {size[1]} records, unpacked whole for each picture: group_size:1 writes single ones"
    ]


def scan(shard: Path, captioned: bool = False) -> tars.Index:
    """Which records have a picture, their labels and captions. UserError for one that is damaged, or no example."""
    reader, found, bare, said = _reader(shard), list[tuple[int, str]](), 0, list[beside.Found]()
    count, names = reader.num_records(), set[str]()
    with Progress(count, f"labels of {shard.name}", unit="records") as bar:
        for first in range(0, count, ROWS):
            numbers = range(first, min(first + ROWS, count))
            for number, record in zip(numbers, _records(shard, reader, numbers), strict=True):
                try:
                    held = features(record)
                    names |= held.keys()
                    if _value(held, IMAGES):
                        found.append((number, " ".join(_value(held, LABELS).decode().split())))
                        said += [_captions(held)] if captioned else []
                    else:
                        bare += 1
                except ValueError as error:
                    raise UserError(f"record {number:,} of {shard} cannot be read ({error}): write it again") from error
            bar.update(len(numbers))
    if bare and not found:
        told = ", ".join(sorted(names)) or "nothing"
        raise UserError(f"{shard} holds {told}, and no picture that is called {' or '.join(IMAGES)}")
    return tars.Index([str(i) for i, _ in found], [(i, 0) for i, _ in found], [label for _, label in found], bare, said)


def _records(shard: Path, reader: Any, numbers: Sequence[int]) -> list[bytes]:
    try:
        return reader.read([*numbers])
    except (RuntimeError, ValueError, IndexError) as error:
        told = " ".join(str(error).split())[:120]
        raise UserError(f"{shard} is damaged about record {numbers[0]:,} ({told}): fetch or write it again") from error


def features(record: bytes) -> dict[str, memoryview]:
    """A tf.train.Example's features by name, each as it is packed. ValueError for bytes that are none."""
    parts = [part for number, part in _fields(memoryview(record)) if number == 1]
    entries = [dict(_fields(entry)) for part in parts for _, entry in _fields(part)]
    return {_bytes(entry.get(1, 0)).decode(): entry.get(2, memoryview(b"")) for entry in entries}


def _captions(held: dict[str, memoryview]) -> beside.Found:
    """Those of the first feature that is called so, captions/text too."""
    at = columns.find([name.rpartition("/")[2] for name in held])
    return beside.NONE if at is None else beside.of_cell(list(_values([*held.values()][at])))


def _value(held: dict[str, memoryview], names: Sequence[str]) -> bytes:
    """The first of these features that is there, a number as text; empty if none is. ValueError for several values."""
    name = next((name for name in names if held.get(name)), "")
    found = list(_values(held[name])) if name else []
    if len(found) > 1:
        raise ValueError(f"{name} has {len(found)} values")
    return found[0] if found else b""


def _values(feature: memoryview) -> Iterator[bytes]:
    """Bytes, or whole numbers as text. ValueError for floats."""
    for kind, content in _fields(feature):
        for _, value in _fields(content):
            if kind == 1:
                yield _bytes(value)
            elif kind == 2:
                raise ValueError("floats are neither a picture's file nor a class")
            elif isinstance(value, int):
                yield _signed(value)
            else:  # packed: one behind the other
                at = 0
                while at < len(value):
                    number, at = _varint(value, at)
                    yield _signed(number)


def _signed(number: int) -> bytes:
    return str(number - (number >> 63 << 64)).encode()


def _bytes(value: memoryview | int) -> bytes:
    if isinstance(value, int):
        raise ValueError(OTHER)
    return bytes(value)


def _fields(data: memoryview | int) -> Iterator[tuple[int, Any]]:
    """(number, value) of each field of a protocol buffer: a whole number, or the bytes of anything else."""
    if isinstance(data, int):
        raise ValueError(OTHER)
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        if tag & 7 == 0:
            value, at = _varint(data, at)
            yield tag >> 3, value
            continue
        size, at = _varint(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}.get(tag & 7, len(data)), at)
        if at + size > len(data):
            raise ValueError(OTHER)
        yield tag >> 3, data[at : at + size]
        at += size


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and where it ends."""
    number = shift = 0
    while at < len(data) and shift < 70:
        byte, at = data[at], at + 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
    raise ValueError(OTHER)
