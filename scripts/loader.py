"""How many pictures a second a training's input gives, beside Pillow in a plain loop, and the memory that it takes.

    python -m scripts.loader folder:PICTURES --side=64 --crop=random --flip
    python -m scripts.loader --made=100000               # so many made JPEGs, none kept: memory stays what it is

Rows: Pillow opens, cuts and resizes one picture after another; `decoded`: batches as a training gets them, decoded by
several threads, nothing kept; `kept`: the same from memory, as far as --cache goes. MiB are this process's resident
memory before the input is built, behind its first batch and behind the last.
"""

import argparse
import io
import itertools
import resource
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict
from PIL import Image, ImageOps

from dd_jax.data import batches, cuts, sources
from dd_jax.data.own import CACHE, Own
from dd_jax.data.source import Source
from dd_jax.system import files
from dd_jax.system.errors import UserError

FILES = 64  # that are made; pictures are these in turn
STATM = Path("/proc/self/statm")
STEPS = 2**30  # more than any time allows


def made(count: int, side: int) -> Source:
    """JPEGs of smooth colours, in memory, of `side` px; picture i is the i-th of a few, in turn."""
    draw = np.random.default_rng(0)
    stored = []
    for _ in range(FILES):
        small = Image.fromarray(draw.integers(0, 256, (8, 8, 3), np.uint8))
        file = io.BytesIO()
        small.resize((side, side), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        stored.append(file.getvalue())
    label = np.arange(count, dtype=np.int32) % 10
    return Source(
        f"made:{count}",
        count,
        tuple(map(str, range(10))),
        lambda: label,
        lambda number: Image.open(io.BytesIO(stored[number % FILES])),
        lambda number: f"picture {number}",
    )


def plain(source: Source, side: int) -> Iterator[int]:
    """Pillow in a loop, a picture at a time."""
    for number in itertools.cycle(range(source.count)):
        with source.open(number) as img:
            np.asarray(ImageOps.fit(img.convert("RGB"), (side, side), Image.Resampling.LANCZOS))
        yield 1


def loader(source: Source, settings: ConfigDict, batch: int) -> Iterator[int]:
    """Batches as a training gets them."""
    own = Own.of(source, settings, 0)
    batch_at = batches.shuffled({"img": own.windows()}, min(batch, len(own.train)), 0)
    for found in batches.stream(batch_at, STEPS):
        yield len(found["img"])


def measure(steps: Iterator[int], seconds: float, count: int | None) -> dict[str, Any]:
    """Pictures/s over so many seconds, or pictures, and memory."""
    before = resident()
    next(steps)  # which builds it
    first, begin, done, spent = resident(), time.perf_counter(), 0, 0.0
    while spent < seconds if count is None else done < count:
        done, spent = done + next(steps), time.perf_counter() - begin
    return {
        "pictures": done,
        "pictures/s": done / spent,
        "MiB before": before,
        "MiB first": first,
        "MiB last": resident(),
    }


def resident() -> float:
    """MiB of this process in memory."""
    if not STATM.exists():  # not Linux: the most it ever was
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return int(STATM.read_text().split()[1]) * resource.getpagesize() / 2**20


def main() -> None:
    parser = argparse.ArgumentParser("python -m scripts.loader", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("name", nargs="?", help=f"{', '.join(sources.told())}")
    parser.add_argument("--made", type=int, help="made pictures instead, each of which is read once")
    parser.add_argument("--side", type=int, default=64, help="px of a side")
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each row")
    parser.add_argument("--crop", choices=cuts.CROPS, default="centre")
    parser.add_argument("--flip", action="store_true")
    parser.add_argument("--cache", type=int, default=CACHE, help="MiB that are kept, for the row `kept`")
    args = parser.parse_args()
    if (args.name is None) == (args.made is None):
        parser.error(f"name pictures ({', '.join(sources.told())}), or --made=N")
    if min(args.side, args.batch, args.seconds) <= 0 or args.cache < 0 or (args.made or 2) < 2:
        parser.error("--side, --batch and --seconds are above 0, --cache is from 0 on, --made from 2 on")
    try:
        if args.name and not sources.kind(args.name):
            raise UserError(f"{args.name} is none of {', '.join(sources.told())}")
        files.spelled_in(args, "name")
        run(args)
    except UserError as error:
        sys.exit(f"error: {error}")


def run(args: argparse.Namespace) -> None:
    """The table."""
    source = made(args.made, args.side * 3 // 2) if args.made else sources.open_source(args.name)
    fields = {"resolution": args.side, "channels": 3, "crop": args.crop, "crop_share": (0.8, 1.0), "flip": args.flip}
    rows: dict[str, Callable[[], Iterator[int]]] = {
        "Pillow": lambda: plain(source, args.side),
        "decoded": lambda: loader(source, ConfigDict(fields | {"cache": 0}), args.batch),
        "kept": lambda: loader(source, ConfigDict(fields | {"cache": args.cache}), args.batch),
    }
    if args.made:
        del rows["kept"]
    found = {}
    for name, steps in rows.items():
        found[name] = measure(steps(), args.seconds, args.made if name == "decoded" else None)
    print(f"{'':8}" + "".join(f"{head:>12}" for head in next(iter(found.values()))))
    for name, row in found.items():
        print(f"{name:8}" + "".join(f"{number:>12,.0f}" for number in row.values()))


if __name__ == "__main__":
    main()
