"""The pods of a job, and what they say about themselves."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Protocol

from gentrain_operator.kube.resource import PODS, Object, Resource
from gentrain_operator.kube.store import Key
from gentrain_operator.names import JOB_LABEL, label_value
from gentrain_operator.rayjob import HEAD, SUBMITTER


class Server(Protocol):
    """What is needed of kube.client.Client: gtj, which reads pods as well, does not import that."""

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object: ...


def of_job(client: Server, key: Key) -> list[Object]:
    """The pods of all attempts of a job, as the server has them now."""
    labels = f"{JOB_LABEL}={label_value(key.name)}"
    return list(client.list(PODS, key.namespace, labels=labels, limit=500).get("items") or ())


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
