"""python -m dd_jax.metrics.clip FOLDER [--model ViT-B-32 --pretrained openai]

CLIP score of pictures beside their captions, as `--stage=sample` writes them: a folder with result.jsonl. It is 100 x
the mean cosine between a picture and its caption (negative ones count 0; Hessel et al. 2021 without their 2.5), by
the `open_clip_torch` library (extra [clip]), which also fetches the network.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from dd_jax.system import files
from dd_jax.system.errors import UserError
from dd_jax.system.progress import track

RESULT = "result.jsonl"


def rows(folder: Path) -> list[tuple[str, Path]]:
    """(caption, picture) of every line of result.jsonl. UserError for a line or a picture that is not there."""
    path = folder / RESULT
    if not path.exists():
        raise UserError(f"no {path}: draw captions with --stage=sample, and give the folder that ends in _images")
    found = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        try:
            row = json.loads(line)
            found.append((str(row["text"]), folder / row["image_path"]))
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}, line {number}: not a picture with its caption ({error})") from error
    if not found:
        raise UserError(f"{path} is empty")
    lost = next((picture for _, picture in found if not picture.exists()), None)
    if lost is not None:
        raise UserError(f"{lost} is missing: run --stage=sample again")
    return found


def cosines(image_NxF: np.ndarray, text_NxF: np.ndarray) -> np.ndarray:
    """(N,) cosine of each picture with its own caption."""
    a = image_NxF / np.linalg.norm(image_NxF, axis=-1, keepdims=True)
    b = text_NxF / np.linalg.norm(text_NxF, axis=-1, keepdims=True)
    return (a * b).sum(-1)


def score(folder: str | Path, model: str = "ViT-B-32", pretrained: str = "openai", batch: int = 64) -> dict[str, Any]:
    """{"clip_score", "standard_error", "n", "model", "pretrained"}. UserError without the library or the network."""
    found = rows(Path(folder))
    network, preprocess, tokenizer, torch = _open(model, pretrained)
    values = []
    for part in track(list(_parts(found, batch)), "clip", "batches"):
        with torch.no_grad():
            images = torch.stack([preprocess(Image.open(picture).convert("RGB")) for _, picture in part])
            image = network.encode_image(images).float().numpy()
            text = network.encode_text(tokenizer([caption for caption, _ in part])).float().numpy()
        values.append(np.maximum(cosines(image, text), 0))
    all_N = 100 * np.concatenate(values)
    error = float(all_N.std(ddof=1) / len(all_N) ** 0.5) if len(all_N) > 1 else None
    about = {"model": model, "pretrained": pretrained}
    return {"clip_score": float(all_N.mean()), "standard_error": error, "n": len(all_N), **about}


def _parts(found: list[tuple[str, Path]], batch: int) -> Iterator[list[tuple[str, Path]]]:
    yield from (found[i : i + batch] for i in range(0, len(found), batch))


def _open(model: str, pretrained: str) -> tuple[Any, Any, Any, Any]:
    try:
        import open_clip  # only here: it brings PyTorch
        import torch
    except ImportError:
        raise UserError("CLIP scores need open_clip_torch: pip install 'dd_jax[clip]'") from None
    try:
        network, _, preprocess = open_clip.create_model_and_transforms(model, pretrained=pretrained or None)
    except Exception as error:  # whatever the library met: an unknown name, no connection, a damaged file
        told = str(error).strip().splitlines()
        way = "offline, --pretrained takes the path of a file that was fetched elsewhere"
        raise UserError(f"open_clip has no {model} ({pretrained}): {told[0] if told else error!r}; {way}") from error
    return network.eval(), preprocess, open_clip.get_tokenizer(model), torch


def main(argv: list[str] | None = None) -> None:
    """Print the result as JSON; --json also writes it to a file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="pictures with result.jsonl")
    parser.add_argument("--model", default="ViT-B-32")
    parser.add_argument("--pretrained", default="openai", help="a name that open_clip knows, or a file")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--json", help="write the result here too")
    args = parser.parse_args(argv)
    try:
        files.spelled_in(args, "folder", "pretrained", "json")
        result = json.dumps(score(args.folder, args.model, args.pretrained, args.batch), indent=1)
        if args.json:
            files.replace(args.json, result.encode())
    except UserError as error:
        sys.exit(f"error: {error}")
    print(result)


if __name__ == "__main__":
    main()
