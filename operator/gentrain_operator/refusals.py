"""What the API server has against a child of a job, in our words: whose turn it is, and when to ask again. Pure.

A refusal is an answer to the object that was asked for: a quota, a policy, a webhook, a rule of the server. It stays until somebody changes
something, so it is a condition of the job and not an error of the operator. A server that is busy, down, or was overtaken is none.
"""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass

from gentrain_operator.conditions import Condition
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object

AGAIN = (10.0, 300.0)  # seconds until the next try: as long as it has been refused already, within these


# Reasons of the condition Accepted, and what each means for a {kind}.
WHAT = {
    "AdmissionDenied": "a policy of the cluster does not allow the {kind}",
    "WebhookFailed": "a webhook that must agree to the {kind} fails",
    "Forbidden": "the operator may not write the {kind}",
    "NamespaceTerminating": "the namespace is being deleted",
    "TooLarge": "the server does not take a {kind} of this size",
    "KubeRayMissing": "the cluster does not know RayJobs: is KubeRay installed?",
    "Invalid": "the server does not take the {kind}",
    "AccountNotFound": "the service account of the {kind} does not exist",
}


# The near end of a connection that broke: another one at each try, and a message that changes is written, and looked at, at once.
_NEAR_END = re.compile(r":\d+(?=->)")
_NO_ACCOUNT = re.compile(r'serviceaccount "([^"]+)" not found')


@dataclass(frozen=True)
class Refusal:
    """`reason` in CamelCase, of the condition ResourcesReady for a quota, of Accepted for the rest; `message` begins with a code."""

    reason: str
    message: str

    def conditions(self) -> list[Condition]:
        if self.reason == "QuotaExceeded":
            return [Condition("Accepted", True, "Accepted"), Condition("ResourcesReady", False, self.reason, self.message)]
        return [Condition("Accepted", False, self.reason, self.message)]

    def again(self, before: Object, now: datetime.datetime) -> float:
        """Seconds until the next try, by how long the status says that it has been refused: no counter is needed, a restart keeps it."""
        for one in before.get("conditions") or ():
            if one.get("status") == "False" and one.get("reason") == self.reason:
                since = datetime.datetime.fromisoformat(one["lastTransitionTime"])
                return min(AGAIN[1], max(AGAIN[0], (now - since).total_seconds()))
        return AGAIN[0]


class Refused(Exception):
    """The API server does not take a child of the job."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.message)
        self.refusal = refusal


def of_pod(error: ApiError, pod: Object) -> Refusal | None:
    """The same of a pod that the operator itself creates: whose account and whose security are looked at."""
    told = _said(error)
    missing = _NO_ACCOUNT.search(error.message)
    if missing:
        what, who = WHAT["AccountNotFound"].format(kind="preflight pod"), clean(missing[1], 253)
        how = "(spec.pod.serviceAccountName, or the profile's). It goes on by itself once it does"
        return Refusal("AccountNotFound", f"GTJ0111 {what}: {who} {how}")
    if error.status == 403 and "violates PodSecurity" in error.message:
        return Refusal("PodsForbidden", f"GTJ0303 the namespace's Pod Security level does not allow pod {pod['metadata']['name']}: {told}")
    return refusal(error, str(pod["kind"]))


def refusal(error: ApiError, kind: str) -> Refusal | None:
    """What a failed create or change of a `kind` means for its job; None when it is no refusal: the next look may simply do better."""
    reason = _reason(error)
    if reason is None:
        return None
    told = _said(error)
    if reason == "QuotaExceeded":
        return Refusal(reason, f"GTJ0203 the namespace's quota is used up: {told}")
    return Refusal(reason, f"GTJ0305 {WHAT[reason].format(kind=kind)}: {told}")


def _said(error: ApiError) -> str:
    return clean(_NEAR_END.sub("", error.message or error.reason), 700)


def _reason(error: ApiError) -> str | None:
    text = error.message
    denied = "denied the request" in text or "denied request" in text
    if error.status == 404:
        return None if "namespaces" in text else "KubeRayMissing"
    if error.status == 409:
        # Taken names are for create_child; a quota that was counted by somebody else meanwhile is for the next look.
        return "AdmissionDenied" if denied else None
    if error.status == 413:
        return "TooLarge"
    if error.status == 403:
        if "exceeded quota" in text or ("must specify" in text and "quota" in text):
            return "QuotaExceeded"
        if "being terminated" in text:
            return "NamespaceTerminating"
        return "Forbidden" if re.search("cannot (create|patch) resource", text) and not denied else "AdmissionDenied"
    if error.status in (400, 405, 422):
        return "AdmissionDenied" if denied else "Invalid"
    return "WebhookFailed" if error.status >= 500 and "webhook" in text else "AdmissionDenied" if error.status >= 500 and denied else None
