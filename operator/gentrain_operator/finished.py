"""A job that has ended: nothing of it may go on, and after its time it is deleted."""

from __future__ import annotations

import datetime

from gentrain_operator.kube.resource import Object
from gentrain_operator.observed import Decision, Observed
from gentrain_operator.times import parsed_time

TERMINAL = ("Complete", "Failed", "ValidationFailed")  # jobDeploymentStatus
# Whoever waits for a job looks at it every few seconds: one that were deleted at once would be gone, with what became of it.
SEEN = 15.0


def over(rayjob: Object) -> bool:
    """Whether KubeRay is done with a RayJob for good."""
    return (rayjob.get("status") or {}).get("jobDeploymentStatus") in TERMINAL


def finished(seen: Observed, now: datetime.datetime) -> Decision:
    """What is left to do. A spec that changes afterwards changes nothing more, and the status says that it was seen: tools that apply
    manifests wait for that."""
    live = tuple(one for one in seen.rayjobs if not over(one))
    status, generation = seen.job.get("status") or {}, seen.job["metadata"].get("generation", 0)
    told = {**status, "observedGeneration": generation} if status.get("observedGeneration") != generation else None
    ttl, ended = (seen.job.get("spec") or {}).get("ttlSecondsAfterFinished"), parsed_time(status.get("finishedAt"))
    if ttl is None or ended is None:
        return Decision(status=told, delete=live)
    left = max(float(ttl), SEEN) - (now - ended).total_seconds()
    return Decision(status=told, delete=live, delete_job=left <= 0, again=left if left > 0 else None)
