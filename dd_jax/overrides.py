"""The command line's `--config.FIELD=VALUE`: `none` where a setting may be left out, and one line for what is wrong."""

import functools
import keyword
import operator
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags
from ml_collections import ConfigDict
from ml_collections.config_flags import config_flags

from dd_jax import settings, stored, validate
from dd_jax.configs import along, kinds
from dd_jax.system import files, spelling
from dd_jax.system.errors import UserError

TRACEBACK = "Traceback (most recent call last)"
NAMED = re.compile(r"--?config\.([^=]+)(?:=(.*))?", re.DOTALL)


def start(main: Callable[[list[str]], Any], about: str | None) -> None:
    """Run a tool that takes a config: --help, which begins with what it is `about`, its flags, and errors in a line."""
    if {*sys.argv[1:]} & {"--help", "-help", "-h"}:
        own = flags.FLAGS.get_key_flags_for_module(sys.argv[0])
        files.show("\n".join([f"{about}", *(f"  --{flag.name:12}{flag.help}" for flag in own)]))
        return

    def run(argv: list[str]) -> None:
        try:
            if len(argv) > 1:
                raise UserError(f"unknown argument {argv[1]!r}; flags begin with --, see --help")
            main(argv)
        except (UserError, OSError) as error:
            sys.exit(f"error: {error}")

    settings.start(run, flags_parser=parse)


def parse(argv: list[str]) -> list[str]:
    """Flags; a setting or a config file that does not exist, and a value that cannot be, are one clear line."""
    try:
        rest = read(argv)
        validate.check(flags.FLAGS["config"].value)
        return rest
    except UserError as error:
        sys.exit(f"error: {error}")


def read(argv: list[str], values: flags.FlagValues = flags.FLAGS, name: str = "config") -> list[str]:
    """Parse the flags -> the words that are none. UserError for a config file or a setting that does not fit.

    Earlier names of settings become today's, and those that are none leave `argv`: ml_collections has no word for it,
    and reads the same list (`sys.argv`).
    """
    argv[:] = map(newer, argv)
    none, words = take_none(argv), take_words(argv)
    if len(named := _paths(argv)) > 1:
        raise UserError(f"--config is given {len(named)} times ({', '.join(named)}): give one of them")
    try:
        rest = list(values(argv))
        config: Any = values[name].value
        _ = config.lock  # a file that cannot be read is only noticed here
        for setting, value in {**dict.fromkeys(none), **words}.items():
            *sections, field = setting.split(".")
            functools.reduce(operator.getitem, sections, config)[field] = value
    except config_flags.UnsupportedOperationError as error:
        setting = str(error).partition(" field ")[2].partition(" is ")[0]
        told = "is none in this config, and no VALUE makes a section of it: write a config file of your own"
        raise UserError(f"{setting} {told}") from error
    except flags.Error as error:
        raise UserError(f"{one_line(error)}; see --help") from error
    except Exception as error:  # a config file is a program: it may raise anything
        path = "".join(named)
        file = path.removeprefix(f"{stored.FILE}:")
        told = f"a --config.FIELD=VALUE does not fit {file}: {one_line(error)}; --stage=config prints all settings"
        raise _of_file(path) or UserError(told) from error
    return rest


def newer(word: str) -> str:
    """A setting under the name that it has now, which is told."""
    found = re.fullmatch(r"(--?config\.)([^=]+)(=.*)?", word, re.DOTALL)
    if not found or (name := spelling.name(found[2])) == found[2]:
        return word
    print(f"config.{found[2]} is called config.{name} now", file=sys.stderr)
    return f"{found[1]}{name}{found[3] or ''}"


def take_none(argv: list[str]) -> list[str]:
    """Take settings that are none out of a command line -> their names. The last word about a setting counts."""
    said: dict[str, list[tuple[bool, set[int]]]] = {}
    for i, word in enumerate(argv):
        if (found := NAMED.fullmatch(word)) and _may_be_none(found[1]):
            apart = found[2] is None and i + 1 < len(argv)
            value = argv[i + 1] if apart else found[2] or ""
            said.setdefault(found[1], []).append((value.lower() == "none", {i, i + apart}))
    none = [name for name, words in said.items() if words[-1][0]]
    gone = {i for name, words in said.items() for is_none, places in words if is_none or name in none for i in places}
    argv[:] = [word for i, word in enumerate(argv) if i not in gone]
    return none


def take_words(argv: list[str]) -> dict[str, str]:
    """Take settings called by a word of Python's, `from`, which ml_collections cannot read -> their values: text."""
    found, rest, words = dict[str, str](), list[str](), iter(argv)
    for word in words:
        named = NAMED.fullmatch(word)
        if named and keyword.iskeyword(named[1].rpartition(".")[2]):
            found[named[1]] = next(words, "") if named[2] is None else named[2]
        else:
            rest.append(word)
    argv[:] = rest
    return found


def one_line(error: BaseException | str) -> str:
    """What an error says; where it quotes a traceback, what is at its end."""
    text = str(error).replace("\\n", "\n").replace("\\", "").strip().strip('"')
    if TRACEBACK in text:
        lines = text.splitlines()
        last = max(i for i, line in enumerate(lines) if line.startswith((" ", TRACEBACK)))
        text = " ".join(lines[last + 1 :]).partition(": ")[2]
    text = " ".join(text.split())
    if text.startswith("''") and text.endswith("'"):  # a KeyError, which shows a quotation of what it says
        text = text[1:-1]
    return text or type(error).__name__


def _may_be_none(setting: str) -> bool:
    kind = kinds.of(setting)
    return kind is not None and kind.none


def _paths(argv: Sequence[str]) -> list[str]:
    """The config files that a command line names."""
    pairs = zip(argv, [*argv[1:], ""], strict=True)
    found = [(re.fullmatch(r"--?config(?:=(.*))?", word), following) for word, following in pairs]
    return [following if one[1] is None else one[1] for one, following in found if one]


def _of_file(path: str) -> UserError | None:
    """What is wrong with a config file itself, if that it is."""
    file = path.partition(":")[0]
    if not path:
        return UserError(f"--config=NAME is missing: {along()}")
    if not Path(file).is_file():
        return UserError(f"--config={path}: there is no file {file}; {along()}")
    try:
        config: Any = config_flags.ConfigFileFlagParser("config").parse(path)
        if isinstance(config, ConfigDict):
            return None
        getattr(config, "lock", None)  # what could not be read says so
        said = f"get_config() must return a ConfigDict, not a {type(config).__name__}"
    except SyntaxError as error:
        said = f"line {error.lineno}: {error.msg}"
    except Exception as error:
        known = isinstance(error, UserError | OSError) or TRACEBACK in str(error)
        said = one_line(error) if known else f"{type(error).__name__}: {one_line(error)}"
    return UserError(f"--config={path} cannot be read: {said}")
