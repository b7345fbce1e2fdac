"""A stand-in for the kubelet's log endpoint, behind a real API server: what a container wrote, as the kubelet hands it out.

The API server finds it through a Node object and speaks to it as to any kubelet: HTTPS, /containerLogs/NAMESPACE/POD/CONTAINER, the query
of the user's request. Nothing is run; lines are what a test puts there.
"""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.cluster.control_plane import ControlPlane


class Kubelet:
    """The node `name`. `lines` are (seconds since 1970, text) of every container; `waiting` what is said instead while there are none.

    `cut`: a followed stream breaks off after as many lines, once. Otherwise it ends when `over` is set.
    """

    def __init__(self, cluster: ControlPlane, name: str) -> None:
        self.cluster, self.name = cluster, name
        self.lines: list[tuple[float, str]] = []
        self.waiting = ""
        self.cut = 0
        self.over = threading.Event()
        self.asked: list[dict[str, str]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cluster.certificate, cluster.folder / "server.key")
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        node = {
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {"name": name},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.server.server_address[1]}},
            },
        }
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))

    def bind(self, namespace: str, pod: str) -> None:
        """What the scheduler does."""
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": pod}, "target": {"kind": "Node", "name": self.name}}
        path = f"/api/v1/namespaces/{namespace}/pods/{pod}/binding"
        self.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(binding))

    def close(self) -> None:
        self.over.set()
        self.server.shutdown()
        self.server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        kubelet = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
                kubelet.asked.append(query)
                if kubelet.waiting:
                    self.send_response(400)
                    self.end_headers()
                    self.wfile.write(kubelet.waiting.encode())
                    return
                self.send_response(200)
                self.send_header("Content-Type", "text/plain")
                self.end_headers()
                kubelet.send(query, self.wfile.write)

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        return Handler

    def send(self, query: dict[str, str], write: Callable[[bytes], Any]) -> None:
        """The lines from `sinceTime` on, whole ones; of a cut stream, half of the next as well."""
        since = datetime.fromisoformat(query["sinceTime"]).timestamp() if "sinceTime" in query else 0.0
        sent, place = 0, 0
        while True:
            while place < len(self.lines):
                at, text = self.lines[place]
                place += 1
                if at < since:
                    continue
                raw = f"{datetime.fromtimestamp(at, UTC).strftime('%Y-%m-%dT%H:%M:%S.%f')}000Z {text}\n".encode()
                if "follow" in query and self.cut and sent == self.cut:
                    self.cut = 0
                    write(raw[: len(raw) // 2])
                    raise ConnectionResetError
                write(raw)
                sent += 1
            if "follow" not in query or self.over.wait(0.02):
                return
