"""Images as one array in a file, .npz or .npy, read a batch at a time; and what to do about arrays that are none."""

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np

from dd_jax.system.errors import UserError

Shapes = dict[str, tuple[tuple[int, ...], np.dtype]]


def check(name: str, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    """UserError unless this is uint8 (N, rows, columns, 3); it says what makes it so."""
    if dtype == np.uint8 and len(shape) == 4 and shape[-1] == 3 and 0 not in shape:
        return
    if dtype == np.uint8:
        held = f"{name} has shape {shape}: (N, rows, columns, 3) is needed"
    else:
        held = f"{name} holds {dtype}: networks take uint8 images (N, rows, columns, 3), and this is {shape}"
    if dtype.kind not in "uifb" or 0 in shape or len(shape) not in (3, 4):
        way = "reshape what is flat" if len(shape) == 2 else "np.savez(path, images) writes them"
        raise UserError(f"{held}; {way}")
    raise UserError(f"{held}; save {_way(dtype, shape)}")


def _way(dtype: np.dtype, shape: tuple[int, ...]) -> str:
    """The expression that makes images of it."""
    way, note = "images", ""
    if dtype.kind == "f":
        way, note = "(255 * images).round().clip(0, 255).astype(np.uint8)", " if they are in [0, 1]"
        note += ", or with 127.5 * images + 127.5 if in [-1, 1]"
    elif dtype != np.uint8:
        way, note = "images.astype(np.uint8)", " if they are in 0..255"
    if len(shape) == 3:
        single = shape[-1] in (1, 3, 4)
        way, shape = (f"{way}[None]", (1, *shape)) if single else (f"{way}[..., None]", (*shape, 1))
    if shape[-1] not in (1, 3, 4) and shape[1] in (1, 3, 4):
        way, shape = f"{way}.transpose(0, 2, 3, 1)", (shape[0], *shape[2:], shape[1])
    if shape[-1] == 4:
        return f"{way}[..., :3]{note}, to leave the fourth channel out"
    return f"{way}.repeat(3, -1){note}, to repeat a single channel" if shape[-1] == 1 else way + note


def read(path: Path) -> tuple[int, Any]:
    """(images, a function batch size -> batches) of an .npz's `arr_0`, or of an .npy, without ever holding it."""
    with _array(path) as (_, shape):
        pass

    def batches(size: int) -> Iterator[np.ndarray]:
        with _array(path) as (file, shape):
            each = int(np.prod(shape[1:]))
            for first in range(0, shape[0], size):
                count = min(size, shape[0] - first)
                yield _exactly(file, count * each, path).reshape(count, *shape[1:])

    return shape[0], batches


@contextlib.contextmanager
def _array(path: Path) -> Iterator[tuple[IO[bytes], tuple[int, ...]]]:
    """The open array behind its header, and its shape."""
    with contextlib.ExitStack() as stack:
        try:
            file: IO[bytes] = stack.enter_context(path.open("rb"))
            name = str(path)
            if file.read(6) != b"\x93NUMPY":
                archive = stack.enter_context(zipfile.ZipFile(path))
                file, name = stack.enter_context(archive.open(_member(path, archive))), f"{path}: arr_0"
            else:
                file.seek(0)
            shape, fortran, dtype = _header(file)
        except UserError:
            raise
        except Exception as error:  # readers of headers and archives raise whatever damage leads them to
            kind = path.suffix.lower()
            raise UserError(f"{path} is no readable {kind} ({error}): write or fetch it again") from error
        check(name, dtype, shape)
        if fortran:
            raise UserError(f"{name} is in Fortran order: save np.ascontiguousarray(images)")
        yield file, shape


def _header(file: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype]:
    old = np.lib.format.read_magic(file) == (1, 0)
    return (np.lib.format.read_array_header_1_0 if old else np.lib.format.read_array_header_2_0)(file)


def _member(path: Path, archive: zipfile.ZipFile) -> str:
    """arr_0's entry. UserError if there is none, or if the images are another one."""
    found: Shapes = {}
    for name in archive.namelist():
        with archive.open(name) as file, contextlib.suppress(ValueError):
            shape, _, dtype = _header(file)
            found[name.removesuffix(".npy")] = shape, dtype
    pictures = [name for name, (shape, _) in found.items() if len(shape) == 4]
    if "arr_0" in found and (len(found["arr_0"][0]) > 2 or not pictures):
        return "arr_0.npy"
    if pictures:
        told = f"in arr_0 {found['arr_0'][1]} {found['arr_0'][0]}" if "arr_0" in found else "no arr_0"
        way = f"np.savez(path, file[{pictures[0]!r}]) puts the images first"
        raise UserError(f"{path} holds {', '.join(found)}, {told}: {way}")
    told = ", ".join(found or archive.namelist())[:200]
    raise UserError(f"{path} holds {told}, no arr_0: np.savez(path, images) writes it")


def _exactly(file: IO[bytes], size: int, path: Path) -> np.ndarray:
    try:
        data = file.read(size)
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError) as error:
        raise UserError(f"{path} is damaged ({error}): write or fetch it again") from error
    if len(data) != size:
        raise UserError(f"{path} is cut off: write or fetch it again")
    return np.frombuffer(data, np.uint8)
