"""One program on several processes, one a host or one a device: who is who, and where all wait for all.

With a single process, which is the rule, nothing here does anything.
"""

import os
import re
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from dd_jax.system.errors import UserError

WAIT = 24 * 3600  # seconds, at most, for the slowest process


def start(coordinator: str, processes: int | None = None, process: int | None = None) -> None:
    """Join the others, before JAX does anything; all but the first fall silent.

    coordinator: HOST:PORT of the first one, with their number and this one's place among them; "auto" where the
    machine tells it all (TPU pods, SLURM, MPI). UserError if they do not find each other.
    """
    if coordinator == "auto":
        given: dict[str, Any] = {}
    elif processes is None or process is None or not 0 <= process < processes:
        told = f"--coordinator={coordinator} --processes={processes} --process={process}"
        raise UserError(f"{told}: give all three, with process in 0..processes-1; or --coordinator=auto")
    else:
        _check(coordinator)
        given = {"coordinator_address": coordinator, "num_processes": processes, "process_id": process}
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    try:
        jax.distributed.initialize(**given)
    except (RuntimeError, ValueError, LookupError, OSError) as error:  # of the last two: half an environment
        first = f"{type(error).__name__}: {error}".strip().splitlines()[0][:200]
        raise UserError(f"--coordinator={coordinator}: the processes did not find each other ({first})") from error
    if not is_first():
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115


def _check(coordinator: str) -> None:
    """UserError for what is no HOST:PORT, or a host that nobody knows: JAX takes any, and may wait or abort."""
    found = re.fullmatch(r"(\[[0-9a-fA-F:.%]+\]|[^\s:/\[\]]+):([0-9]{1,5})", coordinator)
    if not found or not 0 < int(found[2]) < 1 << 16:
        raise UserError(f"--coordinator={coordinator} is not HOST:PORT, such as {socket.gethostname()}:1234, nor auto")
    try:
        socket.getaddrinfo(found[1].strip("[]"), int(found[2]))
    except (OSError, UnicodeError) as error:
        raise UserError(f"--coordinator={coordinator}: no host {found[1]} ({error}): check its name") from error


def leave(told: str) -> NoReturn:
    """End this one with a line and status 1. Among several at once: an orderly end waits for those that wait for it."""
    if not jax.distributed.is_initialized():
        sys.exit(told)
    print(told, file=sys.stderr, flush=True)
    os._exit(1)


def count() -> int:
    """How many there are."""
    return jax.process_count()


def index() -> int:
    """Which one this is."""
    return jax.process_index()


def is_first() -> bool:
    """Does this one print, and write what is written once?"""
    return jax.process_index() == 0


def meet(name: str) -> None:
    """Go on when all have come here; `name` is new each time."""
    if count() > 1:
        import orbax.checkpoint as ocp  # slow to import: who draws does without

        ocp.multihost.sync_global_processes(name, timeout=WAIT, processes={*range(count())})


def any_of(mask: np.ndarray) -> np.ndarray:
    """Where `mask`, each process's own, is true for any of them. All ask at once."""
    return np.any(multihost_utils.process_allgather(mask[None], tiled=True), axis=0)


def place(x: Any, sharding: Sharding, rows: Callable | None = None) -> jax.Array:
    """`x`, the same on every process, as one array over all their devices.

    rows: which part of `x` is meant by an index of the whole, where `x` is only this process's share.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(x, sharding)
    host = np.asarray(x)
    if rows is None:
        return jax.make_array_from_callback(host.shape, sharding, lambda at: host[at])
    shape, part = rows(host)
    return jax.make_array_from_callback(shape, sharding, part)
