"""One small pod before the first attempt: what is wrong with image, account, store or data is found before accelerators are held. Pure.

The pod is the head of the attempt with another command (trainjobs/cli/preflight.py): the same image, account, environment, volumes,
security and place, so that a node which takes it takes the head, and no accelerator. It is called by its job, so there is one at most. Its
annotation says what it looks at; a pod that looks at something else goes. What it found stands in `status.preflight`, and is remembered
for a day: written first, before the pod is deleted, so that an operator that dies in between knows it.

A verdict that refuses keeps the job waiting, with the code in the condition Accepted, and is asked for again. A pod that ends without
one (an image with a trainer of before, which does not know the command; a node that took it along) proves nothing: the job goes on, and
says so.
"""

from __future__ import annotations

import datetime
import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import PODS, Object
from gentrain_operator.names import JOB_LABEL, MANAGED_BY, MANAGED_LABEL, label_value, preflight_name
from gentrain_operator.rayjob import MOUNT
from gentrain_operator.times import parsed_time, time
from gentrain_operator.waiting import Waiting, waiting
from trainjobs.api.codes import CODES
from trainjobs.api.errors import sentences

CONTAINER = "preflight"
COMMAND = ("python", "-m", "trainjobs.cli.preflight", f"{MOUNT}/job.json")
LABEL = "gentrain.dev/preflight"  # of the pod, in place of the job's own: it is no pod of an attempt
KEY = "gentrain.dev/preflight-of"  # annotation: what it looks at
DEADLINE = 600  # seconds, once it is on a node
REMEMBERED = datetime.timedelta(days=1)
AGAIN = (10.0, 300.0)  # seconds after a verdict that refuses: doubled from the first to the second
POLL = (1.0, 10.0)  # seconds between looks at the pod: a tenth of its age, within these
_CANNOT_START = {"StartError", "ContainerCannotRun"}
_MISSING = re.compile(
    r'\b(secret|configmap|persistentvolumeclaim|references non-existent)\b.*"[^"]+".*not found', re.IGNORECASE | re.DOTALL
)


_WHERE = "It is the preflight, which goes where the head goes: the profile's head.selector and head.tolerations"


@dataclass(frozen=True)
class Verdict:
    """What a pod that has ended says. `said` begins with a code unless all is well."""

    passed: bool
    said: str


