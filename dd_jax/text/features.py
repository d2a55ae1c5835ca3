"""Captions -> features of their tokens: clean, tokenise, T5, padding in front; one program a padded length.

A caption's features depend on nothing but the caption: not on the others of its batch, nor on how many there are. Short
captions run padded to a shorter length, which only their own length decides.
"""

import dataclasses
import functools
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from dd_jax.method.interfaces import Params
from dd_jax.system import rng, weights
from dd_jax.system.errors import UserError
from dd_jax.system.sharding import ALONE, Placement
from dd_jax.text import clean
from dd_jax.text.prompts import Prompts
from dd_jax.text.t5 import RULES, T5, T5Config, init
from dd_jax.text.tokens import CaptionTokenizer, SentencePiece

STORED = np.dtype(ml_dtypes.bfloat16)


class Features(Protocol):
    """Features of many captions by index, on the fly or from a cache: the same numbers."""

    def __len__(self) -> int: ...

    def rows(self, index_B: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        """(caption_BxPxF in bfloat16, valid_BxP) of these captions, padding in front."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class TextEncoder:
    """A T5 with its weights and its tokenizer. `batch`: captions of a step, over all devices.

    `lengths`: padded lengths below the full one; every one compiles a program of its own.
    """

    cfg: T5Config
    params: Params
    tokenizer: CaptionTokenizer
    batch: int = 64
    lengths: tuple[int, ...] = (32,)
    cleaned: bool = True  # by the rules that the published models were trained with
    placement: Placement = ALONE
    digest: str = ""  # of the weights, where it is known

    def __post_init__(self) -> None:
        if self.tokenizer.vocab > self.cfg.vocab:
            found, known = self.tokenizer.vocab, self.cfg.vocab
            raise UserError(f"the tokenizer has {found} tokens, the encoder knows {known}: they do not belong together")
        if self.tokenizer.tokens != self.cfg.tokens or self.batch < 1:
            found, wanted = self.tokenizer.tokens, self.cfg.tokens
            raise UserError(f"{found} tokens a caption, the encoder takes {wanted}, in batches of {self.batch}")

    @classmethod
    def load(
        cls, folder: str | Path, dtype: str = "bfloat16", batch: int = 64, placement: Placement | None = None
    ) -> "TextEncoder":
        """A folder that `python -m port_weights flan_t5_xl` wrote, with its spiece.model.

        `placement`: a mesh, whose rules are replaced by T5's. UserError if it is another model's, or damaged.
        """
        about = weights.describe(folder)
        if about.get("part") != "text":
            raise UserError(f"{folder} holds {about.get('id')}: captions take what `port_weights flan_t5_xl` wrote")
        cfg = T5Config(**about["config"], dtype=jnp.dtype(dtype))
        expected = jax.eval_shape(functools.partial(init, cfg), rng.key(0))
        where = dataclasses.replace(placement or ALONE, rules=RULES)
        params = weights.load(folder, expected, dtype=None if where.mesh is None else jnp.dtype(dtype))
        params = weights.on_device(params, jnp.dtype(dtype)) if where.mesh is None else where.put(params, fsdp=False)
        tokenizer = SentencePiece(weights.place(folder), cfg.tokens)
        return cls(cfg, params, tokenizer, batch, placement=where, digest=about["sha256"])

    @functools.cached_property
    def key(self) -> str:
        """Changes with whatever changes the features: weights, type, tokenizer, cleaning."""
        rules = clean.VERSION if self.cleaned else 0
        parts = [self.digest or digest(self.params), self.cfg.sizes(), str(jnp.dtype(self.cfg.dtype)), rules]
        return hashlib.sha256(json.dumps([*parts, self.tokenizer.digest]).encode()).hexdigest()[:16]

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """B captions -> (caption_BxPxF in the encoder's type, valid_BxP), padding in front and zero."""
        return in_front(self.pieces(captions), self.cfg)

    def pieces(self, captions: Sequence[str], done: Callable[[int], Any] = int) -> list[np.ndarray]:
        """Features of the valid tokens alone, (tokens, F) a caption; `done` hears how many more are finished."""
        token_BxP, valid_BxP = self.tokenizer([clean.clean(c) for c in captions] if self.cleaned else captions)
        length_B = valid_BxP.sum(1)
        steps = sorted({*(n for n in self.lengths if n < self.cfg.tokens), self.cfg.tokens})
        found: dict[int, np.ndarray] = {}
        for shorter, padded in zip([0, *steps], steps, strict=False):
            mine = np.flatnonzero((length_B > shorter) & (length_B <= padded))
            for first in range(0, len(mine), self._rows):
                rows = mine[first : first + self._rows]
                made = self._encode(token_BxP[rows, :padded], valid_BxP[rows, :padded])
                found |= {int(i): one[: length_B[i]] for i, one in zip(rows, made, strict=False)}
                done(len(rows))
        return [found[i] for i in range(len(captions))]

    @property
    def _rows(self) -> int:
        return self.batch + -self.batch % self.placement.rows

    def _encode(self, token_BxP: np.ndarray, valid_BxP: np.ndarray) -> np.ndarray:
        """Features (rows, P, F) padded behind; the last batch is filled up for the compiler."""
        more = ((0, self._rows - len(token_BxP)), (0, 0))
        given = self.placement.batch((jnp.asarray(np.pad(token_BxP, more)), jnp.asarray(np.pad(valid_BxP, more))))
        return np.asarray(self._run(self._on_device, *given))

    @functools.cached_property
    def _on_device(self) -> Params:
        """The weights, moved once and not with every batch."""
        return jax.tree.map(jnp.asarray, self.params)

    @functools.cached_property
    def _run(self) -> Any:
        return self.placement.jit(lambda params, token, valid: T5(self.cfg).apply({"params": params}, token, valid))


def in_front(pieces: Sequence[np.ndarray], cfg: T5Config) -> tuple[np.ndarray, np.ndarray]:
    """Features of valid tokens, an array a caption -> (caption_BxPxF, valid_BxP), padding in front and zero."""
    kind = pieces[0].dtype if len(pieces) else np.dtype(cfg.dtype)
    caption_BxPxF = np.zeros((len(pieces), cfg.tokens, cfg.width), kind)
    valid_BxP = np.zeros((len(pieces), cfg.tokens), bool)
    for i, piece in enumerate(pieces):
        caption_BxPxF[i, cfg.tokens - len(piece) :] = piece
        valid_BxP[i, cfg.tokens - len(piece) :] = True
    return caption_BxPxF, valid_BxP


def digest(params: Params) -> str:
    """sha256 over all arrays and their paths."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        sha.update(np.ascontiguousarray(leaf).reshape(-1).view(np.uint8).data)
    return sha.hexdigest()


@dataclasses.dataclass(frozen=True)
class Live:
    """`Features` made when they are asked for, rounded to bfloat16 as stored ones are."""

    encoder: TextEncoder
    prompts: Prompts

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, index_B: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        caption_BxPxF, valid_BxP = self.encoder([self.prompts.captions[i] for i in index_B])
        return caption_BxPxF.astype(STORED), valid_BxP
