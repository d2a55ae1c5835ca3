"""Pictures in tar shards, as webdataset has them: files of one name are one sample, its picture and its label.

A sample's name is a file's up to the first dot: `0017.jpg` beside `0017.cls` (a class's number or name), `0017.json`
({"label": ...}) or `0017.txt` (text, each of which is a class; with captions it is one: see `beside`). Only headers are
read at first; where each picture is stays in the user's cache, by the shard's size and time. Pictures are then read
anywhere, in any order.
"""

import contextlib
import dataclasses
import glob
import hashlib
import io
import itertools
import json
import os
import re
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from dd_jax.data import beside, decode, folder
from dd_jax.data.source import Source, by_name, plural
from dd_jax.data.threads import each
from dd_jax.system import files
from dd_jax.system.errors import UserError

BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"(\d+)\.\.(\d+)")
LABELS = ("cls", "json", "txt")  # where a label is looked for, in this order; the last may be a caption
FORMAT = 1  # of what is kept in the cache
HEAD = 1 << 16  # bytes that are read at a time: nearly always more than a picture's header
Place = tuple[int, int]  # (first byte, bytes)


@dataclasses.dataclass(frozen=True)
class Index:
    """Samples of one shard that have a picture."""

    name: list[str]
    place: list[Place]  # of its picture
    label: list[str]  # "" where there is none
    bare: int  # samples without a picture
    captions: list[beside.Found] = dataclasses.field(default_factory=list)  # of each, where they were asked for


Read = Callable[[Path, int, int], IO[bytes]]  # (shard, what its `place` has)


def open_source(where: str, captioned: bool = False) -> Source:
    """`where`: a shard, a folder of them, or several by * and ? and {000..012} and {a,b}. UserError for none."""
    found = shards(where, "tar")
    return of_shards(f"tar:{where}", found, indexed(found, captioned))


def of_shards(name_of: str, shards: list[Path], found: Sequence[Index], read: Read | None = None) -> Source:
    """The pictures of these shards, whose indices were `found`, as a set of that name. UserError for none.

    `read(shard, *place)` gives a picture's file; by default a part of the shard's.
    """
    read = read or _part
    at = np.repeat(np.arange(len(shards)), [len(one.name) for one in found])
    name, text = ([x for one in found for x in getattr(one, field)] for field in ("name", "label"))
    place = np.array([x for one in found for x in one.place], np.int64)
    left_out = [f"{plural(bare, 'sample')} without a picture"] if (bare := sum(one.bare for one in found)) else []
    said = [x for one in found for x in one.captions]
    has = np.flatnonzero([bool(x) for x in text])
    if 0 < len(has) < len(text):
        left_out.append(f"{plural(len(text) - len(has), 'sample')} without a label")
        at, place, name, text = at[has], place[has], [name[i] for i in has], [text[i] for i in has]
        said = [said[i] for i in has] if said else []
    if not name:
        told = f" ({'; '.join(left_out)})" if left_out else ""
        raise UserError(f"config.data.name={name_of} has no pictures{told}: {' '.join(decode.suffixes())} are read")
    try:
        label, names = by_name(text) if text[0] else (np.zeros(len(text), np.int32), ("pictures",))
    except ValueError as error:
        raise UserError(f"config.data.name={name_of}: {error}") from error

    def opened(number: int) -> Image.Image:
        return Image.open(read(shards[at[number]], *place[number].tolist()))

    def called(number: int) -> str:
        return f"{shards[at[number]]}/{name[number]}"

    return Source(name_of, len(name), names, lambda: label, opened, called, left_out, captions=said or None)


def shards(where: str, kind: str, ending: str = "") -> list[Path]:
    """All files (`kind`: tar, parquet) that a pattern means, sorted. UserError if one part of it means none.

    `ending`: of those that are taken of a folder, if it is not the kind.
    """
    found: list[str] = []
    for pattern in _spread(str(files.local(where))):
        some = sorted(glob.glob(f"{pattern}/*.{ending or kind}" if os.path.isdir(pattern) else pattern))
        if not some:
            raise UserError(f"config.data.name={kind}:{where}: there is no file {pattern}")
        found += some
    return [Path(name) for name in dict.fromkeys(found)]


def _spread(pattern: str) -> Iterator[str]:
    """x{0..2}{a,b} -> x0a, x0b, x1a, ...; numbers keep their zeros."""
    literal = BRACES.split(pattern)
    choices = [list(_choices(inside)) for inside in literal[1::2]]
    for chosen in itertools.product(*choices):
        yield "".join(itertools.chain(*itertools.zip_longest(literal[::2], chosen, fillvalue="")))


def _choices(inside: str) -> Iterator[str]:
    if numbers := RANGE.fullmatch(inside):
        first, last = map(int, numbers.groups())
        yield from (f"{i:0{len(numbers[1])}}" for i in range(first, last + 1))
    else:
        yield from inside.split(",")


