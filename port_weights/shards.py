"""Weights that were published in several shards, with an index JSON that says which key lies where."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

from dd_jax.system.errors import UserError
from port_weights.source import StateDict, merge, open_weights

NUMBERED = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})(?P<end>\.\w+)")
INDEX = ".index.json"


def find(paths: Sequence[Path]) -> list[Path]:
    """What a person named (a folder, an index, or shards) -> the files: the index if there is one, then all shards.

    UserError for a folder without shards, an index that is none, or a shard that is missing.
    """
    if len(paths) == 1 and paths[0].is_dir():
        paths = _inside(paths[0])
    index = [path for path in paths if path.name.endswith(INDEX)]
    shards = [path for path in paths if path not in index]
    if len(index) > 1:
        raise UserError(f"{' and '.join(map(str, index))} are two indices: name one of them")
    if index:
        names = sorted(set(read_index(index[0]).values()))
        beside = {path.name: path for path in shards}
        shards = [beside.pop(name, index[0].parent / name) for name in names]
        if beside:
            raise UserError(f"{', '.join(beside)}: not in {index[0]}, which names {', '.join(names)}")
    files = [*index, *dict.fromkeys([*shards, *_siblings(shards)])]
    if missing := [str(path) for path in files if not path.is_file()]:
        raise UserError(f"missing: {', '.join(missing)}; all files of the set have to be there")
    return files


def open_shards(paths: Sequence[Path], containers: Sequence[str]) -> StateDict:
    """Files as `find` gives them, as one lazy state dict. UserError where the index and the shards disagree."""
    index = read_index(paths[0]) if paths[0].name.endswith(INDEX) else None
    parts = {path.name: open_weights(path, containers) for path in paths[index is not None :]}
    if index is not None:
        there = {(key, name) for name, part in parts.items() for key in part}
        if odd := sorted(set(index.items()) ^ there):
            told = ", ".join(f"{key} ({name})" for key, name in odd[:6])
            raise UserError(f"{paths[0]} and the shards disagree about {len(odd)} keys: {told}; fetch them again")
    return merge(list(parts.values()))


def read_index(path: Path) -> dict[str, str]:
    """Key -> name of its shard. UserError for a file that is no index."""
    try:
        found = json.loads(path.read_bytes())["weight_map"]
    except FileNotFoundError:
        raise UserError(f"{path} does not exist") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is no index of shards ({type(error).__name__}: {error})") from error
    if not isinstance(found, dict) or not all(isinstance(x, str) and "/" not in x for x in found.values()):
        raise UserError(f"{path}: its weight_map should give the name of a file beside it for every key")
    return found


def _inside(folder: Path) -> list[Path]:
    """The index of a folder, or its shards; safetensors first, since nothing in them has to be unpickled."""
    for end in (".safetensors", ".bin"):
        for pattern in (f"*{end}{INDEX}", f"*-of-*{end}", f"*{end}"):
            if found := sorted(folder.glob(pattern)):
                return found
    raise UserError(f"{folder} has no weights: neither *{INDEX} nor *.safetensors nor *.bin")


def _siblings(shards: Sequence[Path]) -> list[Path]:
    """All shards of the sets that these belong to, by their numbers."""
    found = []
    for path in shards:
        if match := NUMBERED.fullmatch(path.name):
            for number in range(1, int(match["count"]) + 1):
                name = f"{match['stem']}-{number:05}-of-{match['count']}{match['end']}"
                found.append(next((other for other in shards if other.name == name), path.parent / name))
    return found
