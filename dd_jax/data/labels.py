"""Class names: `--labels="golden retriever, 3"` -> class numbers."""

import collections
import difflib
import functools
import re
from collections.abc import Sequence
from pathlib import Path

from dd_jax.system.errors import UserError

NAMES = Path(__file__).parent
DIGITS = re.compile("-?[0-9]+")
Named = tuple[str, int, tuple[str, ...]]  # a set, how many classes it has, and names of somebody's own
RANGE = re.compile(r"([0-9]+)\s*(?:-|\.\.|:)\s*([0-9]+)")


@functools.lru_cache
def names(data: str, classes: int, own: tuple[str, ...] = ()) -> tuple[str, ...]:
    """One line a class, synonyms separated by commas; plain numbers for data sets that bring none, or other classes.

    `own`: those of the subfolders of somebody's pictures; of WordNet ids it is what they stand for.
    """
    if own:
        known = _of_wordnet()
        return tuple(known.get(name, name) for name in own)
    path = NAMES / f"{_bare(data)}.txt"
    lines = path.read_text().splitlines() if path.exists() else []
    found = tuple(line for line in lines if not line.startswith("#"))
    return found if len(found) == classes else tuple(str(i) for i in range(classes))


def short(data: str, classes: int, own: Sequence[str] = ()) -> tuple[str, ...]:
    """A class's first name alone, with its number where several classes share it: `crane (134)`."""
    lines = names(data, classes, tuple(own))
    first = [line if line in own else line.split(",")[0].strip() for line in lines]
    count = collections.Counter(first)
    return tuple(name if count[name] == 1 else f"{name} ({i})" for i, name in enumerate(first))


@functools.lru_cache
def wordnet(data: str) -> tuple[str, ...]:
    """The folder names of the published set, n01440764 and so on, where it has such."""
    path = NAMES / f"{_bare(data)}_wordnet.txt"
    return tuple(line for line in path.read_text().split("\n")[1:] if line) if path.exists() else ()


@functools.lru_cache
def _of_wordnet() -> dict[str, str]:
    """n02099601 -> golden retriever."""
    return dict(zip(wordnet("imagenet2012"), names("imagenet2012", 1000), strict=True))


def _bare(data: str) -> str:
    """tfds:imagenet2012:5.0.0:validation -> imagenet2012."""
    return re.split("[:/]", data.removeprefix("tfds:"))[0] if data.startswith("tfds:") else data


def find(wanted: str, data: str, classes: int, own: Sequence[str] = ()) -> list[int]:
    """Numbers, ranges (0-9), names or WordNet ids, separated by commas -> class numbers.

    Case and underscores do not matter. `own`: names of somebody's own classes; one that is a number goes before the
    class of that number. UserError with what comes close, and where there is none at all.
    """
    by_name = _by_name(data, classes, tuple(own))
    words = [word.strip() for word in wanted.split(",") if word.strip()]
    if not words:
        raise UserError(f"labels {wanted!r} name no class: give numbers or names, as in '3, 7' or '0-9'")
    return [number for word in words for number in _numbers(word, by_name, classes)]


def counterparts(mine: Named, theirs: Named) -> tuple[tuple[int, ...], ...]:
    """For each class of a set, those of another set that share a name with it: none, one, or, of homonyms, several.

    What a class is called itself (a folder's name, a WordNet id) goes before what that stands for, and before synonyms.
    """
    if names(*mine) == names(*theirs):
        return tuple((i,) for i in range(mine[1]))
    by_name = {_plain(line): [i] for i, line in enumerate(names(*theirs))} | _by_name(*theirs)
    called = mine[2] or _ids(*mine) or names(*mine)

    def of(name: str, line: str) -> tuple[int, ...]:
        found = (by_name.get(_plain(one)) for one in (name, line, *line.split(",")))
        return tuple(next(filter(None, found), ()))

    return tuple(map(of, called, names(*mine)))


def _by_name(data: str, classes: int, own: tuple[str, ...]) -> dict[str, list[int]]:
    """Every plain name, a synonym or an id, and the classes that are called so."""
    found: dict[str, list[int]] = {}
    for i, line in enumerate(names(data, classes, own)):
        for name in line.split(","):
            found.setdefault(_plain(name), []).append(i)
    return found | {_plain(name): [i] for i, name in enumerate(own or _ids(data, classes))}


def _ids(data: str, classes: int, own: tuple[str, ...] = ()) -> tuple[str, ...]:
    """The WordNet ids of a published set as it was published."""
    found = () if own else wordnet(data)
    return found if len(found) == classes else ()


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").split()).lower()


def _numbers(word: str, by_name: dict[str, list[int]], classes: int) -> list[int]:
    """A word: one class, or several in a row."""
    if not (ends := RANGE.fullmatch(word)):
        return [_one(word, by_name, classes)]
    for end in ends.groups():
        _one(end, by_name, classes)
    first, last = map(int, ends.groups())
    if first > last:
        raise UserError(f"labels {word} are none: a range rises, {last}-{first}")
    return [_one(str(number), by_name, classes) for number in range(first, last + 1)]


def _one(word: str, by_name: dict[str, list[int]], classes: int) -> int:
    if DIGITS.fullmatch(word) and word not in by_name:
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
    few = f", and are called {', '.join(by_name)}" if len(by_name) <= 12 and not all(map(str.isdigit, by_name)) else ""
    told = f"; did you mean {', '.join(near)}?" if near else f"; classes have numbers 0..{classes - 1}{few}"
    raise UserError(f"no class is called {word!r}{told}")
