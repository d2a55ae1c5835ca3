"""Class names: `--labels="golden retriever, 3"` -> class numbers."""

import collections
import difflib
import functools
from pathlib import Path

from dd_jax.system.errors import UserError

NAMES = Path(__file__).parent


@functools.lru_cache
def names(data: str, classes: int) -> tuple[str, ...]:
    """One line a class, synonyms separated by commas; plain numbers for data sets that bring none."""
    path = NAMES / f"{data}.txt"
    if not path.exists():
        return tuple(str(i) for i in range(classes))
    return tuple(line for line in path.read_text().splitlines() if not line.startswith("#"))


def short(data: str, classes: int) -> tuple[str, ...]:
    """A class's first name alone, with its number where several classes share it: `crane (134)`."""
    first = [line.split(",")[0].strip() for line in names(data, classes)]
    count = collections.Counter(first)
    return tuple(name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(first))


def find(wanted: str, data: str, classes: int) -> list[int]:
    """Numbers or names, separated by commas, case aside -> class numbers. UserError with what comes close."""
    by_name: dict[str, list[int]] = {}
    for i, line in enumerate(names(data, classes)):
        for name in line.split(","):
            by_name.setdefault(name.strip().lower(), []).append(i)
    return [_one(word.strip(), by_name, classes) for word in wanted.split(",") if word.strip()]


def _one(word: str, by_name: dict[str, list[int]], classes: int) -> int:
    if word.isdigit():
        if int(word) < classes:
            return int(word)
        raise UserError(f"label {word} is out of range: the classes are 0..{classes - 1}")
    found = by_name.get(word.lower(), [])
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"label {word!r} names the classes {found}: give the number")
    near = difflib.get_close_matches(word.lower(), by_name, 4) or [name for name in by_name if word.lower() in name][:4]
    told = f"; did you mean {', '.join(near)}?" if near else f"; classes have numbers 0..{classes - 1}"
    raise UserError(f"no class is called {word!r}{told}")
