"""Conditions (KEP-1623) and the events that follow from their changes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gentrain_operator.kube.events import Event, clean
from gentrain_operator.kube.resource import Object

# The order in which they are shown: the order in which a job goes through them.
TYPES = (
    "Ready",
    "Accepted",
    "QuotaReserved",
    "ResourcesReady",
    "Running",
    "CheckpointReady",
    "TrainingHealthy",
    "Suspended",
    "WithinBudget",
    "Complete",
    "Failed",
    "Finished",
)


# What a reason says of itself, where nothing more particular is known.
MEANINGS = {
    "Accepted": "the spec can run",
    "NotQueued": "no queue was asked for",
    "Admitted": "Kueue has admitted the job",
    "WaitingForQuota": "the queue has not admitted the job yet",
    "Preempted": "the machines were taken back; progress is kept in the checkpoint",
    "Ready": "head and workers are running",
    "ScalingUp": "pods are being scheduled, or images pulled",
    "Stepping": "steps are advancing",
    "Preflight": "a small pod looks at image, account, data and store first",
    "Starting": "no step has been made yet",
    "Recovering": "goes on from the last checkpoint",
    "GaveBack": "it gave its pods back, because the others did not come",
    "PodsLost": "goes on without pods that do not end",
    "NeverSaved": "there is no checkpoint yet",
    "Saved": "a checkpoint exists to resume from",
    "Troubled": "the trainer warns of something, and goes on",
    "Suspended": "its machines are given back",
    "BudgetReached": "its budget is used up",
    "WithinBudget": "less than 80 % of budget.maxUSD is spent",
    "BudgetNearlySpent": "80 % of budget.maxUSD is spent",
    "Suspending": "its pods are still ending",
    "NotSuspended": "nobody asked for it",
    "Succeeded": "every step is done",
}


@dataclass(frozen=True)
class Condition:
    """`reason` in CamelCase; `message` for people, by default what the reason means."""

    type: str
    status: bool
    reason: str
    message: str = ""


def settled(before: Iterable[Object], wanted: Iterable[Condition], generation: int, now: str) -> list[Object]:
    """The conditions to write: each wanted one, with the time of its last change kept while its status stays. Others go away."""
    old = {one["type"]: one for one in before}
    written = {}
    conditions = list(wanted)
    for one in (ready(conditions), *conditions):
        status = "True" if one.status else "False"
        last = old.get(one.type, {})
        changed = last.get("status") != status
        written[one.type] = {
            "type": one.type,
            "status": status,
            "reason": one.reason,
            "message": clean(one.message or MEANINGS.get(one.reason, "")),
            "observedGeneration": generation,
            "lastTransitionTime": now if changed else last["lastTransitionTime"],
        }
    return [written[type_] for type_ in TYPES if type_ in written]


def ready(conditions: Sequence[Condition]) -> Condition:
    """One condition for tools that know nothing of jobs, such as Flux and whatever else follows kstatus.

    True while steps advance and when all are done; else False, with the reason of the first condition that does not hold.
    """
    by_type = {one.type: one for one in conditions}
    for good in ("Complete", "Running"):
        if good in by_type and by_type[good].status:
            return Condition("Ready", True, by_type[good].reason, by_type[good].message)
    for ended in ("Failed", "Suspended"):
        if ended in by_type and by_type[ended].status:
            return Condition("Ready", False, by_type[ended].reason, by_type[ended].message)
    waits = next((one for one in conditions if not one.status and one.type not in _BESIDE), None)
    return Condition("Ready", False, waits.reason, waits.message) if waits else Condition("Ready", False, "Starting")


def is_true(conditions: Iterable[Object], type_: str) -> bool:
    return any(one["type"] == type_ and one["status"] == "True" for one in conditions)


_BESIDE = ("CheckpointReady", "TrainingHealthy", "Suspended", "WithinBudget")  # False of a job that trains as well


# Whoever reads events wants to be warned of these, whatever the condition's polarity.
_WARNINGS = {
    *("UploadFailed", "Troubled", "BudgetReached", "BudgetNearlySpent"),
    *("KueueNotInstalled", "QueueNotFound", "QueueStopped", "ExceedsQuota", "TopologyNotFound"),
    *("InvalidSpec", "ProfileNotFound", "SecretNotFound", "AccountNotFound", "PlanDoesNotFit", "NameTaken"),
    *("PreflightFailed", "PreflightInconclusive"),
    *("AdmissionDenied", "WebhookFailed", "Forbidden", "NamespaceTerminating", "TooLarge", "KubeRayMissing", "Invalid"),
    *(
        "Unschedulable",
        "NoCapacity",
        "QuotaExceeded",
        "PodsForbidden",
        "ImagePullFailed",
        "Stalled",
        "Recovering",
        "GaveBack",
        "PodsLost",
        "Preempted",
        "Failed",
    ),
}
# Finished comes with Complete or Failed, Ready with all of them, and what was never asked for is no news.
_SILENT_TYPES, _SILENT_REASONS = {"Finished", "Ready"}, {"NotQueued", "NotSuspended", "WithinBudget"}


def events(before: Iterable[Object], after: Iterable[Object]) -> Iterator[Event]:
    """An event for every condition whose status or reason changed; the absent ones were False for no reason worth telling."""
    old = {one["type"]: (one["status"], one["reason"]) for one in before}
    for one in after:
        is_news = old.get(one["type"], ("False", one["reason"])) != (one["status"], one["reason"]) or (
            one["type"] not in old and one["reason"] in _WARNINGS
        )
        if is_news and one["type"] not in _SILENT_TYPES and one["reason"] not in _SILENT_REASONS:
            warning = one["reason"] in _WARNINGS
            yield Event("Warning" if warning else "Normal", one["reason"], one["type"], one["message"] or one["reason"])
