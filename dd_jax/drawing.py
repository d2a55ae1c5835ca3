"""The way out: labels or captions -> pictures, with settings that may change from call to call. `Pipeline` has it."""

import dataclasses
import functools
import itertools
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from dd_jax import calls
from dd_jax.calls import Setting
from dd_jax.data.conditions import as_array, numbers
from dd_jax.encoding import Encoding
from dd_jax.method.fewstep import noise_for, program, run_ops
from dd_jax.method.interfaces import Cond, Draft
from dd_jax.method.models import Models
from dd_jax.method.pinning import Pinned
from dd_jax.method.plans import Op, parse
from dd_jax.system import rng
from dd_jax.system.errors import UserError
from dd_jax.system.programs import compile_together, in_programs

IDS = 2**31  # there are so many images of a seed
BATCH = 64  # images of one program at most; fewer run in the next power of two


@dataclasses.dataclass(frozen=True)
class Order:
    """Pictures that are asked for, checked: a program, and for each picture a row of what it takes.

    Orders of one `kind` may be joined, row behind row: picture i follows from row i alone.
    """

    run: Any
    sweeps: tuple[int, ...]
    rows: Any

    @property
    def count(self) -> int:
        return len(jax.tree.leaves(self.rows)[0])

    @property
    def kind(self) -> Hashable:
        return self.run, self.sweeps, jax.tree.structure(self.rows)

    def joined(self, others: Sequence["Order"]) -> "Order":
        """This one and `others` of the same kind as one."""
        rows = jax.tree.map(lambda *each: np.concatenate(each), self.rows, *(other.rows for other in others))
        return dataclasses.replace(self, rows=rows)


