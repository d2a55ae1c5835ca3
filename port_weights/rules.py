"""Strict mapping between a released state dict and our parameters, both ways.

A `Table` is a list of rules. A rule names a parameter of ours by its path, `decoder/level{i}_up/conv/kernel`
where `{i}` stands for digits; the key or keys of the file that it is made of, with the same fields,
`decoder.up.{i}.upsample.conv.weight`; and a `Transform`, a pair of inverse functions. `convert` goes through
the parameters that the model expects, so nothing stays unset, and every key of the file must be read exactly
once or match a stray: buffers and leftovers that carry no weight. `export` runs the same table backwards.

To add a model, write its table as data, with small helpers for what repeats (see `tokenizers.py`), and test
that `convert` accepts the published list of keys and shapes and that `export` gives it back.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dd_jax.system import files
from dd_jax.system.errors import UserError

Array = Any
SHOWN = 12  # keys of each complaint
FLOATS = ("float32", "float16", "bfloat16")


@dataclasses.dataclass(frozen=True)
class Transform:
    """`ours`: arrays of the file -> one parameter; `theirs`: its inverse."""

    ours: Callable[[list[Array]], Array]
    theirs: Callable[[Array], list[Array]]


def single(ours: Callable[[Array], Array], theirs: Callable[[Array], Array]) -> Transform:
    """A transform of one array."""
    return Transform(lambda arrays: ours(arrays[0]), lambda x: [theirs(x)])


def reshape(theirs: tuple[int, ...], ours: tuple[int, ...]) -> Transform:
    """Another view of the same numbers in the same order; one -1 is allowed in each shape."""
    return single(lambda x: x.reshape(ours), lambda x: x.reshape(theirs))


def chain(first: Transform, then: Transform) -> Transform:
    """`first`, then `then`, a transform of one array."""
    return Transform(lambda a: then.ours([first.ours(a)]), lambda x: first.theirs(then.theirs(x)[0]))


def concat(part: Transform, parts: int) -> Transform:
    """Several arrays of the file, each through `part`, side by side along our last axis (equal widths)."""
    return Transform(
        lambda arrays: np.concatenate([part.ours([x]) for x in arrays], -1),
        lambda x: [part.theirs(y)[0] for y in np.split(x, parts, -1)],
    )


SAME = single(lambda x: x, lambda x: x)
LINEAR = single(lambda x: x.T, lambda x: x.T)  # (out, in) <-> (in, out)
CONV = single(lambda x: x.transpose(2, 3, 1, 0), lambda x: x.transpose(3, 2, 0, 1))  # OIHW <-> HWIO


@dataclasses.dataclass(frozen=True)
class Rule:
    """`source`: key(s) of the file; `target`: path of ours; both may hold {fields} that stand for digits."""

    source: str | tuple[str, ...]
    target: str
    how: Transform = SAME

    @functools.cached_property
    def pattern(self) -> re.Pattern[str]:
        """`target` as a regular expression."""
        return re.compile(re.sub(r"\\\{(\w+)\\\}", r"(?P<\1>\\d+)", re.escape(self.target)))

    def keys(self, path: str) -> list[str] | None:
        """The file's keys behind a parameter, or None where the rule is about others."""
        match = self.pattern.fullmatch(path)
        if not match:
            return None
        source = (self.source,) if isinstance(self.source, str) else self.source
        return [key.format(**match.groupdict()) for key in source]


@dataclasses.dataclass(frozen=True)
class Table:
    """How one model's file maps to its parameters."""

    rules: Sequence[Rule]
    strays: Sequence[str] = ()  # regular expressions of keys that are dropped
    aliases: Mapping[str, str] = dataclasses.field(default_factory=dict)  # another name of a key -> that key

    def stray(self, key: str) -> bool:
        """Is this a key that carries no weight?"""
        return any(re.fullmatch(pattern, key) for pattern in self.strays)

    def find(self, path: str) -> tuple[Rule, list[str]] | None:
        """The rule of a parameter and the keys that it reads; two for one are a mistake in the table."""
        found = [(rule, keys) for rule in self.rules if (keys := rule.keys(path)) is not None]
        if len(found) > 1:
            raise UserError(f"two rules make {path}: {[rule.source for rule, _ in found]}; remove one from the table")
        return found[0] if found else None


