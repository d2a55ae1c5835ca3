"""Pictures as one array in an .npz beside their labels, read picture by picture."""

import dataclasses
import zipfile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from dd_jax.data import beside, columns
from dd_jax.data.source import Source, by_name
from dd_jax.system import files
from dd_jax.system.errors import UserError

IMAGES = ("images", "image", "arr_0")
LABELS = ("labels", "label", "arr_1")
MOST = 1 << 30  # bytes of a compressed array, which is read whole
STORE = "np.savez(path, images=images, labels=labels) writes it"


@dataclasses.dataclass(frozen=True)
class _Rows:
    """Pictures of one size behind each other in a file."""

    path: Path
    first: int  # byte
    shape: tuple[int, ...]

    def __getitem__(self, number: int) -> np.ndarray:
        size = int(np.prod(self.shape[1:]))
        with self.path.open("rb", buffering=0) as file:
            file.seek(self.first + number * size)
            found = file.read(size)
        if len(found) != size:
            raise OSError(f"{self.path} is cut off")
        return np.frombuffer(found, np.uint8).reshape(self.shape[1:])


def open_source(where: str, captioned: bool = False) -> Source:
    """`images` (or `arr_0`) uint8 (N, rows, columns[, 1 or 3]) and `labels` (or `arr_1`) (N,), numbers or words.

    Without labels all are one class. `captions`, text (N,) or (N, several), where they are asked for. Of an
    uncompressed file pictures are read one by one; a compressed one is read whole. UserError for anything else.
    """
    path, name = files.local(where), f"npz:{where}"
    if not path.is_file():
        raise UserError(f"config.data.name={name}: there is no file {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            held = {entry.removesuffix(".npy"): archive.getinfo(entry) for entry in archive.namelist()}
            key = next((key for key in IMAGES if key in held), None)
            if key is None:
                raise UserError(f"{path} holds {', '.join(held) or 'nothing'}, and no {' or '.join(IMAGES)}: {STORE}")
            rows, shape = _images(path, archive, held[key])
            label, names = _labels(path, archive, held, shape[0])
            said = _captions(path, archive, held, shape[0]) if captioned else None
    except UserError:
        raise
    except Exception as error:  # readers of headers and archives raise whatever damage leads them to
        raise UserError(f"{path} is no readable .npz ({error}): write or fetch it again") from error

    def opened(number: int) -> Image.Image:
        found = rows[number]
        return Image.fromarray(found[..., 0] if found.shape[2:] == (1,) else found)

    def called(number: int) -> str:
        return f"picture {number} of {path}"

    return Source(name, shape[0], names, lambda: label, opened, called, captions=said)


def _images(path: Path, archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> tuple[_Rows | np.ndarray, tuple[int, ...]]:
    """The array, as rows of the file where it is not compressed."""
    with archive.open(entry) as member:
        shape, dtype, fortran = _header(member)
        behind = member.tell()
    grey = len(shape) == 3
    if dtype != np.uint8 or not (grey or (len(shape) == 4 and shape[3] in (1, 3))) or 0 in shape or fortran:
        order = " in Fortran order" if fortran else ""
        found = f"{entry.filename.removesuffix('.npy')} is {dtype} {shape}{order}"
        raise UserError(f"{path}: {found}: uint8 (N, rows, columns, 1 or 3) is needed")
    if entry.compress_type == zipfile.ZIP_STORED:
        with path.open("rb") as file:
            file.seek(entry.header_offset + 26)  # the lengths of the name and of what else stands before the data
            lengths = np.frombuffer(file.read(4), "<u2")
        first = entry.header_offset + 30 + int(lengths.sum()) + behind
        if first + int(np.prod(shape)) > path.stat().st_size:
            raise UserError(f"{path} is cut off: write or fetch it again")
        return _Rows(path, first, shape), shape
    if np.prod(shape) > MOST:
        raise UserError(f"{path} is compressed, so that it can only be read whole, and large: {STORE} as it is")
    with archive.open(entry) as member:
        return np.lib.format.read_array(member), shape


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype, bool]:
    old = np.lib.format.read_magic(file) == (1, 0)
    shape, fortran, dtype = (np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0)(file)
    return shape, dtype, fortran


def _labels(
    path: Path, archive: zipfile.ZipFile, held: dict[str, zipfile.ZipInfo], count: int
) -> tuple[np.ndarray, tuple[str, ...]]:
    key = next((key for key in LABELS if key in held), None)
    if key is None:
        return np.zeros(count, np.int32), ("pictures",)
    with archive.open(held[key]) as member:
        found = np.lib.format.read_array(member)
    if found.shape != (count,) or found.dtype.kind not in "iuU":
        raise UserError(f"{path}: {key} is {found.dtype} {found.shape}: ({count},) whole numbers or words are needed")
    try:
        return by_name([str(x) for x in found])
    except ValueError as error:
        raise UserError(f"{path}: {key}: {error}") from error


def _captions(path: Path, archive: zipfile.ZipFile, held: dict[str, zipfile.ZipInfo], count: int) -> list[beside.Found]:
    key = [*held][columns.column(path, [*held])]
    with archive.open(held[key]) as member:
        found = np.lib.format.read_array(member)
    if found.shape[:1] != (count,) or found.dtype.kind != "U":
        raise UserError(
            f"{path}: {key} is {found.dtype} {found.shape}: ({count},) or ({count}, several), text, is needed"
        )
    return [beside.of_cell(cell) for cell in found.tolist()]
