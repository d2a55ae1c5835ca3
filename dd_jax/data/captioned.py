"""Pictures beside their captions or class names, one file each: what scores of text to image read, and people."""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dd_jax.data.sampleset import SampleSet, rgb
from dd_jax.system import files

CAPTIONS, RESULT = "captions.txt", "result.jsonl"


def folder_of(made: SampleSet) -> Path:
    """Where the single pictures of a set lie: S0 -> S0_images."""
    return made.folder.with_name(made.folder.name + "_images")


def write(made: SampleSet, captions: Sequence[str], named: bool = False) -> Path:
    """Every picture of a set as a PNG beside its caption, in the layout of the published scripts; -> the folder.

    images/000000.png ..., captions.txt (one a line, in order) and result.jsonl ({"text", "image_path"} a line).
    `named`: captions are short names of classes, and files are called by them, images/golden_retriever-00.png. Pictures
    that an earlier call listed and this one does not are removed.
    """
    folder = folder_of(made)
    earlier = _listed(folder)
    lines: list[str] = []
    texts: list[str] = []
    each: dict[str, int] = {}
    for images, label in made.parts():
        for picture, number in zip(rgb(images), label, strict=True):
            text = " ".join(captions[number].split())
            stem = f"{len(texts):06d}"
            if named:
                stem = file_name(text)
                each[stem] = each.get(stem, -1) + 1  # of classes a-b and a_b too
                stem += f"-{each[stem]:02d}"
            name = f"images/{stem}.png"
            earlier.discard(name)
            buffer = io.BytesIO()
            Image.fromarray(picture).save(buffer, "PNG")
            files.replace(folder / name, buffer.getvalue())
            lines.append(json.dumps({"text": text, "image_path": name}, ensure_ascii=False))
            texts.append(text)
    for old in earlier:
        (folder / old).unlink(missing_ok=True)
    files.replace(folder / CAPTIONS, "".join(f"{text}\n" for text in texts).encode())
    files.replace(folder / RESULT, "".join(f"{line}\n" for line in lines).encode())
    return folder


def file_name(name: str) -> str:
    """A class's name as a file's: golden retriever -> golden_retriever."""
    return re.sub(r"\W+", "_", name).strip("_") or "class"


def _listed(folder: Path) -> set[str]:
    """Pictures that result.jsonl names, directly in images/."""
    try:
        rows = [json.loads(line) for line in (folder / RESULT).read_text().splitlines()]
        found = {f"images/{Path(row['image_path']).name}" for row in rows}
    except (OSError, ValueError, KeyError, TypeError):
        return set()
    return {name for name in found if name.endswith(".png")}
