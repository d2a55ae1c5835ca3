"""A text encoder's files in exactly the published format, with random weights: shards, their index, a tokenizer."""

import functools
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from dd_jax.system import files, rng, weights
from dd_jax.system.torch_writer import Lazy
from dd_jax.text.t5 import T5Config, init
from port_weights import rules, t5

TINY = T5Config(vocab=128, width=32, depth=2, heads=4, head_dim=16, hidden=48)
ALIASES = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")  # which only .bin shards have
TEXT = "a red fox in the snow, two dogs on a beach; one photo of an old city at night. the quick brown cat jumps over"


def state_dict(cfg: T5Config, dtype: str, draw: Callable[[str, tuple[int, ...]], np.ndarray]) -> dict[str, Lazy]:
    """All published keys, encoder, decoder and head."""
    blank = jax.eval_shape(functools.partial(init, cfg), rng.key(0))
    encoder = rules.export(jax.tree.map(lambda leaf: np.broadcast_to(np.float32(0), leaf.shape), blank), t5.table())
    shapes = {key: x.shape for key, x in encoder.items()} | decoder(encoder)
    kind = np.dtype(dtype)
    return {key: Lazy(shape, kind, functools.partial(draw, key, shape)) for key, shape in shapes.items()}


def decoder(encoder: Mapping[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
    """Shapes of what is published beside an encoder: blocks with a second attention, and a head."""
    found = {"lm_head.weight": encoder["shared.weight"].shape}
    for key, x in encoder.items():
        name = key.replace("encoder", "decoder")
        if key.startswith("encoder"):
            found[name.replace("layer.1", "layer.2")] = x.shape
        if "layer.0" in key and "relative" not in key:
            found[name.replace("layer.0", "layer.1").replace("SelfAttention", "EncDecAttention")] = x.shape
    return found


def release(
    folder: Path,
    cfg: T5Config,
    write_torch: Callable[[Path, Any], Path],
    draw: Callable[[str, tuple[int, ...]], np.ndarray],
    end: str = "safetensors",
    dtype: str = "float32",
    count: int = 2,
) -> list[Path]:
    """Write `count` shards ("safetensors" or "bin"), their index and spiece.model, as they are published."""
    arrays = state_dict(cfg, dtype, draw)
    size, at, parts = sum(x.size for x in arrays.values()), 0, [dict[str, Any]() for _ in range(count)]
    for key, x in arrays.items():
        parts[min(at * count // size, count - 1)][key] = x
        at += x.size
    if end == "bin":
        parts[0] |= dict.fromkeys(ALIASES, arrays["shared.weight"])
    stem, wrote = {"safetensors": "model", "bin": "pytorch_model"}[end], []
    home: dict[str, str] = {}
    for i, part in enumerate(parts, 1):
        path = folder / f"{stem}-{i:05}-of-{count:05}.{end}"
        folder.mkdir(parents=True, exist_ok=True)
        wrote.append(write_torch(path, part) if end == "bin" else weights.write_safetensors(path, part))
        home |= dict.fromkeys(part, path.name)
    index = {"metadata": {"total_size": size * np.dtype(dtype).itemsize}, "weight_map": dict(sorted(home.items()))}
    wrote.append(files.replace(folder / f"{stem}.{end}.index.json", json.dumps(index, indent=2).encode()))
    return [*wrote, spiece(folder / "spiece.model")]


def spiece(path: Path, text: str = TEXT, size: int = 100) -> Path:
    """A small SentencePiece model with T5's special numbers."""
    import io

    import sentencepiece

    made = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text, *text.split(), *text.split(",")]),
        model_writer=made,
        vocab_size=size,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
        minloglevel=2,
    )
    return files.replace(path, made.getvalue())
