"""Pictures of one's own as a run streams them: random windows, mirrored, decoded anew each time, one of them torn."""

from pathlib import Path

import numpy as np
from PIL import Image

CLASSES, EACH = ("cats", "dogs", "owls"), 40


def settings(folder: Path) -> dict:
    """Make them, a folder a class -> what a config of the digits says to learn from them instead."""
    draw = np.random.default_rng(0)
    for name in CLASSES:
        (folder / name).mkdir(parents=True)
        for i in range(EACH):
            Image.fromarray(draw.integers(0, 256, (12, 10 + i % 5), np.uint8)).save(folder / name / f"{i:02d}.png")
    torn = folder / CLASSES[1] / "07.png"
    torn.write_bytes(torn.read_bytes()[:-60])  # its header is whole: only who decodes it finds out
    cut = {"crop": "random", "crop_share": "(0.8,1.0)", "flip": True, "cache": 0, "strict": False}
    found = {"name": f"folder:{folder}", "channels": 1} | cut
    return {f"data.{key}": value for key, value in found.items()} | {"pretrain.teacher.views": 2}
