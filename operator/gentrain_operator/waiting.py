"""Why the pods of an attempt do not run yet, and who has to do something about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.pods import containers, named

_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True)
class Waiting:
    """Why pods do not run yet: a reason of the condition ResourcesReady, or of Accepted for what the user has to bring."""

    condition: Literal["ResourcesReady", "Accepted"]
    reason: str
    message: str


def waiting(pods: Iterable[Object], rayjob: Object) -> Waiting | None:
    """Why the pods of a young attempt do not all run; None when nothing is wrong with them."""
    found = list(pods)
    return _quota(rayjob) or _forbidden(rayjob) or _unmountable(found) or _unpullable(found) or _unschedulable(found)


def _quota(rayjob: Object) -> Waiting | None:
    for text in _complaints(rayjob):
        if "exceeded quota" in text:
            return Waiting("ResourcesReady", "QuotaExceeded", f"GTJ0203 the namespace's quota is used up: {clean(text, 512)}")
    return None


def _forbidden(rayjob: Object) -> Waiting | None:
    """Pods that the API server does not let KubeRay create, by Pod Security or another policy."""
    for text in _complaints(rayjob):
        if "is forbidden" in text or "denied the request" in text:
            return Waiting("ResourcesReady", "PodsForbidden", f"GTJ0303 the cluster does not allow the job's pods: {clean(text, 512)}")
    return None


def _complaints(rayjob: Object) -> Iterator[str]:
    """What KubeRay says of pods that it could not create: in a condition of the cluster, and in older places."""
    status = rayjob.get("status", {})
    cluster = status.get("rayClusterStatus", {})
    for condition in cluster.get("conditions") or ():
        if condition.get("type") == "ReplicaFailure" and condition.get("status") == "True":
            yield str(condition.get("message", ""))
    yield str(status.get("message", ""))
    yield str(cluster.get("reason", ""))


def _unmountable(pods: list[Object]) -> Waiting | None:
    for _, _, state in containers(pods):
        stuck = state.get("waiting") or {}
        if stuck.get("reason") == "CreateContainerConfigError":
            message = f"GTJ0111 {clean(str(stuck.get('message', '')), 512)}. It goes on by itself once that exists"
            return Waiting("Accepted", "SecretNotFound", message)
    return None


def _unpullable(pods: list[Object]) -> Waiting | None:
    for _, container, state in containers(pods):
        stuck = state.get("waiting") or {}
        if stuck.get("reason") in _PULL:
            message = f"GTJ0204 {container} cannot pull its image: {clean(str(stuck.get('message', '')), 512)}"
            return Waiting("ResourcesReady", "ImagePullFailed", message)
    return None


def _unschedulable(pods: list[Object]) -> Waiting | None:
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions") or ():
            if condition.get("type") == "PodScheduled" and condition.get("reason") == "Unschedulable":
                message = f"GTJ0202 {named(pod)} fits no node: {clean(str(condition.get('message', '')), 512)}"
                return Waiting("ResourcesReady", "Unschedulable", message)
    return None
