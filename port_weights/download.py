"""Published files that are not on huggingface.co: fetched from their own addresses, and checked."""

import http.client
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from dd_jax.system import files, weights
from dd_jax.system.errors import UserError


def fetch(name: str, urls: Sequence[str], sha256: Sequence[str], out: Path) -> list[Path]:
    """The files behind `urls`, in out/downloads; whole ones that are there stay. `sha256`: how checksums begin.

    UserError that says what to fetch by hand where that fails, or for a file that is another one.
    """
    found = [out / "downloads" / url.rsplit("/", 1)[1] for url in urls]
    by_hand = (
        f"fetch {' and '.join(urls)} on a machine that can, "
        f"then run: python -m port_weights {name} --src {' '.join(path.name for path in found)} --out {out}"
    )
    for url, path, checksum in zip(urls, found, sha256, strict=True):
        if path.exists() and weights.sha256(path).startswith(checksum):
            continue
        try:
            with urllib.request.urlopen(url, timeout=60) as reply, files.writing(path) as file:
                shutil.copyfileobj(reply, file)
        except (OSError, http.client.HTTPException) as error:  # no network, no such file: all end in the same advice
            raise UserError(f"cannot download {path.name} ({type(error).__name__}); {by_hand}") from error
        if not weights.sha256(path).startswith(checksum):
            path.unlink()
            raise UserError(f"{url} is not the file that was published: its sha256 does not begin with {checksum}")
    return found
