"""Pictures beside their captions, one file each: what scores of text to image read (and `dd_jax.metrics.clip`)."""

import io
import json
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dd_jax.data.sampleset import SampleSet, rgb
from dd_jax.system import files

CAPTIONS, RESULT = "captions.txt", "result.jsonl"


def write(made: SampleSet, captions: Sequence[str]) -> Path:
    """Every picture of a set as a PNG beside its caption, in the layout of the published scripts; -> the folder.

    images/000000.png ..., captions.txt (one a line, in order) and result.jsonl ({"text", "image_path"} a line).
    """
    folder = made.folder.with_name(made.folder.name + "_images")
    lines: list[str] = []
    texts: list[str] = []
    for images, label in made.parts():
        for picture, number in zip(rgb(images), label, strict=True):
            name, text = f"images/{len(texts):06d}.png", " ".join(captions[number].split())
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            files.replace(folder / name, buffer.getvalue())
            lines.append(json.dumps({"text": text, "image_path": name}, ensure_ascii=False))
            texts.append(text)
    files.replace(folder / CAPTIONS, "".join(f"{text}\n" for text in texts).encode())
    files.replace(folder / RESULT, "".join(f"{line}\n" for line in lines).encode())
    return folder
