"""When what happened in a namespace, as its watchers saw it; and the records that are kept of it in bench/results/e2e."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import threading
import time
from collections.abc import Callable
from types import TracebackType

from tests.e2e.cluster import ROOT, Cluster, Object

RESULTS = ROOT / "bench" / "results" / "e2e"
KINDS = ("generativetrainingjobs.gentrain.dev", "rayjobs.ray.io", "pods")


class Sight:
    """While the block runs, every change of jobs, RayJobs and pods in a namespace is kept with the time it was seen."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self._cluster, self._namespace = cluster, namespace
        self.seen: list[tuple[float, str, Object]] = []
        self._watches: list[subprocess.Popen[bytes]] = []
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Sight:
        for kind in KINDS:
            watch = self._cluster.start("kubectl", "get", kind, "-n", self._namespace, "--watch", "--output-watch-events", "-o", "json")
            self._watches.append(watch)
            self._threads.append(threading.Thread(target=self._read, args=(kind, watch), daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        for watch in self._watches:
            watch.terminate()
            watch.wait()
        for thread in self._threads:
            thread.join(timeout=10)

    def _read(self, kind: str, watch: subprocess.Popen[bytes]) -> None:
        assert watch.stdout is not None
        for line in watch.stdout:
            event = json.loads(line)
            self.seen.append((time.time(), kind, {"event": event["type"], **event["object"]}))

    def first(self, kind: str, there: Callable[[Object], object], since: float = 0.0) -> float | None:
        """When an object of a kind was first seen as `there` wants it."""
        return next((when for when, one, found in self.seen if one.startswith(kind) and when >= since and there(found)), None)


def condition(type_: str) -> Callable[[Object], bool]:
    """Whether a job's condition is True."""
    return lambda found: any(
        one["type"] == type_ and one["status"] == "True" for one in (found.get("status") or {}).get("conditions") or ()
    )


def record(name: str, content: Object) -> None:
    """Keep what a test measured, with what it was measured on."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    machine = {"cores": os.cpu_count(), "memoryGiB": round(memory, 1), "kernel": platform.release(), "load1": os.getloadavg()[0]}
    text = {"name": name, "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "machine": machine, **content}
    (RESULTS / f"{name}.json").write_text(json.dumps(text, indent=1) + "\n")
