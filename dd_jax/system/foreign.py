"""Files that are no weights, named for what they are: the way out differs."""

import zipfile
from collections.abc import Sequence
from pathlib import Path

from dd_jax.system.errors import UserError

OLD_TORCH = (
    b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # how a checkpoint before 1.6 begins: a pickled number, behind its protocol
)
PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")  # how any other pickle begins
START = 512  # bytes of a file that tell what it is
MAGIC = (  # how a file begins -> what it is, and what to do
    (b"\x1f\x8b", "a gzip archive: unpack it and name the file inside"),
    (b"BZh", "a bzip2 archive: unpack it and name the file inside"),
    (b"\xfd7zXZ\x00", "an xz archive: unpack it and name the file inside"),
    (b"\x28\xb5\x2f\xfd", "a zstandard archive: unpack it and name the file inside"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive: unpack it and name the file inside"),
    (b"Rar!\x1a\x07", "a rar archive: unpack it and name the file inside"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras?): weights have to come from PyTorch or as safetensors"),
    (b"GGUF", "a GGUF file: weights have to come from PyTorch or as safetensors"),
    (b"\x93NUMPY", "a NumPy array: weights have to come from PyTorch or as safetensors"),
    (b"%PDF", "a PDF document"),
    (b"\x89PNG", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
)
POINTERS = ("version https://git-lfs.github.com/spec/", "version https://hawser.github.com/spec/", "# xet version")
HAND = "run `git lfs pull`, or fetch the file itself"
TRAIN = "save its state dict: torch.save(model.state_dict(), FILE)"


def is_safetensors(path: Path) -> bool:
    """Does its content say so, whatever its name?"""
    with path.open("rb") as file:
        start, size = file.read(16), path.stat().st_size
    length = int.from_bytes(start[:8], "little")
    return len(start) > 9 and 2 <= length <= size - 8 and start[8:9] == b"{" and start[9:10] in (b'"', b"}", b" ")


def is_zip(path: Path) -> bool:
    """Does it begin as a zip does?"""
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def check(path: Path) -> None:
    """UserError for what is no file that can be read."""
    if path.is_dir():
        raise UserError(f"{path} is {_folder(path)}")
    if not path.exists():
        gone = path.is_symlink()
        raise UserError(f"{path} {f'points to {path.readlink()}, which is not there' if gone else 'does not exist'}")
    if not path.is_file():
        raise UserError(f"{path} is no regular file: name the file itself")
    try:
        path.open("rb").close()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check its permissions") from error


def what(path: Path) -> str:
    """What a file is that is no checkpoint, "" where nothing is known."""
    with path.open("rb") as file:
        start = file.read(START)
        file.seek(257)
        tar = file.read(5) == b"ustar"
    if not start:
        return "empty: fetch it again"
    if not start.strip(b"\x00"):
        return "empty in its first bytes (all zero): was the download cut off?"
    for magic, told in MAGIC:
        if start.startswith(magic):
            return told
    if tar:
        return "a tar archive: unpack it and name the file inside"
    if start.startswith(PICKLE) and OLD_TORCH not in start[:32]:
        return f"a plain pickle without NumPy arrays, not written by torch.save: load it where it was made and {TRAIN}"
    return _text(start)


def _text(start: bytes) -> str:
    try:
        text = start.decode(errors="strict" if len(start) < START else "ignore")
    except UnicodeDecodeError:
        return ""
    if not text.isprintable() and not all(c.isprintable() or c.isspace() for c in text):
        return ""
    low = text.lstrip("\ufeff \t\r\n").lower()
    if text.startswith(POINTERS):
        return f"a Git LFS pointer, which stands for a file: {HAND}"
    if "/annex/objects/" in low[:200]:
        return "a git-annex pointer, which stands for a file: run `git annex get`, or fetch the file itself"
    if low.startswith(("<!doctype html", "<html", "<head")):
        return (
            "an HTML page, not a file of weights: the link leads to a page; fetch the file behind its download button"
        )
    if low.startswith("<?xml") or low.startswith("<error"):
        return "an XML answer of a server, not a file of weights: fetch it again"
    if low.startswith(("{", "[")):
        return "JSON, not a file of weights: is it an answer of a server, or an index? Name the file with the weights"
    begin = " ".join(text.split())[:40]
    return f"no zip file but text that begins with {begin!r}: name the file with the weights"


def archive(names: Sequence[str]) -> str:
    """What a zip is that is no checkpoint, by the names inside."""
    bare = [name for name in names if not name.endswith("/") and not name.startswith("__MACOSX/")]
    if any(name.endswith("/constants.pkl") or "/code/" in name for name in bare):
        return f"a TorchScript program: load it with torch.jit.load and {TRAIN}"
    if any(name.endswith(("/archive_format", "/models/model.json")) for name in bare):
        return f"a program of torch.export: load it with torch.export.load and {TRAIN}"
    if any(name.endswith("/extern_modules") for name in bare):
        return f"a package of torch.package: load it there and {TRAIN}"
    if bare and all(name.endswith(".npy") for name in bare):
        return "an .npz of NumPy arrays: weights have to come from PyTorch or as safetensors"
    told = ", ".join(bare[:4]) + (f" and {len(bare) - 4} more" if len(bare) > 4 else "")
    return f"a zip of {told or 'nothing'}, no checkpoint: unpack it and name the file with the weights"


def _folder(path: Path) -> str:
    """What a folder is that was named instead of a file."""
    names = {item.name for item in path.iterdir()}
    if {"config.json", "weights.safetensors"} <= names:
        return "a folder of ported weights already: name it in config.weights, or the published file here"
    if any((folder / "data.pkl").is_file() for folder in (path, *(path / name for name in names))):
        return "a checkpoint that was unpacked: name the file that it came from, or zip the folder (zip -r -0)"
    if ".metadata" in names and any(name.endswith(".distcp") for name in names):
        way = "python -m torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER FILE"
        return f"a distributed checkpoint of PyTorch: make it one file with {way}"
    if "zero_to_fp32.py" in names or any("_model_states.pt" in name for name in names):
        return "a checkpoint of DeepSpeed: make it one file with its zero_to_fp32.py"
    found = sorted(name for name in names if name.endswith((".pt", ".pth", ".bin", ".ckpt", ".safetensors")))
    if found:
        return f"a folder: name a file in it ({', '.join(found[:4])}{' ...' if len(found) > 4 else ''})"
    return "a folder without weights: name a file"


def by_error(path: Path, error: Exception) -> str:
    """What can be said of a file that could not be read."""
    known = what(path)
    if known:
        return known
    if isinstance(error, zipfile.BadZipFile):
        return f"no zip file ({error}): was the download cut off?"
    return f"no readable checkpoint ({type(error).__name__}: {error})"[:300]
