"""Published files fetched: from huggingface.co by its own client, from elsewhere by their addresses, and checked.

Whether the network answers is asked first, once and briefly: the clients try again for half a minute.
"""

import http.client
import shutil
import urllib.request
from collections.abc import Sequence
from pathlib import Path

from dd_jax.system import files
from dd_jax.system.errors import UserError
from dd_jax.system.hub import HUB, client, home, reach


def hub(name: str, repo: str, names: Sequence[str], out: Path) -> list[Path]:
    """A repository's files, from the client's cache if they are there. UserError that says what to fetch by hand."""
    links = " and ".join(f"{HUB}/{repo}/resolve/main/{one}" for one in names)
    by_hand = _by_hand(name, links, Path(names[0]).name, out)
    try:
        hub = client()
        kept = [hub.try_to_load_from_cache(repo, one) for one in names]
        if all(isinstance(path, str) for path in kept):
            return [Path(str(path)) for path in kept]
        reach(home())
        return [Path(hub.hf_hub_download(repo, one)) for one in names]
    except Exception as error:  # no network, no such file, no space: all end in the same advice
        why = str(error) if isinstance(error, ConnectionError) else type(error).__name__
        raise UserError(f"cannot download {' and '.join(names)} ({why}); {by_hand}") from error


def fetch(name: str, urls: Sequence[str], sha256: Sequence[str], out: Path) -> list[Path]:
    """The files behind `urls`, in out/downloads; whole ones that are there stay. `sha256`: how checksums begin.

    UserError that says what to fetch by hand where that fails, or for a file that is another one.
    """
    from dd_jax.system import weights  # only here: it is slow to import

    found = [out / "downloads" / url.rsplit("/", 1)[1] for url in urls]
    by_hand = _by_hand(name, " and ".join(urls), " ".join(path.name for path in found), out)
    for url, path, checksum in zip(urls, found, sha256, strict=True):
        if path.exists() and weights.sha256(path).startswith(checksum):
            continue
        try:
            reach(url)
            with urllib.request.urlopen(url, timeout=60) as reply, files.writing(path) as file:
                shutil.copyfileobj(reply, file)
        except (OSError, http.client.HTTPException) as error:  # no network, no such file: all end in the same advice
            why = str(error) if isinstance(error, ConnectionError) else type(error).__name__
            raise UserError(f"cannot download {path.name} ({why}); {by_hand}") from error
        if not weights.sha256(path).startswith(checksum):
            path.unlink()
            raise UserError(f"{url} is not the file that was published: its sha256 does not begin with {checksum}")
    return found


def _by_hand(name: str, links: str, src: str, out: Path) -> str:
    return f"fetch {links} on a machine that can, then run: python -m port_weights {name} --src {src} --out {out}"
