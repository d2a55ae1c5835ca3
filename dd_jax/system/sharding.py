"""Where arrays live: one mesh (`data`, `model`), rules by path, and the examples of a batch spread over `data`.

Rules are data: (regex, an axis or None for each dimension), the first that is found in an array's path counts. Paths
of the moving average and of the optimizer's moments end like their parameter's, so one table places them all.
Matrices that the rules leave whole along some dimension are also cut over `data` (FSDP): each device keeps its part
of every parameter, moment and average, and gathers a layer's weights when it runs it.

One device needs none of it: a `Placement` without a mesh does nothing, and programs are as if this file were not.
"""

import dataclasses
import functools
import math
import re
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from dd_jax.system import processes
from dd_jax.system.errors import UserError

AXES = DATA, MODEL = ("data", "model")
LEAST = 2**14  # elements: smaller arrays are not worth gathering
Rules = tuple[tuple[str, tuple[str | None, ...]], ...]


def make_mesh(shape: Sequence[int], devices: Sequence[Any] | None = None) -> Mesh:
    """The (`data`, `model`) mesh over all devices; a -1 stands for as many as are left, (1, 1) for the first alone.

    `devices`: those of another machine, for ahead-of-time compilation. UserError if the shape is not theirs.
    """
    devices = jax.devices() if devices is None else devices
    devices = devices[:1] if tuple(shape) == (1, 1) and processes.count() == 1 else devices
    count, told = len(devices), f"config.mesh is {tuple(shape)}"
    if len(shape) != 2 or any(size == 0 or size < -1 for size in shape) or tuple(shape) == (-1, -1):
        raise UserError(f"{told}: give two sizes, (data, model), one of which may be -1: whatever is left")
    rest = count // math.prod(size for size in shape if size > 0)
    wanted = tuple(rest if size == -1 else size for size in shape)
    if math.prod(wanted) != count:
        kind = devices[0].device_kind
        raise UserError(
            f"{told}, and there are {count} devices ({kind}): data x model must be {count}; "
            f"--config.mesh='(-1,1)' takes them all, '(1,1)' takes one"
        )
    grid = mesh_utils.create_device_mesh(wanted, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * 2)


