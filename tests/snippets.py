"""Python of a Markdown page, run as a reader would: block after block, in one namespace, in an empty folder."""

import dataclasses
import importlib
import re
import sys
from collections.abc import Mapping
from pathlib import Path

FENCE = re.compile(r"^```python\n(.*?)^```$", re.M | re.S)
FILE = re.compile(r"# ([\w/]+)\.py\n")


@dataclasses.dataclass(frozen=True)
class Block:
    """One fenced block: what it says, and the line of the page above it."""

    code: str
    line: int

    @property
    def module(self) -> str | None:
        """`# my_ideas.py` in its first line makes it that file, which later blocks import."""
        first = FILE.match(self.code)
        return first and first[1].replace("/", ".")


def blocks(text: str) -> list[Block]:
    """The ```python blocks of a page, in order."""
    return [Block(found[1], text[: found.start(1)].count("\n")) for found in FENCE.finditer(text)]


def run_page(page: Path, folder: Path, monkeypatch, instead: Mapping[str, str] | None = None, **given) -> dict:
    """Run a page's blocks with `folder` as the current one -> their namespace, which begins with `given`.

    A block whose first line is `# NAME.py` is written there and imported, as a reader would save it. What fails,
    fails at its line of the page. `instead`: what stands for what of the text.
    """
    monkeypatch.chdir(folder)
    monkeypatch.syspath_prepend(str(folder))
    space, files = {"__name__": "__main__", **given}, []
    text = page.read_text()
    for old, new in (instead or {}).items():
        text = text.replace(old, new)
    try:
        for block in blocks(text):
            if block.module is None:
                exec(compile("\n" * block.line + block.code, str(page), "exec"), space)
                continue
            files.append(block.module)
            path = folder.joinpath(*block.module.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.code)
            importlib.invalidate_caches()
            importlib.import_module(block.module)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] in {file.split(".")[0] for file in files}]:
            del sys.modules[name]
    return space
