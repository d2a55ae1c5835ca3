"""A folder with a subfolder a class, as people have them: which of it are classes, and what is left out, and why."""

import dataclasses
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Set
from pathlib import Path

from dd_jax.data import decode
from dd_jax.system.errors import UserError
from dd_jax.system.files import local

# What systems and editors leave in folders, besides what is hidden.
LEFT_BY_SYSTEMS = {"__MACOSX", "__pycache__", "@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information"}
TRAIN = re.compile(r"train(ing)?([-_]?(set|data|images|\d+))?", re.IGNORECASE)
OTHER_PART = re.compile(r"(val|valid|validation|dev|test|testing|eval)([-_]?(set|data|images|\d+))?", re.IGNORECASE)
NAMES = 5  # that a line gives as examples


@dataclasses.dataclass(frozen=True)
class Found:
    """The pictures of every class, by the class's name, in alphabetical order; and lines on all the rest."""

    root: Path
    classes: dict[str, list[Path]]
    left_out: list[str]
    notes: list[str]

    @property
    def files(self) -> list[Path]:
        return [file for files in self.classes.values() for file in files]


def find(path: Path, beside: Set[str] = frozenset()) -> Found:
    """The classes of a folder: its subfolders with pictures; a folder without any is one class.

    Pictures lie in a class folder, or anywhere below; links are followed. Of a data set in parts (train beside val
    or test) `train` is read. `beside`: suffixes of files that are not left out, but read with the pictures.
    UserError if there is no such folder, or no picture in it.
    """
    path = local(path)
    if path.is_file():
        raise UserError(f"config.data.name: {path} is a file: unpack it, and name the folder")
    if not path.is_dir():
        raise UserError(f"config.data.name: there is no folder {path}")
    rest = _Rest(frozenset(decode.suffixes()), beside)
    found = {folder.name: _below(folder, rest) for folder in _folders(path, rest)}
    empty = sorted(name for name, files in found.items() if not files)
    classes = {name: found[name] for name in sorted(found) if found[name]}
    if _are_parts(classes):
        return _train_of(path, classes, beside)
    loose = [file for file in sorted(path.iterdir()) if rest.is_picture(file, path)]
    left_out = [f"folders without pictures: {some(empty)}"] * bool(empty)
    if classes and loose:
        left_out.append(f"{len(loose)} pictures beside the class folders: {some([file.name for file in loose])}")
    elif loose:
        classes = {path.name or "pictures": loose}
    left_out += rest.lines()
    if not classes:
        told = f"; left out: {'; '.join(left_out)}" if left_out else ""
        raise UserError(
            f"config.data.name=folder:{path} has no pictures: {' '.join(decode.suffixes())} are read, in it or in one "
            f"subfolder a class{told}"
        )
    return Found(path, classes, left_out, _notes(path, classes))


@dataclasses.dataclass
class _Rest:
    """What is met on the way and is no picture."""

    read: frozenset[str]  # suffixes of pictures
    beside: Set[str]  # and of what is read with them
    suffixes: Counter[str] = dataclasses.field(default_factory=Counter)
    hidden: Counter[str] = dataclasses.field(default_factory=Counter)
    dangling: list[str] = dataclasses.field(default_factory=list)

    def is_picture(self, file: Path, root: Path) -> bool:
        if file.is_dir():
            return False
        if is_hidden(file.name):
            self.hidden[file.name] += 1
        elif (suffix := file.suffix.lower()) not in self.read:
            self.suffixes.update([suffix or "without one"] * (suffix not in self.beside))
        elif not file.is_file():  # what has no content: a link to nothing, a pipe
            self.dangling.append(str(file.relative_to(root)))
        else:
            return True
        return False

    def lines(self) -> list[str]:
        told = []
        if self.hidden:
            told.append(f"{sum(self.hidden.values())} hidden, or of the system: {some(list(self.hidden))}")
        if self.suffixes:
            kinds = [f"{count} {suffix}" for suffix, count in self.suffixes.most_common()]
            told.append(f"not read here by their suffix: {some(kinds, 12)}")
        if self.dangling:
            told.append(f"{len(self.dangling)} that are no files, or links to none or upwards: {some(self.dangling)}")
        return told


def is_hidden(name: str) -> bool:
    """Hidden, or what a system keeps in folders."""
    return name.startswith(".") or name in LEFT_BY_SYSTEMS


def some(names: list[str], most: int = NAMES) -> str:
    """The first of many names."""
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _folders(path: Path, rest: _Rest) -> Iterator[Path]:
    for entry in sorted(path.iterdir()):
        if entry.is_dir():
            if is_hidden(entry.name):
                rest.hidden[entry.name] += 1
            elif path.resolve().is_relative_to(entry.resolve()):
                rest.dangling.append(entry.name)
            else:
                yield entry


def _below(folder: Path, rest: _Rest) -> list[Path]:
    """All pictures below a class folder, through links too, but each folder once and none above."""
    seen = {os.path.realpath(parent) for parent in [folder.resolve(), *folder.resolve().parents, folder.parent]}
    seen.remove(os.path.realpath(folder))
    files: list[Path] = []

    def refused(error: OSError) -> None:
        raise UserError(f"{error.filename} cannot be read ({error.strerror}): change its permissions, or remove it")

    for here, folders, names in os.walk(folder, followlinks=True, onerror=refused):
        real = os.path.realpath(here)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        rest.hidden.update(name for name in folders if is_hidden(name))
        folders[:] = [name for name in folders if not is_hidden(name)]
        files += [file for name in names if rest.is_picture(file := Path(here, name), folder.parent)]
    return sorted(files)


def _are_parts(classes: Iterable[str]) -> bool:
    """Are these folders those of a data set's parts, and not classes?"""
    train = [name for name in classes if TRAIN.fullmatch(name)]
    others = [name for name in classes if OTHER_PART.fullmatch(name)]
    return {*train, *others} == {*classes} and (bool(train) or len(others) > 1)


def _train_of(path: Path, classes: dict[str, list[Path]], beside: Set[str]) -> Found:
    """The classes of the part for training; the other parts are left out."""
    train = [name for name in classes if TRAIN.fullmatch(name)]
    if len(train) != 1:
        raise UserError(
            f"config.data.name=folder:{path} holds {', '.join(classes)}: these are parts of a data set and no "
            f"classes; name the one to train on, folder:{path / next(iter(classes))}"
        )
    found = find(path / train[0], beside)
    others = [f"{name} ({len(files):,} pictures)" for name, files in classes.items() if name != train[0]]
    left_out = [f"parts of the data set besides {train[0]}: {some(others)}"] * bool(others)
    return dataclasses.replace(found, left_out=[*left_out, *found.left_out])


def _notes(path: Path, classes: dict[str, list[Path]]) -> list[str]:
    """A word on a single class whose pictures lie in folders of their own."""
    if len(classes) != 1:
        return []
    ((name, files),) = classes.items()
    below = [file.relative_to(path).parts for file in files]
    inner = sorted({parts[1] for parts in below if len(parts) > 2})
    if len(inner) < 2:
        return []
    return [f"{name} holds folders of its own ({some(inner)}): folder:{path / name} takes these as classes"]
