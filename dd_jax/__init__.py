"""Distilled Decoding in JAX: image autoregressive models that draw in one or two steps.

Shapes live in names. One letter a dimension, e.g. `logits_BxLxV`:

    B  batch                 P  condition tokens      V  codebook entries
    S  AR steps              N  P + L positions       D  model width
    G  tokens of one step    C  code dimension        H  attention heads
    L  tokens of an image    R  pixels of a side      K  head dimension

`t` is an AR-step boundary (steps < t are known), `u` flow time in [0, 1]; a `code` is an integer, a
`token` a vector of the code space, `noise` a Gaussian vector. Never one for another.
"""

from typing import TYPE_CHECKING, Any

from dd_jax.system.errors import UserError

if TYPE_CHECKING:
    from dd_jax.pipeline import Pipeline, load, run

__version__ = "0.1.0"
__all__ = ["Pipeline", "UserError", "load", "run"]


def __getattr__(name: str) -> Any:
    """What needs JAX is imported when it is asked for: `import dd_jax` takes no time."""
    if name in __all__:
        from dd_jax import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
