"""Distilled Decoding in JAX: image autoregressive models that draw in one or two steps.

Shapes live in names. One letter a dimension, e.g. `logits_BxLxV`:

    B  batch                 P  condition tokens      V  codebook entries
    S  AR steps              N  P + L positions       D  model width
    G  tokens of one step    C  code dimension        H  attention heads
    L  tokens of an image    R  pixels of a side      K  head dimension

`t` is an AR-step boundary (steps < t are known), `u` flow time in [0, 1]; a `code` is an integer, a
`token` a vector of the code space, `noise` a Gaussian vector. Never one for another.
"""

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dd_jax.system.errors import UserError

if TYPE_CHECKING:
    from dd_jax.pipeline import Pipeline, load, run, slerp

__version__ = "0.1.0"
__all__ = ["Pipeline", "UserError", "load", "run", "slerp"]


class _Checkout:
    """Finds dd_jax.configs and dd_jax.scripts in a checkout, where these two folders lie beside the package.

    Installed they lie in it (pyproject.toml says so), and an editable install has setuptools' own finder: this one is
    for the source tree as it is. Other projects have `configs` and `scripts` too, so nothing uses these bare names.
    """

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> Any:
        if name not in (f"{__name__}.configs", f"{__name__}.scripts"):
            return None
        folder = Path(__file__).resolve().parents[1] / name.rpartition(".")[2]
        return importlib.util.spec_from_file_location(
            name, folder / "__init__.py", submodule_search_locations=[str(folder)]
        )


if not Path(__file__).with_name("configs").is_dir():
    sys.meta_path.append(_Checkout)


def __getattr__(name: str) -> Any:
    """What needs JAX is imported when it is asked for: `import dd_jax` takes no time."""
    if name in __all__:
        from dd_jax import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