class Drawing(Encoding):
    """What a `Pipeline` draws. One program a kind of plan and size of batch, whatever the settings; one decodes."""

    @functools.cached_property
    def _compiled(self) -> dict[tuple[tuple[Op, ...], Models], Any]:
        return {}

    @functools.cached_property
    def _met(self) -> set[tuple[Any, int]]:
        return set()

    def noise(self, ids: int | ArrayLike, seed: int = 0) -> jax.Array:
        """(B, L, C) noise of these images of a seed, or of the first so many: image i is the same in any batch."""
        if np.ndim(as_array(ids, "ids")) == 0:
            ids = np.arange(numbers(ids, IDS, "a number of images")[0])
        keys = rng.example_keys(rng.stream(seed, "sample"), jnp.asarray(numbers(ids, IDS, "ids")))
        return noise_for(keys, *self._shape)

    def tokens(
        self,
        labels: ArrayLike | Sequence[str],
        plan: str = "S0",
        seed: int = 0,
        noise: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        *,
        guidance: Setting = None,
        temperature: Setting = None,
        top_k: Setting = None,
        top_p: Setting = None,
        tau: Setting = None,
        smooth: bool | None = None,
    ) -> Draft:
        """Latents and codes of one image a label (see `interfaces.Draft`).

        `labels`: class numbers or names, or captions. The images are those numbered `ids` of a seed, by default 0, 1,
        ...; `noise=` fixes the noise instead. The others are settings of this call, each one number, or one an image;
        None: as configured. Of the teacher, in `T` and `J`: `guidance`, `temperature` > 0, `top_k` (0: all codes),
        `top_p` in (0, 1]; `smooth` mixes codes (next-scale models). Of a student's flow head, in `S`: `tau` > 0. A
        student's own guidance is that of the pairs, or of the teacher, that it was trained with: nothing here changes
        it. UserError for labels, a plan, noise, ids or settings that cannot be.
        """
        given = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p, "tau": tau}
        draft, _ = self._draw(self._cond(labels), plan, seed, noise, ids, given, smooth, decoded=False)
        return jax.tree.map(jnp.asarray, draft)

    def sample(
        self,
        labels: ArrayLike | Sequence[str],
        plan: str = "S0",
        seed: int = 0,
        noise: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        *,
        guidance: Setting = None,
        temperature: Setting = None,
        top_k: Setting = None,
        top_p: Setting = None,
        tau: Setting = None,
        smooth: bool | None = None,
    ) -> np.ndarray:
        """uint8 images (B, R, R, channels), one a label; arguments and errors are those of `tokens`."""
        given = {"guidance": guidance, "temperature": temperature, "top_k": top_k, "top_p": top_p, "tau": tau}
        return self._draw(self._cond(labels), plan, seed, noise, ids, given, smooth)[1]

    def compile(self, plans: str | Sequence[str] = ("S0",), batches: int | Sequence[int] = (1,)) -> None:
        """Compile, side by side, what these plans need for requests of so many images, before the first comes.

        UserError for plans that cannot be, and for batches that are no numbers of images.
        """
        plans = (plans,) if isinstance(plans, str) else plans
        sizes = {1 << (int(n) - 1).bit_length() for n in np.ravel(batches) if n > 0}
        if not sizes:
            raise UserError(f"batches={batches}: give the numbers of images of a request, (1, 8)")
        first = self.conditions.pool[:1]

        def draw(plan: str, count: int) -> None:
            self._draw(self.conditions(np.repeat(first, count)), plan)

        with ThreadPoolExecutor() as pool:
            for done in [pool.submit(draw, *todo) for todo in itertools.product(plans, sorted(sizes))]:
                done.result()

    def _cond(self, labels: ArrayLike | Sequence[str]) -> Cond | None:
        return self.conditions.of(labels) if as_array(labels, "labels").size else None

    def order(
        self,
        labels: ArrayLike | Sequence[str],
        plan: str = "S0",
        seed: int = 0,
        ids: ArrayLike | None = None,
        *,
        smooth: bool | None = None,
        **given: Setting,
    ) -> Order:
        """What `sample` would draw, checked and not drawn. UserError as there, and for no label at all."""
        if (cond := self._cond(labels)) is None:
            raise UserError("there are no labels: ask for one picture at least")
        return self._order(cond, plan, seed, None, ids, given, smooth, None)

    def drawn(self, order: Order) -> np.ndarray:
        """uint8 images (B, R, R, channels) of an `order`."""
        return self._run(order, decoded=True)[1]

    def _draw(
        self,
        cond: Cond | None,
        plan: str,
        seed: int = 0,
        noise: ArrayLike | None = None,
        ids: ArrayLike | None = None,
        given: Mapping[str, Setting] = MappingProxyType({}),
        smooth: bool | None = None,
        decoded: bool = True,
        pinned: Pinned | None = None,
    ) -> tuple[Draft, np.ndarray]:
        """(what `tokens` returns, what `sample` returns) of a condition; None: of no image.

        With `pinned` tokens, `noise` is that of these alone: the others have their own.
        """
        order = self._order(cond, plan, seed, noise, ids, given, smooth, pinned)
        if cond is not None:
            return self._run(order, decoded)
        none: Any = np.zeros((0, self._shape[0]), np.int32)
        token = jnp.zeros((0, *self._shape), jnp.float32)
        return Draft(token, none, none[:, 0], none[:, 0]), np.zeros((0, *self.image_shape), np.uint8)

    def _order(
        self,
        cond: Cond | None,
        plan: str,
        seed: int,
        noise: ArrayLike | None,
        ids: ArrayLike | None,
        given: Mapping[str, Setting],
        smooth: bool | None,
        pinned: Pinned | None,
    ) -> Order:
        """What `_draw` draws; of no image, it is checked alone."""
        ops = parse(plan, self.system.layout.steps, self.system.objective.timesteps)
        for op in ops:
            network = "student" if op.kind == "S" else "teacher"
            if network not in self.params:
                raise UserError(f"plan {plan!r} needs a {network}: dd_jax.load(folder, {network}=FOLDER)")
        count = 0 if cond is None else len(jax.tree.leaves(cond)[0])
        settings = calls.checked(given, count)
        id_B = numbers(np.arange(count) if ids is None else ids, IDS, "ids")
        if len(id_B) != count:
            raise UserError(f"there are {len(id_B)} ids for {count} labels: give one a label")
        shape = count, *self._shape
        fixed_BxLxC = np.zeros(shape, np.float32) if noise is None else _given_noise(noise, shape)
        fixed = noise is not None if pinned is None or noise is None else pinned.keep_BxL
        models, seed_B = self._models(plan, smooth), np.full(count, rng.checked(seed), np.uint32)
        kinds, sweeps = program(plan, self.system.layout.steps)
        if cond is not None and any(op.kind in "TJ" for op in ops):
            cond = calls.guided(self.system.teacher, cond, settings["guidance"], count)
        knobs = dataclasses.replace(calls.knobs(models, settings, count), pinned=pinned)
        rows = cond, seed_B, id_B, fixed_BxLxC, np.broadcast_to(fixed, shape[:2]), knobs
        return Order(self._program(kinds, models), sweeps, rows)

    def _run(self, order: Order, decoded: bool) -> tuple[Draft, np.ndarray]:
        def draw(*rows: Any) -> Any:
            given = self.params, *rows, order.sweeps
            return self._shown(order.run, *given) if decoded else (order.run(*given), None)

        found: tuple[Draft, np.ndarray] = in_programs(draw, order.rows, BATCH)
        return found

    def _shown(self, run: Any, *given: Any) -> tuple[Draft, jax.Array]:
        """Tokens, and pictures of them: what the first call of a size needs is compiled side by side."""
        tokenizer, size = self.params["tokenizer"], len(given[3])
        if (run, size) not in self._met:
            self._met.add((run, size))
            token_BxLxC = jax.ShapeDtypeStruct((size, *self._shape), jnp.float32)
            compile_together((self._show, (tokenizer, token_BxLxC)), (run, given))
        draft = run(*given)
        return draft, self._show(tokenizer, draft.token_BxLxC)

    def _models(self, plan: str, smooth: bool | None) -> Models:
        """As the plan wants them, and this call."""
        models = self.system.models.of(plan)
        if smooth is None or bool(smooth) == models.smooth:
            return models
        if smooth and self.system.layout.uniform:
            raise UserError("smooth=True is for next-scale models: leave it out")
        return dataclasses.replace(models, smooth=bool(smooth), categorical=models.categorical or bool(smooth))

    def _program(self, kinds: tuple[Op, ...], models: Models) -> Any:
        """Noise to tokens in one program, for a size of batch; plans that differ in sweeps alone share it.

        (parameters, condition, seeds, ids, noise, where it is given, knobs, sweeps) -> Draft.
        """

        def keys(seed: jax.Array, id: jax.Array) -> tuple[jax.Array, jax.Array]:
            root = rng.traced_stream(seed, "sample")
            return jax.random.fold_in(root, id), jax.random.fold_in(jax.random.fold_in(root, 1 << 20), id)

        def run(params, cond, seed_B, id_B, fixed_BxLxC, fixed_BxL, knobs, sweeps):
            of_noise, of_draws = jax.vmap(keys)(seed_B, id_B)
            noise = jnp.where(fixed_BxL[..., None], fixed_BxLxC, noise_for(of_noise, *self._shape))
            return run_ops(kinds, models, params, cond, noise, of_draws, sweeps, knobs)

        return self._compiled.setdefault((kinds, models), jax.jit(run))


def _given_noise(given: ArrayLike, wanted: tuple[int, ...]) -> np.ndarray:
    """Noise that a user brings, float32. UserError for another shape, or numbers that are none."""
    noise = as_array(given, "noise")
    if noise.shape != wanted:
        raise UserError(f"noise must be {wanted}, one row a label, got {noise.shape}")
    if not (jnp.issubdtype(noise.dtype, jnp.floating) or jnp.issubdtype(noise.dtype, jnp.integer)):
        raise UserError(f"noise must be real numbers, got {noise.dtype}")
    noise = noise.astype(np.float32)
    if not np.isfinite(noise).all():
        raise UserError("noise has numbers that are not finite: it must be standard Gaussian")
    return noise
