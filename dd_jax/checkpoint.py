"""Orbax checkpoints with a checksum: saved in one step, kept by policy, verified when read."""

import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from dd_jax.errors import UserError


def checksum(tree: Any) -> int:
    """CRC-32 over all leaves in tree order."""
    crc = 0
    for leaf in jax.tree.leaves(tree):
        crc = zlib.crc32(np.ascontiguousarray(jax.device_get(leaf)).tobytes(), crc)
    return crc


class Checkpoints:
    """The checkpoints of one training run, newest last; a killed save leaves nothing behind."""

    def __init__(self, folder: Path, keep: int = 2):
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        try:
            self._manager = ocp.CheckpointManager(self.folder, options=options)
        except OSError as error:
            raise self._unwritable(error) from error

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    def save(self, step: int, state: Any) -> None:
        """Write `state` in the background; a second save first waits for the one before."""
        meta = {"checksum": checksum(state)}
        try:
            self._manager.save(
                step, args=ocp.args.Composite(state=ocp.args.StandardSave(state), meta=ocp.args.JsonSave(meta))
            )
        except OSError as error:
            raise self._unwritable(error) from error

    def restore(self, like: Any, step: int | None = None) -> Any:
        """The state saved at `step` (default: the newest). UserError if it is damaged.

        `like` gives its structure, shapes and places: arrays, or what `jax.eval_shape` returns (then all of it is
        on one device). Saved on another mesh or number of devices, it is cut anew while it is read.
        """
        step = self.latest() if step is None else step
        path = self.folder / str(step)
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])

        def at(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here)

        abstract = jax.tree.map(at, like)
        items = ocp.args.Composite(state=ocp.args.StandardRestore(abstract), meta=ocp.args.JsonRestore())
        try:
            found = self._manager.restore(step, args=items)
        except Exception as error:  # whatever the reader met: the file is not what was written
            first = str(error).strip().splitlines()
            raise UserError(self._damaged(path, first[0][:200] if first else repr(error))) from error
        if checksum(found.state) != found.meta["checksum"]:
            raise UserError(self._damaged(path, "its checksum does not match"))
        return found.state

    def close(self) -> None:
        """Wait for the last save."""
        try:
            self._manager.wait_until_finished()
            self._manager.close()
        except OSError as error:
            raise self._unwritable(error) from error

    def _damaged(self, path: Path, why: str) -> str:
        return f"checkpoint {path} is damaged ({why}); delete that folder to go on from the one before it"

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"cannot write checkpoints to {self.folder}: {error.strerror or error}; free some space")
