"""A file a config. By name they are found from anywhere: --config=llamagen_l, --config=llamagen_xl:384."""

import re
from pathlib import Path

from dd_jax.system import files
from dd_jax.system.errors import UserError

HERE = Path(__file__).resolve().parent


def names() -> list[str]:
    """All that come along."""
    found = re.compile(r"^def\s+get_config\(", re.MULTILINE)  # the others are what these are made of
    return sorted(path.stem for path in HERE.glob("*.py") if found.search(path.read_text()))


def along() -> str:
    """The same, for a message."""
    return f"name a file, or a config that comes along: {', '.join(names())}"


def find(given: str) -> str:
    """FILE, or the NAME of a config that comes along, with or without :OPTION -> the file, and the option.

    A file that is there goes before a name; configs/NAME.py need not be there. UserError for what is neither.
    """
    files.local(given)  # a URL has a colon too
    name, colon, option = given.partition(":")
    path = files.local(name)
    if not path.is_file():
        if path.stem not in names() or str(path.parent) not in (".", "configs") or path.suffix not in ("", ".py"):
            raise UserError(f"no {name}: {along()}")
        path = HERE / f"{path.stem}.py"
    return f"{path}{colon}{option}"
