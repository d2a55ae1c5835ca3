"""Names of ideas: those that come along stand in a table, others are imported, `package.module:attribute`."""

import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from dd_jax.system.errors import UserError

T = TypeVar("T")
MISSING = object()
OUTSIDE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*)")


def outside(name: str) -> bool:
    """Does it name something outside the package, `package.module:attribute`?"""
    return OUTSIDE.fullmatch(name) is not None


def find(name: str, known: Mapping[str, T], choose: str, kind: type | None = None) -> T:
    """What `name` stands for: an entry of `known`, else an attribute of a module, imported now.

    `choose` is how the error begins where there is none, as in "config.family is 'gan': choose one of". UserError too
    for what cannot be imported, and for what is no `kind` (none: nothing that can be called).
    """
    if name in known:
        return known[name]
    if not outside(name):
        *most, last = known
        names = f"{', '.join(most)} or {last}" if most else last
        raise UserError(f"{choose} {names}, or name your own, package.module:attribute")
    found = imported(name)
    if not (callable(found) if kind is None else isinstance(found, kind)):
        wanted = "something to call" if kind is None else f"a {kind.__module__}.{kind.__name__}"
        raise UserError(f"{name} is of type {type(found).__name__}: it must be {wanted} (see docs/extending.md)")
    return found


def imported(name: str) -> Any:
    """The attribute that `package.module:attribute` names. UserError, in one line, where there is none."""
    where, _, attribute = name.partition(":")
    try:
        module = importlib.import_module(where)
        if (found := getattr(module, attribute, MISSING)) is not MISSING:
            return found
        there = [one for one in dir(module) if not one.startswith("_")]
    except Exception as error:  # whatever code of one's own raises while it is imported
        told = " ".join(f"{type(error).__name__}: {error}".split())
        lies = "its module must be installed, or lie in the current folder or on PYTHONPATH"
        raise UserError(f"{name} cannot be imported ({told}): {lies}") from error
    near = difflib.get_close_matches(attribute, there, 3)
    has = f"did you mean {' or '.join(near)}?" if near else f"it has {', '.join(there[:8]) or 'nothing'}"
    path = f" ({module.__file__})" if getattr(module, "__file__", None) else ""
    raise UserError(f"{name}: the module {where} is there{path}, and has no {attribute!r}: {has}")


def check_trust(named: Iterable[tuple[str, str]], trust: Iterable[str]) -> None:
    """UserError if a (setting, name) of a stored config names code outside the package, in no module of `trust`."""
    for setting, name in named:
        module = name.partition(":")[0]
        if outside(name) and module not in {*trust}:
            raise UserError(
                f"the stored config.{setting} is {name!r}, code from outside the package, which opening it would run: "
                f"if you trust it, dd_jax.load(folder, trust=[{module!r}])"
            )
