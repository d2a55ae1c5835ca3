"""Files are whole or not there: write to a temporary name in the same folder, then rename."""

import contextlib
import errno
import json
import mmap
import os
import re
import sys
import tempfile
from argparse import Namespace
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from dd_jax.system.errors import UserError

PATHS = ("folder:", "tar:", "parquet:", "array_record:", "npz:")  # words before a path
# gs://bucket/run, and gs:/bucket/run as `Path` writes it; one letter would be a drive.
URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+:/")


def replace(path: str | os.PathLike, data: bytes) -> Path:
    """Write `data` to `path` in one step (see `writing`); returns the path."""
    with writing(path) as file:
        file.write(data)
    return Path(path)


@contextlib.contextmanager
def writing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A file to write, which takes the name `path` at the end: a reader or a killed run sees the old file or the new.

    A full disk or a missing permission is a UserError that names the file; whatever goes wrong, the old file stays.
    """
    path, name = Path(path), ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.chmod(name, 0o666 & ~_umask())  # mkstemp makes files private; these are for everybody
        os.replace(name, path)
    except BaseException as error:
        if name:
            with contextlib.suppress(OSError):
                os.unlink(name)
        if isinstance(error, OSError):
            raise write_error(path, error) from error
        raise


def read_json(path: str | os.PathLike, way_out: str = "", default: Any = None) -> Any:
    """A JSON object that a run has left; `default` where there is none.

    UserError for a file that is empty, torn or no object: it names the file and the way out.
    """
    try:
        found = json.loads(Path(path).read_bytes())
    except FileNotFoundError:
        return default
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is damaged ({error or 'it is empty'}): {way_out}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged (it holds no object): {way_out}")
    return found


def expand(path: str | os.PathLike) -> Path:
    """An absolute path, with ~ for the home directory. UserError for a URL: only file systems are read and written."""
    return local(path).absolute()


def local(path: str | os.PathLike) -> Path:
    """The same, and a relative path stays one."""
    if URL.match(str(path)):
        raise UserError(
            f"{path} is a URL, and only mounted file systems are used: mount or fetch it, and name its path"
        )
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise UserError(f"{path}: there is no home directory to put for ~") from error


def check_folder(folder: str | os.PathLike) -> None:
    """UserError for a folder that cannot be written, or made, before there is anything to write; leaves nothing."""
    path = Path(folder)
    there = next(parent for parent in (path, *path.absolute().parents) if parent.exists() or parent.is_symlink())
    if not there.is_dir():
        raise UserError(f"cannot write into {path}: {there} is no folder; name another")
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise write_error(path, error) from error


def spelled(text: str) -> str:
    """The same for a setting that is a path, folder:PATH, tfds:NAME or a mere name; without ~ it stays as it is."""
    kind, colon, path = text.partition(":") if text.startswith((*PATHS, "tfds:")) else ("", "", text)
    if kind == "tfds" or not path:
        return text
    found = local(path)
    return f"{kind}{colon}{found}" if path.startswith("~") else text


def spelled_in(args: Namespace, *names: str) -> None:
    """The same for all paths among a program's arguments, and for the texts named."""
    for name, value in vars(args).items():
        if isinstance(value, list):
            setattr(args, name, [local(one) if isinstance(one, Path) else one for one in value])
        elif isinstance(value, Path):
            setattr(args, name, local(value))
        elif name in names and value:
            setattr(args, name, spelled(value))


def show(text: str) -> None:
    """Print a long text, which whoever reads it may leave half way (`| head`)."""
    try:
        print(text, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # what is flushed at the end goes there


def cache() -> Path | None:
    """The folder for what only saves time, ~/.cache/dd_jax; None without a home, or where it cannot be written."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    try:
        folder = (Path(given) if os.path.isabs(given) else Path.home() / ".cache") / "dd_jax"
        if not folder.is_absolute():
            return None
        folder.mkdir(parents=True, exist_ok=True)
    except (RuntimeError, OSError):
        return None
    return folder if os.access(folder, os.W_OK | os.X_OK) else None


def let_go(x: Any) -> None:
    """Take an array's pages out of this process's memory if it is a view of a mapped file; it can be read again."""
    while x is not None and not isinstance(x, mmap.mmap):
        x = x.obj if isinstance(x, memoryview) else getattr(x, "base", None)
    if x is not None and hasattr(mmap, "MADV_DONTNEED"):
        x.madvise(mmap.MADV_DONTNEED)


def write_error(path: str | os.PathLike, error: OSError) -> UserError:
    """What a person can do about a file that could not be written."""
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    way_out = "free some space" if full else "check the path and its permissions"
    return UserError(f"cannot write {path}: {error.strerror}; {way_out}, then run the same command again")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
