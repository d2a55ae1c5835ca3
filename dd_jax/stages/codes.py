"""The codes that a teacher learns from: pictures are encoded once, into a file that goes on where it was."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from dd_jax.data.examples import Pixels, at_once
from dd_jax.method.interfaces import Params
from dd_jax.stages.parts import System
from dd_jax.stages.workdir import digest
from dd_jax.system import files, processes, stopping
from dd_jax.system.progress import Progress
from dd_jax.system.sharding import ALONE, Placement

ROWS, ABOUT = "codes.bin", "codes.json"
FEW = 1 << 16  # codes that two bytes tell apart


def encode(
    folder: Path,
    system: System,
    params: Params,
    img: Pixels,
    seen: Mapping[str, Any] | None = None,
    placement: Placement = ALONE,
    batch: int | None = None,
) -> np.ndarray:
    """Codes (N, L) of all images, mapped from `codes.bin` in `folder`: uint16, int32 if there are more codes than that.

    Each process reads its own share of the images, the first one writes. `seen`: what the images depend on, plain
    data; rows of others, or of another tokenizer, are made anew. `batch`: images at once, over all devices; None:
    fewer of larger ones (`examples.at_once`). Raises UserError for a disk that is full, and Stopped.
    """
    path, shape = folder / ROWS, (len(img), system.layout.tokens)
    kind = np.dtype(np.uint16 if system.tokenizer.vocab <= FEW else np.int32)
    about = {"tokenizer": digest(params), "shape": list(shape), "dtype": kind.name, "of": dict(seen or {})}
    if processes.is_first():
        _begin(folder, about)
    processes.meet("codes are begun")
    size = shape[1] * kind.itemsize
    done = path.stat().st_size // size  # behind a torn row, if any, it goes on
    run = placement.jit(lambda params, img: placement.everywhere(system.tokenizer.encode(params, img)))
    batch = batch or at_once(img, placement.rows)
    batch, last, params = batch + -batch % placement.rows, len(img) - 1, placement.whole(params)
    with (
        Progress(len(img), "codes", "pictures", done) as bar,
        stopping.listening(together=True),
        path.open("r+b") as file,
    ):
        file.seek(done * size)
        for first in range(done, len(img), batch):
            part = img[np.minimum(first + placement.mine(batch), last)]
            code = np.asarray(run(params, placement.batch(part)))[: len(img) - first].astype(kind)
            if processes.is_first():
                _write(file, code)
            bar.update(len(code))
            if stopping.asked():
                raise stopping.Stopped(f"codes: stopped at {bar.done} of {bar.total}, which are saved")
    processes.meet("codes are made")
    return np.memmap(path, kind, "r", shape=shape)


def _begin(folder: Path, about: Mapping[str, Any]) -> None:
    """An empty file, unless there is one that was begun with the same."""
    told = json.dumps(about, indent=1, sort_keys=True).encode()
    with contextlib.suppress(OSError):
        if (folder / ABOUT).read_bytes() == told and (folder / ROWS).exists():
            return
    files.replace(folder / ROWS, b"")
    files.replace(folder / ABOUT, told)


def _write(file: BinaryIO, code: np.ndarray) -> None:
    """Rows that stay, whatever comes."""
    try:
        file.write(code.tobytes())
        file.flush()
        os.fsync(file.fileno())
    except OSError as error:
        raise files.write_error(file.name, error) from error
