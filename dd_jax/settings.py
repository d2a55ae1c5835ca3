"""Settings between the command line and the config: a config by its name, paths, and every setting as text."""

import functools
import re
import sys
from collections.abc import Callable, Iterator
from typing import Any

from absl import app
from ml_collections import ConfigDict

from dd_jax.configs import about, find
from dd_jax.system import files, hub
from dd_jax.system.errors import UserError

# Those that are paths, or may be.
PATHS = (
    "data.name",
    "text.prompts",
    "text.store",
    "sample.prompts",
    "evaluate.inception",
    "evaluate.reference_statistics",
    "pretrain.teacher.from",
    *(f"weights.{part}" for part in ("tokenizer", "teacher", "student", "start", "text", "classifier", "lpips")),
)


def start(main: Callable[[list[str]], Any], **more: Any) -> None:
    """`app.run` of a program whose --config may also be the name of one that comes along."""
    words = sys.argv
    try:
        for i, word in enumerate(words):
            if found := re.fullmatch(r"(--?config=)(.+)", word):
                words[i] = found[1] + find(found[2])
            elif i and re.fullmatch("--?config", words[i - 1]):
                words[i] = find(word)
    except UserError as error:
        sys.exit(f"error: --config: {error}")
    app.run(main, **more)


def spelled(config: ConfigDict) -> ConfigDict:
    """The config with ~ put in where a setting is a path. UserError, which names the setting, for a URL.

    Weights may be a name on the Hub, which stays as it is.
    """
    for name in PATHS:
        section, _, field = name.rpartition(".")
        fields = functools.reduce(lambda fields, one: (fields or {}).get(one), section.split("."), config)
        if fields is None or not isinstance(value := fields.get(field), str):
            continue
        try:
            if hub.named(value) and (section == "weights" or field in ("inception", "from")):
                hub.Address.of(value)
            else:
                fields[field] = files.spelled(value)
        except UserError as error:
            raise UserError(f"config.{name}: {error}") from None
    return config


def flat(config: ConfigDict, section: str = "") -> Iterator[tuple[str, object]]:
    """("train.lr", 0.001) of every setting; an empty section is a value, and so is what a plan's own settings say."""
    for name in config:
        value = config.get(name)
        if isinstance(value, ConfigDict) and len(value) and name != "by_plan":
            yield from flat(value, f"{section}{name}.")
        else:
            yield f"{section}{name}", value.to_dict() if isinstance(value, ConfigDict) else value


def table(config: ConfigDict) -> str:
    """One line a setting: the flag that sets it, and what it is."""
    rows = [(f"--config.{name}={_shown(value)}", about.of(name)) for name, value in flat(config)]
    width = min(max(len(flag) for flag, _ in rows), 48)
    return "\n".join(f"{flag:{width}}  {told}" for flag, told in rows)


def _shown(value: object) -> str:
    """As a shell takes it."""
    text = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    mark = '"' if "'" in text else "'"
    return f"{mark}{text}{mark}" if text != "" and any(one in text for one in " (){}'\"*") else text
