"""An operator at work in a namespace, and the hands to play the user, KubeRay and the trainer's /progress."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import JOBS, Object
from gentrain_operator.main import Operator, Settings
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kuberay_standin import KubeRay

IMAGE = "trainer:test"


class Running:
    """An operator in threads of this process."""

    def __init__(self, kubeconfig: str, namespace: str) -> None:
        self.operator = Operator(from_kubeconfig(kubeconfig), Settings(IMAGE, namespace, namespace, port=0))
        self.stopped, self.result = threading.Event(), -1
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        self.result = self.operator.run(self.stopped)

    def stop(self) -> None:
        self.stopped.set()
        self.thread.join(60)
        assert not self.thread.is_alive()


def whole(operator: Operator) -> bool:
    """Whether every thread that reconciles, watches or writes events is alive."""
    return operator.workers.alive() and all(one._thread.is_alive() for one in (*operator.reflectors, operator.recorder))


def until(true: Callable[[], Any], seconds: float = 120.0, said: Callable[[], Any] = lambda: "it did not come about") -> Any:
    """Waits for what others do; its value once it is true. A server that is down or has nothing there is asked again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if value := true():
                return value
        except ApiError as error:
            if error.status not in (0, 404, 429, 500, 503):
                raise
        assert time.monotonic() < deadline, said()
        time.sleep(0.02)


def manifest(name: str, **spec: Any) -> Object:
    base = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 100}, "compute": {"gpusPerWorker": 0, "workers": 2}}
    return {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": {"name": name}, "spec": {**base, **spec}}


def attempts(client: Client, namespace: str, name: str) -> int:
    return int((client.get(JOBS, namespace, name).get("status") or {}).get("attempts", 0))


def report(step: int, **more: Any) -> Object:
    return {
        "step": step,
        "samples": step * 64,
        "updatedAt": time.time(),
        "metrics": {"loss": 0.5},
        "etaSeconds": 100 - step,
        "stage": 1,
        **more,
    }


class Driver:
    """The trainer's end of /progress: says what the test last put into `report`, or leaves it to `misbehave` and gives it a way to send."""

    def __init__(self) -> None:
        self.report: Any = {}
        self.misbehave: Callable[[Callable[[bytes], Any]], None] | None = None
        driver = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if driver.misbehave is not None:
                    return driver.misbehave(self.wfile.write)
                body = json.dumps(driver.report).encode()
                self.send_response(200 if self.path == "/progress" else 404)
                self.end_headers()
                self.wfile.write(body)

            def handle(self) -> None:
                with contextlib.suppress(OSError):  # who asked had enough
                    super().handle()

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port: int = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


class Bench:
    """A namespace with an operator at work in it, and the hands to play user and KubeRay."""

    def __init__(self, cluster: ControlPlane, namespace: str, driver: Driver, kubeconfig: str = "") -> None:
        self.cluster, self.namespace, self.driver = cluster, namespace, driver
        self.client = Client(from_kubeconfig(str(cluster.kubeconfig)))
        self.kuberay = KubeRay(self.client, namespace)
        self._kubeconfig, self.webhook = kubeconfig or str(cluster.kubeconfig), ""
        self.start()

    def start(self) -> None:
        self._stopped = threading.Event()
        self.operator = Operator(
            from_kubeconfig(self._kubeconfig), Settings(IMAGE, self.namespace, self.namespace, port=0, webhook=self.webhook)
        )
        self._thread = threading.Thread(target=self.operator.run, args=(self._stopped,))
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join(60)
        assert not self._thread.is_alive()

    def apply(self, name: str = "job", **spec: Any) -> Object:
        return self.client.create(JOBS, self.namespace, manifest(name, **spec))

    def job(self, name: str = "job") -> Object:
        return self.client.get(JOBS, self.namespace, name)

    def status(self, name: str = "job") -> Object:
        status: Object = self.job(name).get("status") or {}
        return status

    def until(self, true: Callable[[], Any], seconds: float = 120.0) -> Any:
        return until(true, seconds, lambda: json.dumps([one.get("status") for one in self.jobs()], indent=1))

    def jobs(self) -> list[Object]:
        return list(self.client.list(JOBS, self.namespace)["items"])

    def phase(self, wanted: str, name: str = "job") -> Object:
        def reached() -> Object | None:
            status = self.status(name)
            return status if status.get("phase") == wanted else None

        found: Object = self.until(reached)
        return found

    def reason(self, type_: str, name: str = "job") -> str:
        found = [one["reason"] for one in self.status(name).get("conditions", ()) if one["type"] == type_]
        return found[0] if found else ""

    def rayjob(self, name: str) -> Object:
        found: Object = self.until(lambda: self.kuberay.rayjobs().get(name))
        return found

    def running(self, name: str = "job", attempt: int = 1) -> str:
        """Brings an attempt to RUNNING; the RayJob's name."""
        rayjob = f"{name}-a{attempt}"
        self.rayjob(rayjob)
        self.kuberay.initialize(rayjob)
        self.kuberay.run(rayjob)
        return rayjob


@pytest.fixture
def over_cluster(cluster: ControlPlane, namespace: str, driver: Driver) -> Iterator[Bench]:
    """For modules with a `cluster` of their own, which write `bench = over_cluster`."""
    running = Bench(cluster, namespace, driver)
    yield running
    running.stop()
