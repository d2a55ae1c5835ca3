"""A look at a tokenizer while it learns and when it has learnt: pictures through their codes and back, codes in use."""

import dataclasses
import functools
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from dd_jax.data.examples import Examples, Pixels
from dd_jax.data.images import Images
from dd_jax.data.sampleset import rgb, sheet, to_uint8
from dd_jax.method.interfaces import Params, Tokenizer
from dd_jax.metrics import scores, ssim
from dd_jax.metrics.classified import look
from dd_jax.metrics.classifier import Classifier
from dd_jax.metrics.features import Extractor
from dd_jax.system import files, processes
from dd_jax.system.sharding import ALONE, Placement

SHOWN, COLUMNS = 16, 8  # pictures of a grid
COUNTED, ALL_COUNTED = 512, 8192  # training pictures whose codes are counted: in the curve, and at the end
HELD_OUT = 1000  # pictures that are scored, at most
BATCH = 64


def use(code_NxL: np.ndarray, maps: Sequence[int], vocab: int) -> dict[str, float]:
    """Share of the codebook in use and perplexity, of each map of codes: {"used/0": ..., "perplexity/0": ...}.

    maps: their sides (see `Layout.maps`). A map of few positions cannot use more codes than it has over all pictures.
    """
    ends = np.cumsum([side * side for side in maps])
    found: dict[str, float] = {}
    for s, code in enumerate(np.split(code_NxL, ends[:-1], axis=1)):
        count = np.bincount(code.ravel(), minlength=vocab)
        p = count[count > 0] / code.size
        found |= {f"used/{s}": len(p) / vocab, f"perplexity/{s}": float(np.exp(-np.sum(p * np.log(p))))}
    return found


def compared(
    img: np.ndarray,
    made: np.ndarray,
    classifier: Classifier | None = None,
    seen: Params | None = None,
    extractor: Extractor | None = None,
) -> dict[str, Any]:
    """`psnr` and `ssim` (11 px or more) of reconstructions `made` of `img`, both (N, R, R, c) in [-1, 1]; means.

    With a classifier and its parameters also `fd`, the Frechet distance of their features, with an extractor `rfid`,
    the same by its network.
    """
    found: dict[str, Any] = {}
    parts = [slice(i, i + BATCH) for i in range(0, len(img), BATCH)]
    measures = {"psnr": ssim.psnr} | ({"ssim": ssim.ssim} if min(img.shape[1:3]) >= ssim.SIDE else {})
    for name, measure in measures.items():
        run = jax.jit(measure)
        found[name] = float(np.mean(np.concatenate([np.asarray(run(img[part], made[part])) for part in parts])))
    if classifier is not None and seen is not None and len(img) > 1:
        own, other = (scores.statistics(look(classifier, seen, some)[0]) for some in (made, img))
        found["fd"] = scores.frechet(*own, *other)
    if extractor is not None and len(img) > 1:
        pool = [extractor.collect(_images(some), ("pool3",))[0]["pool3"] for some in (made, img)]
        found["rfid"] = scores.frechet_features(*pool)
        found |= {"rfid_count": len(img), "rfid_protocol": extractor.protocol.name}
    return found


@dataclasses.dataclass(frozen=True)
class Reconstructions:
    """Looks at one tokenizer. `img`: what it learns from, whose codes are counted; `held`: what it never sees."""

    folder: Path
    tokenizer: Tokenizer
    maps: tuple[int, ...]
    vocab: int
    img: Pixels
    held: Pixels
    placement: Placement = ALONE

    def __call__(self, step: int, state: Any) -> dict[str, float]:
        """What `training.log.Extras.preview` asks for: use of codes; `folder`/grids/step-00001000.png."""
        self._grid(state.ema, f"step-{step:08d}.png")
        return self._use(state.ema, COUNTED)

    def finish(
        self, params: Params, classifier: Classifier | None, seen: Params | None, extractor: Extractor | None = None
    ) -> dict[str, Any]:
        """`folder`/scores.json and grids/last.png: `compared` of held-out pictures, use of codes by training pictures.

        `classifier` with its parameters, and `extractor`, are those of `compared`.
        """
        self._grid(params, "last.png")
        held = spaced(self.held, HELD_OUT)[:]
        made = np.concatenate([img for _, img in self.through(params, held)])
        found: dict[str, Any] = {"held_out": len(held), **compared(held, made, classifier, seen, extractor)}
        found |= {"maps": self.maps, "counted": min(len(self.img), ALL_COUNTED), **self._use(params, ALL_COUNTED)}
        if processes.is_first():
            files.replace(self.folder / "scores.json", json.dumps(found, indent=1).encode())
        return found

    def _use(self, params: Params, most: int) -> dict[str, float]:
        code = [code for code, _ in self.through(params, spaced(self.img, most))]
        return use(np.concatenate(code), self.maps, self.vocab)

    def _grid(self, params: Params, name: str) -> None:
        """Rows of originals above rows of their reconstructions."""
        held = spaced(self.held, SHOWN)[:]
        made = np.concatenate([img for _, img in self.through(params, held)])
        starts = range(0, len(held), COLUMNS)
        rows = [x[i : i + COLUMNS] for i in starts for x in (held, made)]
        whole = [np.concatenate([row, np.ones((-len(row) % COLUMNS, *row.shape[1:]), row.dtype)]) for row in rows]
        if processes.is_first():
            buffer = io.BytesIO()
            sheet(to_uint8(jnp.concatenate(whole)), COLUMNS).save(buffer, "PNG")
            files.replace(self.folder / "grids" / name, buffer.getvalue())

    def through(self, params: Params, img: Pixels) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """(codes, images in [-1, 1] as the codes draw them) of batch after batch; each process reads its own rows."""
        place, batch, last = self.placement, BATCH + -BATCH % self.placement.rows, len(img) - 1
        for i in range(0, len(img), batch):
            part = img[np.minimum(i + place.mine(batch), last)]
            code, made = self._run(params, place.batch(part))
            yield np.asarray(code)[: len(img) - i], np.asarray(made)[: len(img) - i]

    @functools.cached_property
    def _run(self) -> Any:
        """(params, images) -> codes, and what they are decoded to."""
        tokenizer, place = self.tokenizer, self.placement

        def run(params: Params, img_BxRxRxc: jax.Array) -> Any:
            code = tokenizer.encode(params, img_BxRxRxc)
            img = jnp.clip(tokenizer.decode(params, tokenizer.codebook(params)[code]), -1, 1)
            return place.everywhere((code, img))

        return place.jit(run)


def spaced(img: Pixels, most: int) -> Examples:
    """At most so many of them, evenly spaced: they lie class by class. They are read when they are asked for."""
    at = np.unique(np.linspace(0, len(img) - 1, min(most, len(img))).astype(int))
    return Examples(lambda some: img[at[some]], len(at), img.shape[1:])


def _images(img: np.ndarray) -> Images:
    """Pictures in [-1, 1] as networks for photographs take them."""

    def read(size: int) -> Iterator[np.ndarray]:
        return (rgb(to_uint8(jnp.asarray(img[i : i + size]))) for i in range(0, len(img), size))

    return Images("pictures", len(img), read)
