"""Orbax checkpoints: parameters, average, optimizer, step and the input's place in one, with a checksum of all numbers.

Saving does not stop training: the state is copied on its devices and summed there, the copy is read while the next step
runs, and written behind it. The sum is of integers, so that every mesh and any number of processes find the same.
"""

import contextlib
import dataclasses
import functools
import os
import re
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from dd_jax.system import processes
from dd_jax.system.errors import UserError

PATTERNS = frozenset("[]*?\\")  # what Orbax and TensorStore read as something else in the name of a folder
WORD = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def _array_sum(leaf: jax.Array) -> jax.Array:
    """uint32: each 32-bit word times an odd number of its place, modulo 2^32.

    A word that differs is always seen, two of them but for one chance in 2^31.
    """
    word = leaf.astype(jnp.uint8) if leaf.dtype == bool else leaf
    word = jax.lax.bitcast_convert_type(word, WORD[word.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(word.shape, jnp.uint32)
    for axis, size in enumerate(word.shape):
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, word.shape, axis)
    odd = (place * jnp.uint32(0x9E3779B1)) | jnp.uint32(1)
    return jnp.sum(word * odd, dtype=jnp.uint32)


_one = jax.jit(_array_sum)
_all = jax.jit(lambda leaves: [_array_sum(leaf) for leaf in leaves])


def checksum(tree: Any) -> int:
    """Below 2^32, over the sums of all leaves in tree order."""
    return _total(_sums(tree))


def _sums(tree: Any) -> list[jax.Array]:
    """On one device array by array: compiled once a shape, not once a tree.

    Over several devices in one program: many small ones, with a reduction each, can wait for one another where XLA's
    CPU backend has fewer threads than that takes.
    """
    leaves = jax.tree.leaves(tree)
    spread = any(len(leaf.sharding.device_set) > 1 for leaf in leaves if isinstance(leaf, jax.Array))
    return _all(leaves) if spread else [_one(leaf) for leaf in leaves]


def _total(sums: list[jax.Array]) -> int:
    return functools.reduce(lambda total, one: (total * 31 + int(one)) % 2**32, jax.device_get(sums), 0)


def _names(tree: Any) -> list[tuple[str, Any]]:
    """Its arrays, each with the name that Orbax stores it under."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return [(jax.tree_util.keystr(path, simple=True, separator="."), x) for path, x in leaves]


def _fields(state: Any) -> Any:
    """A state as it is stored: its fields by name, but for those that hold nothing. Other trees are what they are."""
    if not dataclasses.is_dataclass(state):
        return state
    found = {field.name: getattr(state, field.name) for field in dataclasses.fields(state)}
    return {name: x for name, x in found.items() if x is not None}


def _filled(state: Any, fields: Any) -> Any:
    """`state` with what `_fields` made of another one of its kind."""
    return fields if _fields(state) is state else dataclasses.replace(state, **fields)


def _saved(like: Any, there: Iterable[str]) -> Any:
    """`like` without those fields of its class's LATER that a checkpoint with these names has not."""
    stored = {name.partition(".")[0] for name in there}
    return dataclasses.replace(like, **{name: None for name in like.LATER if name not in stored})


def _kind(x: Any) -> str:
    """float32 (3, 4)."""
    return f"{jnp.dtype(x.dtype).name} {tuple(x.shape)}"


def _first(error: Exception) -> str:
    """What it says, in one line."""
    return (str(error).strip() or repr(error)).splitlines()[0][:200]


@contextlib.contextmanager
def _plainly_named(folder: Path) -> Iterator[Path]:
    """`folder` under a name that is no pattern: Orbax globs the paths that it writes to, TensorStore turns \\ into /.

    UserError where several processes would each need such a name.
    """
    if not PATTERNS & {*str(folder)}:
        yield folder
        return
    if processes.count() > 1 or PATTERNS & {*tempfile.gettempdir()}:
        raise UserError(f"checkpoints cannot be written to {folder}: choose a --workdir without [ ] * ? and \\")
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="dd_jax-") as place:
        link = Path(place) / "checkpoints"
        link.symlink_to(folder, target_is_directory=True)
        try:
            yield link
        finally:
            link.unlink()


