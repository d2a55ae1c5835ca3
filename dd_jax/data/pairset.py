"""A set of noise-code pairs on disk: shards of (id, label, codes), a manifest that closes it, and how sets are joined.

Shard k holds the ids from k times the shard's size on, so shards of several runs and machines lie side by side.
Nothing is read into memory before it is asked for: shards are mapped.
"""

import dataclasses
import functools
import hashlib
import io
import json
import shutil
import struct
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.system import files, rng
from dd_jax.system.errors import UserError

FIELDS = ("id", "label", "code")
MANIFEST, SETTINGS = "manifest.json", "settings.json"
AGAIN = "delete it and run --stage=pairs again, which finds the shards that are whole"
BEGUN = "delete it and run --stage=pairs again, if the shards here are of the same settings"
RANGE = ("first", "count", "shards")  # what the parts of one set may differ in
Shard = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class PairSet:
    """Pairs in shards. `id` (M,), `label` (M,) and `code` (M, L) are read as a whole, `rows` one by one."""

    shards: tuple[Shard, ...]

    def __len__(self) -> int:
        return int(self._last[-1])

    @functools.cached_property
    def _last(self) -> np.ndarray:
        return np.cumsum([len(shard["id"]) for shard in self.shards])

    def rows(self, at: np.ndarray) -> Shard:
        """The pairs number `at` (B,) of the set: id (B,), label (B,), code (B, L)."""
        which = np.searchsorted(self._last, at, side="right")
        found = {name: np.empty((len(at), *x.shape[1:]), x.dtype) for name, x in self.shards[0].items()}
        for i in np.unique(which):
            mask, shard = which == i, self.shards[i]
            inside = at[mask] - (self._last[i] - len(shard["id"]))
            for name, out in found.items():
                out[mask] = shard[name][inside]
        return found

    def _all(self, name: str) -> np.ndarray:
        return np.concatenate([shard[name] for shard in self.shards])

    @functools.cached_property
    def id(self) -> np.ndarray:
        return self._all("id")

    @functools.cached_property
    def label(self) -> np.ndarray:
        return self._all("label")

    @functools.cached_property
    def code(self) -> np.ndarray:
        return self._all("code")


def name_of(first: int, size: int) -> str:
    """The file of the shard that begins with id `first`."""
    return f"shard-{first // size:05d}.npz"


def write(path: Path, shard: Shard) -> str:
    """One shard, in one step -> its sha256."""
    buffer = io.BytesIO()
    np.savez(buffer, **shard)  # type: ignore[arg-type]
    files.replace(path, buffer.getvalue())
    return hashlib.sha256(buffer.getbuffer()).hexdigest()


def read(path: Path) -> Shard:
    """A shard, its arrays mapped from where they lie in the (uncompressed) zip file. OSError or ValueError if torn."""
    found = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for entry in archive.infolist():
            file.seek(entry.header_offset + 26)
            file.seek(sum(struct.unpack("<HH", file.read(4))), io.SEEK_CUR)  # behind its name and extra field
            version = np.lib.format.read_magic(file)
            header = getattr(np.lib.format, f"read_array_header_{version[0]}_{version[1]}")(file)
            shape, _, dtype = header
            mapped = np.memmap(path, dtype, "r", file.tell(), shape) if 0 not in shape else np.empty(shape, dtype)
            found[entry.filename.removesuffix(".npy")] = np.asarray(mapped)
    if {*FIELDS} - {*found}:
        raise ValueError(f"{path} has no {', '.join({*FIELDS} - {*found})}")
    return found


