"""Where in a checkpoint the weights are: dotted names of dicts inside dicts."""

from collections.abc import Mapping, Sequence
from typing import Any

from dd_jax.system import foreign
from dd_jax.system.numpy_pickle import Array
from dd_jax.system.stand_ins import Inert
from dd_jax.system.torch_names import Tensor

SHOWN = 6  # names of each list


def find(tree: Any, containers: Sequence[str]) -> Mapping[str, Any] | None:
    """The first of `containers` that is a mapping from names to tensors."""
    for prefix in (False, True)[: 1 + (len(containers) == 1)]:  # as part of keys only where a person says so
        for name in containers:
            found = _descend(tree, [part for part in name.split(".") if part], prefix)
            if _holds_weights(found):
                return found
    return None


def _descend(tree: Any, parts: list[str], prefix: bool) -> Any:
    """What lies under a dotted name, whose dots may be those of a key; with `prefix` the keys that begin with it."""
    if not parts or not isinstance(tree, Mapping):
        return None if parts else tree
    for count in range(len(parts), 0, -1):
        if (name := ".".join(parts[:count])) in tree:
            return _descend(tree[name], parts[count:], prefix)
    if not prefix:
        return None
    start = ".".join(parts) + "."
    return {key[len(start) :]: x for key, x in tree.items() if isinstance(key, str) and key.startswith(start)}


def _tensors(tree: Any) -> int:
    """How many tensors a mapping holds by name."""
    if not isinstance(tree, Mapping):
        return 0
    return sum(isinstance(key, str) and isinstance(x, Tensor | Array) for key, x in tree.items())


def _holds_weights(tree: Any) -> bool:
    """Is this a state dict, and not a mapping of several, with a tensor or two beside them?"""
    count = _tensors(tree)
    return count > 0 and all(count > inside for inside in _containers(tree).values())


def _containers(tree: Any) -> dict[str, int]:
    """Every container of tensors below a tree: its dotted name and how many it holds."""
    found: dict[str, int] = {}
    seen, todo = {id(tree)}, [("", tree)]
    while todo:
        name, inside = todo.pop()
        for key, x in inside.items() if isinstance(inside, Mapping) else ():
            if isinstance(key, str) and isinstance(x, Mapping) and id(x) not in seen:
                seen.add(id(x))
                todo.append((f"{name}.{key}".lstrip("."), x))
                if count := _tensors(x):
                    found[todo[-1][0]] = count
    return found


def said(tree: Any) -> str:
    """What a file holds, in few words."""
    if isinstance(tree, Inert) and tree.name:
        return f"a {tree.name}"
    if isinstance(tree, Mapping):
        return listed([str(key) for key in tree]) if tree else "nothing"
    return f"a {type(tree).__name__}"


def asked(containers: Sequence[str]) -> str:
    return ", ".join(name or "the file itself" for name in containers)


def others(tree: Any) -> str:
    """Which containers would do."""
    found = sorted(_containers(tree).items(), key=lambda item: -item[1])
    if count := _tensors(tree):
        found.insert(0, ('""', count))
    if not found:
        items = tree.items() if isinstance(tree, Mapping) else ()
        whole = [f"{key} is a {x.name}, " for key, x in items if isinstance(x, Inert) and x.name]
        return f"{''.join(whole[:1])}it holds no state dict: {foreign.TRAIN}"
    told = [f"{name} ({count} tensor{'s' * (count > 1)})" for name, count in found]
    return f"name another with --container: {listed(told)}"


def listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{', '.join(names[:SHOWN])}{more}"
