"""The operator's own web server: /livez, /readyz and /metrics.

Alive means that work gets done, not that this server answers: a reflector that has heard nothing for three minutes (bookmarks come every
minute) or a worker that has been at one key for five means that the pod should be restarted.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Protocol

SILENT, STUCK = 180.0, 300.0

# What is wrong; "" when nothing is.
Check = Callable[[], str]


class Listener(Protocol):
    """What the probes need of a reflector."""

    resource: Any
    synced: threading.Event

    def silence(self) -> float: ...


def silent_reflector(reflectors: Sequence[Listener]) -> Check:
    def check() -> str:
        silent = [f"{one.resource.plural} for {one.silence():.0f} s" for one in reflectors if one.silence() > SILENT]
        return f"nothing heard of {', '.join(silent)}" if silent else ""

    return check


def stuck_worker(longest_work: Callable[[], float], alive: Callable[[], bool]) -> Check:
    def check() -> str:
        if not alive():
            return "a worker has died"
        seconds = longest_work()
        return f"a worker has been busy for {seconds:.0f} s" if seconds > STUCK else ""

    return check


def not_synced(reflectors: Sequence[Listener]) -> Check:
    def check() -> str:
        waiting = [one.resource.plural for one in reflectors if not one.synced.is_set()]
        return f"waiting for {', '.join(waiting)}" if waiting else ""

    return check


class Probes:
    """Serves on `port` (0: any free one; see `port` afterwards). A check that raises counts as failed. `notes` are said by /readyz as well
    and fail nothing."""

    def __init__(
        self,
        port: int,
        *,
        live: Sequence[Check],
        ready: Sequence[Check],
        notes: Sequence[Check] = (),
        metrics: Callable[[], bytes],
        host: str = "",
    ) -> None:
        checks = {"/livez": live, "/readyz": ready}

        class Handler(BaseHTTPRequestHandler):
            timeout = 10  # a client that says nothing does not keep a thread

            def do_GET(self) -> None:
                if self.path == "/metrics":
                    self._answer(200, metrics())
                elif self.path in checks:
                    problems = [problem for check in checks[self.path] if (problem := _outcome(check))]
                    told = [note for check in notes if (note := _outcome(check))] if self.path == "/readyz" else []
                    self._answer(503 if problems else 200, "\n".join([*(problems or ["ok"]), *told]).encode())
                else:
                    self._answer(404, b"/livez /readyz /metrics")

            def _answer(self, status: int, body: bytes) -> None:
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass  # a line every second from every prober says nothing

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="probes", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(timeout=5)


def _outcome(check: Check) -> str:
    try:
        return check()
    except Exception as error:
        return repr(error)
