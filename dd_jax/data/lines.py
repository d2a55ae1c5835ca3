"""Lines of a text file, whatever it is written in: UTF-8, UTF-16 or UTF-32, with or without a mark, LF, CRLF or CR."""

import codecs
import io
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from dd_jax.system.errors import UserError

Row = tuple[int, str | None]  # line or row number, and its text; None: it is not in the file's encoding
Found = tuple[int, str | None, str]  # number, caption or None, and what is wrong then

SAMPLE = 1 << 16  # bytes that are looked at to tell the encoding
MARKS = (  # the longer ones first: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
UNITS = {"utf-8": 1, "utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}  # bytes
SPACES, ODD = "\t\n\v\f\r", ("Cc", "Cn", "Co", "Cs")  # odd: controls, and what means nothing
OTHERS = (  # what has been given the name of a text file
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"PK\x03\x04", "a zip archive or an office document: unpack it, or save the captions as text"),
    (b"BZh", "a bzip2 archive: unpack it"),
    (b"\xfd7zXZ", "an xz archive: unpack it"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive: unpack it"),
    (b"PAR1", "a parquet file: rename it to .parquet"),
    (b"ARROW1", "an Arrow file: rename it to .arrow"),
    (b"%PDF", "a PDF: save the captions as text"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file itself: git lfs pull fetches it"),
    (b"<!doctype html", "a page of HTML, not the file itself: download it again"),
    (b"<html", "a page of HTML, not the file itself: download it again"),
)


def lines(path: Path) -> Iterator[Row]:
    """Numbered lines without their ends. UserError for a file that is no text."""
    with path.open("rb") as file:
        head = file.read(SAMPLE)
        for mark, told in OTHERS:
            if head.lstrip(codecs.BOM_UTF8 + b" \t\r\n").lower().startswith(mark.lower()):
                raise UserError(f"{path} is {told}")
        encoding = encoding_of(head)
        file.seek(next((len(mark) for mark, name in MARKS if head.startswith(mark) and name == encoding), 0))
        yield from enumerate(_utf8(file) if encoding == "utf-8" else _wide(file, encoding), 1)


def whole(raw: bytes) -> str | None:
    """The text of a short file; none if it is not in its encoding."""
    encoding = encoding_of(raw[:SAMPLE])
    try:
        return raw.decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError:
        return None


def encoding_of(head: bytes) -> str:
    """UTF-16 and UTF-32 by their mark, or else, of a file with zeros, the reading that gives the plainest text."""
    for mark, name in MARKS:
        if head.startswith(mark):
            return name
    if b"\0" not in head:
        return "utf-8"
    plain = {name: _plainness(head, name) for name in UNITS}
    best = max(plain, key=lambda name: plain[name])
    return best if plain[best] > 0 else "utf-8"


def _plainness(head: bytes, encoding: str) -> int:
    """ASCII characters that this reading gives, and three less for each that no text has."""
    text = head[: len(head) // UNITS[encoding] * UNITS[encoding]].decode(encoding, "replace")
    odd = sum(one == "\ufffd" or unicodedata.category(one) in ODD for one in text if one not in SPACES)
    return sum(" " <= one <= "~" or one in SPACES for one in text) - 3 * odd


def _utf8(file: IO[bytes]) -> Iterator[str | None]:
    for block in file:
        for raw in _split(block):
            try:
                yield raw.decode().lstrip("\ufeff")
            except UnicodeDecodeError:
                yield None


def _split(block: bytes) -> list[bytes]:
    r"""What ends in \n -> its lines: old Macs' end in \r, and \r\r\n is what text that was converted twice has."""
    block = block.strip(b"\r\n")
    return block.split(b"\r") if b"\r" in block else [block]


def _wide(file: IO[bytes], encoding: str) -> Iterator[str | None]:
    """Half characters come through as surrogates, which only their own row answers for."""
    text = io.TextIOWrapper(file, encoding, "surrogatepass", newline="\n")
    try:
        for block in text:
            for raw in block.strip("\r\n").split("\r"):
                yield raw.lstrip("\ufeff")
    except UnicodeDecodeError:  # the end is missing
        yield None
