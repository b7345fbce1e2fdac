"""What the driver's pod serves of a run folder: /progress for the operator, /metrics for Prometheus.

The files are written by others while they are read here, and hold text that a user's code produced. So what is torn is answered with what
was last whole, and nothing is larger than the operator reads. Whoever asks slowly, or often, costs a thread for five seconds at most,
and there are few of them.
"""

from __future__ import annotations

import json
import math
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

LIMIT = 15 * 1024  # bytes of a report: the operator reads 16 kB, headers included
ENTRIES = 64  # of a mapping or list; the operator keeps 32 metrics
TEXTS = (4096, 2048, 1024, 512, 256, 128, 64)  # characters of one text, the first that makes a report fit
CLIENT_SECONDS = 5.0
CLIENTS = 16

Labels = Mapping[str, str]


class Report:
    """A run folder as one JSON object: progress.json, with failure.json as its `failure` once there is one, and as `job` whose it is: the
    operator takes no report for another's that was given the same address. Nothing in the folder says otherwise."""

    def __init__(self, run: Path, job: Mapping[str, Any] | None = None) -> None:
        self._run, self._job = run, job
        self._last: dict[str, Any] = {}

    def read(self) -> dict[str, Any]:
        self._last = whole(self._run / "progress.json") or self._last
        failure = whole(self._run / "failure.json")
        last = {**self._last, "failure": failure} if failure else dict(self._last)
        return {"job": dict(self._job), **{name: value for name, value in last.items() if name != "job"}} if self._job else last


def whole(path: Path) -> dict[str, Any]:
    """A JSON object, or {} when there is none, or not yet all of it."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def bounded(report: Mapping[str, Any], limit: int = LIMIT) -> str:
    """The report as one line of JSON, at most `limit` bytes of ASCII: long texts lose their middle; what still does not fit is left out."""
    for length in TEXTS:
        text = json.dumps(clipped(report, length))
        if len(text) <= limit:
            return text
    kept: dict[str, Any] = {}
    for name, value in clipped(report, TEXTS[-1]).items():
        if len(json.dumps({**kept, name: value})) <= limit:
            kept[name] = value
    return json.dumps(kept)


def clipped(value: Any, length: int, depth: int = 6) -> Any:
    if isinstance(value, str):
        return value if len(value) <= length else value[: length // 4] + "…" + value[-(length - length // 4 - 1) :]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # JSON has no word for it
    if isinstance(value, dict | list) and depth == 0:
        return None
    if isinstance(value, dict):
        return {clipped(name, 128): clipped(inner, length, depth - 1) for name, inner in list(value.items())[:ENTRIES]}
    return [clipped(inner, length, depth - 1) for inner in value[:ENTRIES]] if isinstance(value, list) else value


def exposition(report: Mapping[str, Any], labels: Labels) -> str:
    """The report in Prometheus' text format 0.0.4. What is missing, or no number, is left out."""
    families: list[tuple[str, str, str, list[tuple[Labels, Any]]]] = [
        ("step", "gauge", "Step the training has reached.", [({}, report.get("step"))]),
        ("steps", "gauge", "Steps it is to reach.", [({}, report.get("totalSteps"))]),
        ("samples", "gauge", "Samples drawn so far.", [({}, report.get("samples"))]),
        ("metric", "gauge", "Latest losses and scores, by name.", [({"name": name}, value) for name, value in _items(report, "metrics")]),
        ("throughput", "gauge", "What is trained on in a second, by unit.", [_throughput(report)]),
        ("eta_seconds", "gauge", "Expected time to the last step.", [({}, report.get("etaSeconds"))]),
        ("memory_bytes", "gauge", "Peak memory of rank 0.", [({}, report.get("memoryBytes"))]),
        ("workers", "gauge", "Workers of the group.", [({}, report.get("workers"))]),
        ("checkpoint_step", "gauge", "Step of the newest checkpoint.", [({}, dict(_items(report, "checkpoint")).get("step"))]),
        ("restarts_total", "counter", "Times the group of workers was started again.", [({}, report.get("restarts", 0))]),
        ("failed", "gauge", "1 once the training has failed, by code.", [_failed(report)]),
        ("updated_timestamp_seconds", "gauge", "When the trainer last said something.", [({}, report.get("updatedAt"))]),
    ]
    return "".join(line for family in families for line in _lines(*family, labels=labels))


