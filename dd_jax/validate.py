"""Every value of a config is looked at before anything is computed; `configs.kinds` says what each may be."""

import contextlib
import difflib
from typing import Any

from ml_collections import ConfigDict

from dd_jax import settings
from dd_jax.configs import about, kinds
from dd_jax.system.errors import UserError

LONGEST = 80  # characters of a value in a message
OWN = ("model.", "tokenizer.")  # what a family of one's own may mean otherwise


def check(config: Any, name: str = "config", whole: bool = True) -> ConfigDict:
    """The config, where what is not there and may be none is none.

    UserError for its first value that cannot be, or, if it is to be `whole`, that is not there.
    `name`: what the message calls the config.
    """
    if not isinstance(config, ConfigDict):
        raise UserError(f"{name} is a {type(config).__name__}: get_config() must return a ConfigDict, as in configs/")
    found = dict(settings.flat(config))
    sections = {*found} | {setting[:i] for setting in found for i, one in enumerate(setting) if one == "."} | {""}
    skipped = OWN if ":" in str(found.get("family")) else ()
    for setting, value in found.items():
        if setting in kinds.sections() and not isinstance(value, dict):
            raise UserError(f"{name}.{setting}={_shown(value)}: it must be a section of settings")
        if not setting.startswith(skipped):
            _check(name, setting, value)
    needed = [*kinds.needed(), *(one for part, names in kinds.WITH.items() if part in sections for one in names)]
    for setting in dict.fromkeys(needed):
        if setting in found or setting in sections or setting.startswith(skipped):
            continue
        kind, (section, _, field) = kinds.of(setting), setting.rpartition(".")
        if kind and kind.none and section in sections:
            with config.unlocked():
                (config[section] if section else config)[field] = None
        elif whole:
            raise UserError(f"{name}.{setting} is not there: it must be {kind}{_about(setting)}")
    return config


def _check(name: str, setting: str, value: Any) -> None:
    """One value."""
    kind = kinds.of(setting)
    section = next((one for one in kinds.CLOSED if setting.startswith(f"{one}.")), "")
    if kind is None and section:
        known = [one for one in kinds.KINDS if one.startswith(f"{section}.")]
        known = known or [f"{section}.{field}" for field in kinds.FILTER]
        near = difflib.get_close_matches(setting, known, 1) or known
        raise UserError(f"{name}.{setting}: there is no such setting; did you mean {' or '.join(near)}?")
    if kind is not None and not kind(value):
        raise UserError(f"{name}.{setting}={_shown(value)}: it must be {kind}{_about(setting)}")


def _about(setting: str) -> str:
    with contextlib.suppress(KeyError):
        return f" ({about.of(setting)})"
    return ""


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 3]}..."
