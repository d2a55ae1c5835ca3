"""Training that goes on from weights of other classes: their class table is fitted, their trunk may stay or be slow.

A class that shares a name with one of theirs keeps that row, whatever its number is now; so does the row of no class.
"""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from dd_jax.data import labels
from dd_jax.method.interfaces import Params
from dd_jax.system import weights
from dd_jax.system.errors import UserError
from dd_jax.training.loop import Recipe

SHOWN = 8  # names in a message
INITIAL = ("gate_init",)  # of a model: how it began, not what it is
CODES = ("vocab", "code_dim", "side", "sides")  # of a tokenizer: what a transformer knows of it


@dataclasses.dataclass(frozen=True)
class Start:
    """Weights to go on from, and the class of theirs whose row each of our classes keeps; none: it is new to them."""

    folder: Path
    part: str
    rows: tuple[int | None, ...]
    names: tuple[str, ...]  # of our classes
    theirs: int  # how many classes they have

    @classmethod
    def of(cls, setting: str, folder: Path, part: str, config: ConfigDict, tokenizer: Path | None) -> "Start":
        """What `setting` names. Nothing but descriptions is read.

        UserError where it holds no such part, one of other sizes or codes, or two of ours are one class of theirs.
        """
        about, told = weights.describe(folder), f"{setting}={folder}"
        if about.get("part") != part:
            raise UserError(f"{told} holds a {about.get('part')}: name a {part}'s folder, or a run that has one")
        _check_sizes(told, about["config"], config)
        _check_tokenizer(told, folder, about, tokenizer)
        mine, theirs = _named(config.data), _named(about["config"]["data"])
        if config.get("text") or (mine[:2] == theirs[:2] and not theirs[2]):
            theirs = mine  # captions have no table; names of classes were once not noted
        names = labels.short(*mine)
        return cls(folder, part, _rows(told, names, labels.counterparts(mine, theirs)), names, theirs[1])

    @property
    def whole(self) -> bool:
        """Are the classes theirs, in their order?"""
        return self.rows == tuple(range(self.theirs))

    @property
    def told(self) -> str:
        """One line: which classes keep their row, and what the others begin with."""
        kept = [name for name, row in zip(self.names, self.rows, strict=True) if row is not None]
        if self.whole:
            return f"{self.part}: from {self.folder}, all of it"
        listed = ", ".join(kept[:SHOWN]) + (f" and {len(kept) - SHOWN} more" if len(kept) > SHOWN else "")
        others = "the mean of all" if self.part == "teacher" else "the teacher's"
        new = f"; the others begin at {others}" if len(kept) < len(self.names) else ""
        share = f"{len(kept)} of {len(self.names)} classes keep their row"
        return f"{self.part}: from {self.folder}: {share}{': ' * bool(kept)}{listed}{new}"

    def load(self, expected: Params, table: tuple[str, ...]) -> Params:
        """The teacher's parameters, fitted; `expected`: shapes with our classes. UserError for others."""
        if not self.whole:
            rows = jax.ShapeDtypeStruct((self.theirs + 1, at(expected, self._place(table)).shape[1]), jnp.float32)
            expected = put(expected, table, rows)
        found = weights.on_device(weights.load(self.folder, expected, dtype=None))
        return self.fit(found, table)

    def fit(self, params: Params, table: tuple[str, ...], other: Params | None = None) -> Params:
        """`params` with a row for each of our classes; new ones begin with those of `other`, which has our classes.

        Without it at the mean of theirs, all alike: no two are read together, so nothing has to tell them apart.
        """
        if self.whole:
            return params
        theirs = at(params, self._place(table))
        if len(theirs) != self.theirs + 1:
            raise UserError(f"{self.folder} has {len(theirs) - 1} classes and says {self.theirs}: {weights.AGAIN}")
        new_Cx1 = np.array([[row is None] for row in self.rows])
        fresh = at(other, table)[:-1] if other else jnp.mean(theirs[:-1], 0)
        rows_CxD = jnp.where(new_Cx1, fresh, theirs[np.array([row or 0 for row in self.rows])])
        return put(params, table, jnp.concatenate([rows_CxD, theirs[-1:]]))

    def _place(self, table: tuple[str, ...]) -> tuple[str, ...]:
        if not table:
            raise UserError(f"{self.folder} has other classes: a Family says where it keeps them, class_table=(...)")
        return table


