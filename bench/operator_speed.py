"""The operator, as a process of its own, on a real API server: how fast, how much memory, how many writes.

Times are read from the API server's own watch, by one process with one clock: from the event that shows the job to the event that shows
its RayJob. Jobs are created by a third process (bench/operator_load.py). KubeRay does not run; where its part is needed, its stand-in of
the tests writes what it would.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import quantiles
from typing import Any

from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import JOBS, RAYJOBS, Resource
from gentrain_operator.rayjob import PORT
from tests.cluster.control_plane import ControlPlane, control_plane, free_ports
from tests.cluster.kuberay_standin import CRDS, KubeRay

ROOT = Path(__file__).resolve().parent.parent
NAMESPACE, PATIENCE = "bench", 600.0
WRITES = re.compile(r'gentrain_api_requests_total\{code="(\d+)",resource="([^"]+)",verb="(create|update|patch|delete)"\} ([\d.]+)')


class Watcher:
    """Notes when each object of a kind first appeared, in seconds of time.monotonic()."""

    def __init__(self, client: Client, resource: Resource) -> None:
        self.seen: dict[str, float] = {}
        self._client, self._resource = client, resource
        self._version = client.list(resource, NAMESPACE)["metadata"]["resourceVersion"]
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        with contextlib.suppress(ApiError):  # the server was stopped
            self._follow()

    def _follow(self) -> None:
        while True:
            for event in self._client.watch(self._resource, NAMESPACE, version=self._version, seconds=3600):
                self._version = event["object"]["metadata"]["resourceVersion"]
                if event["type"] == "ADDED":
                    self.seen.setdefault(event["object"]["metadata"]["name"], time.monotonic())


class Operator:
    """The process, and what it says of itself."""

    def __init__(self, kubeconfig: Path, folder: Path) -> None:
        (self.port,) = free_ports(1)
        command = [sys.executable, "-m", "gentrain_operator.main", "--trainer-image", "trainer:bench", "--home", NAMESPACE]
        command += ["--namespace", NAMESPACE, "--port", str(self.port), "--kubeconfig", str(kubeconfig)]
        path = os.pathsep.join([str(ROOT), str(ROOT / "operator")])
        self.log = open(folder / "operator.log", "ab")  # noqa: SIM115 as long as the process
        self.process = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path}, stderr=self.log)

    def ask(self, path: str) -> str:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=30) as answer:
                return str(answer.read().decode())
        except OSError:
            return ""

    def value(self, name: str) -> float:
        """The sum of a metric over its labels. Asked for by name: to write down those of all jobs takes longer than what is timed."""
        found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? ([\d.e+-]+)$", self.ask(f"/metrics?name[]={name}"), re.MULTILINE)
        return sum(map(float, found))

    def writes(self) -> dict[str, int]:
        """Writes so far by resource; of the lease, which is renewed every two seconds by whoever leads, apart."""
        counted: dict[str, int] = {}
        for _, resource, _, value in WRITES.findall(self.ask("/metrics")):
            counted[resource] = counted.get(resource, 0) + int(float(value))
        return counted

    def asked(self, verb: str, resource: str = '[^"]+') -> float:
        """How often the API server was asked so far, of one resource or of all."""
        pattern = rf'^gentrain_api_requests_total\{{code="\d+",resource="{resource}",verb="{verb}"\}} ([\d.e+]+)$'
        return sum(map(float, re.findall(pattern, self.ask("/metrics?name[]=gentrain_api_requests_total"), re.MULTILINE)))

    def memory(self, what: str = "VmRSS") -> int:
        """Resident bytes; with VmHWM the most there have been."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(re.findall(rf"{what}:\s+(\d+)", status)[0])

    def processor(self) -> float:
        """Seconds of a core so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self.log.close()


class Endpoints:
    """/progress of as many pods as asked for, each at an address of its own; they answer, or take a connection and say nothing."""

    def __init__(self, count: int) -> None:
        self.step, self.hang, self.hung = 1, threading.Event(), 0
        self.addresses = [f"127.0.1.{number}" for number in range(1, count + 1)]
        endpoints = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if endpoints.hang.is_set():
                    endpoints.hung += 1
                    time.sleep(60)
                    return
                report = {"step": endpoints.step, "samples": 1, "updatedAt": time.time() if endpoints.step > 1 else 1.8e9, "metrics": {}}
                self.send_response(200)
                self.end_headers()
                self.wfile.write(json.dumps(report).encode())

            def log_message(self, format: str, *arguments: Any) -> None:
                pass

        for address in self.addresses:
            server = ThreadingHTTPServer((address, PORT), Handler)
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()


class Place:
    """A cluster with our and KubeRay's definitions and two watches, and an operator at work."""

    def __init__(self, cluster: ControlPlane) -> None:
        self.cluster = cluster
        cluster.define(CRDS)
        cluster.kubectl("create", "namespace", NAMESPACE)
        self.client = Client(from_kubeconfig(str(cluster.kubeconfig)))
        self.kuberay = KubeRay(self.client, NAMESPACE)
        self.jobs, self.rayjobs = Watcher(self.client, JOBS), Watcher(self.client, RAYJOBS)
        self.operator = self.started()

    def started(self) -> Operator:
        operator = Operator(self.cluster.kubeconfig, self.cluster.folder)
        until(lambda: operator.ask("/readyz") == "ok" and operator.value("gentrain_leading") == 1)
        return operator

    def load(self, prefix: str, count: int, rate: float, *more: str) -> list[float]:
        """Creates jobs and waits for their RayJobs; the seconds each took. `more` as bench/operator_load.py takes it."""
        arguments = [str(self.cluster.kubeconfig), NAMESPACE, prefix, str(count), str(rate), *more]
        subprocess.run([sys.executable, "-m", "bench.operator_load", *arguments], cwd=ROOT, check=True)
        names = [f"{prefix}-{number}" for number in range(count)]
        until(lambda: all(f"{name}-a1" in self.rayjobs.seen and name in self.jobs.seen for name in names))
        self.settle()
        return [self.rayjobs.seen[f"{name}-a1"] - self.jobs.seen[name] for name in names]

    def settle(self) -> None:
        """Until nothing is written any more."""
        before: dict[str, int] = {}
        while (now := _but_lease(self.operator.writes())) != before:
            before = now
            time.sleep(1)


