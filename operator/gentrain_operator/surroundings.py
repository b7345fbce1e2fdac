"""What a cluster says about places where a job's pods may go: the Pod Security level of its namespace, and nodes with a bad accelerator.

Both are asked for before an attempt and remembered for a minute, whoever asks, or for two while somebody asks anew: then one job waits
for the answer, and not all. Both may be refused: an operator without the right to look goes on as if nothing were known. Of a pool with
more nodes than MOST the first ones are looked at, which a warning says. The
conditions, True of a node that should be left alone unless another value stands here, and who writes them:

AcceleratedHardwareReady (False)     Amazon EKS user guide, "Detect node health issues": the node monitoring agent
GPUMissing, NVLinkStatusInactive,
  XIDErrors, IBLinkFlapping,
  UnhealthyNvidiaDevicePlugin,
  UnhealthyNvidiaDCGMServices        AKS documentation, "Node Problem Detector in AKS nodes": conditions of GPU nodes
SysLogsXIDError, SysLogsSXIDError,
  SysLogsGPUFallenOff                NVIDIA's NVSentinel, syslog health monitor: a condition is called as its check

GKE has no such condition: a node that its own repair means to replace is not Ready. None of them was seen on a cloud by us.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, TypeVar

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import NAMESPACES, NODES, Object, Resource

log = logging.getLogger(__name__)
T = TypeVar("T")

ENFORCE = "pod-security.kubernetes.io/enforce"
LEVELS = ("privileged", "baseline", "restricted")  # from what allows everything to what allows least
BAD: Mapping[str, str] = {
    "AcceleratedHardwareReady": "False",
    **dict.fromkeys(("GPUMissing", "NVLinkStatusInactive", "XIDErrors", "IBLinkFlapping"), "True"),
    **dict.fromkeys(("UnhealthyNvidiaDevicePlugin", "UnhealthyNvidiaDCGMServices"), "True"),
    **dict.fromkeys(("SysLogsXIDError", "SysLogsSXIDError", "SysLogsGPUFallenOff"), "True"),
}
KEPT = 60.0  # seconds
MOST, PAGE = 500, 100  # nodes of a pool that are looked at; of one answer: all of them at once are 6 MB, which other threads wait for


class Server(Protocol):
    """What is needed of kube.client.Client."""

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object: ...
    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object: ...


def takes(enforced: str, level: str) -> bool:
    """Whether a namespace that enforces a level ("": nobody knows, or none) takes pods of that level."""
    return enforced not in LEVELS or LEVELS.index(enforced) <= LEVELS.index(level)


def sick(nodes: Iterable[Object]) -> dict[str, str]:
    """Nodes with a bad accelerator, and what their condition says."""
    found = {}
    for node in nodes:
        for one in node.get("status", {}).get("conditions") or ():
            if BAD.get(one.get("type", "")) == one.get("status"):
                said = clean(str(one.get("message") or one.get("reason") or ""), 160)
                found[str(node["metadata"]["name"])] = f"{one['type']} is {one['status']}{f': {said}' if said else ''}"
    return found


class Surroundings:
    """Safe to use from many threads."""

    def __init__(self, server: Server, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._clock, self._lock = server, clock, threading.Lock()
        self._levels: dict[str, tuple[float, str]] = {}
        self._nodes: dict[str, tuple[float, dict[str, str]]] = {}
        self._asking = threading.Lock()  # held while the server is asked: of many jobs that want to know the same, one asks

    def enforced(self, namespace: str) -> str:
        """The Pod Security level that the namespace enforces; "" of none, or where nobody may look."""
        return self._remembered(self._levels, namespace, lambda: self._level(namespace), "")

    def sick(self, selector: Mapping[str, str]) -> dict[str, str]:
        """Of the nodes with these labels those with a bad accelerator, and why; none where nobody may look."""
        labels = ",".join(f"{name}={value}" for name, value in sorted(selector.items()))
        return self._remembered(self._nodes, labels, lambda: self._sick(labels), {})

    def _sick(self, labels: str) -> dict[str, str]:
        found, page = dict[str, str](), ""
        for _ in range(MOST // PAGE):
            listed = self._server.list(NODES, labels=labels, limit=PAGE, page=page)
            found |= sick(listed["items"])
            page = (listed.get("metadata") or {}).get("continue") or ""
            if not page:
                return found
        log.warning("%s has more nodes than the %d that are looked at for a bad accelerator", labels or "the cluster", MOST)
        return found

    def _level(self, namespace: str) -> str:
        labels = self._server.get(NAMESPACES, None, namespace)["metadata"].get("labels") or {}
        return str(labels.get(ENFORCE, ""))

    def _remembered(self, known: dict[str, tuple[float, T]], name: str, ask: Callable[[], T], nothing: T) -> T:
        there = self._known(known, name)
        if there is not None and self._clock() - there[0] <= KEPT:
            return there[1]
        if not self._asking.acquire(blocking=there is None):
            assert there is not None
            return there[1]
        try:
            there = self._known(known, name)
            if there is not None and self._clock() - there[0] <= KEPT:  # by who asked before
                return there[1]
            try:
                found = ask()
            except ApiError as error:  # it adds a reason, or a node to keep off: no job waits for it
                log.info("the surroundings of a job cannot be looked at: %s", error)
                found = nothing
            with self._lock:
                known[name] = (self._clock(), found)
            return found
        finally:
            self._asking.release()

    def _known(self, known: dict[str, tuple[float, T]], name: str) -> tuple[float, T] | None:
        now = self._clock()
        with self._lock:
            for old in [one for one, (at, _) in known.items() if now - at > 2 * KEPT]:
                del known[old]
            return known.get(name)
