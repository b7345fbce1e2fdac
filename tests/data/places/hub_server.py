"""A stand-in for the Hugging Face hub: the calls that reading a dataset makes, with the statuses, headers and errors of the real one."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal
from urllib.parse import parse_qs, quote, unquote, urlsplit

Fault = Literal["429", "503", "cut", "damaged", "silent", "html", "no ranges"]
LARGE = 1000  # bytes from which a file is in git-lfs and answered by a redirect
PAGE = 3  # files in an answer that lists them; the real one gives 1000


@dataclass
class Repository:
    """`files` of its only commit. `gated` and `private` need one of `readers`, names that are tokens too."""

    files: dict[str, bytes]
    gated: bool = False
    private: bool = False
    readers: tuple[str, ...] = ()
    revisions: tuple[str, ...] = ("main",)

    @property
    def commit(self) -> str:
        return hashlib.sha1(b"".join(name.encode() + data for name, data in sorted(self.files.items()))).hexdigest()


@dataclass
class HubState:
    """`faults` happen to the next requests whose path holds their word. `moved` maps old names to new ones. `expired`: the next answer for
    where a large file lies is that it no longer does."""

    repositories: dict[str, Repository]
    users: tuple[str, ...] = ("jane", "joe")
    moved: dict[str, str] = field(default_factory=dict)
    faults: list[tuple[str, Fault]] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)
    expired: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)
    ended: threading.Event = field(default_factory=threading.Event)

    def fault(self, path: str) -> Fault | None:
        with self.lock:
            self.asked[path] += 1
            for number, (word, fault) in enumerate(self.faults):
                if word in path:
                    del self.faults[number]
                    return fault
        return None


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, state: HubState) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.state = state

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def cdn(self) -> str:
        """Another origin, to which no token goes."""
        return f"http://localhost:{self.server_address[1]}"


@contextmanager
def hub_server(repositories: dict[str, Repository]) -> Iterator[Server]:
    server = Server(HubState(repositories))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.state.ended.set()
        server.shutdown()
        server.server_close()
        thread.join()


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1  # head and body in one packet
    server: Server

    def log_message(self, format: str, *arguments: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        path = unquote(url.path)
        self.fault = self.server.state.fault(path)
        if self.fault in ("429", "503"):
            return self._answer(int(self.fault), b"", {"Retry-After": "0"})
        if self.fault == "silent":
            self.server.state.ended.wait(30)
            self.close_connection = True
            return None
        if self.fault == "html":
            return self._answer(200, b"<html>Log in to the hotel's network</html>", {"Content-Type": "text/html"})
        if path.startswith("/cdn/"):
            return self._cdn(path.removeprefix("/cdn/"))
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if token and token not in self.server.state.users:
            said = "Invalid credentials in Authorization header"
            return self._answer(401, json.dumps({"error": said}).encode(), {"X-Error-Message": said})
        if path == "/api/whoami-v2":
            return self._json({"name": token}) if token else self._error(401, "", "Invalid username or password.")
        return self._repository(path, url.query, token)

    do_HEAD = do_GET

    def _repository(self, path: str, query: str, token: str) -> None:
        """/api/datasets/NAME[/revision/REVISION], /api/datasets/NAME/tree/REVISION, /datasets/NAME/resolve/REVISION/FILE; of models
        /api/models/..., and /NAME/resolve/REVISION/FILE."""
        state = self.server.state
        words = path.strip("/").split("/")
        words = words[1:] if words[0] == "api" else words if words[0] == "datasets" else ["models", *words]
        if len(words) < 2:
            return self._error(404, "", f"No route matches {path}")
        name = "/".join(words[1:3]) if "/".join(words[1:3]) in {*state.repositories, *state.moved} else words[1]
        if name in state.moved:
            return self._answer(307, b"", {"Location": self.path.replace(name, state.moved[name])})
        found, rest = state.repositories.get(name), words[1 + len(name.split("/")) :]
        other = path.startswith("/api/") and bool(rest) and rest[0] not in ("revision", "tree")
        if found is None or other or (found.private and token not in found.readers):
            return self._error(404 if token else 401, "RepoNotFound", "Repository not found" if token else "Invalid username or password.")
        if path.startswith("/api/"):
            verb, revision = (rest[0], "/".join(rest[1:])) if rest else ("revision", "main")
            if revision not in (*found.revisions, found.commit):
                return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return self._json({"id": name, "sha": found.commit}) if verb == "revision" else self._tree(words[0], name, found, query)
        revision, file = rest[1], "/".join(rest[2:])
        if revision not in (*found.revisions, found.commit):
            return self._error(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        if found.gated and token not in found.readers:
            said = f"Access to dataset {name} is restricted."
            return self._error(403 if token else 401, "GatedRepo", said)
        if file not in found.files:
            return self._error(404, "EntryNotFound", "Entry not found")
        data = found.files[file]
        headers = {"ETag": f'"{oid(data)}"', "X-Repo-Commit": found.commit}
        if len(data) >= LARGE:
            headers |= {
                "X-Linked-Etag": headers["ETag"],
                "X-Linked-Size": str(len(data)),
                "Location": f"{self.server.cdn}/cdn/{quote(name)}/{quote(file)}",
            }
            return self._answer(302, b"", headers)
        return self._data(data, headers)

    def _tree(self, kind: str, name: str, found: Repository, query: str) -> None:
        """Folders are listed too; a page names the next one in its Link header."""
        assert "recursive=true" in query.lower(), "the whole tree"
        start = int(parse_qs(query).get("cursor", ["0"])[0])
        folders = sorted({file.rpartition("/")[0] for file in found.files if "/" in file})
        items: list[dict[str, Any]] = [{"type": "directory", "oid": "0" * 40, "size": 0, "path": folder} for folder in folders]
        for file, data in found.files.items():
            large = {"lfs": {"oid": oid(data), "size": len(data), "pointerSize": 134}} if len(data) >= LARGE else {}
            items.append({"type": "file", "oid": oid(b"pointer") if large else oid(data), "size": len(data), "path": file, **large})
        more = start + PAGE < len(items)
        link = f'<{self.server.url}/api/{kind}/{name}/tree/{found.commit}?recursive=true&cursor={start + PAGE}>; rel="next"'
        self._json(items[start : start + PAGE], {"Link": link} if more else {})

    def _cdn(self, path: str) -> None:
        if "Authorization" in self.headers:
            return self._error(400, "", "a token was sent to where it does not belong")
        if self.server.state.expired:
            self.server.state.expired = False
            return self._error(403, "", "Request has expired")
        name = next(name for name in self.server.state.repositories if path.startswith(f"{name}/"))
        return self._data(self.server.state.repositories[name].files[path.removeprefix(f"{name}/")], {})

    def _data(self, data: bytes, headers: dict[str, str]) -> None:
        if self.fault == "damaged":
            data = data[:-1] + bytes([data[-1] ^ 1])
        wanted = self.headers.get("Range")
        if wanted is None or self.fault == "no ranges":
            return self._answer(200, data, headers)
        start, _, last = wanted.removeprefix("bytes=").partition("-")
        stop = min(int(last) + 1 if last else len(data), len(data))
        if int(start) >= len(data):
            return self._answer(416, b"", {"Content-Range": f"bytes */{len(data)}"})
        headers = {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{len(data)}"}
        return self._answer(206, data[int(start) : stop], headers)

    def _json(self, value: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(200, json.dumps(value).encode(), {"Content-Type": "application/json", **(headers or {})})

    def _error(self, status: int, code: str, message: str) -> None:
        headers = {"Content-Type": "application/json", "X-Error-Message": message, **({"X-Error-Code": code} if code else {})}
        self._answer(status, json.dumps({"error": message}).encode(), headers)

    def _answer(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        cut = self.fault == "cut" and status in (200, 206)
        if self.command != "HEAD":
            self.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            self.close_connection = True


def oid(data: bytes) -> str:
    """How the hub names contents: SHA-256 in git-lfs, else git's own digest."""
    return hashlib.sha256(data).hexdigest() if len(data) >= LARGE else hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()
