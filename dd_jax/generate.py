"""Stage `sample`: draw images with any plan, as .npz and as a picture."""

import io
from pathlib import Path

import numpy as np
from ml_collections import ConfigDict
from PIL import Image

from dd_jax import files, rng
from dd_jax.pipeline import Pipeline
from dd_jax.progress import Progress


def run(pipeline: Pipeline, config: ConfigDict, workdir: Path, seed: int) -> list[Path]:
    """Every plan of `config.sample.plans` -> samples/<plan>.npz (`arr_0` uint8, `label`) and .png."""
    settings, written = config.sample, []
    labels = rng.labels(np.arange(settings.count), pipeline.system.classes, "balanced", seed)
    with Progress(settings.count * len(settings.plans), "sample", unit="images") as progress:
        for plan in settings.plans:
            images = pipeline.sample(labels, plan, seed)
            progress.update(len(images))
            name = plan.replace(" ", "_").replace(":", "-").replace("*", "x").replace("/", "w")
            buffer = io.BytesIO()
            np.savez_compressed(buffer, arr_0=images, label=labels)
            written.append(files.replace(workdir / "samples" / f"{name}.npz", buffer.getvalue()))
            buffer = io.BytesIO()
            sheet(images, columns=pipeline.system.classes).save(buffer, "PNG")
            written.append(files.replace(workdir / "samples" / f"{name}.png", buffer.getvalue()))
    return written


def sheet(images: np.ndarray, columns: int, scale: int = 2) -> Image.Image:
    """Images in rows of `columns`, enlarged."""
    rows = -(-len(images) // columns)
    blank = np.zeros((rows * columns - len(images), *images.shape[1:]), np.uint8)
    grid = np.concatenate([images, blank]).reshape(rows, columns, *images.shape[1:])
    flat = grid.transpose(0, 2, 1, 3, 4).reshape(rows * images.shape[1], columns * images.shape[2], -1)
    picture = Image.fromarray(flat[..., 0] if flat.shape[-1] == 1 else flat)
    return picture.resize((picture.width * scale, picture.height * scale), Image.Resampling.NEAREST)