def pod(job: Object, rayjob: Object) -> Object:
    """The preflight of an attempt, from the head of its RayJob."""
    template = rayjob["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]
    container = {name: value for name, value in template["spec"]["containers"][0].items() if name != "ports"}
    container |= {"name": CONTAINER, "command": list(COMMAND), "terminationMessagePolicy": "FallbackToLogsOnError"}
    # Secrets of the head's own that nothing here needs, and access to the API server.
    container["env"] = [one for one in container["env"] if one["name"] != "GENTRAIN_NONCE"]
    spec = {
        **template["spec"],
        "containers": [container],
        "restartPolicy": "Never",
        "activeDeadlineSeconds": DEADLINE,
        "terminationGracePeriodSeconds": 5,
        "automountServiceAccountToken": False,
    }
    ours = (JOB_LABEL, "gentrain.dev/attempt")
    labels = {name: value for name, value in template["metadata"]["labels"].items() if name not in ours}
    labels |= {LABEL: label_value(job["metadata"]["name"]), MANAGED_LABEL: MANAGED_BY}
    notes = template["metadata"]["annotations"]
    looks_at = hashlib.sha256(json.dumps([labels, notes, spec], sort_keys=True).encode()).hexdigest()[:16]
    metadata = {"name": preflight_name(job["metadata"]["name"]), "labels": labels, "annotations": {**notes, KEY: looks_at}}
    return {"apiVersion": PODS.api_version, "kind": PODS.kind, "metadata": metadata, "spec": spec}


def key(pod: Object) -> str:
    """What a preflight looks at: a digest of job, image, account, and all else that its pod is made of."""
    return str((pod["metadata"].get("annotations") or {}).get(KEY, ""))


def remembered(status: Object, looks_at: str, now: datetime.datetime) -> Object | None:
    """The entry of `status` about just this, if it is not older than a day."""
    entry: Object = status.get("preflight") or {}
    at = parsed_time(entry.get("at"))
    recent = at is not None and now - REMEMBERED < at <= now + REMEMBERED
    return entry if recent and entry.get("key") == looks_at else None


def pause(entry: Object, now: datetime.datetime) -> float:
    """Seconds until it is looked at again after a verdict that refuses; 0: now."""
    wait: float = min(AGAIN[1], AGAIN[0] * 2.0 ** min(int(entry.get("tries", 1)) - 1, 16))
    since = (now - (parsed_time(entry.get("at")) or now)).total_seconds()
    return min(wait, max(0.0, wait - since))


def kept(status: Object, looks_at: str, verdict: Verdict, now: datetime.datetime) -> Object:
    """`status.preflight` after a verdict."""
    before = status.get("preflight") or {}
    tries = before.get("tries", 0) + 1 if before.get("key") == looks_at and not before.get("passed") else 1
    return {"key": looks_at, "at": time(now), "passed": verdict.passed, "tries": tries, "said": clean(verdict.said, 1024)}


def verdict(pod: Object) -> Verdict | None:
    """What the pod found; None while it has not ended."""
    ended = _ended(pod)
    if ended is None:
        return _without(pod) if pod.get("status", {}).get("phase") in ("Succeeded", "Failed") else None
    if ended.get("reason") in _CANNOT_START:
        why = clean(str(ended.get("message", "")), 512)
        how = "Name an image with Gentrain's trainer in it: spec.pod.image, or the profile's image"
        return Verdict(False, sentences(f"GTJ0204 the image cannot run {COMMAND[0]}: {why}", how))
    found = _parsed(str(ended.get("message", "")))
    if found is None:
        return _without(pod, ended)
    if found["passed"]:
        lines = found.get("found")
        return Verdict(True, "; ".join(clean(str(line), 300) for line in lines) if isinstance(lines, list) else "")
    code = str(found.get("code", ""))
    return Verdict(False, _line(code if code in CODES else "GTJ0306", found))


def stuck(pod: Object, told: Mapping[str, Sequence[Object]], by: datetime.datetime) -> Waiting | None:
    """Why a pod that has not ended does not run; None when nothing is known against it. `told` and `by` as waiting() has them."""
    found = waiting([pod], {}, told, by)
    missing = _missing(pod, told.get(str(pod["metadata"].get("uid", "")), ()))
    if missing or (found and found.reason == "Unschedulable" and "persistentvolumeclaim" in found.message and "not found" in found.message):
        words = missing or found.message.removeprefix("GTJ0202 ") if found else missing
        return Waiting("Accepted", "SecretNotFound", sentences(f"GTJ0111 {words}", "It goes on by itself once that exists"))
    if found is None or found.reason in ("ScalingUp", "SecretNotFound"):
        return found
    if found.reason == "ImagePullFailed":
        return Waiting("Accepted", "ImagePullFailed", found.message)
    message = sentences(found.message[: 1000 - len(_WHERE)], _WHERE)
    if found.reason == "NoCapacity":
        return Waiting("Accepted", "NoCapacity", message)
    return Waiting("Accepted", "Unschedulable", message)


def poll(pod: Object, now: datetime.datetime) -> float:
    begun = parsed_time(pod["metadata"].get("creationTimestamp")) or now
    return max(POLL[0], min(POLL[1], (now - begun).total_seconds() / 10))


def _ended(pod: Object) -> Mapping[str, Any] | None:
    """How our container ended; others that a webhook put into the pod may run on."""
    for one in pod.get("status", {}).get("containerStatuses") or ():
        if one.get("name") == CONTAINER:
            ended: Mapping[str, Any] | None = (one.get("state") or {}).get("terminated")
            return ended
    return None


def _parsed(text: str) -> Object | None:
    """A verdict; None of anything else that a container may leave behind."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("passed"), bool) else None


def _line(code: str, found: Object) -> str:
    """As JobError.line writes it."""
    what, where, why, how = (clean(str(found.get(name) or ""), 320) for name in ("what", "where", "why", "how"))
    text = f"{code} {what}" + (f" ({where})" if where else "") + (f": {why}" if why else "")
    return sentences(text, how)


def _without(pod: Object, ended: Mapping[str, Any] | None = None) -> Verdict:
    status = pod.get("status", {})
    why = str((ended or {}).get("message") or status.get("message") or status.get("reason") or "")
    how = f"exit status {ended.get('exitCode')}" if ended else str(status.get("phase"))
    # The last line of what it wrote: of a traceback the one that says most.
    last = next((line for line in reversed(why.splitlines()) if line.strip()), "")
    return Verdict(
        True, f"GTJ0306 the preflight ended without a verdict, and the job goes on ({how}{': ' + clean(last, 400) if last else ''})"
    )


def _missing(pod: Object, events: Iterable[Object]) -> str:
    """What a kubelet cannot mount because it is not there."""
    for event in events:
        said = str(event.get("note") or event.get("message") or "")
        if event.get("reason") in ("FailedMount", "FailedAttachVolume") and _MISSING.search(said):
            return clean(said, 512)
    return ""