def indexed(shards: list[Path], captioned: bool = False) -> list[Index]:
    """Of several at once."""
    if not captioned:
        return list(each(shards, index))
    return list(each(shards, lambda shard: index(shard, lambda shard: scan_tar(shard, True), "captions")))


def index(shard: Path, scan: Callable[[Path], Index] | None = None, kind: str = "") -> Index:
    """Where the pictures of a shard are: from the cache, or by its headers. UserError for a shard that is torn.

    `scan`: how a shard of another `kind` is read.
    """
    about = shard.stat()
    key = f"{FORMAT}{kind} {shard.absolute()} {about.st_size} {about.st_mtime_ns}"
    cache = files.cache()
    kept = cache / "shards" / f"{hashlib.sha256(key.encode()).hexdigest()[:32]}.json" if cache else None
    # Absent or damaged: made again.
    with contextlib.suppress(OSError, ValueError, TypeError):
        if kept:
            return Index(**json.loads(kept.read_bytes()))
    found = (scan or scan_tar)(shard)
    if kept:
        with contextlib.suppress(UserError):  # one that cannot be written only costs the same next time
            files.replace(kept, json.dumps(dataclasses.asdict(found)).encode())
    return found


def scan_tar(shard: Path, captioned: bool = False) -> Index:
    """The same by its headers, and by the few bytes of its labels and captions."""
    samples: dict[str, dict[str, Place]] = {}
    last = "its beginning"
    try:
        with tarfile.open(shard, "r:") as tar:
            while (member := tar.next()) is not None:
                tar.members.clear()  # type: ignore[attr-defined]  # which it would keep
                parent, _, base = member.name.rpartition("/")
                if member.isreg() and not folder.is_hidden(base):
                    key, _, suffix = base.partition(".")
                    name = f"{parent}/{key}" if parent else key
                    samples.setdefault(name, {})[suffix.lower()] = (member.offset_data, member.size)
                last = member.name
            end = _read(shard, tar.offset, min(tarfile.BLOCKSIZE, shard.stat().st_size - tar.offset))
        if any(end):  # tarfile stops, and says nothing, at a header that is none
            raise tarfile.ReadError("no header where one should be")
    except (tarfile.TarError, OSError, ValueError) as error:
        raise UserError(_torn(shard, last, error)) from error
    known = {suffix.removeprefix(".") for suffix in decode.suffixes()}
    pictures = {name: next((x for x in found if x in known), "") for name, found in samples.items()}
    named = [name for name, suffix in pictures.items() if suffix]
    places = [samples[name][pictures[name]] for name in named]
    labels = [_label(shard, name, samples[name], LABELS[: -1 if captioned else None]) for name in named]
    said = [beside.of_files(samples[name], lambda place: _read(shard, *place)) for name in named if captioned]
    return Index(named, places, labels, len(samples) - len(named), said)


def _torn(shard: Path, last: str, error: Exception) -> str:
    with shard.open("rb") as file:
        packed = {b"\x1f\x8b": "gzip", b"BZ": "bzip2", b"\xfd7": "xz", b"\x28\xb5": "zstd"}.get(file.read(2))
    if packed:
        return f"{shard} is packed with {packed}, and of a packed shard nothing can be read alone: unpack it to a .tar"
    return f"{shard} is cut off or damaged behind {last} ({error}): fetch it again, or leave it out of the pattern"


def _label(shard: Path, name: str, parts: dict[str, Place], suffixes: Sequence[str]) -> str:
    """A sample's label as text; "" if it has none. UserError for one that cannot be read."""
    for suffix in suffixes:
        if suffix not in parts:
            continue
        try:
            text = _read(shard, *parts[suffix]).decode().strip()
            found = str(json.loads(text).get("label", "")) if suffix == "json" else " ".join(text.split())
        except (ValueError, AttributeError) as error:
            raise UserError(
                f"{shard}/{name}.{suffix} is no label that can be read ({error}): write it again"
            ) from error
        if found:
            return found
    return ""


class _Part(io.RawIOBase):
    """Some bytes of a file, which is only open while they are read."""

    def __init__(self, path: Path, first: int, size: int) -> None:
        self._path, self._first, self._size, self._at = path, first, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def readinto(self, into: Any) -> int:
        count = max(min(len(into), self._size - self._at), 0)
        into[:count] = _read(self._path, self._first + self._at, count)
        self._at += count
        return count

    def readall(self) -> bytes:
        return self.read(max(self._size - self._at, 0)) or b""


def _part(shard: Path, first: int, size: int) -> IO[bytes]:
    """A picture's file; of a long one no more is read than is asked for, `HEAD` at a time: for its size, the first."""
    return io.BytesIO(_read(shard, first, size)) if size <= HEAD else io.BufferedReader(_Part(shard, first, size), HEAD)


def _read(shard: Path, first: int, size: int) -> bytes:
    with shard.open("rb", buffering=0) as file:
        file.seek(first)
        found = file.read(size)
    if len(found) != size:
        raise OSError(f"{shard} is cut off")
    return found
