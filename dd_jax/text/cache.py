"""Features of a prompt file on disk: valid tokens only, bfloat16, in shards that an interrupted run adds to.

`ROOT/<encoder>-<prompts>/` is keyed by the hashes of both, so nothing stale is ever read. A shard is two files: the
numbers, token after token (`00003.bf16`), and then, which makes it finished, how many tokens each caption has and the
numbers' checksum (`00003.json`). One process writes; any number reads.
"""

import dataclasses
import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dd_jax.system import files, weights
from dd_jax.system.errors import UserError
from dd_jax.system.progress import Progress
from dd_jax.text.features import STORED, TextEncoder, in_front
from dd_jax.text.prompts import Prompts
from dd_jax.text.t5 import T5Config

FORMAT = 1
MANIFEST = "features.json"
OPEN = 128  # shards that are mapped at a time


def store(encoder: TextEncoder, prompts: Prompts, root: str | Path, shard: int = 2048, verify: bool = True) -> "Stored":
    """Make what is missing and open it. `shard`: captions of a shard; `verify`: read finished shards for their sums.

    UserError for a full disk; run the same command again to go on. Shards that are damaged are made again.
    """
    folder = Path(root) / f"{encoder.key}-{prompts.sha256[:16]}"
    about: dict[str, Any] = {"format": FORMAT, "encoder": encoder.key, "prompts": prompts.sha256, "count": len(prompts)}
    about |= {"tokens": encoder.cfg.tokens, "width": encoder.cfg.width, "shard": shard}
    if (folder / MANIFEST).exists():
        about |= {"shard": (before := _manifest(folder))["shard"]}  # as it was begun
        if before != about:
            raise UserError(f"{folder} was made otherwise ({before}): delete it or use another folder")
    files.replace(folder / MANIFEST, json.dumps(about, indent=1).encode())
    parts = _Parts(folder, len(prompts), about["shard"], encoder.cfg.width)
    todo = [i for i in range(parts.shards) if not parts.whole(i, verify)]
    left = sum(parts.captions(i) for i in todo)
    if todo:
        with Progress(len(prompts), "caption features", "captions", initial=len(prompts) - left) as bar:
            for i in todo:
                first = i * parts.shard
                parts.write(i, encoder.pieces(prompts.captions[first : first + parts.captions(i)], bar.update))
    return Stored(folder)


@dataclasses.dataclass(frozen=True)
class _Parts:
    """The shards of a folder."""

    folder: Path
    count: int
    shard: int
    width: int

    @property
    def shards(self) -> int:
        return -(-self.count // self.shard)

    def captions(self, i: int) -> int:
        """How many captions shard i has."""
        return min(self.shard, self.count - i * self.shard)

    def numbers(self, i: int) -> Path:
        return self.folder / f"{i:05}.bf16"

    def write(self, i: int, pieces: Sequence[np.ndarray]) -> None:
        with files.writing(self.numbers(i)) as file:
            for piece in pieces:
                file.write(np.ascontiguousarray(piece, STORED).view(np.uint8).data)
        about = {"lengths": [len(piece) for piece in pieces], "sha256": weights.sha256(self.numbers(i))}
        files.replace(self.numbers(i).with_suffix(".json"), json.dumps(about).encode())

    def lengths(self, i: int) -> np.ndarray:
        """Tokens of its captions. UserError for a shard that is not finished or was cut."""
        try:
            length = np.array(files.read_json(self.numbers(i).with_suffix(".json"), default={})["lengths"], np.int64)
            size = self.numbers(i).stat().st_size
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{self.numbers(i)} is not finished ({error}): run the same command again") from error
        if length.shape != (self.captions(i),) or size != length.sum() * self.width * STORED.itemsize:
            raise UserError(f"{self.numbers(i)} is damaged: run the same command again")
        return length

    def whole(self, i: int, verify: bool = True) -> bool:
        """Is shard i finished, and as it was written?"""
        try:
            self.lengths(i)
        except UserError:
            return False
        about = files.read_json(self.numbers(i).with_suffix(".json"))
        if verify and weights.sha256(self.numbers(i)) != about.get("sha256"):
            print(f"{self.numbers(i)} is damaged (its checksum differs): made again", flush=True)
            return False
        return True


class Stored:
    """`Features` of a finished folder, by index; shards are mapped, never read as a whole.

    UserError for a folder that is not finished or damaged.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.about = _manifest(self.folder)
        self._parts = _Parts(self.folder, *(self.about[name] for name in ("count", "shard", "width")))
        lengths = [self._parts.lengths(i) for i in range(self._parts.shards)]
        self._length = np.concatenate([*lengths, np.zeros(0, np.int64)]).astype(np.int32)
        self._first = np.concatenate([np.cumsum(length) - length for length in lengths]) if lengths else self._length
        self._cfg = T5Config(width=self.about["width"], tokens=self.about["tokens"], dtype=STORED)
        self._map = functools.lru_cache(OPEN)(self._open)

    def __len__(self) -> int:
        return int(self.about["count"])

    def rows(self, index_B: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(caption_BxPxF in bfloat16, valid_BxP). UserError for an index that is not there."""
        return in_front([self._row(int(i)) for i in index_B], self._cfg)

    def verify(self) -> None:
        """Read everything. UserError for a shard that is not as it was written."""
        for i in range(self._parts.shards):
            if not self._parts.whole(i):
                raise UserError(f"{self._parts.numbers(i)} is damaged: run the same command again")

    def _row(self, i: int) -> np.ndarray:
        if not 0 <= i < len(self):
            raise UserError(f"caption {i} of {self.folder}, which has {len(self)}: these are not the pairs' captions")
        first = self._first[i]
        return self._map(i // self._parts.shard)[first : first + self._length[i]]

    def _open(self, i: int) -> np.ndarray:
        return np.memmap(self._parts.numbers(i), STORED, "r").reshape(-1, self._parts.width)


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    try:
        about = files.read_json(path)
        if about is None:
            raise FileNotFoundError
        if about["format"] != FORMAT:
            raise ValueError(f"format {about['format']}")
    except FileNotFoundError:
        raise UserError(f"{folder} has no caption features: {MANIFEST} is not there") from None
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} is not readable ({error}): delete the folder and make it again") from error
    return about