class Checkpoints:
    """The checkpoints of one training run, newest last; a killed save leaves nothing behind."""

    def __init__(self, folder: Path, keep: int = 2):
        import orbax.checkpoint as ocp  # slow to import: who draws does without

        self.folder, self._ocp = folder.absolute(), ocp
        self._waiting: tuple | None = None
        self._links = contextlib.ExitStack()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        try:
            with self._writing():
                self._plain = self._links.enter_context(_plainly_named(self.folder))
                self._manager = ocp.CheckpointManager(self._plain, options=options)
        except UserError:
            raise
        except Exception as error:  # a step's own description says nonsense; one that is missing or torn does no harm
            raise UserError(
                f"one of the checkpoints in {self.folder} is damaged (its _CHECKPOINT_METADATA: {_first(error)}): "
                "delete that file, the arrays do not need it"
            ) from error

    def latest(self) -> int | None:
        """Step of the newest complete checkpoint."""
        return self._manager.latest_step()

    @staticmethod
    def check(state: Any) -> None:
        """UserError for arrays that would be stored as one: Orbax joins the parts of their paths by dots."""
        twice = [name for name, count in Counter(name for name, _ in _names(state)).items() if count > 1]
        if twice:
            raise UserError(f"two arrays would be saved under the name {twice[0]!r}: leave dots out of their names")

    def save(self, step: int, state: Any, data: dict[str, Any] | None = None) -> None:
        """Copy `state` on its devices; it may be donated at once. `flush` or `close` writes it.

        data: what the input needs to go on from here. UserError as in `check`.
        """
        self.check(state)
        self.flush()
        self._waiting = (step, jax.tree.map(jnp.copy, state), _sums(state), data or {})

    def flush(self) -> None:
        """Begin to write what was saved last; call it when the devices have work again."""
        if self._waiting is None:
            return
        (step, state, sums, data), self._waiting = self._waiting, None
        meta, args = {"sum": _total(sums), "data": data}, self._ocp.args
        items = args.Composite(state=args.StandardSave(_fields(state)), meta=args.JsonSave(meta))
        with self._writing():
            self._manager.save(step, args=items)

    def restore(self, like: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
        """(the state saved at `step`, by default the newest; its input's place).

        UserError if there is none, if it is damaged, or if other arrays were saved than `like` has.

        `like` gives its structure, shapes and places: arrays, or what `jax.eval_shape` returns (then all of it is
        on one device). Saved on another mesh or number of devices, it is cut anew while it is read. Of the fields that
        its class names in LATER, those that an earlier version did not save stay as they are.
        """
        if (step := self.latest() if step is None else step) is None:
            raise UserError(f"there is no checkpoint in {self.folder}: run its stage first")
        path = self.folder / str(step)
        here, there = jax.sharding.SingleDeviceSharding(jax.local_devices()[0]), self._there(step)
        given = _saved(like, there) if there and hasattr(like, "LATER") else like
        self._compare(path, given, there)

        def at(x: Any) -> jax.ShapeDtypeStruct:
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None) or here)

        args = self._ocp.args
        items = args.Composite(state=args.StandardRestore(jax.tree.map(at, _fields(given))), meta=args.JsonRestore())
        try:
            found = self._manager.restore(step, args=items)
        except Exception as error:  # whatever the reader met: the file is not what was written
            first = _first(error)
            if "structure" in first:  # the arrays are alike: an optimizer's parts without any are not
                raise UserError(self._other(path, "their optimizers have other parts")) from error
            if isinstance(error, MemoryError | PermissionError) or first.startswith(("PERMISSION", "RESOURCE")):
                raise UserError(f"checkpoint {path} cannot be read now ({first}), it may be whole: retry") from error
            raise UserError(self._damaged(path, first)) from error
        meta = found.meta if isinstance(found.meta, dict) else {}
        if checksum(_filled(given, found.state)) != meta.get("sum"):
            raise UserError(self._damaged(path, "its checksum does not match, or an older version wrote it"))
        return _filled(like, found.state), meta.get("data", {})

    def close(self) -> None:
        """Write what waits, and wait for it."""
        with self._links, self._writing():
            self.flush()
            self._manager.wait_until_finished()
            self._manager.close()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def _there(self, step: int) -> dict[str, str]:
        """What a checkpoint says that it holds: {name: kind}. Empty if it says nothing: reading it will tell."""
        try:
            stored: Any = self._ocp.StandardCheckpointHandler().metadata(self._plain / str(step) / "state")
            return {name: _kind(x) for name, x in _names(stored) if hasattr(x, "shape")}
        except Exception:
            return {}

    def _compare(self, path: Path, like: Any, there: dict[str, str]) -> None:
        """UserError that says what was saved otherwise than `like`: names, shapes, types."""
        here = {name: _kind(x) for name, x in _names(like)}
        odd = sorted({*there.items()} ^ {*here.items()}, key=lambda item: (not item[0].startswith("params"), item))
        names = list(dict.fromkeys(name for name, _ in odd))
        if there and names:
            told = [f"{name} is {there.get(name, 'not')} there, {here.get(name, 'not')} here" for name in names[:3]]
            more = f"; and {len(names) - 3} more" if len(names) > 3 else ""
            raise UserError(self._other(path, "; ".join(told) + more))

    def _other(self, path: Path, why: str) -> str:
        return (
            f"checkpoint {path} is of another model or optimizer ({why}): set the config back to what it was made "
            "with, or choose another --workdir"
        )

    def _damaged(self, path: Path, why: str) -> str:
        before = [step for step in self._manager.all_steps() if step < int(path.name)]
        way = f"go on from step {max(before)}" if before else "begin anew"
        return f"checkpoint {path} is damaged ({why}); move or delete that folder to {way}"

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """UserError where the disk fails: an OSError, or TensorStore's ValueError with the number of one."""
        try:
            yield
        except (OSError, ValueError) as error:
            number = re.search(r"os_error_code='(\d+)'", str(error))
            if not isinstance(error, OSError) and number is None:
                raise
            why = os.strerror(int(number[1])) if number else getattr(error, "strerror", None) or error
            raise UserError(
                f"cannot write checkpoints to {self.folder}: {why}; those that it holds are whole: free some space and "
                "run the same command again"
            ) from error
