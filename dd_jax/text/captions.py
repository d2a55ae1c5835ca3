"""Captions as conditions: the text side of a config, and what it makes of captions by their number or word by word."""

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dd_jax.data.conditions import Conditions, as_array, numbers
from dd_jax.data.examples import Examples, Pixels, kept
from dd_jax.method.interfaces import Cond, Params
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from dd_jax.text import cache, clean, noted, prompts, t5
from dd_jax.text.features import Features, Live, TextEncoder
from dd_jax.text.prompts import Prompts
from dd_jax.text.t5 import T5Config
from dd_jax.text.tokens import EOS, PAD, CaptionTokenizer, SentencePiece, Words

KEEP = 1 << 28  # bytes: features of fewer captions stay in memory
EXAMPLES = (  # for a first try, where no prompts are given
    "a red fox in fresh snow",
    "an old lighthouse on a cliff, storm clouds",
    "a bowl of ramen seen from above",
    "a cat asleep on a stack of books",
)


@dataclasses.dataclass(frozen=True, eq=False)
class Text:
    """The text side of a config, without parameters.

    `folder`: a ported encoder; without one the encoder is trained together with the teacher. `source`: a file of
    prompts (see `prompts.read`), or the captions themselves. `unseen`: (captions,) which are never trained on.
    """

    sizes: T5Config
    source: str | tuple[str, ...] = EXAMPLES
    folder: str = ""
    unseen: tuple[bool, ...] = ()
    batch: int = 64
    store: str = ""  # a folder for a cache of features; none: they are made when they are needed
    words: bool = False  # captions are words of a vocabulary of their own, not pieces of a published one
    vocabulary: tuple[str, ...] = ()  # these; (): those of `source`
    noted: Path | None = None  # where a run notes its pictures' captions (see `noted`): once there, they are the source

    @functools.cached_property
    def prompts(self) -> Prompts:
        if self._of_pictures:
            return self._of_pictures[0]
        return prompts.read(self.source) if isinstance(self.source, str) else Prompts.of(*self.source)

    @functools.cached_property
    def _of_pictures(self) -> tuple[Prompts, tuple[bool, ...]] | None:
        return noted.read(self.noted) if self.noted and self.noted.exists() else None

    @functools.cached_property
    def tokenizer(self) -> CaptionTokenizer:
        if self.words and self.vocabulary:
            return Words(self.vocabulary, self.sizes.tokens)
        return Words.of(self.prompts.captions, self.sizes.tokens) if self.words else self._published

    @property
    def _published(self) -> CaptionTokenizer:
        if not self.folder:
            raise UserError(
                "captions need their encoder: python -m port_weights flan_t5_xl, then --config.weights.text=FOLDER"
            )
        return SentencePiece(weights.place(self.folder), self.sizes.tokens)

    @functools.cached_property
    def cfg(self) -> T5Config:
        """Sizes, with the vocabulary of one's own words."""
        return dataclasses.replace(self.sizes, vocab=self.tokenizer.vocab) if self.words else self.sizes

    def init(self, key: jax.Array) -> Params:
        """Random parameters of the encoder."""
        return t5.init(self.cfg, key)

    def read(self, params: Params, token_BxP: jax.Array, valid_BxP: jax.Array | None = None) -> Cond:
        """Tokens padded behind -> what backbones take; differentiable, for training the encoder too."""
        valid_BxP = token_BxP != PAD if valid_BxP is None else valid_BxP
        caption_BxPxF, valid_BxP = t5.encode(self.cfg, params, token_BxP, valid_BxP)
        return Cond(caption_BxPxF=caption_BxPxF, valid_BxP=valid_BxP)

    def tokens(self, captions: Sequence[str], number: Pixels) -> Pixels:
        """Of examples that show these captions by `number` (M,): tokens (M, P) int32; many are made when asked for."""

        def read(at: np.ndarray) -> np.ndarray:
            asked = [captions[i] for i in number[at]]
            return self.tokenizer(asked if self.words else [clean.clean(caption) for caption in asked])[0]

        endless = isinstance(number, Examples) and number.endless
        found = Examples(read, len(number), (self.sizes.tokens,), endless)
        return found if endless else kept(found)

    def conditions(self, params: Params, given: Prompts | None = None) -> Conditions:
        """This text side with its parameters; `given`: other captions than those it was made with."""
        source = weights.describe(self.folder)["sha256"] if self.folder else ""
        encoder = TextEncoder(
            self.cfg, params, self.tokenizer, self.batch, self._lengths, cleaned=not self.words, digest=source
        )
        asked = given or self.prompts
        held = self._of_pictures[1] if self._of_pictures else self.unseen
        unseen = np.array(held) if held and given is None else np.zeros(len(asked), bool)
        return Captions(encoder, asked, unseen, self.store)

    @property
    def _lengths(self) -> tuple[int, ...]:
        return () if self.words else (32,)


