"""The settings of a run that is there, as `--config` takes a file: what a command means that names a run and no config.

ml_collections reads this file, as `stored.py:FOLDER`.
"""

import importlib
import itertools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder

from dd_jax import configs
from dd_jax.configs import common
from dd_jax.system import files
from dd_jax.system.errors import UserError

FILE = Path(__file__)
ASKED = ("labels", "prompt", "prompts")  # what a person drew by the way is not the run's


def run_of(words: Sequence[str]) -> Path | None:
    """The run whose settings a command line without --config means: --workdir, where one is, else --from."""
    given: dict[str, str] = {}
    for word, following in itertools.zip_longest(words, words[1:], fillvalue=""):
        if found := re.fullmatch(r"--?(config|workdir|from)(?:=(.*))?", word, re.DOTALL):
            given[found[1]] = following if found[2] is None else found[2]
    if "config" in given:
        return None
    folders = (files.expand(given[name]) for name in ("workdir", "from") if given.get(name))
    return next((folder for folder in folders if (folder / "config.json").is_file()), None)


def get_config(folder: str) -> ConfigDict:
    """Those of the run in `folder`, whole. UserError for a file that is damaged, or names code that is not ours."""
    path = Path(folder) / "config.json"
    again = "give --config=FILE, the one that the run was made with"
    from dd_jax import factory  # only here: it is slow to import

    try:
        found = files.read_json(path, again, {})
        config = factory.frozen(found)
    except UserError as error:
        told, foreign, _ = str(error).partition(", which opening it would run")
        raise (UserError(f"{path}: {told}: if you trust it, {again}") if foreign else error) from None
    for section, default in common.demo(str(config.get("family"))).items():  # what an earlier version did not write
        if isinstance(default, ConfigDict) and isinstance(config.get(section), ConfigDict):
            config[section] = ConfigDict({**default, **config[section]})
    if isinstance(config.get("sample"), ConfigDict):
        config.sample.update(dict.fromkeys(ASKED, ""))
    for section, field, kind in _optional():
        if isinstance(config.get(section), ConfigDict) and config[section].get(field, 0) is None:
            del config[section][field]
            config[section][field] = placeholder(kind)
    return config


def _optional() -> Iterator[tuple[str, str, Any]]:
    """(section, field, type) of what some config leaves open: none takes no value of the command line otherwise."""
    for name in configs.names():
        whole = importlib.import_module(f"dd_jax.configs.{name}").get_config()
        for section, fields in whole.items():
            for field in fields if isinstance(fields, ConfigDict) else ():
                kind = fields.get_type(field)
                if fields[field] is None and kind is not type(None):
                    yield section, field, kind