def flatten(tree: Any) -> dict[str, Any]:
    """Leaves of nested dicts by path."""
    from flax import traverse_util  # only here: it is slow to import, and `list` and downloads do not need it

    return dict(traverse_util.flatten_dict(tree, sep="/"))


def unflatten(leaves: Mapping[str, Any]) -> Any:
    """The inverse of `flatten`."""
    from flax import traverse_util  # as above

    return traverse_util.unflatten_dict(dict(leaves), sep="/")


def wanted(table: Table, expected: Any) -> set[str]:
    """Every key of a file that a model's parameters are made of."""
    found = (table.find(path) for path in flatten(expected))
    return {key for one in found if one for key in one[1]}


def _places(state_dict: Mapping[str, Array], table: Table) -> dict[str, str]:
    """Key -> the name under which the file has it. UserError for two names of a key that hold different numbers."""
    names = {key: key for key in state_dict if key not in table.aliases}
    for alias, key in table.aliases.items():
        if alias in state_dict and names.setdefault(key, alias) == key:
            both = (state_dict[key], state_dict[alias])
            same = np.array_equal(*both)
            for x in both:
                files.let_go(x)
            if not same:
                raise UserError(f"{key} and {alias} are one matrix and hold different numbers: fetch the file again")
    return names


def convert(state_dict: Mapping[str, Array], table: Table, expected: Any) -> Any:
    """A file's arrays -> parameters shaped like `expected` (a nested dict of anything with a shape).

    They stay views of the file's arrays, in its precision, where the transform allows. Raises UserError that
    lists every missing, unknown, misshaped, mistyped and doubly used key.
    """
    params, read, missing, misshaped, mistyped = {}, Counter[str](), [], [], []
    place = _places(state_dict, table)
    for path, leaf in flatten(expected).items():
        found = table.find(path)
        if found is None:
            missing.append(f"{path} (no rule)")
            continue
        rule, keys = found
        read.update(keys)
        absent = [key for key in keys if key not in place]
        missing += absent
        if not absent:
            arrays = [np.asarray(state_dict[place[key]]) for key in keys]
            mistyped += [
                f"{key} ({x.dtype})" for key, x in zip(keys, arrays, strict=True) if str(x.dtype) not in FLOATS
            ]
            params[path] = _fit(rule, arrays, leaf)
            if params[path] is None:
                wanted = rule.how.theirs(np.broadcast_to(np.float32(0), leaf.shape))
                for key, x, want in zip(keys, arrays, wanted, strict=True):
                    misshaped.append(f"{key} is {x.shape}, should be {want.shape}")
    unknown = [key for key in place if key not in read and not table.stray(key)]
    twice = [key for key, count in read.items() if count > 1]
    _complain(missing=missing, unknown=unknown, misshaped=misshaped, mistyped=mistyped, duplicate=twice)
    return unflatten(params)


def export(params: Any, table: Table) -> dict[str, Array]:
    """The inverse of `convert`: parameters -> state dict, without the strays."""
    state_dict: dict[str, Array] = {}
    for path, leaf in flatten(params).items():
        found = table.find(path)
        if found is None:
            raise UserError(f"no rule exports {path}: add one to the table")
        rule, keys = found
        state_dict |= zip(keys, rule.how.theirs(np.asarray(leaf)), strict=True)
    return state_dict


def _fit(rule: Rule, arrays: list[Array], leaf: Any) -> Array | None:
    """The parameter, or None where the arrays have another shape than it needs."""
    try:
        x = rule.how.ours(arrays)
    except ValueError:  # a transpose or reshape that the array does not allow
        return None
    return x if x.shape == tuple(leaf.shape) else None


def _complain(**faults: list[str]) -> None:
    """One UserError for everything that is wrong."""
    parts = []
    for what, keys in faults.items():
        if keys:
            more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
            parts.append(f"{len(keys)} {what}: {', '.join(keys[:SHOWN])}{more}")
    if parts:
        raise UserError(f"weights do not fit the model ({'; '.join(parts)}): check that file and size belong together")
