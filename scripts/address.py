"""python -m scripts.address

The address of this repository stands in one place, `[project.urls]` of pyproject.toml, as `Repository`. This writes it
wherever a reader needs it: behind `git clone`, into the notebook's first cell, and into the badges "Open in Colab".
Without an address there are no badges, for they would lead nowhere, and pages say `git clone URL`.
"""

import argparse
import re
import sys
import tomllib
from pathlib import Path

from dd_jax.system import files
from dd_jax.system.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = "notebooks/one_step.ipynb"
PAGES = ("README.md", "docs/README.md", "docs/install.md", NOTEBOOK)
COLAB = "https://colab.research.google.com"


def main() -> None:
    """Every page, as pyproject.toml has the address."""
    parser = argparse.ArgumentParser("python -m scripts.address", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.parse_args()
    try:
        address = address_of((ROOT / "pyproject.toml").read_text())
        for page in PAGES:
            files.replace(ROOT / page, with_address((ROOT / page).read_text(), address).encode())
    except (UserError, OSError) as error:
        sys.exit(f"error: {error}")
    print(f"{', '.join(PAGES)}: {address or 'no address'}")


def address_of(pyproject: str) -> str:
    """What pyproject.toml says, "" where it says nothing. UserError for what is not https://github.com/OWNER/NAME."""
    address = tomllib.loads(pyproject)["project"].get("urls", {}).get("Repository", "")
    if address and not re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+(?<!\.git)", address):
        raise UserError(f"pyproject.toml: Repository = {address!r}: Colab opens https://github.com/OWNER/NAME")
    return address


def with_address(text: str, address: str) -> str:
    """A page with this address wherever it has one; "": with none."""
    text = re.sub(r"(?<=git clone )\S+(?= dd_jax)", address or "URL", text)
    text = re.sub(r'(?<=REPOSITORY = \\")[^"\\]*', address, text)  # in the notebook's JSON
    return re.sub(r"(?<=<!-- colab -->).*?(?=<!-- /colab -->)", badge(address), text)


def badge(address: str) -> str:
    """Markdown: a picture that opens the notebook in Colab."""
    at = f"{COLAB}/github/{address.removeprefix('https://github.com/')}/blob/main/{NOTEBOOK}"
    return address and f"[![Open in Colab]({COLAB}/assets/colab-badge.svg)]({at})"


if __name__ == "__main__":
    main()