def constrain(x: jax.Array) -> jax.Array:
    """Block boundary: (B, ...) has its examples spread over `data`, all else whole. Nothing happens without a mesh.

    Without this hint the partitioner may spread activations by width, like the weights that they meet.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or DATA in mesh.manual_axes or x.shape[0] % mesh.shape[DATA]:
        return x
    return jax.lax.with_sharding_constraint(x, P(DATA))


def path_of(keys: tuple) -> str:
    """A pytree path as the rules see it: `opt/1/0/mu/trunk/layers_3/attention/wqkv/kernel`."""
    return jax.tree_util.keystr(keys, simple=True, separator="/")


@dataclasses.dataclass(frozen=True)
class Placement:
    """A mesh and a family's rules; without a mesh, one device."""

    mesh: Mesh | None = None
    rules: Rules = ()
    least: int = LEAST

    @property
    def rows(self) -> int:
        """A batch is cut into this many parts."""
        return 1 if self.mesh is None else self.mesh.shape[DATA]

    def rule(self, path: str) -> tuple[str, tuple[str | None, ...]]:
        """The first rule whose pattern is found in `path`; none: ("", ())."""
        return next((rule for rule in self.rules if re.search(rule[0], path)), ("", ()))

    def spec(self, path: str, shape: tuple[int, ...], fsdp: bool = True) -> P:
        """How one array is cut. An axis that does not divide its dimension is left out."""
        assert self.mesh is not None
        size = self.mesh.shape
        _, found = self.rule(path)
        axes = [*found, *[None] * len(shape)][: len(shape)]
        axes = [axis if axis and dim % size[axis] == 0 else None for axis, dim in zip(axes, shape, strict=True)]
        if not fsdp:
            return P(*(axis if axis != DATA else None for axis in axes))
        if len(shape) > 1 and math.prod(shape) >= self.least and DATA not in axes:
            free = [i for i, dim in enumerate(shape) if axes[i] is None and dim % size[DATA] == 0]
            if free:
                axes[max(free, key=lambda i: shape[i])] = DATA
        return P(*axes)

    def shardings(self, tree: Any, fsdp: bool = True) -> Any:
        """`tree` (parameters or a whole training state; arrays, or only their shapes) -> shardings by path.

        Without `fsdp` every array is whole along `data`: for programs that read the weights in every one of many
        steps, and would gather them each time.
        """

        def one(keys: tuple, leaf: Any) -> NamedSharding | None:
            return None if self.mesh is None else NamedSharding(self.mesh, self.spec(path_of(keys), leaf.shape, fsdp))

        return jax.tree_util.tree_map_with_path(one, tree)

    def spread(self, tree: Any, *axes: str) -> Any:
        """`tree` -> one sharding for all of it: the first dimension over `axes`, or a copy on every device."""
        return jax.tree.map(lambda _: None if self.mesh is None else NamedSharding(self.mesh, P(*axes)), tree)

    def put(self, tree: Any, fsdp: bool = True) -> Any:
        """Parameters or a state, to where the rules want them."""
        return tree if self.mesh is None else jax.tree.map(processes.place, tree, self.shardings(tree, fsdp))

    def whole(self, tree: Any) -> Any:
        """A copy on every device: what a step reads and does not train."""
        return tree if self.mesh is None else jax.tree.map(processes.place, tree, self.spread(tree))

    def mine(self, batch: int) -> np.ndarray:
        """Which rows of a batch this process's devices take: all of them, where it is alone."""
        each = batch // self.rows
        return np.concatenate([np.arange(i * each, (i + 1) * each) for i in self._parts()])

    def _parts(self) -> list[int]:
        """The places along `data` where this process has devices."""
        if self.mesh is None:
            return [0]
        here = np.vectorize(lambda device: device.process_index == processes.index())(self.mesh.devices)
        return np.flatnonzero(here.any(1)).tolist()

    def batch(self, tree: Any) -> Any:
        """Arrays (B, ...) -> their examples spread over `data`. Each process gives its own rows (see `mine`)."""
        if self.mesh is None:
            return tree
        parts = self._parts()

        def rows(x: np.ndarray) -> tuple[tuple[int, ...], Callable]:
            each = len(x) // len(parts)

            def part(at: tuple[slice, ...]) -> np.ndarray:
                first = parts.index((at[0].start or 0) // each) * each
                return x[first : first + each]

            return (each * self.rows, *x.shape[1:]), part

        return jax.tree.map(lambda x, at: processes.place(x, at, rows), tree, self.spread(tree, DATA))

    def check_batch(self, name: str, batch: int, pieces: int = 1) -> None:
        """UserError if `batch`, in `pieces` micro-batches, does not spread evenly."""
        if batch % (pieces * self.rows):
            parts = f"{pieces} micro-batches on {self.rows} devices" if pieces > 1 else f"{self.rows} devices"
            raise UserError(f"{name}={batch} does not spread over {parts}: make it a multiple of {pieces * self.rows}")

    def jit(self, fn: Callable, **options: Any) -> Any:
        """`jax.jit` of a function whose blocks then know the mesh; arrays stay where they were put."""
        if self.mesh is None:
            return jax.jit(fn, **options)
        abstract = self.mesh.abstract_mesh

        @functools.wraps(fn)
        def under_mesh(*args: Any) -> Any:
            with jax.sharding.use_abstract_mesh(abstract):
                return fn(*args)

        return jax.jit(under_mesh, **options)

    def step(self, fn: Callable) -> Any:
        """`fn(state, ...) -> (state, more)` jitted: the state is donated, and stays placed as it came."""

        def placed(state: Any, *args: Any) -> tuple[Any, Any]:
            state, more = fn(state, *args)
            return self.keep(state), more

        return self.jit(placed, donate_argnums=0)

    def keep(self, tree: Any) -> Any:
        """Inside a jitted function: what it returns is placed as what came in."""
        if self.mesh is None:
            return tree
        return jax.tree.map(jax.lax.with_sharding_constraint, tree, self.shardings(tree))

    def everywhere(self, tree: Any) -> Any:
        """Inside a jitted function: a result that every process can read."""
        return tree if self.mesh is None else jax.tree.map(jax.lax.with_sharding_constraint, tree, self.spread(tree))

    def each(self, fn: Callable) -> Callable:
        """fn(params, *rows), one example a row, as one program that runs on every device with its own rows.

        Nothing crosses `data`, by construction; what `model` needs is the partitioner's business.
        """
        if self.mesh is None:
            return fn

        def local(params: Any, *rows: Any) -> Any:
            given = (P(), *(P(DATA) for _ in rows))
            spread = jax.shard_map(
                fn, mesh=self.mesh, in_specs=given, out_specs=P(DATA), axis_names={DATA}, check_vma=False
            )
            return spread(params, *rows)

        return jax.jit(local)


ALONE = Placement()
