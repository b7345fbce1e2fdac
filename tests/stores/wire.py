"""An HTTP proxy before a store's server that does to chosen requests what networks and busy servers do. One request at a time is chosen."""

from __future__ import annotations

import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

Fault = Literal["429", "500", "503", "half-open", "slow", "lost request", "lost answer", "cut answer", "damaged answer", "damaged request"]
FAULTS: tuple[Fault, ...] = ("429", "500", "503", "half-open", "slow", "lost request", "lost answer", "cut answer")


class Wire(ThreadingHTTPServer):
    """`fault` happens to one of `every` requests, by a seeded chance; "damaged ..." only to those that carry bytes of an object."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, target: int) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.lock = target, threading.Lock()
        self.fault: Fault | None = None
        self.every, self.chance = 3, random.Random(0)
        self.done: Counter[str] = Counter()
        self.ended = threading.Event()

    def next(self) -> Fault | None:
        with self.lock:
            if self.fault is None or self.chance.random() >= 1 / self.every:
                return None
            self.done[self.fault] += 1
            return self.fault


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Wire

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            body = b"".join(self._chunks())
        fault = self.server.next()
        if fault in ("429", "500", "503"):
            self._answer(int(fault), [("Retry-After", "0")], b"")
            return
        if fault == "half-open":
            self.server.ended.wait(30)  # the client gives up before
            self.close_connection = True
            return
        if fault == "lost request":
            self._hang_up()
            return
        if fault == "damaged request" and len(body) > 100:
            body = body[:50] + bytes([body[50] ^ 1]) + body[51:]
        status, headers, data = self._ask(body)
        plain = not any(name.lower() == "content-type" and ("json" in value or "xml" in value) for name, value in headers)
        if fault == "lost answer":
            self._hang_up()
        elif fault == "damaged answer" and self.command == "GET" and status in (200, 206) and data and plain:
            self._answer(status, headers, data[:-1] + bytes([data[-1] ^ 1]))
        else:
            self._answer(status, headers, data, cut=fault == "cut answer", slow=fault == "slow")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = do_PATCH = forward

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _ask(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.target, timeout=60)
        dropped = ("expect", "connection", "transfer-encoding", "content-length")
        headers = {name: value for name, value in self.headers.items() if name.lower() not in dropped}
        if body or self.command in ("PUT", "POST"):
            headers["Content-Length"] = str(len(body))
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        return answer.status, answer.getheaders(), data

    def _answer(self, status: int, headers: list[tuple[str, str]], data: bytes, *, cut: bool = False, slow: bool = False) -> None:
        self.send_response_only(status)
        told = False
        for name, value in headers:
            if name.lower() in ("transfer-encoding", "connection"):
                continue
            if name.lower() == "content-length":
                told = True
            self.send_header(name, value)
        if not told:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "HEAD":
            return
        if cut and data:
            self.wfile.write(data[: len(data) // 2])
            self._hang_up()
        elif slow:
            for start in range(0, len(data), max(1, len(data) // 4)):
                self.wfile.write(data[start : start + max(1, len(data) // 4)])
                self.wfile.flush()
                self.server.ended.wait(0.05)
        else:
            self.wfile.write(data)

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *arguments: Any) -> None:
        pass


@contextmanager
def wire(target: int) -> Iterator[Wire]:
    with Wire(target) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
        thread.start()
        try:
            yield proxy
        finally:
            proxy.ended.set()
            proxy.shutdown()
            thread.join()
