"""Pictures of finished sample sets, by class: the same images of every plan, side by side, and named ones."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dd_jax.data import captioned
from dd_jax.data.sampleset import SampleSet
from dd_jax.report.picture import Grid, grid_png
from dd_jax.system import files

CLASSES, EACH, PIXELS = 8, 4, 128  # at most so many rows, images of a class, and pixels of a side
ROW = 1030  # pixels of a row that a page has room for
WIDE, NAMED, LETTERS = 8, 200, 40  # a picture of named classes: images of a row, images, letters of a name


def grid(folder: Path, names: Sequence[str], title: str = "Samples by class") -> Grid | None:
    """Of samples/ or one of its folders: classes down, plans across. `names`: of the classes. None without a set."""
    found = [made for path in sorted(folder.glob("*/")) if (made := SampleSet.found(path))]
    shared = [made for made in found if _stream(made) == _stream(found[0])]  # image i shows one class in all of them
    if not shared:
        return None
    shared.sort(key=lambda made: ("T" in made.settings["plan"], len(made.settings["plan"])))
    _, label = shared[0].first(shared[0].settings["shard"])
    present, counts = np.unique(label, return_counts=True)
    chosen = present[np.linspace(0, len(present) - 1, min(CLASSES, len(present))).astype(int)]
    room = max(1, ROW // (len(shared) * min(PIXELS, shared[0].first(1)[0].shape[1])))
    each = min(EACH, room, int(np.min(counts[np.isin(present, chosen)])))
    order = np.concatenate([np.flatnonzero(label == one)[:each] for one in chosen])
    columns = [_smaller(made.first(len(label))[0][order]) for made in shared]
    known = _captions(shared[0], label) or {i: name.split(",")[0] for i, name in enumerate(names)}
    rows = [_shorter(known.get(int(one), str(one))) for one in chosen]
    note = f"Pictures {', '.join(map(str, order[:each]))}, ... of seed {shared[0].settings['seed']}"
    if captioned.folder_of(shared[0]).exists():
        note += f"; each is a file of its own in {folder.parent.name}/{folder.name}"
    return Grid(np.stack(columns, 1), [made.settings["plan"] for made in shared], rows, each, title, note)


def named_png(made: SampleSet, names: Sequence[str]) -> Path:
    """Write <plan>.png of a set of named classes: a row or more of each, its name in front. -> the file."""
    images, label = made.first(NAMED)
    rows, texts = [], []
    wide = min(WIDE, int(np.bincount(label).max()))
    for one in dict.fromkeys(label.tolist()):
        own = images[label == one]
        blank = np.full((-len(own) % wide, *own.shape[1:]), 255, np.uint8)
        rows.append(np.concatenate([own, blank]))
        texts += [_shorter(names[one]), *[""] * (len(rows[-1]) // wide - 1)]
    stacked = np.concatenate(rows)[:, None]
    picture = grid_png(stacked, Grid(stacked, [""]).scale, (), texts, wide)
    return files.replace(made.folder.with_name(made.folder.name + ".png"), picture)


def _captions(made: SampleSet, label: np.ndarray) -> dict[int, str]:
    """Number -> caption or name, of a set whose pictures lie beside theirs."""
    path = captioned.folder_of(made) / captioned.CAPTIONS
    lines = path.read_text().splitlines() if path.exists() else []
    return dict(zip(label.tolist(), lines, strict=False))


def _shorter(name: str) -> str:
    return textwrap.shorten(name.replace("_", " "), LETTERS, placeholder=" …")


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