def _throughput(report: Mapping[str, Any]) -> tuple[Labels, Any]:
    found = dict(_items(report, "throughput"))
    return {"unit": str(found.get("unit", ""))}, found.get("value")


def _failed(report: Mapping[str, Any]) -> tuple[Labels, Any]:
    failure = dict(_items(report, "failure"))
    return {"code": str(failure.get("code", ""))}, 1 if failure else None


def _items(report: Mapping[str, Any], name: str) -> list[tuple[str, Any]]:
    value = report.get(name)
    return list(value.items())[:ENTRIES] if isinstance(value, dict) else []


def _lines(name: str, kind: str, help_: str, samples: list[tuple[Labels, Any]], labels: Labels) -> Iterator[str]:
    found = [(own, number) for own, value in samples if (number := _number(value)) is not None]
    if found:
        yield f"# HELP gentrain_training_{name} {help_}\n# TYPE gentrain_training_{name} {kind}\n"
    for own, number in found:
        text = ",".join(f'{key}="{_escaped(value)}"' for key, value in {**labels, **own}.items())
        yield f"gentrain_training_{name}{{{text}}} {number}\n"


def _number(value: Any) -> str | None:
    """progress.json writes what is not finite as text: that is a number for Prometheus, too."""
    if isinstance(value, str) and value in ("nan", "inf", "-inf"):
        return {"nan": "NaN", "inf": "+Inf", "-inf": "-Inf"}[value]
    return repr(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _escaped(text: str) -> str:
    return text[:128].replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


class MetricsServer(ThreadingHTTPServer):
    """Serves the pages while the block runs. Port 0 takes a free one: `port` says which."""

    daemon_threads = True
    address_family = socket.AF_INET6 if socket.has_dualstack_ipv6() else socket.AF_INET

    def __init__(self, read: Callable[[], Mapping[str, Any]], labels: Labels, port: int) -> None:
        """OSError when the port is taken."""
        self.read, self.labels = read, labels
        self.told = threading.Event()  # once somebody has been told how it ended
        self._free = threading.BoundedSemaphore(CLIENTS)
        self._thread = threading.Thread(target=self.serve_forever, args=(0.1,), name="pages", daemon=True)
        super().__init__(("", port), _Handler)

    @property
    def port(self) -> int:
        return int(self.server_address[1])

    def __enter__(self) -> MetricsServer:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.shutdown()
        self._thread.join()
        self.server_close()

    def server_bind(self) -> None:
        if self.address_family == socket.AF_INET6:
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._free.acquire(blocking=False):
            self.shutdown_request(request)  # the operator, and Prometheus, come again
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is no event of the training."""


class _Handler(BaseHTTPRequestHandler):
    server: MetricsServer
    timeout = CLIENT_SECONDS
    server_version, sys_version = "gentrain", ""

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        if path == "/progress":
            report = self.server.read()
            self._answer(bounded(report) + "\n", "application/json")
            if "failure" in report or report.get("phase") == "Succeeded":
                self.server.told.set()
        elif path == "/metrics":
            self._answer(exposition(self.server.read(), self.server.labels), "text/plain; version=0.0.4; charset=utf-8")
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def _refuse_method(self) -> None:
        self._refuse(HTTPStatus.METHOD_NOT_ALLOWED, ("Allow", "GET"))

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _refuse_method

    def _answer(self, text: str, kind: str) -> None:
        self.send_response(HTTPStatus.OK)
        self._finish(text, ("Content-Type", kind), ("Cache-Control", "no-store"))

    def _refuse(self, status: HTTPStatus, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        self._finish(f"{status.phrase}\n", ("Content-Type", "text/plain"), *headers)

    def _finish(self, text: str, *headers: tuple[str, str]) -> None:
        body = text.encode(errors="replace")
        for name, value in (*headers, ("Content-Length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Being asked every few seconds is no event of the training."""
