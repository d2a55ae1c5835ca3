"""Captions -> token numbers: the published SentencePiece model, or whole words for small models of one's own."""

import dataclasses
import functools
import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from dd_jax.system.errors import UserError

PAD, EOS, UNKNOWN, FIRST = 0, 1, 2, 3  # as T5 numbers them; words of one's own come behind
MOST = 8192  # words of one's own
WORD = re.compile(r"\w+(?:'\w+)*")
MODEL = "spiece.model"  # beside the weights that it belongs to


class CaptionTokenizer(Protocol):
    """Captions, cleaned already -> numbers of a fixed count P a caption."""

    @property
    def vocab(self) -> int:
        """Numbers are smaller than this."""
        ...

    @property
    def tokens(self) -> int:
        """P: a caption's tokens, the end mark included; longer ones are cut, shorter ones padded."""
        ...

    @property
    def digest(self) -> str:
        """Changes with whatever changes the numbers."""
        ...

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """B captions -> (token_BxP int32, valid_BxP bool): the end mark last, padding (0, False) on the right."""
        ...


def pad(ids: Iterable[Sequence[int]], tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Token numbers without end mark, one sequence a caption -> (token_BxP, valid_BxP)."""
    rows = [[*row[: tokens - 1], EOS] for row in ids]
    token_BxP = np.full((len(rows), tokens), PAD, np.int32)
    valid_BxP = np.arange(tokens) < np.array([len(row) for row in rows], np.int32).reshape(-1, 1)
    token_BxP[valid_BxP] = [number for row in rows for number in row]
    return token_BxP, valid_BxP


@dataclasses.dataclass(frozen=True)
class SentencePiece:
    """The tokenizer of a published encoder, from its `spiece.model` (a file, or the folder that holds it)."""

    path: Path
    tokens: int = 120

    @functools.cached_property
    def model(self) -> Any:
        """The library's reader. UserError without the extra [text], or for a file that is missing or no model."""
        try:
            import sentencepiece  # only here: not everybody has captions
        except ImportError:
            raise UserError("reading captions needs sentencepiece: pip install 'dd_jax[text]'") from None
        try:
            model = sentencepiece.SentencePieceProcessor(model_proto=self._file.read_bytes())
        except FileNotFoundError:
            raise UserError(f"{self._file} does not exist: it is published beside the encoder's weights") from None
        except (RuntimeError, OSError) as error:
            raise UserError(f"{self._file} is no SentencePiece model: fetch it again") from error
        if model.eos_id() != EOS:
            raise UserError(f"{self._file} ends captions with {model.eos_id()}, T5 with {EOS}: it is another model's")
        return model

    @property
    def _file(self) -> Path:
        path = Path(self.path)
        return path / MODEL if path.is_dir() else path

    @property
    def vocab(self) -> int:
        return self.model.get_piece_size()

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.model.serialized_model_proto()).hexdigest()[:16] + f"-{self.tokens}"

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        sound = [caption.encode(errors="replace").decode() for caption in captions]  # halves of characters end here
        return pad(self.model.encode(sound, out_type=int), self.tokens)


@dataclasses.dataclass(frozen=True)
class Words:
    """A number for every word of some training captions; other words are `UNKNOWN`. Neither case nor signs matter."""

    words: tuple[str, ...]
    tokens: int

    @classmethod
    def of(cls, captions: Iterable[str], tokens: int) -> "Words":
        """All words of these captions, sorted; of more than `MOST` the most frequent."""
        found = Counter(sorted(word for caption in captions for word in words(caption)))
        return cls(tuple(sorted(word for word, _ in found.most_common(MOST))), tokens)

    @property
    def vocab(self) -> int:
        return FIRST + len(self.words)

    @functools.cached_property
    def digest(self) -> str:
        return hashlib.sha256(" ".join(self.words).encode()).hexdigest()[:16] + f"-{self.tokens}"

    @functools.cached_property
    def _number(self) -> dict[str, int]:
        return {word: i for i, word in enumerate(self.words, FIRST)}

    def __call__(self, captions: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        return pad(([self._number.get(word, UNKNOWN) for word in words(c)] for c in captions), self.tokens)


def words(caption: str) -> list[str]:
    """Its words in lower case."""
    return WORD.findall(caption.lower())
