"""Class names: `--labels="golden retriever, 3"` -> class numbers."""

import collections
import difflib
import functools
import re
from pathlib import Path

from dd_jax.system.errors import UserError

NAMES = Path(__file__).parent
DIGITS = re.compile("-?[0-9]+")
RANGE = re.compile(r"([0-9]+)\s*(?:-|\.\.|:)\s*([0-9]+)")


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


@functools.lru_cache
def wordnet(data: str) -> tuple[str, ...]:
    """The folder names of the published set, n01440764 and so on, where it has such."""
    path = NAMES / f"{data}_wordnet.txt"
    return tuple(line for line in path.read_text().split("\n")[1:] if line) if path.exists() else ()


def find(wanted: str, data: str, classes: int) -> list[int]:
    """Numbers, ranges (0-9), names or WordNet ids, separated by commas -> class numbers.

    Case and underscores do not matter. UserError with what comes close, and where there is none at all.
    """
    by_name: dict[str, list[int]] = {}
    for i, line in enumerate(names(data, classes)):
        for name in line.split(","):
            by_name.setdefault(_plain(name), []).append(i)
    by_name |= {name: [i] for i, name in enumerate(wordnet(data))}
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    if not words:
        raise UserError(f"labels {wanted!r} name no class: give numbers or names, as in '3, 7' or '0-9'")
    return [number for word in words for number in _numbers(word, by_name, classes)]


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).lower()


def _numbers(word: str, by_name: dict[str, list[int]], classes: int) -> list[int]:
    """A word: one class, or several in a row."""
    if not (ends := RANGE.fullmatch(word)):
        return [_one(word, by_name, classes)]
    first, last = (_one(end, by_name, classes) for end in ends.groups())
    if first > last:
        raise UserError(f"labels {word} are none: a range rises, {last}-{first}")
    return list(range(first, last + 1))


def _one(word: str, by_name: dict[str, list[int]], classes: int) -> int:
    if DIGITS.fullmatch(word):
        if len(word) < 10 and 0 <= int(word) < classes:
            return int(word)
        raise UserError(f"label {word[:20]} is out of range: the classes are 0..{classes - 1}")
    found = by_name.get(_plain(word), [])
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(f"label {word!r} names the classes {found}: give the number")
    plain = _plain(word)
    within = [name for name in by_name if plain in name.split()][:4]  # golden: golden retriever, not goldfinch
    near = within or difflib.get_close_matches(plain, by_name, 4) or [name for name in by_name if plain in name][:4]
    told = f"; did you mean {', '.join(near)}?" if near else f"; classes have numbers 0..{classes - 1}"
    raise UserError(f"no class is called {word!r}{told}")