@contextlib.contextmanager
def place() -> Iterator[Place]:
    with tempfile.TemporaryDirectory() as folder, control_plane(Path(folder)) as cluster:
        made = Place(cluster)
        try:
            yield made
        finally:
            made.operator.end()


def until(true: Callable[[], Any]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.05)


def _but_lease(writes: dict[str, int]) -> dict[str, int]:
    return {name: count for name, count in writes.items() if name != "leases"}


def since(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    counted = {name: after[name] - before.get(name, 0) for name in _but_lease(after)}
    return {name: count for name, count in sorted(counted.items()) if count}


def spread(seconds: list[float]) -> dict[str, float]:
    """p50, p99 and maximum in milliseconds."""
    cuts = quantiles(seconds, n=100, method="inclusive")
    return {"count": len(seconds), "p50": 1000 * cuts[49], "p99": 1000 * cuts[98], "max": 1000 * max(seconds)}


def speed() -> list[dict[str, Any]]:
    """Latency, burst, memory, writes, and what hung endpoints cost."""
    result: dict[str, Any] = {}
    with place() as at:
        at.load("warm", 20, 10)
        base, count = at.operator.memory(), len(at.jobs.seen)
        result["slow"] = spread(at.load("slow", 60, 1))
        result["fast"] = spread(at.load("fast", 1000, 50))
        at.load("burst", 1000, 0)
        names = [f"burst-{number}" for number in range(1000)]
        first, last = min(at.jobs.seen[name] for name in names), max(at.rayjobs.seen[f"{name}-a1"] for name in names)
        created = max(at.jobs.seen[name] for name in names)
        result["burst"] = {"jobs": 1000, "seconds": last - first, "creating": created - first}
        added = len(at.jobs.seen) - count
        result["memory"] = {"base": base, "jobs": added, "bytesPerJob": (at.operator.memory() - base) / added}
        before = at.operator.writes()
        time.sleep(30)
        result["idle"] = {"seconds": 30, "jobs": len(at.jobs.seen), "writes": since(before, at.operator.writes())}
        endpoints = Endpoints(100)
        result["life"] = life(at, endpoints)
        result["hang"] = hanging(at, endpoints)
    return [result]


def life(at: Place, endpoints: Endpoints) -> dict[str, Any]:
    """Writes from the job's creation to its success, with two reports of progress on the way."""
    before = at.operator.writes()
    at.load("life", 1, 1)
    at.kuberay.initialize("life-0-a1")
    at.settle()
    at.kuberay.run("life-0-a1", endpoints.addresses[0], started=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))

    def step() -> int:
        return int((at.client.get(JOBS, NAMESPACE, "life-0").get("status") or {}).get("progress", {}).get("step", 0))

    for number in (100, 200):
        endpoints.step = number
        until(lambda number=number: step() == number)
    at.kuberay.succeed("life-0-a1")
    until(lambda: at.client.get(JOBS, NAMESPACE, "life-0")["status"]["phase"] == "Succeeded")
    at.settle()
    return {"reports": 2, "writes": since(before, at.operator.writes())}