def drop_words(key: jax.Array, token_BxP: jax.Array, rate: float) -> jax.Array:
    """Which tokens are left when each is left out at `rate`; end marks stay, padding is none."""
    kept = jax.random.uniform(key, token_BxP.shape, jnp.float32) >= rate
    return (token_BxP != PAD) & (kept | (token_BxP == EOS))


@dataclasses.dataclass(frozen=True, eq=False)
class Captions:
    """`Conditions` of a list of captions."""

    encoder: TextEncoder
    prompts: Prompts
    unseen: np.ndarray  # (captions,) bool
    store: str = ""

    @property
    def pool(self) -> np.ndarray:
        return self._shuffled(~self.unseen)

    @property
    def held_out(self) -> np.ndarray:
        return self._shuffled(self.unseen)

    @staticmethod
    def _shuffled(which: np.ndarray) -> np.ndarray:
        """Their numbers in a fixed order of its own: lists are often sorted, and the first few are shown."""
        return np.random.default_rng(0).permutation(np.flatnonzero(which)).astype(np.int32)

    def __call__(self, number_B: np.ndarray) -> Cond:
        caption_BxPxF, valid_BxP = self._features.rows(number_B)
        return _cond(number_B, caption_BxPxF, valid_BxP)

    def of(self, wanted: ArrayLike | Sequence[str]) -> Cond:
        """Captions, or numbers of captions in the list."""
        asked = np.atleast_1d(as_array(wanted, "captions"))
        if asked.dtype.kind in "US":
            asked = asked.reshape(-1)
            return _cond(np.zeros(len(asked)), *self.encoder([str(caption) for caption in asked]))
        return self(numbers(wanted, len(self.prompts), f"there are {len(self.prompts)} captions: their numbers"))

    @functools.cached_property
    def _features(self) -> Features:
        if self.store:
            return cache.store(self.encoder, self.prompts, self.store)
        cfg = self.encoder.cfg
        small = len(self.prompts) * cfg.tokens * cfg.width * 4 <= KEEP
        return _Kept(self.encoder, self.prompts) if small else Live(self.encoder, self.prompts)


def _cond(number_B: np.ndarray, caption_BxPxF: np.ndarray, valid_BxP: np.ndarray) -> Cond:
    number_B = np.asarray(number_B, np.int32)
    return Cond(jnp.asarray(number_B), jnp.asarray(caption_BxPxF), jnp.asarray(valid_BxP))


@dataclasses.dataclass(frozen=True, eq=False)
class _Kept:
    """`Features` of a few captions, all made at the first use."""

    encoder: TextEncoder
    prompts: Prompts

    def __len__(self) -> int:
        return len(self.prompts)

    def rows(self, index_B: np.ndarray | Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
        caption_NxPxF, valid_NxP = self._all
        return caption_NxPxF[np.asarray(index_B)], valid_NxP[np.asarray(index_B)]

    @functools.cached_property
    def _all(self) -> tuple[np.ndarray, np.ndarray]:
        return self.encoder(self.prompts.captions)
