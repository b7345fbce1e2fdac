"""A sentence for every reason that keeps a job from being accepted or its pods from coming up."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from gentrain_operator.waiting import spoken_by
from trainjobs.cli.cluster.view import Object, condition, status_of

# What a reason of the condition Accepted means, and of what the API server refuses. A test wants a sentence for every reason there is.
REFUSED = {
    "InvalidSpec": "the operator cannot use its spec",
    "ProfileNotFound": "it waits for a compute profile",
    "PodsForbidden": "a policy of the cluster keeps its pods from being created",
    "SecretNotFound": "its pods wait for a secret or a config map",
    "AccountNotFound": "the service account that it names does not exist",
    "PreflightFailed": "something that it needs beside machines is missing or refused",
    "Unschedulable": "its preflight, which is as large as its head, fits no node",
    "NoCapacity": "there are no machines to be had for its preflight, and so none for its head",
    "ImagePullFailed": "its image cannot be pulled",
    "NameTaken": "somebody else's RayJob has the name that it needs",
    "PlanDoesNotFit": "it fits none of its profiles",
    "QuotaExceeded": "the namespace's quota keeps its attempt from being made",
    "AdmissionDenied": "a policy of the cluster refuses what the operator makes for it",
    "WebhookFailed": "a webhook of the cluster fails, and nothing can be made for it",
    "Forbidden": "the operator lacks a permission in its namespace",
    "NamespaceTerminating": "its namespace is being deleted",
    "TooLarge": "what the operator makes for it is larger than the server takes",
    "KubeRayMissing": "the cluster has no KubeRay to run it",
    "Invalid": "the server does not take what the operator makes for it",
}
# Why its pods do not come up.
STUCK = {
    "QuotaExceeded": "the namespace's quota keeps its pods from being created",
    "PodsForbidden": "a policy of the cluster keeps its pods from being created",
    "SecretNotFound": "its pods wait for a secret or a config map",
    "ImagePullFailed": "its image cannot be pulled",
    "Unschedulable": "its pods fit no node",
    "NoCapacity": "there are no machines to be had for its pods",
    "ScalingUp": "its pods wait for machines",
}

# What was before a pause between two attempts, where it is no failure.
PAUSED = {"GaveBack": "it gave its pods back because it could not get all of them"}


def asked_of_autoscalers(job: Object, now: float) -> datetime | None:
    """As `by` of the operator's waiting(). Whether an autoscaler may yet speak is for the operator to say, which knows the profile."""
    early = (condition(job, "ResourcesReady") or {}).get("reason") == "ScalingUp"
    return spoken_by("any", datetime.fromtimestamp(now, UTC)) if early else None


def without_quota(job: Object) -> dict[str, Any] | None:
    """The condition that says that a quota keeps the next attempt from being made; that of an attempt's pods is told with them."""
    status, found = status_of(job), condition(job, "ResourcesReady")
    none_under_way = status.get("attempts", 0) == status.get("ended", 0)
    return found if found and none_under_way and (found.get("status"), found.get("reason")) == ("False", "QuotaExceeded") else None
