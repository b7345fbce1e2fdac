"""The pods of a job, and what they say about themselves."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import EVENTS, PODS, Object, Resource
from gentrain_operator.kube.store import Key
from gentrain_operator.names import JOB_LABEL, label_value
from gentrain_operator.rayjob import HEAD, SUBMITTER
from gentrain_operator.times import parsed_time

LOOKED = 3


class Server(Protocol):
    """What is needed of kube.client.Client: gtj, which reads pods as well, does not import that."""

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object: ...


class EventServer(Protocol):
    def list(self, resource: Resource, namespace: str | None = None, *, fields: str = "", limit: int = 0) -> Object: ...


def of_job(client: Server, key: Key) -> list[Object]:
    """The pods of all attempts of a job, as the server has them now."""
    labels = f"{JOB_LABEL}={label_value(key.name)}"
    return list(client.list(PODS, key.namespace, labels=labels, limit=500).get("items") or ())


def fits_nowhere(pod: Object) -> str | None:
    """What the scheduler says of a pod that it has no node for; None of any other pod."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return str(condition.get("message", ""))
    return None


def refused_at(pod: Object) -> datetime.datetime | None:
    """When the scheduler first had no node for a pod that has none yet. Whatever it says of it later, the condition keeps this time."""
    for condition in pod.get("status", {}).get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return parsed_time(condition.get("lastTransitionTime"))
    return None


def told(server: EventServer, namespace: str, pods: Sequence[Object], rayjob: Object | None = None) -> dict[str, Sequence[Object]]:
    """What was said lately about pods that fit no node, by their UID: of LOOKED of them, since pods of one group are told the same. Of a
    RayJob that was taken up and has no pod yet, what was said about it. Nothing where the operator may not read events, as with a role of
    before: they add a reason, no more."""
    stuck = [str(pod["metadata"]["uid"]) for pod in pods if pod["metadata"].get("uid") and fits_nowhere(pod) is not None]
    if rayjob is not None and not pods and (rayjob.get("status") or {}).get("jobDeploymentStatus"):
        stuck = [str(rayjob["metadata"]["uid"])]
    try:
        return {uid: server.list(EVENTS, namespace, fields=f"regarding.uid={uid}", limit=100).get("items") or () for uid in stuck[:LOOKED]}
    except ApiError as error:
        if error.status != 403:
            raise
        return {}


def containers(pods: Iterable[Object]) -> Iterator[tuple[Object, str, dict[str, Any]]]:
    for pod in pods:
        status = pod.get("status", {})
        for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            yield pod, str(container.get("name", "")), container.get("state") or {}


def labels_of(pod: Object) -> dict[str, str]:
    found: dict[str, str] = pod["metadata"].get("labels") or {}
    return found


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
