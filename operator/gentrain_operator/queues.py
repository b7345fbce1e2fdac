"""Kueue: whether a RayJob is its to suspend, and why one that it holds waits.

Whoever suspends a RayJob that carries a queue's name is Kueue, also where the job names no queue: a LocalQueue called `default` takes every
RayJob of its namespace. The operator never turns `suspend` of such a RayJob: with the quota used up the two would fight over it, and each
turn starts a cluster. What Kueue says is asked for only while a RayJob waits, and it may be that nobody can be asked.
"""

from __future__ import annotations

import datetime
import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from gentrain_operator.conditions import Condition
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import Object, Resource
from gentrain_operator.rayjob import QUEUE_LABEL
from trainjobs.api.job import Spec

VERSIONS = ("v1beta2", "v1beta1")
# In Kueue's words, of the flavor that came closest: what is asked for is more than the quota ever has, borrowed quota included.
_NEVER = re.compile(r"> maximum capacity \(")
# Seconds between two looks at what Kueue says, for nothing tells the operator that a Workload has changed: as long as the job has waited
# already, within these. That it is admitted, Kueue writes into the RayJob, which is watched.
LOOK = (30.0, 300.0)
# In Kueue's words: no flavor has the level. One that has, and only lacks quota, is named with what is insufficient.
_NO_LEVEL = re.compile(r"does not support TopologyAwareScheduling|does not contain the requested level")


class Server(Protocol):
    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0) -> Object: ...


@dataclass(frozen=True)
class Looked:
    """What Kueue knows. `served`: whether there is one, None when it cannot be told; `queues`: the namespace's LocalQueues; `workload`:
    what stands for the RayJob there."""

    served: bool | None = None
    queues: tuple[str, ...] | None = None
    workload: Object | None = None


UNKNOWN = Looked()


def queue_of(spec: Spec, rayjob: Object) -> str | None:
    """The LocalQueue whose RayJob it is, if any. What the RayJob carries counts: Kueue puts a queue there by itself, and taking
    compute.queue out of a job does not take a RayJob away from Kueue."""
    labels = rayjob["metadata"].get("labels") or {}
    return labels.get(QUEUE_LABEL) or spec.compute.queue


def look(server: Server, namespace: str, rayjob: Object) -> Looked:
    """Asks for the namespace's queues and the RayJob's Workload. Raises nothing that is a refusal: what it adds is a reason."""
    for version in VERSIONS:
        queues, workloads = (
            Resource("kueue.x-k8s.io", version, plural, kind) for plural, kind in (("localqueues", "LocalQueue"), ("workloads", "Workload"))
        )
        try:
            names = tuple(str(one["metadata"]["name"]) for one in server.list(queues, namespace, limit=100).get("items") or ())
            uid = rayjob["metadata"]["uid"]
            found = server.list(workloads, namespace, labels=f"kueue.x-k8s.io/job-uid={uid}", limit=100).get("items") or ()
        except ApiError as error:
            if error.not_found:
                continue  # not served, or not in this version
            if not error.status or error.status >= 500 or error.status == 429:
                raise
            return UNKNOWN
        return Looked(True, names, _current(found))
    return Looked(served=False)


def again(before: Object, now: datetime.datetime) -> float:
    """Seconds until a job that waits in a queue is looked at again, by how long its status says that it has."""
    for one in before.get("conditions") or ():
        if one.get("type") == "QuotaReserved" and one.get("status") == "False":
            return min(LOOK[1], max(LOOK[0], (now - datetime.datetime.fromisoformat(one["lastTransitionTime"])).total_seconds()))
    return LOOK[0]


def held(queue: str, looked: Looked, priority: str | None = None) -> Condition:
    """QuotaReserved of a RayJob that waits in a queue, with `priority` as its WorkloadPriorityClass."""
    if looked.served is False:
        message = f"compute.queue is {queue}, and this cluster has no Kueue (kueue.x-k8s.io): install it, or make the job without a queue"
        return Condition("QuotaReserved", False, "KueueNotInstalled", f"GTJ0111 {message}")
    if looked.queues is not None and queue not in looked.queues:
        message = f"there is no LocalQueue {queue} in this namespace; {_others(queue, looked.queues)}"
        return Condition("QuotaReserved", False, "QueueNotFound", f"GTJ0111 {message}")
    conditions = ((looked.workload or {}).get("status") or {}).get("conditions") or ()
    evicted = _true(conditions, "Evicted")
    if evicted is not None:
        return Condition("QuotaReserved", False, "Preempted", f"queue {queue} has taken the quota back: {evicted}")
    why = next(
        (str(one.get("message", "")) for one in conditions if one.get("type") == "QuotaReserved" and one.get("status") != "True"), ""
    )
    if _NEVER.search(why):
        return Condition("QuotaReserved", False, "ExceedsQuota", f"GTJ0203 queue {queue} can never admit the job: {why}")
    if _NO_LEVEL.search(why) and "insufficient" not in why:
        message = f"GTJ0111 no flavor of queue {queue} has the level that compute.topology names: {why}"
        return Condition("QuotaReserved", False, "TopologyNotFound", message)
    if "is inactive" in why or "is stopped" in why:
        return Condition("QuotaReserved", False, "QueueStopped", f"GTJ0203 queue {queue} admits nothing now: {why}")
    if looked.workload is None and looked.served and priority:
        why = f"it has not taken it up yet; is there a WorkloadPriorityClass {priority} (compute.priorityClass)?"
    return Condition("QuotaReserved", False, "WaitingForQuota", f"queue {queue} has not admitted the job" + (f": {why}" if why else ""))


def _current(workloads: Iterable[Object]) -> Object | None:
    """The Workload that counts: an elastic job that has grown has one for each size that it had, and all but the last are finished."""

    def order(one: Object) -> tuple[bool, str]:
        over = _true((one.get("status") or {}).get("conditions") or (), "Finished") is not None
        return not over, str(one["metadata"].get("creationTimestamp", ""))

    return max(workloads, key=order, default=None)


def _true(conditions: Iterable[Object], type_: str) -> str | None:
    """The message of a condition that holds."""
    return next((str(one.get("message", "")) for one in conditions if one.get("type") == type_ and one.get("status") == "True"), None)


def _others(queue: str, names: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(queue, names, 1)
    if near:
        return f"did you mean {near[0]}?"
    return f"there is {', '.join(sorted(names)[:8])}" if names else "there is none at all: ask who runs the cluster for one"
