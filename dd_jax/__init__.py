"""Distilled Decoding in JAX: image autoregressive models that draw in one or two steps.

Shapes live in names. One letter a dimension, e.g. `logits_BxLxV`:

    B  batch                 P  condition tokens      V  codebook entries
    S  AR steps              N  P + L positions       D  model width
    G  tokens of one step    C  code dimension        H  attention heads
    L  tokens of an image    R  pixels of a side      K  head dimension

`t` is an AR-step boundary (steps < t are known), `u` flow time in [0, 1]; a `code` is an integer, a
`token` a vector of the code space, `noise` a Gaussian vector. Never one for another.
"""

from collections.abc import Sequence
from typing import Any

__version__ = "0.1.0"


def load(folder: str, trust: Sequence[str] = (), **companions: str) -> Any:
    """Open a trained work directory as a `dd_jax.pipeline.Pipeline`: `load(d).sample([3, 7], plan="S0")`.

    Ported weights open the same way: `load("weights/llamagen_l_dd")` finds `weights/vq16` beside it, and the
    teacher that plans with `T` or `J` need; folders elsewhere are given by part, `tokenizer=`, `teacher=`.
    What a run's config names outside the package (see docs/extending.md) is imported from modules in `trust` alone.
    """
    from dd_jax.pipeline import Pipeline

    return Pipeline.load(folder, trust, **companions)