@dataclasses.dataclass(frozen=True)
class Pace:
    """How fast all but a class table learns: a share of the rate. At 0 it stays as it is, to the bit."""

    share: float = 1.0
    table: tuple[str, ...] = ()  # its path in what is trained

    def optimizer(self, recipe: Recipe) -> optax.GradientTransformation:
        """The recipe's. What stays has no moments; what is slow is clipped, and decays, with the rest."""
        if self.share == 1:
            return recipe.optimizer()
        if self.share:
            return optax.chain(recipe.optimizer(), optax.stateless(lambda change, _: self._scaled(change)))
        named = tuple(name for name in recipe.no_decay if name in self.table)  # the others are not among its arrays
        learns = dataclasses.replace(recipe, no_decay=named).optimizer()
        return optax.partition({"learns": learns, "stays": optax.set_to_zero()}, self._kinds)

    def held(self, params: Params) -> Params:
        """The same, without gradients of what stays: they are not computed."""
        if self.share:
            return params
        return self._each(lambda x, learns: x if learns else jax.lax.stop_gradient(x), params)

    def _scaled(self, change: Params) -> Params:
        return self._each(lambda x, learns: x if learns else self.share * x, change)

    def _kinds(self, params: Params) -> Any:
        return self._each(lambda _, learns: "learns" if learns else "stays", params)

    def _each(self, fn: Any, params: Params) -> Any:
        """fn(array, whether it is the class table) of every array."""

        def one(path: tuple, x: Any) -> Any:
            return fn(x, tuple(key.key for key in path) == self.table)

        return jax.tree_util.tree_map_with_path(one, params)


def at(params: Params, path: tuple[str, ...]) -> Any:
    """The array at a path."""
    for name in path:
        params = params[name]
    return params


def put(params: Params, path: tuple[str, ...], value: Any) -> Params:
    """The same with another array there."""
    return {**params, path[0]: put(params[path[0]], path[1:], value)} if path else value


def _named(data: Any) -> labels.Named:
    return data["name"], data["classes"], tuple(data.get("class_names") or ())


def _rows(told: str, names: tuple[str, ...], found: tuple[tuple[int, ...], ...]) -> tuple[int | None, ...]:
    """The one class of theirs that each of ours is. UserError for a name that means several, or two of ours one."""
    way = "name them otherwise (a WordNet id names one class), --config.data.class_names=..."
    taken: dict[int, str] = {}
    for name, classes in zip(names, found, strict=True):
        if len(classes) > 1:
            raise UserError(f"{told}: {name!r} names its classes {list(classes)}: {way}")
        if classes and taken.setdefault(classes[0], name) != name:
            raise UserError(f"{told}: {taken[classes[0]]!r} and {name!r} are both its class {classes[0]}: {way}")
    return tuple(classes[0] if classes else None for classes in found)


def _check_sizes(told: str, theirs: dict[str, Any], config: ConfigDict) -> None:
    """UserError for a setting of model or codes that differs: also those that no shape shows, such as heads."""
    mine = config.to_dict()
    if (family := theirs.get("family")) != config.family:
        raise UserError(f"{told} is of the family {family}, the config of {config.family}: choose one of {family}")
    model = {*mine["model"], *theirs.get("model", {})} - {*INITIAL}
    for section, fields in {"model": model, "tokenizer": CODES}.items():
        for name in sorted(fields):
            old, new = (one.get(section, {}).get(name) for one in (theirs, mine))
            absent = old is None or new is None  # one of them leaves it to its default: switches are off
            if (absent and (old is True or new is True)) or (not absent and _plain(old) != _plain(new)):
                what = f"config.{section}.{name}={_shown(new or False)}"
                way = f"set --config.{section}.{name}={_shown(old or False)}, or name weights of this model"
                raise UserError(f"{told} has {section}.{name}={_shown(old or False)}, and {what}: {way}")


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _shown(value: Any) -> str:
    return f"'{tuple(value)}'" if isinstance(value, list | tuple) else str(value).lower()


def _check_tokenizer(told: str, folder: Path, about: dict[str, Any], tokenizer: Path | None) -> None:
    """UserError unless the run reads pictures by the tokenizer that these weights know, as far as they say which."""
    name = (about.get("companions") or {}).get("tokenizer")
    if tokenizer is None or not name:
        return
    beside, mine = weights.beside(folder, name), weights.describe(tokenizer)
    if weights.present(beside):
        same = _origin(weights.describe(beside)) == _origin(mine)
    else:
        same = Path(str(name)).name == Path(str(mine.get("id"))).name
    if not same:
        raise UserError(f"{told} knows the codes of {name}, and config.weights.tokenizer={tokenizer} is another one")


def _origin(about: dict[str, Any]) -> Any:
    """What two folders of the same weights share, in whatever precision."""
    return about.get("source", {}).get("sha256") or about.get("sha256")
