"""The way in: pictures -> codes, codes -> pictures, and the noise that draws them. `Pipeline` has it by name."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dd_jax import calls
from dd_jax.calls import Setting
from dd_jax.data import given
from dd_jax.data.conditions import Conditions, as_array
from dd_jax.data.examples import floats
from dd_jax.data.sampleset import as_uint8
from dd_jax.method.interfaces import Cond, Params
from dd_jax.method.inversion import Inverted, noise_of
from dd_jax.stages.parts import System
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.system.programs import in_programs

BATCH = 16  # pictures of one program at most; fewer run in the next power of two


class Encoding:
    """What a `Pipeline` does with pictures that are there already. One picture counts as a batch of one."""

    system: System
    params: dict[str, Params]

    @functools.cached_property
    def conditions(self) -> Conditions:
        """What may be drawn."""
        return self.system.conditions(self.params)

    @functools.cached_property
    def image_shape(self) -> tuple[int, ...]:
        """(R, R, channels) of a picture."""
        blank = jax.ShapeDtypeStruct((1, *self._shape), jnp.float32)
        return jax.eval_shape(self.system.tokenizer.decode, self.params["tokenizer"], blank).shape[1:]

    @property
    def _shape(self) -> tuple[int, int]:
        """Of an image's noise: tokens, code dimension."""
        return self.system.layout.tokens, self.system.tokenizer.code_dim

    def encode(self, images: Any, size: str = "crop", background: str | None = None) -> np.ndarray:
        """int32 codes (B, L) of pictures of any size and kind.

        `images`: one or a list of Pillow's pictures, files' paths, or arrays (rows, columns[, 1 to 4 channels]); or an
        array (B, rows, columns[, channels]). Arrays are uint8 (0..255), uint16, bool, or floats in [0, 1]. `size`:
        "crop" takes the central square, "fit" the whole picture between margins. `background`: the colour of margins
        and behind alpha; none: `config.data.background`, else white. UserError for anything else.
        """
        side, _, channels = self.image_shape
        squares = given.squares(images, side, channels, size, background or self.system.background)
        return self._encoded(floats(squares))

    def decode(self, codes: ArrayLike) -> np.ndarray:
        """uint8 pictures (B, R, R, channels) of codes, (B, L) whole numbers, or of tokens, (B, L, C) vectors.

        Tokens need not be in the codebook: `Draft.token_BxLxC` are what a student drew. UserError for other shapes,
        codes outside the codebook, numbers that are not finite.
        """
        array = codes if isinstance(codes, jax.Array) else as_array(codes, "codes")
        (tokens, dim), whole = self._shape, jnp.issubdtype(array.dtype, jnp.integer)
        if array.ndim == 3 and array.shape[1:] == (tokens, dim) and jnp.issubdtype(array.dtype, jnp.floating):
            token_BxLxC = np.asarray(array, np.float32)
            if not np.isfinite(token_BxLxC).all():
                raise UserError("tokens have numbers that are not finite")
            return self._painted(token_BxLxC)
        if array.ndim == 2 and array.shape[1] == tokens and whole:
            return self._decoded(self._codes(array))
        raise UserError(
            f"codes are {array.dtype} {array.shape}: give whole numbers (B, {tokens}), or tokens, floats "
            f"(B, {tokens}, {dim})"
        )

    def reconstruct(self, images: Any, size: str = "crop", background: str | None = None) -> np.ndarray:
        """uint8 (B, R, R, channels): what the tokenizer keeps of pictures, `decode(encode(images))`.

        No drawing of this model can be closer to them. Arguments and errors are those of `encode`.
        """
        return self.decode(self.encode(images, size, background))

    def invert(
        self,
        images: Any,
        labels: ArrayLike | Sequence[str],
        seed: int = 0,
        size: str = "crop",
        background: str | None = None,
        **settings: Setting,
    ) -> np.ndarray:
        """Noise (B, L, C) from which the teacher draws these pictures (their codes), one label each.

        `sample(labels, plan="T0:S", noise=noise)`, S the AR steps, is `reconstruct(images)`, and `S0` comes near. The
        same noise with another label is another picture; another seed is another of the noises that draw this one.
        See `noise_of` for what cannot be inverted and for `settings`, `encode` for the others.
        """
        return self.noise_of(self.encode(images, size, background), labels, seed, **settings).noise

    def noise_of(
        self, codes: ArrayLike, labels: ArrayLike | Sequence[str], seed: int = 0, **settings: Setting
    ) -> Inverted:
        """`invert` of codes (B, L): noise (B, L, C), and `exact`, bool (B, L), whether each token's draws its code.

        It does, given the codes before it, but where the teacher's filter (top-k, top-p) drops the code, or holds it
        for all but impossible. Picture i follows from seed, i, codes and label. `settings`: the teacher's `guidance`,
        `temperature`, `top_k` (0: no code is dropped), `top_p`, as in `tokens`: those that `T` will draw with.
        UserError for codes, labels or settings that cannot be, or without a teacher.
        """
        if "teacher" not in self.params:
            raise UserError("inversion needs a teacher: dd_jax.load(folder, teacher=FOLDER)")
        code_BxL = self._codes(as_array(codes, "codes"))
        self._matched(labels, count := len(code_BxL))
        each = calls.checked(settings, count, calls.TEACHER)
        if not count:
            return Inverted(np.zeros((0, *self._shape), np.float32), np.zeros((0, self._shape[0]), bool))
        used = {part: self.params[part] for part in ("teacher", "tokenizer")}
        run = functools.partial(self._inverted, used, np.uint32(rng.checked(seed)))
        cond = calls.guided(self.system.teacher, self.conditions.of(labels), each["guidance"], count)
        knobs = calls.knobs(self.system.models, each, count)
        rows = cond, code_BxL, np.arange(count, dtype=np.int32), knobs
        return Inverted(*in_programs(run, rows, BATCH))

    def _matched(self, labels: ArrayLike | Sequence[str], count: int) -> None:
        """UserError unless there are as many labels as images."""
        wanted = as_array(labels, "labels")
        if (wanted.size if wanted.ndim else 1) != count:
            raise UserError(f"there are {wanted.size} labels for {count} images: give one an image")

    def _codes(self, codes: np.ndarray | jax.Array) -> np.ndarray:
        """(B, L) int32. UserError for others, or such as are not in the codebook."""
        array, tokens, vocab = np.asarray(codes), self._shape[0], self.vocab
        if array.ndim != 2 or array.shape[1] != tokens or array.dtype.kind not in "iu":
            raise UserError(f"codes are {array.dtype} {array.shape}: give whole numbers (B, {tokens})")
        if array.size and not (array.min() >= 0 and array.max() < vocab):
            raise UserError(f"codes must lie in 0..{vocab - 1}, got {array.min()}..{array.max()}")
        return array.astype(np.int32)

    @functools.cached_property
    def vocab(self) -> int:
        """Codes of the codebook."""
        return jax.eval_shape(self.system.tokenizer.codebook, self.params["tokenizer"]).shape[0]

    @functools.cached_property
    def _show(self) -> Callable[..., jax.Array]:
        """(tokenizer's parameters, token_BxLxC) -> uint8 images: one program for all plans."""
        return jax.jit(lambda params, token_BxLxC: as_uint8(self.system.tokenizer.decode(params, token_BxLxC)))

    def _painted(self, token_BxLxC: np.ndarray) -> np.ndarray:
        if not len(token_BxLxC):
            return np.zeros((0, *self.image_shape), np.uint8)
        show = functools.partial(self._show, self.params["tokenizer"])
        return np.asarray(in_programs(show, (token_BxLxC,), BATCH))

    def _decoded(self, code_BxL: np.ndarray) -> np.ndarray:
        return self._painted(np.asarray(self.system.tokenizer.codebook(self.params["tokenizer"]))[code_BxL])

    def _encoded(self, img_BxRxRxc: np.ndarray) -> np.ndarray:
        if not len(img_BxRxRxc):
            return np.zeros((0, self._shape[0]), np.int32)
        encode = functools.partial(self._encode, self.params["tokenizer"])
        return np.asarray(in_programs(encode, (img_BxRxRxc,), BATCH), np.int32)

    @functools.cached_property
    def _encode(self) -> Callable[..., jax.Array]:
        return jax.jit(self.system.tokenizer.encode)

    @functools.cached_property
    def _inverted(self) -> Callable[..., Inverted]:
        def run(params: dict[str, Params], seed: Any, cond: Cond, code_BxL: Any, id_B: Any, knobs: Any) -> Inverted:
            root = jax.random.fold_in(rng.traced_stream(seed, "sample"), 1 << 21)
            return noise_of(self.system.models.turned(knobs), params, cond, code_BxL, rng.example_keys(root, id_B))

        return jax.jit(run)
