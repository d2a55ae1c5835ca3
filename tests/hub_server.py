"""As much of the Hub as its own client asks for when it fetches and uploads models, on loopback."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


class Hub:
    """Repositories {name: {path: content}}, each with one commit on `main`, and what was asked for."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, bytes]] = {}
        self.large: dict[str, bytes] = {}  # uploads beside git, by sha256
        self.gated: set[str] = set()
        self.readers: set[str] = set()  # tokens that may not write
        self.private: set[str] = set()  # repositories that were made so
        self.cut = 0  # send so many bytes of the next large file, and hang up
        self.asked: list[tuple[str, str, str]] = []  # method, path, Range
        self.endpoint = ""

    def sha(self, repo: str) -> str:
        found = sorted(self.repos[repo].items())
        return hashlib.sha1(repr([(path, hashlib.sha1(data).hexdigest()) for path, data in found]).encode()).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """A server in a thread."""
    hub = Hub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._get()

    def do_GET(self) -> None:
        self._get()

    def _get(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.asked.append((self.command, path, self.headers.get("Range", "")))
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/(revision|tree)/(.+))?", path):
            self._about(found[1], found[2], found[3] or "main")
        elif found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            if self._there(found[1], found[2]):
                self._file(found[1], found[3])
        else:
            self._error(404, "")

    def _there(self, repo: str, revision: str) -> bool:
        if repo not in self.hub.repos:
            self._error(404, "RepoNotFound")
        elif repo in self.hub.gated:
            self._error(403, "GatedRepo")
        elif revision not in ("main", self.hub.sha(repo)):
            self._error(404, "RevisionNotFound")
        else:
            return True
        return False

    def _about(self, repo: str, what: str | None, revision: str) -> None:
        if not self._there(repo, revision.rstrip("/")):
            return
        files = self.hub.repos[repo]
        if what == "tree":
            names = {"type": "file", "oid": "0" * 40}
            self._json([{**names, "path": path, "size": len(data)} for path, data in files.items()])
        else:
            siblings = [{"rfilename": path} for path in files]
            private = repo in self.hub.private
            self._json({"id": repo, "sha": self.hub.sha(repo), "siblings": siblings, "private": private})

    def _file(self, repo: str, name: str) -> None:
        data = self.hub.repos[repo].get(name)
        if data is None:
            return self._error(404, "EntryNotFound")
        first = int(re.sub(r"\D", "", self.headers.get("Range", "").split("-")[0]) or 0)
        body = data[first:]
        self.send_response(206 if first else 200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.hub.sha(repo))
        if first:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        if self.hub.cut and len(body) > self.hub.cut:
            body, self.hub.cut, self.close_connection = body[: self.hub.cut], 0, True
        self.wfile.write(body)
        return None

    def do_PUT(self) -> None:
        self.hub.large[self.path.rsplit("/", 1)[1]] = self._body()
        self._json({})

    def do_POST(self) -> None:
        path, body = urlsplit(self.path).path, self._body()
        self.hub.asked.append(("POST", path, ""))
        if self.headers.get("Authorization", "").removeprefix("Bearer ") in {"", *self.hub.readers}:
            return self._error(403 if self.headers.get("Authorization") else 401, "")
        if path == "/api/repos/create":
            told = json.loads(body)
            repo = f"{told['organization']}/{told['name']}"
            if repo in self.hub.repos:
                return self._send(409, json.dumps({"url": f"{self.hub.endpoint}/{repo}"}).encode())
            self.hub.repos[repo] = {}
            if told.get("private") or told.get("visibility") == "private":
                self.hub.private.add(repo)
            return self._json({"url": f"{self.hub.endpoint}/{repo}", "name": repo})
        if path == "/api/validate-yaml":
            return self._json({"errors": [], "warnings": []})
        if path.endswith("/preupload/main"):
            modes = {True: "lfs", False: "regular"}
            names = [one["path"] for one in json.loads(body)["files"]]
            told = [{"path": p, "uploadMode": modes[p.endswith(".safetensors")], "shouldIgnore": False} for p in names]
            return self._json({"files": told})
        if path.endswith("/info/lfs/objects/batch"):
            at = f"{self.hub.endpoint}/large"
            told = [
                one | {"actions": {"upload": {"href": f"{at}/{one['oid']}"}}} for one in json.loads(body)["objects"]
            ]
            return self._json({"transfer": "basic", "objects": told})
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
            for line in body.splitlines():
                one = json.loads(line)
                value = one["value"]
                if one["key"] == "file":
                    self.hub.repos[found[1]][value["path"]] = base64.b64decode(value["content"])
                elif one["key"] == "lfsFile":
                    self.hub.repos[found[1]][value["path"]] = self.hub.large[value["oid"]]
            at = f"{self.hub.endpoint}/{found[1]}/commit/{self.hub.sha(found[1])}"
            return self._json({"commitUrl": at, "commitOid": self.hub.sha(found[1]), "success": True})
        return self._error(404, "")

    def _body(self) -> bytes:
        if "Content-Length" in self.headers:
            return self.rfile.read(int(self.headers["Content-Length"]))
        parts = []  # sent in chunks
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, told: Any) -> None:
        self._send(200, json.dumps(told).encode())

    def _error(self, status: int, code: str) -> None:
        self._send(status, b"{}", code)

    def _send(self, status: int, body: bytes, code: str = "") -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if code:
            self.send_header("X-Error-Code", code)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
