"""Pods of an earlier attempt that do not go.

A pod that is being deleted says until when it has to be gone: its deletionTimestamp is the moment of the deletion plus its own grace. A
kubelet that lives sees to that; on a node that is lost the pod stays Terminating for as long as the node's object does, which may be for
ever. Five minutes later the next attempt goes on without it. What the operator knows of nodes are prices, and it needs no more: should
the pod still run, two attempts write to one place, and there the newer one's fence in the checkpoint log turns the older away
(docs/concepts/checkpoint-format.md).
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from gentrain_operator.conditions import Condition
from gentrain_operator.kube.resource import Object
from gentrain_operator.names import ATTEMPT_LABEL
from gentrain_operator.pods import named, node_of
from gentrain_operator.times import parsed_time, time

GRACE = datetime.timedelta(minutes=5)  # beyond the pod's own
NAMED = 3  # pods, in a message


def lost(pod: Object, now: datetime.datetime) -> bool:
    """Whether nobody ends a pod that should have ended by itself."""
    until = _until(pod)
    return until is not None and now >= until


def awaited(pods: Sequence[Object]) -> str:
    """Who is waited for before the next attempt, and for how long."""
    limits = [until for pod in pods if (until := _until(pod)) is not None]
    limit = f"; at {time(max(limits))} at the latest it goes on without what is being deleted and still there" if limits else ""
    return f"waiting for {len(pods)} pods of the last attempt to end: {_listed(pods)}{limit}"


def left_behind(
    job: Object, pods: Sequence[Object], told: Sequence[Condition], attempt: int, now: datetime.datetime, *, listed: bool
) -> list[Condition]:
    """That an attempt goes on without pods of an earlier one, for as long as it has nothing else to say of itself. Before KubeRay has begun
    with its RayJob nobody has `listed` pods: what was said stays."""
    found = [pod for pod in pods if pod["metadata"].get("labels", {}).get(ATTEMPT_LABEL) != str(attempt) and lost(pod, now)]
    message = (
        f"goes on without {_listed(found)}: deleted, and still there five minutes after its grace, so its node is probably lost. "
        "If it still runs, it can save nothing any more; delete the node's object, or the pod by force, to be rid of it"
    )
    if not found:
        before = (job.get("status") or {}).get("conditions") or ()
        message = "" if listed else next((str(one["message"]) for one in before if one["reason"] == "PodsLost"), "")
    return [Condition("Running", False, "PodsLost", message)] if message and all(one.type != "Running" for one in told) else []


def _until(pod: Object) -> datetime.datetime | None:
    deleted = parsed_time(pod["metadata"].get("deletionTimestamp"))
    return deleted + GRACE if deleted else None


def _listed(pods: Sequence[Object]) -> str:
    """ "pod a on node n, pod b that is on no node, and 2 more"."""
    found = [f"{named(pod)} on node {node}" if (node := node_of(pod)) else f"{named(pod)} that is on no node" for pod in pods]
    more = [f"and {len(found) - NAMED} more"] if len(found) > NAMED else []
    return ", ".join([*found[:NAMED], *more])
