"""python -m scripts.memory --config=configs/var_d16.py [--topology=cpu] [--batches=4,8,16] [--depths=4,8,12]

What a training step holds at a time, compiled and not run: temporaries against the batch (at the first depth) and
against the depth (at the first batch), three points each, and what the first two say of the third: a straight line.
Settings are changed as always: --config.train.remat=true --config.dtype.student=bfloat16
"""

from dd_jax.scripts import aot  # first: it sets the environment that JAX starts in

# isort: split
import copy

from absl import flags

from dd_jax import overrides
from dd_jax.scripts import chips
from dd_jax.system.sharding import make_mesh

BATCHES = flags.DEFINE_list("batches", ["4", "8", "16"], "Three of them, at the first depth.")
DEPTHS = flags.DEFINE_list("depths", ["4", "8", "12"], "Three of them, at the first batch.")


def three(words: list[str]) -> bool:
    """Are they three different numbers from 1 on?"""
    return len({*words}) == len(words) == 3 and all(word.isdecimal() and int(word) for word in words)


for name in ("batches", "depths"):
    flags.register_validator(name, three, "three different whole numbers from 1 on, as 4,8,16")


def temporaries(batch: int, depth: int) -> tuple[float, float]:
    """(GiB of temporaries, GiB of arguments) of one training step on one device of the topology."""
    config = copy.deepcopy(aot.CONFIG.value)
    config.model.depth, config.train.distance_batch = depth, 0
    mesh = make_mesh((1, 1), chips.devices_of(aot.TOPOLOGY.value))
    program, args, _ = aot.Programs(config, mesh).train(batch)
    found = program.lower(*args).compile().memory_analysis()
    return found.temp_size_in_bytes / aot.GIB, found.argument_size_in_bytes / aot.GIB


def line(name: str, at: list[int], found: list[tuple[float, float]]) -> str:
    """A row of the table."""
    (x0, x1, x2), (y0, y1, y2) = at, [temp for temp, _ in found]
    slope = (y1 - y0) / (x1 - x0)
    said = y1 + slope * (x2 - x1)
    cells = ", ".join(f"{x}: {y:.3f}" for x, y in zip(at, (y0, y1, y2), strict=True))
    return f"{name}  GiB at {cells}  {slope:.4f} a unit, predicted {said:.3f}, off by {y2 / said - 1:+.1%}"


def main(argv: list[str]) -> None:
    """Two rows."""
    batches, depths = ([int(word) for word in flag.value] for flag in (BATCHES, DEPTHS))
    first = temporaries(batches[0], depths[0])
    rows = [first, *(temporaries(batch, depths[0]) for batch in batches[1:])]
    print(line(f"batch (depth {depths[0]})", batches, rows), flush=True)
    rows = [first, *(temporaries(batches[0], depth) for depth in depths[1:])]
    print(line(f"depth (batch {batches[0]})", depths, rows), flush=True)
    print("arguments, GiB by depth:", ", ".join(f"{d}: {size:.3f}" for d, (_, size) in zip(depths, rows, strict=True)))


if __name__ == "__main__":
    overrides.start(main, __doc__)
