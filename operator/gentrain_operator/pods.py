"""What the pods of a job say about themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from gentrain_operator.kube.resource import Object
from gentrain_operator.rayjob import HEAD, SUBMITTER


def containers(pods: Iterable[Object]) -> Iterator[tuple[Object, str, dict[str, Any]]]:
    for pod in pods:
        status = pod.get("status", {})
        for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            yield pod, str(container.get("name", "")), container.get("state") or {}


def named(pod: Object) -> str:
    return f"pod {pod['metadata']['name']}"


def node_of(pod: Object) -> str | None:
    name = pod.get("spec", {}).get("nodeName")
    return str(name) if name else None


def exit_status(pods: Iterable[Object]) -> int | None:
    """The driver's, from the container that KubeRay submits it with; None while it runs, or when no pod of the head is there."""
    for _, container, state in containers(pods):
        if container == SUBMITTER and state.get("terminated"):
            return int(state["terminated"].get("exitCode", 1))
    return None


def head_runs(pods: Iterable[Object]) -> bool:
    return any(container == HEAD and "running" in state for _, container, state in containers(pods))