def sha256(path: Path) -> str:
    """Of a file, read piece by piece."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def manifest_of(folder: Path) -> dict[str, Any]:
    """The manifest. UserError if the set is not finished."""
    path = folder / MANIFEST
    if not path.exists():
        raise UserError(f"no pair set in {folder}: run --stage=pairs first")
    found: dict[str, Any] = files.read_json(path, AGAIN)
    if not isinstance(found.get("shards"), dict):
        raise UserError(f"{path} is damaged (it names no shards): {AGAIN}")
    return found


def load(folder: Path) -> PairSet:
    """Open a finished set; verify every shard, and that ids give its noise here. UserError names what is wrong."""
    check_noise(folder)
    shards = []
    for name, digest in manifest_of(folder)["shards"].items():
        path = folder / name
        if not path.exists() or sha256(path) != digest:
            state = "damaged" if path.exists() else "missing"
            raise UserError(f"pair shard {path} is {state}: run --stage=pairs again, it makes only that one anew")
        shards.append(read(path))
    return PairSet(tuple(shards))


def check_noise(folder: Path) -> None:
    """UserError if a finished set was made from other noise than its ids give in this process."""
    manifest = manifest_of(folder)
    if manifest.get("noise"):
        rng.check_noise(folder, manifest["noise"], manifest["seed"])


def whole(path: Path, ids: np.ndarray, digest: str | None) -> bool:
    """Is this shard complete, and as the manifest (if there is one yet) says?"""
    if not path.exists() or (digest and sha256(path) != digest):
        return False
    try:
        if not digest:  # the zip's own checksums, which mapping does not look at
            with zipfile.ZipFile(path) as archive:
                if archive.testzip():
                    return False
        shard = read(path)
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return False
    return np.array_equal(shard["id"], ids) and len(shard["code"]) == len(ids) == len(shard["label"])


def check_settings(folder: Path, wanted: dict[str, Any]) -> None:
    """A set begun under other settings must not be mixed with this one: UserError names the first difference."""
    path = folder / SETTINGS
    wanted = {key: value for key, value in wanted.items() if key not in RANGE}
    text = json.dumps(wanted, indent=1, sort_keys=True)
    if not path.exists():
        files.replace(path, text.encode())
        return
    for key, found, now in differences(files.read_json(path, BEGUN), json.loads(text)):
        raise UserError(f"pairs in {folder} were begun with {key}={found}, now it is {now}: use another --workdir")


def differences(a: dict[str, Any], b: dict[str, Any]) -> list[tuple[str, Any, Any]]:
    """[(key, a's, b's)] where two sets are of different kinds; the noise may differ by rounding."""
    odd = []
    for key in sorted({*a, *b} - {*RANGE}):
        x, y = a.get(key), b.get(key)
        if not (np.allclose(x, y, atol=2e-4) if key == "noise" and x and y else x == y):
            odd.append((key, x, y))
    return odd


def merge(out: Path, folders: Sequence[Path]) -> PairSet:
    """Join finished sets of one kind and disjoint ids into `out`, new or one of them. UserError if they do not fit."""
    sets = {folder: manifest_of(folder) for folder in dict.fromkeys(folders)}
    if out not in sets and (out / MANIFEST).exists():
        raise UserError(f"{out} holds a pair set already: name it among those to join, or choose another folder")
    origin, kind = next(iter(sets.items()))
    owner: dict[str, Path] = {}
    for folder, manifest in sets.items():
        for key, there, here in differences(kind, manifest):
            raise UserError(f"{origin} was made with {key}={there}, {folder} with {key}={here}: they do not mix")
        for name in manifest["shards"]:
            if name in owner:
                ids = np.asarray(read(folder / name)["id"])
                raise UserError(f"{owner[name]} and {folder} both have the ids {ids[0]}..{ids[-1]} ({name})")
            owner[name] = folder
    for folder in sets:
        load(folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, folder in owner.items():
        if folder != out:
            with open(folder / name, "rb") as source, files.writing(out / name) as target:
                shutil.copyfileobj(source, target)
    shards = {name: sets[owner[name]]["shards"][name] for name in sorted(owner)}
    first, count = min(manifest["first"] for manifest in sets.values()), sum(m["count"] for m in sets.values())
    facts = {key: value for key, value in kind.items() if key not in RANGE}
    check_settings(out, facts)
    close(out, {"first": first, "count": count, **facts}, shards)
    return load(out)


def close(folder: Path, facts: dict[str, Any], shards: dict[str, str]) -> None:
    """Write the manifest: the set is finished."""
    files.replace(folder / MANIFEST, json.dumps({**facts, "shards": shards}, indent=1).encode())
