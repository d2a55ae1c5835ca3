"""The captions of one's own pictures as a run notes them: a line each, so that numbers mean the same ever after."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dd_jax.system import files
from dd_jax.text import prompts
from dd_jax.text.prompts import Prompts

NOTED = "captions.jsonl"


def write(path: Path, captions: Sequence[str], unseen: np.ndarray) -> None:
    """`unseen` (captions,): those that nothing is trained on."""
    rows = zip(captions, unseen.tolist(), strict=True)
    lines = (json.dumps({"caption": text, "held_out": held}, ensure_ascii=False) + "\n" for text, held in rows)
    files.replace(path, "".join(lines).encode())


def read(path: Path) -> tuple[Prompts, tuple[bool, ...]]:
    """(captions, which of them are unseen). UserError for a file that is damaged."""
    found = prompts.read(path)
    return found, tuple(row["held_out"] for row in map(json.loads, path.read_text().splitlines()))
