"""Stage `sample`: draw images with any plan, as .npz and as a picture."""

import io
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dd_jax import files, labels, rng
from dd_jax.pipeline import Pipeline
from dd_jax.progress import Progress

COLUMNS = 10  # of a picture, at most


def run(pipeline: Pipeline, config: ConfigDict, workdir: Path, seed: int) -> list[Path]:
    """Every plan of `config.sample.plans` -> samples/<plan>.npz (`arr_0` uint8, `label`) and .png."""
    settings, written = config.sample, []
    label = label_of(config, seed)
    batch = min(settings.batch, len(label))
    with Progress(len(label) * len(settings.plans), "sample", unit="images") as progress:
        for plan in settings.plans:
            parts = []
            for first in range(0, len(label), batch):
                ids = np.arange(first, first + batch)
                parts.append(pipeline.sample(np.resize(label[first:], batch), plan, seed, ids=ids))
                progress.update(min(batch, len(label) - first))
            images = np.concatenate(parts)[: len(label)]
            name = plan.replace(" ", "_").replace(":", "-").replace("*", "x").replace("/", "w")
            buffer = io.BytesIO()
            np.savez_compressed(buffer, arr_0=images, label=label)
            written.append(files.replace(workdir / "samples" / f"{name}.npz", buffer.getvalue()))
            buffer = io.BytesIO()
            sheet(images).save(buffer, "PNG")
            written.append(files.replace(workdir / "samples" / f"{name}.png", buffer.getvalue()))
    return written


def label_of(config: ConfigDict, seed: int) -> np.ndarray:
    """(count,) classes: those of `sample.labels` in turn, else all of them in turn."""
    settings, data = config.sample, config.data
    if settings.labels:
        return np.resize(np.asarray(labels.find(settings.labels, data.name, data.classes), np.int32), settings.count)
    return rng.labels(np.arange(settings.count), data.classes, "balanced", seed)


def sheet(images: np.ndarray, columns: int = COLUMNS) -> Image.Image:
    """Images in rows, small ones enlarged."""
    columns = min(columns, len(images))
    rows = -(-len(images) // columns)
    blank = np.zeros((rows * columns - len(images), *images.shape[1:]), np.uint8)
    grid = np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
    flat = grid.transpose(0, 2, 1, 3, 4).reshape(rows * images.shape[1], columns * images.shape[2], -1)
    picture = Image.fromarray(flat[..., 0] if flat.shape[-1] == 1 else flat)
    scale = max(1, 64 // images.shape[1])
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
