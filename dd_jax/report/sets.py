"""Pictures of finished sample sets, by class: the same images of every plan, side by side."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dd_jax.data.sampleset import SampleSet
from dd_jax.report.picture import Grid

CLASSES, EACH, PIXELS = 8, 4, 128  # at most so many rows, images of a class, and pixels of a side


def grid(folder: Path, names: Sequence[str]) -> Grid | None:
    """Of samples/ or samples/fast/: classes down, plans across. `names`: of the classes. None without a set."""
    found = [made for path in sorted(folder.glob("*/")) if (made := SampleSet.found(path))]
    shared = [made for made in found if _stream(made) == _stream(found[0])]  # image i shows one class in all of them
    if not shared:
        return None
    shared.sort(key=lambda made: ("T" in made.settings["plan"], len(made.settings["plan"])))
    _, label = shared[0].first(shared[0].settings["shard"])
    present, counts = np.unique(label, return_counts=True)
    chosen = present[np.linspace(0, len(present) - 1, min(CLASSES, len(present))).astype(int)]
    each = min(EACH, int(np.min(counts[np.isin(present, chosen)])))
    order = np.concatenate([np.flatnonzero(label == one)[:each] for one in chosen])
    columns = [_smaller(made.first(len(label))[0][order]) for made in shared]
    rows = [names[one].split(",")[0] if one < len(names) else str(one) for one in chosen]
    note = f"Images {', '.join(map(str, order[:each]))}, ... of seed {shared[0].settings['seed']}"
    return Grid(np.stack(columns, 1), [made.settings["plan"] for made in shared], rows, each, "Samples by class", note)


def _stream(made: SampleSet) -> tuple:
    return tuple(made.settings[key] for key in ("seed", "labels", "count", "shard", "resolution"))


def _smaller(images: np.ndarray) -> np.ndarray:
    """Averages of blocks of pixels, until a side is short enough for a page."""
    factor = -(-images.shape[1] // PIXELS)
    if factor == 1 or images.shape[1] % factor:
        return images
    count, side, _, channels = images.shape
    blocks = images.reshape(count, side // factor, factor, side // factor, factor, channels)
    return (blocks.mean((2, 4)) + 0.5).astype(np.uint8)