def hanging(at: Place, endpoints: Endpoints) -> dict[str, Any]:
    """New jobs while 100 others answer, and while they hang, in turns."""
    endpoints.step = 1
    for number, address in enumerate(endpoints.addresses):
        name = f"fast-{number}-a1"
        status = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "rayClusterStatus": {"head": {"podIP": address}}}
        body = {"apiVersion": RAYJOBS.api_version, "kind": RAYJOBS.kind, "metadata": {"name": name}, "status": status}
        at.client.apply(RAYJOBS, NAMESPACE, body, manager="kuberay", subresource="status")
    time.sleep(12)  # every endpoint was asked once
    at.settle()
    seconds: dict[str, list[float]] = {"answering": [], "hanging": []}
    for turn in range(4):
        kind = ("answering", "hanging")[turn in (1, 2)]
        endpoints.hang.set() if kind == "hanging" else endpoints.hang.clear()
        seconds[kind] += at.load(f"turn{turn}", 400, 20)
    spreads = {kind: spread(found) for kind, found in seconds.items()}
    return {"endpoints": len(endpoints.addresses), "hung": endpoints.hung, **spreads}


def restart(count: int = 10_000) -> list[dict[str, Any]]:
    """An operator that starts where `count` jobs stand: until it is ready, until it has looked at all of them, and what it wrote."""
    with place() as at:
        began = time.monotonic()
        at.load("job", count, 0)
        creating = max(at.rayjobs.seen.values()) - began
        grown = at.operator.memory()
        at.operator.end()
        began = time.monotonic()
        at.operator = Operator(at.cluster.kubeconfig, at.cluster.folder)
        until(lambda: at.operator.ask("/readyz") == "ok")
        synced = time.monotonic() - began
        until(lambda: at.operator.value("gentrain_reconcile_seconds_count") >= count and at.operator.value("gentrain_queue_depth") == 0)
        looked = time.monotonic() - began
        at.settle()
        rayjobs = sum(name.startswith("job-") for name in at.rayjobs.seen)
        return [
            {
                "jobs": count,
                "creating": creating,
                "synced": synced,
                "looked": looked,
                "duplicates": rayjobs - count,
                "writes": since({}, at.operator.writes()),
                "memoryBefore": grown,
                "memoryAfter": at.operator.memory(),
            }
        ]
