"""Process-wide settings, made once by programs (never on import of the library)."""

import ctypes
import os
import sys
from collections.abc import Callable

import jax

from dd_jax.system import files
from dd_jax.system.errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX, M_ARENA_MAX = -1, -4, -8


def keep_freed_memory() -> None:
    """Let glibc keep what XLA's CPU backend frees.

    Every execution allocates its temporaries anew; glibc maps and unmaps them, and the page faults cost a
    third of a small training step (44,000 faults and 205 ms a step before, none and 143 ms after).
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt:
        mallopt(M_ARENA_MAX, 1)
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def cache_compilations() -> None:
    """Keep compiled programs in the user's cache folder, if there is one, so that a second run starts at once."""
    if getattr(jax.config, "jax_compilation_cache_dir", None) is None and (folder := files.cache()):
        jax.config.update("jax_compilation_cache_dir", str(folder / "xla"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 1.0)


def jit_once(fn: Callable) -> Callable:
    """`jax.jit` for little work that is done once: XLA's CPU backend compiles it in half the time, unoptimised."""
    options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else None
    return jax.jit(fn, compiler_options=options)


def plain_numbers() -> None:
    """float32 and NumPy's promotion, as these programs are written: a shell may have other settings for others."""
    jax.config.update("jax_enable_x64", False)
    jax.config.update("jax_numpy_dtype_promotion", "standard")
    jax.config.update("jax_numpy_rank_promotion", "allow")


def find_devices() -> None:
    """UserError where JAX finds none of the kind that the environment asks for."""
    try:
        jax.devices()
    except (RuntimeError, AssertionError) as error:  # the second, and empty: a plugin that is there finds none
        asked = os.environ.get("JAX_PLATFORMS", "")
        told = (str(error).strip() or "JAX finds none").splitlines()[0][:200]
        way_out = "unset JAX_PLATFORMS, or install what that platform needs (README: cuda12, cuda13, tpu)"
        raise UserError(f"JAX_PLATFORMS={asked}: no such device ({told}); {way_out}") from error


def setup() -> None:
    """What every program wants, several processes having joined before. UserError without a device."""
    plain_numbers()
    keep_freed_memory()
    cache_compilations()
    find_devices()
