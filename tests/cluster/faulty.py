"""An API server that misbehaves on purpose: an HTTPS proxy in front of a real one.

Each request is shown to a script, which lets it pass or names a fault. A script sees requests one at a time, in the order of their
arrival, so that "the third list of RayJobs" means the same in every run; `weather` decides by the request itself (and how often it came),
so that the same seed gives the same faults whatever the threads of a client do.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import re
import socket
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.cluster.control_plane import ControlPlane


@dataclass(frozen=True)
class Request:
    """`count`: how often this method and path came, this time included; the query, where only versions and timeouts differ, aside."""

    method: str
    path: str
    query: str
    count: int

    @property
    def watch(self) -> bool:
        return "watch=true" in self.query


@dataclass(frozen=True)
class Refuse:
    """The request is answered here and never reaches the server."""

    status: int
    retry_after: str = ""
    body: bytes = b'{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"Injected","message":"injected"}'


@dataclass(frozen=True)
class Lose:
    """The server carries the request out; the connection breaks before the answer comes back."""


@dataclass(frozen=True)
class Reset:
    """The connection breaks before the server hears of the request."""


@dataclass(frozen=True)
class Hang:
    """Nothing is answered and the connection stays open, until the proxy is closed: what a half-open connection looks like."""


@dataclass(frozen=True)
class Tell:
    """A watch: answered with this one line, then ended."""

    line: bytes


@dataclass(frozen=True)
class First:
    """`act` runs before the request goes on to the server."""

    act: Callable[[], None]


@dataclass(frozen=True)
class Then:
    """`act` runs when the server has carried the request out, before the answer comes back."""

    act: Callable[[], None]


Fault = Refuse | Lose | Reset | Hang | Tell | First | Then
Script = Callable[[Request], Fault | None]
GONE = Tell(b'{"type":"ERROR","object":{"kind":"Status","code":410,"reason":"Expired","message":"too old resource version"}}\n')


def on(method: str, path: str, *faults: Fault | None) -> Script:
    """The first requests with this method ("WATCH" for a watch) whose path matches meet these faults, one each; later ones none."""
    left = list(faults)

    def script(request: Request) -> Fault | None:
        kind = "WATCH" if request.watch else request.method
        return left.pop(0) if left and kind == method and re.search(path, request.path) else None

    return script


def weather(seed: int, share: float, *faults: Fault) -> Script:
    """A share of all requests meets one of the faults. A request that came for the fourth time passes, so that everything ends well."""

    def script(request: Request) -> Fault | None:
        key = f"{seed} {request.method} {request.watch} {request.path} {request.count}".encode()
        number = int.from_bytes(hashlib.sha256(key).digest()[:8])
        if request.count % 4 == 0 or number / 2**64 >= share or "/leases/" in request.path:
            return None
        return faults[number % len(faults)]

    return script


@dataclass
class Faulty:
    """`script` may be replaced at any time; `met` counts the faults by name, `seen` the requests as (method, path)."""

    cluster: ControlPlane
    script: Script = lambda request: None
    met: Counter[str] = field(default_factory=Counter)
    seen: Counter[tuple[str, str]] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._lock, self.closed = threading.Lock(), threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cluster.certificate, self.cluster.folder / "server.key")
        # The handshake is left to the connection's own thread: one slow client must not hold up the others.
        self._server.socket = context.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self.url = f"https://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def kubeconfig(self, name: str) -> str:
        """The administrator's, by way of this proxy."""
        return str(self.cluster.write_kubeconfig(name, self.cluster.admin_token, self.url))

    def fault(self, method: str, path: str, query: str) -> Fault | None:
        with self._lock:
            self.seen[method, path] += 1
            fault = self.script(Request(method, path, query, self.seen[method, path]))
            if fault is not None:
                self.met[type(fault).__name__ + (f" {fault.status}" if isinstance(fault, Refuse) else "")] += 1
            return fault

    def close(self) -> None:
        self.closed.set()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def faulty(cluster: ControlPlane) -> Iterator[Faulty]:
    proxy = Faulty(cluster)
    try:
        yield proxy
    finally:
        proxy.close()


def _handler(proxy: Faulty) -> type[BaseHTTPRequestHandler]:
    context = ssl.create_default_context(cafile=str(proxy.cluster.certificate))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path, _, query = self.path.partition("?")
            fault = proxy.fault(self.command, path, query)
            match fault:
                case Refuse():
                    self._answer(fault.status, {"Retry-After": fault.retry_after} if fault.retry_after else {}, fault.body)
                case Tell():
                    self._answer(200, {}, fault.line)
                case Reset():
                    self._break()
                case Hang():
                    proxy.closed.wait()
                    self._break()
                case _:
                    if isinstance(fault, First):
                        fault.act()
                    self._forward(body, fault)

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _serve

        def _forward(self, body: bytes, fault: Fault | None) -> None:
            there = http.client.HTTPSConnection("127.0.0.1", proxy.cluster.port, context=context, timeout=120)
            headers = {name: value for name, value in self.headers.items() if name.lower() not in ("host", "connection")}
            try:
                there.request(self.command, self.path, body or None, headers)
                answer = there.getresponse()
                if isinstance(fault, Lose):
                    answer.read()
                    return self._break()
                if isinstance(fault, Then):
                    fault.act()
                self.send_response(answer.status)
                for name in ("Content-Type", "Retry-After", "Warning"):
                    if value := answer.getheader(name):
                        self.send_header(name, value)
                self.send_header("Transfer-Encoding", "chunked")
                self.end_headers()
                while data := answer.read1(65536):
                    self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))
                self.wfile.write(b"0\r\n\r\n")
            except (OSError, http.client.HTTPException):
                self._break()
            finally:
                there.close()

        def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
            self.send_response(status)
            for name, value in {**headers, "Content-Type": "application/json", "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def _break(self) -> None:
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

        def handle(self) -> None:
            with contextlib.suppress(OSError):  # the client went away
                super().handle()

        def log_message(self, format: str, *arguments: Any) -> None:
            pass

    return Handler
