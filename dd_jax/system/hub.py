"""Folders of the Hugging Face Hub by name, hf://owner/name[@revision][/folder], fetched by the Hub's own client.

Whether the network answers is asked first, once and briefly: the client tries again for half a minute.
"""

import dataclasses
import glob
import os
import re
import socket
import threading
import urllib.request
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import unquote, urlsplit

from dd_jax.system.errors import UserError

HUB = "https://huggingface.co"
PATIENCE = 1.5  # seconds within which a host that is there answers
SHAPE = "hf://owner/name, with @revision and /folder behind it if need be"
# `Path` writes hf:/owner/name.
NAME = re.compile(
    r"hf:/+(models/)?(?!(datasets|spaces|buckets|kernels)/)(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>refs/[\w.-]+/[\w.-]+|[^@/]+))?(/(?P<folder>[^@]*))?"
)
Folder = str | os.PathLike[str]


def named(folder: object) -> bool:
    """Is this the name of something on the Hub, and no path?"""
    return isinstance(folder, str | os.PathLike) and str(folder).startswith("hf:/")


def path(folder: str) -> Folder:
    """What a command line names: a path, or a name on the Hub as it is."""
    return folder if named(folder) else Path(folder)


def home() -> str:
    """The address of the Hub, or of the one that stands for it."""
    return os.environ.get("HF_ENDPOINT", HUB).rstrip("/")


@dataclasses.dataclass(frozen=True)
class Address:
    """A folder of a repository. `revision`: a branch, a tag or a commit; none: the newest."""

    repo: str
    revision: str | None = None
    folder: str = ""

    @classmethod
    def of(cls, text: Folder) -> "Address":
        """UserError for what is no such name."""
        found = NAME.fullmatch(str(text))
        folder = PurePosixPath((found and found["folder"]) or "")
        if not found or ".." in folder.parts or "\\" in str(folder):
            raise UserError(f"{text} is no name of a folder on the Hub: {SHAPE}")
        revision = found["revision"] and unquote(found["revision"])
        return cls(found["repo"], revision, "" if str(folder) == "." else str(folder))

    def __str__(self) -> str:
        revision = self.revision and (self.revision if "refs/" in self.revision else self.revision.replace("/", "%2F"))
        return f"hf://{self.repo}" + f"@{revision}" * bool(revision) + f"/{self.folder}" * bool(self.folder)

    def inner(self, name: str) -> "Address":
        """A folder in this one."""
        return Address.of(f"{dataclasses.replace(self, folder='')}/{PurePosixPath(self.folder) / name}")

    def beside(self, name: str) -> "Address":
        """A folder beside this one; in a whole repository, which has none beside it, a folder of it."""
        return dataclasses.replace(self, folder=str(PurePosixPath(self.folder).parent)).inner(name)


def client() -> Any:
    """The Hub's own package. UserError where it is not installed."""
    try:
        import huggingface_hub  # only here: slow to import
    except ImportError as error:
        raise UserError("names on the Hub need its client: pip install huggingface_hub") from error
    return huggingface_hub


def fetch(address: Address, names: Sequence[str]) -> tuple[Path, list[str]]:
    """These files of a folder, as far as it has them, from the client's cache or the network.

    -> the folder here, and those of the files that were not here before.

    Whole files stay, and a connection that breaks goes on where it was. Without a network what is in the cache is
    taken. UserError, at once, where neither has them.
    """
    inside = [str(PurePosixPath(address.folder) / name) for name in names]
    asked: dict[str, Any] = {"revision": address.revision, "endpoint": home()}
    offline: ConnectionError | None = None
    asked["allow_patterns"] = [glob.escape(name) for name in inside]
    try:
        before = [client().try_to_load_from_cache(address.repo, name, revision=address.revision) for name in inside]
        kept = {Path(path).resolve() for path in before if isinstance(path, str)}
        try:
            reach(home())
        except ConnectionError as why:
            asked["local_files_only"], offline = True, why
        try:
            folder = Path(client().snapshot_download(address.repo, **asked)) / address.folder
        except FileNotFoundError as error:
            raise offline or error from error
        return folder, [name for name in names if (folder / name).exists() and (folder / name).resolve() not in kept]
    except UserError:
        raise
    except Exception as error:  # the client lets through whatever HTTP, its caches and the disk raise
        raise refused(str(address), error) from error


