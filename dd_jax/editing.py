"""Pictures drawn anew in part: repainting behind a mask, variations. `Pipeline` has it by name."""

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dd_jax import calls
from dd_jax.calls import Setting
from dd_jax.data import given, masks
from dd_jax.data.conditions import as_array
from dd_jax.data.examples import floats
from dd_jax.drawing import BATCH, IDS, Drawing
from dd_jax.method import pinning
from dd_jax.method.interfaces import Cond, Draft, Params
from dd_jax.method.plans import parse
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.system.programs import in_programs


class Editing(Drawing):
    """What a `Pipeline` draws into pictures that are there already."""

    def edit(
        self,
        images: Any,
        mask: Any,
        labels: ArrayLike | Sequence[str],
        plan: str = "S0 J4",
        candidates: int = 1,
        seed: int = 0,
        blend: float | None = 2.0,
        *,
        size: str = "crop",
        background: str | None = None,
        **settings: Setting,
    ) -> np.ndarray:
        """uint8 (B, R, R, channels): the pictures with what the mask covers drawn anew, one label (caption) each.

        `images`, `size`, `background`: as `encode` takes them. `mask`: bool, whole numbers, or floats in [0, 1], (rows,
        columns[, 1]), Pillow's picture or a path, for all pictures or one each; true, 1 or white is drawn anew. It has
        the proportions of its picture, or is a square over the square that the model sees; any size. `plan`,
        `candidates`, `seed` and `settings` are those of `repaint`, whose tokens stay where the mask leaves their whole
        square of the picture, at whatever scale. `blend`: pixels outside the mask are the picture's own, but for an
        edge of so many pixels (0: none), where the two are mixed; None: all are decoded. UserError for anything else.
        """
        if blend is not None and not 0 <= _number(blend) < np.inf:
            raise UserError(f"blend={blend}: give the width of the soft edge in pixels, 0 or more, or None")
        side, _, channels = self.image_shape
        squares = given.squares(images, side, channels, size, background or self.system.background)
        hole = masks.holes(mask, images, side, channels, size)
        keep_BxL = np.broadcast_to(~pinning.footprints(hole, self.system.layout), (len(squares), self._shape[0]))
        draft = self.repaint(self._encoded(floats(squares)), keep_BxL, labels, plan, candidates, seed, **settings)
        drawn = self._painted(np.asarray(draft.token_BxLxC))
        if blend is None:
            return drawn
        weight = masks.soft(hole, float(blend))[..., None]
        return np.round(weight * drawn + (1 - weight) * squares).astype(np.uint8)

    def vary(
        self,
        images: Any,
        labels: ArrayLike | Sequence[str],
        share: float = 0.3,
        plan: str = "S0 J4",
        candidates: int = 1,
        seed: int = 0,
        *,
        size: str = "crop",
        background: str | None = None,
        **settings: Setting,
    ) -> np.ndarray:
        """uint8 (B, R, R, channels): variations of pictures, a random share of whose tokens is drawn anew.

        `share` in (0, 1], of the tokens of all scales; 1 keeps nothing. Which they are follows from the seed and the
        picture's number: `[picture] * 8` gives eight variations. All else is as in `edit`.
        """
        if not 0 < _number(share) <= 1:
            raise UserError(f"share={share} of the tokens: it lies in (0, 1]")
        code_BxL = self.encode(images, size, background)
        root = jax.random.fold_in(rng.stream(seed, "sample"), 1 << 22)
        keys = rng.example_keys(root, jnp.arange(len(code_BxL)))
        chance_BxL = jax.vmap(lambda key: jax.random.uniform(key, code_BxL.shape[1:], jnp.float32))(keys)
        rank_BxL = np.argsort(np.argsort(np.asarray(chance_BxL)))
        keep_BxL = rank_BxL >= max(1, round(float(share) * code_BxL.shape[1]))
        draft = self.repaint(code_BxL, keep_BxL, labels, plan, candidates, seed, **settings)
        return self._painted(np.asarray(draft.token_BxLxC))

    def repaint(
        self,
        codes: ArrayLike,
        keep: ArrayLike,
        labels: ArrayLike | Sequence[str],
        plan: str = "S0 J4",
        candidates: int = 1,
        seed: int = 0,
        **settings: Setting,
    ) -> Draft:
        """`edit` of codes (B, L): tokens where `keep`, bool (B, L), is true stay, the others are drawn anew.

        Any plan, as in `tokens`, for the steps that the student was trained for; `exact_B` certifies leading steps of
        the teacher's own repaint. `candidates`: so many are drawn, numbered K i .. K i + K - 1 of the seed for picture
        i, and the one is taken behind whose hole the teacher finds the kept tokens likeliest (one pass more): a raster
        model draws without seeing them. `settings`: `guidance`, `temperature`, `top_k`, `top_p`, `tau` of `tokens`, one
        number or one a picture. UserError for what cannot be, or without a teacher.
        """
        code_BxL, many = self._codes(as_array(codes, "codes")), _whole(candidates)
        keep_BxL = as_array(keep, "keep")
        if keep_BxL.shape != code_BxL.shape or keep_BxL.dtype != bool:
            raise UserError(f"keep is {keep_BxL.dtype} {keep_BxL.shape}: give bool {code_BxL.shape}, true is kept")
        each = calls.checked(settings, len(code_BxL))
        self._check(plan)
        count = len(code_BxL)
        self._matched(labels, count)
        if count * many > IDS:
            raise UserError(f"candidates={many} of {count} images: there are {IDS} images of a seed")
        each = {name: np.repeat(x, many) if x is not None and x.ndim else x for name, x in each.items()}
        # A student reads the noise of what is kept; teachers read codes alone.
        reads = "S" in plan and keep_BxL.any()
        noise = np.asarray(self.noise_of(code_BxL, labels, seed).noise) if reads else None
        cond = self._cond(labels)
        if cond is not None:
            cond = jax.tree.map(lambda x: np.repeat(np.asarray(x), many, 0), cond)
        pinned = pinning.Pinned(np.repeat(code_BxL, many, 0), np.repeat(keep_BxL, many, 0))
        noise = None if noise is None else np.repeat(noise, many, 0)
        draft, _ = self._draw(cond, plan, seed, noise, None, each, decoded=False, pinned=pinned)
        if cond is None or many == 1:
            return draft
        guided = calls.guided(self.system.teacher, cond, each["guidance"], count * many)
        score = self._scores(guided, draft.code_BxL)
        fit = np.where(pinning.behind(pinned.keep_BxL, self.system.layout), score, 0).sum(-1, dtype=np.float64)
        best = np.arange(count) * many + fit.reshape(count, many).argmax(-1)
        return jax.tree.map(lambda x: x[best], draft)

    def log_prob(self, codes: ArrayLike, labels: ArrayLike | Sequence[str], guidance: Setting = None) -> np.ndarray:
        """(B, L) float32, nats: the teacher's log p of each code (B, L), given those of earlier steps and its label.

        Of the guided distribution, no filter applied: what ranks the candidates of `repaint`. `guidance`: one number,
        or one a picture; None: as configured. UserError for what cannot be, or without a teacher.
        """
        self._needs_teacher()
        code_BxL = self._codes(as_array(codes, "codes"))
        self._matched(labels, count := len(code_BxL))
        if (cond := self._cond(labels)) is None:
            return np.zeros((0, self._shape[0]), np.float32)
        checked = calls.checked({"guidance": guidance}, count)
        return self._scores(calls.guided(self.system.teacher, cond, checked["guidance"], count), code_BxL)

    def _check(self, plan: str) -> None:
        """UserError for a plan that cannot repaint."""
        self._needs_teacher()
        parse(plan, self.system.layout.steps, self.system.objective.timesteps, strict=True)

    def _needs_teacher(self) -> None:
        if "teacher" not in self.params:
            raise UserError("editing needs a teacher: dd_jax.load(folder, teacher=FOLDER)")

    def _scores(self, cond: Cond, code_BxL: np.ndarray | jax.Array) -> np.ndarray:
        run = functools.partial(self._log_prob, self.params["teacher"])
        return np.asarray(in_programs(run, (cond, code_BxL), BATCH))

    @functools.cached_property
    def _log_prob(self) -> Callable[..., jax.Array]:
        def run(params: Params, cond: Cond, code_BxL: jax.Array) -> jax.Array:
            return pinning.log_prob(self.system.teacher, params, cond, code_BxL)

        return jax.jit(run)


def _number(given: Any) -> float:
    """NaN for what is none."""
    array = np.asarray(given)
    return float(array) if array.ndim == 0 and array.dtype.kind in "iuf" else np.nan


def _whole(candidates: int) -> int:
    if not hasattr(candidates, "__index__") or operator.index(candidates) < 1:
        raise UserError(f"candidates={candidates}: how many are drawn is a whole number, 1 or more")
    return operator.index(candidates)