def upload(folder: Path, repo: str, private: bool, message: str) -> str:
    """A folder -> a repository of models, which is made if there is none; the address of its page.

    UserError without a network, without a token, or where the Hub refuses.
    """
    hub, address = client(), f"hf://{repo}"
    try:
        try:
            reach(home())
        except ConnectionError as error:
            raise UserError(f"cannot publish {address}: {error}") from error
        if not hub.get_token():
            raise UserError(f"cannot publish {address} without a token that may write: {LOGIN}")
        api = hub.HfApi(endpoint=home())
        api.create_repo(repo, private=private or None, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise UserError(
                f"{address} is there already, and public: make it private on its page, or take another name"
            )
        api.upload_folder(repo_id=repo, folder_path=folder, commit_message=message)
    except UserError:
        raise
    except Exception as error:
        raise refused(address, error) from error
    return f"{home()}/{repo}"


def refused(what: str, error: Exception) -> UserError:
    """Why the Hub, or the way to it, did not give or take `what`, and what can be done."""
    kind = next((one.__name__ for one in type(error).__mro__ if one.__name__ in _WAYS), "")
    if not kind:
        reply = getattr(error, "response", None)
        why = f"{home()} says {reply.status_code}" if reply is not None else ""
        kind = {401: "401", 403: "403"}.get(getattr(reply, "status_code", 0), "")
        told = why or str(error).strip().split("\n")[0] or type(error).__name__
        return UserError(f"{what}: {told}" + (f"; {_WAYS[kind]}" if kind else ""))
    told = str(error) if kind == "ConnectionError" else ""
    return UserError(f"{what}: {told}{'; ' if told else ''}{_WAYS[kind]}")


LOGIN = "log in (hf auth login, or HF_TOKEN=...)"
_WAYS = {  # the client's exceptions, nearest class first -> what a person can do
    "ConnectionError": "it is not in the cache either: fetch it where there is a network, and name its folder here",
    "GatedRepoError": f"its owner wants to know who takes it: ask for access on its page, then {LOGIN}",
    "RepositoryNotFoundError": f"there is no such repository, or it is private: check the name, or {LOGIN}",
    "RevisionNotFoundError": "the repository has no such revision: name a branch, a tag or a commit of it",
    "HFValidationError": f"the Hub takes no such name: {SHAPE}",
    "LocalTokenNotFoundError": LOGIN,
    "401": LOGIN,
    "403": "the account has no right to do that: check the owner's name and the token's permissions",
}


def reach(url: str) -> None:
    """ConnectionError if the host of an address, or the proxy before it, does not answer within seconds."""
    where = urlsplit(url)
    if not where.hostname:  # a file
        return
    forbidden = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "ON", "YES")
    if forbidden and (where.hostname.endswith("huggingface.co") or where.hostname == urlsplit(home()).hostname):
        raise ConnectionError("HF_HUB_OFFLINE is set")
    proxy = urllib.request.getproxies().get(where.scheme)
    if proxy and not urllib.request.proxy_bypass(where.hostname):
        where = urlsplit(proxy if "//" in proxy else f"//{proxy}")
    port = where.port or (80 if where.scheme == "http" else 443)
    done: list[Exception | None] = []

    def ask() -> None:
        try:
            socket.create_connection((where.hostname or "", port), PATIENCE).close()
            done.append(None)
        except OSError as error:
            done.append(error)

    asking = threading.Thread(target=ask, daemon=True)  # a name may take minutes to be looked up in vain
    asking.start()
    asking.join(PATIENCE)
    if not done or done[0] is not None:
        raise ConnectionError(f"no connection to {where.hostname}")
