"""From evidence to a verdict: why an attempt ended, whose fault it is, and what to do about it.

The class decides about retries and is a stable contract:

- Infrastructure: nothing the user did; retried for free;
- Preemption: somebody took the machines back; retried for free;
- Application: the training code or its settings; retried `recovery.maxRetries` times;
- Configuration: will fail in the same way for ever; not retried.

The trainer's own record knows best and is asked first. KubeRay's `reason` comes last, because it misleads: a lost head reads AppFailed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.pods import containers, head_runs, named, node_of
from gentrain_operator.rayjob import HEAD, SUBMITTER, nonce_of
from trainjobs.api.codes import CODES
from trainjobs.api.errors import sentences

Class = Literal["Infrastructure", "Preemption", "Application", "Configuration"]

# What the driver prints last, so that it is part of KubeRay's message even when the head pod is gone.
RECORD = "gentrain-failure: "
_INFRASTRUCTURE = {"GTJ0114", "GTJ0117", "GTJ0201", "GTJ0211", "GTJ0213"}
_DISRUPTIONS = {"PreemptionByScheduler", "DeletionByTaintManager", "EvictionByEvictionAPI", "TerminationByKubelet", "DeletionByPodGC"}
UNEXPLAINED = "the training code ended with an error"


@dataclass(frozen=True)
class Failure:
    """`summary` says what, `detail` why, `resolution` what to do. All of it is cleaned text of bounded length."""

    code: str
    class_: Class
    summary: str
    detail: str = ""
    resolution: str = ""
    rank: int | None = None
    node: str | None = None
    step: int | None = None
    log_tail: str | None = None

    def line(self) -> str:
        return clean(sentences(f"{self.code} {self.summary}" + (f": {self.detail}" if self.detail else ""), self.resolution))

    def status(self) -> Object:
        """As `status.failure`."""
        fields = {
            "code": self.code,
            "class": self.class_,
            "summary": self.summary,
            "detail": self.detail,
            "resolution": self.resolution,
            "rank": self.rank,
            "node": self.node,
            "step": self.step,
            "logTail": self.log_tail,
        }
        return {name: value for name, value in fields.items() if value is not None and value != ""}


def diagnosed(rayjob: Object | None, pods: Iterable[Object], record: Object | None, *, heard: bool = False) -> Failure:
    """Why an attempt ended other than well. `rayjob` None: it vanished. `record`: the trainer's, from /progress, if any was read. `heard`:
    its driver has reported at all, so it would have said why it failed."""
    status = (rayjob or {}).get("status", {})
    found = list(pods)
    message = clean(str(status.get("message", "")), 800)
    return (
        _told(record)
        or _told(record_in(str(status.get("message", "")), nonce_of(rayjob or {})))
        or _disrupted(found)
        or _killed(found)
        or _vanished(rayjob)
        or _refused(status, message)
        or _lost(status, message)
        or (_headless(found, message) if heard else None)
        or Failure(
            "GTJ0214",
            "Application",
            UNEXPLAINED,
            message,
            "read the log above and in the pods; raise recovery.maxRetries only if it may succeed another time",
        )
    )


def record_in(text: str, nonce: str = "") -> Object | None:
    """The trainer's record in a log: the last line that begins with RECORD and is a JSON object.

    With a nonce only a record that repeats it counts: the log holds whatever the user's code prints as well. Without one, as of attempts
    that an operator of before made, any does; else the last GTJ line as a summary.
    """
    for line in reversed(text.splitlines()):
        start = line.find(RECORD)
        if start >= 0:
            try:
                record = json.loads(line[start + len(RECORD) :])
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict) and (not nonce or record.get("nonce") == nonce):
                return record
    said = re.findall(r"^(GTJ0[12]\d\d) (.+)$", text, re.MULTILINE) if not nonce else []
    return {"code": said[-1][0], "what": said[-1][1]} if said else None


def _told(record: Object | None) -> Failure | None:
    """The trainer's record is untrusted: it comes out of a pod that runs a user's code."""
    if not record or not isinstance(record.get("code"), str) or record["code"] not in CODES:
        return None
    code = str(record["code"])
    # Both together fit into a line of the status.
    what, where = _text(record.get("what"), 350) or CODES[code].title, _text(record.get("where"), 150)
    class_: Class = "Infrastructure" if code in _INFRASTRUCTURE else "Configuration" if code < "GTJ02" else "Application"
    return Failure(
        code,
        class_,
        f"{what} ({where})" if where else what,
        _text(record.get("why"), 1024),
        _text(record.get("how"), 1024),
        _count(record.get("rank")),
        None,
        _count(record.get("step")),
        _tail(record.get("logTail")),
    )


def _disrupted(pods: list[Object]) -> Failure | None:
    for pod in pods:
        for condition in pod.get("status", {}).get("conditions") or ():
            if (
                condition.get("type") == "DisruptionTarget"
                and condition.get("status") == "True"
                and condition.get("reason") in _DISRUPTIONS
            ):
                why = _text(condition.get("message"), 512)
                return Failure("GTJ0213", "Preemption", f"{named(pod)} was taken away ({condition['reason']})", why, node=node_of(pod))
        reason = pod.get("status", {}).get("reason")
        if reason in ("Evicted", "NodeLost", "NodeShutdown", "Shutdown", "Terminated", "UnexpectedAdmissionError"):
            why = _text(pod["status"].get("message"), 512)
            return Failure("GTJ0213", "Infrastructure", f"{named(pod)} was stopped by its node ({reason})", why, node=node_of(pod))
    return None


def _killed(pods: list[Object]) -> Failure | None:
    for pod, container, state in containers(pods):
        terminated = state.get("terminated") or {}
        if terminated.get("reason") == "OOMKilled":
            return Failure(
                "GTJ0205",
                "Application",
                f"{named(pod)} ran out of host memory",
                f"container {container} reached its memory limit",
                "use a profile with more memory a node, or fewer workers on it; lower training.batch.micro",
                node=node_of(pod),
            )
    return None


def _vanished(rayjob: Object | None) -> Failure | None:
    if rayjob is not None:
        return None
    return Failure("GTJ0213", "Infrastructure", "the RayJob was deleted", "nothing of it is left in the cluster")


def _refused(status: Object, message: str) -> Failure | None:
    if status.get("jobDeploymentStatus") != "ValidationFailed":
        return None
    how = "update KubeRay or the operator: they disagree about what a RayJob is"
    return Failure("GTJ0301", "Configuration", "KubeRay refused the RayJob", message, how)


def _lost(status: Object, message: str) -> Failure | None:
    reason = status.get("reason", "")
    if "head pod not found" in message.lower():
        return Failure("GTJ0213", "Infrastructure", "the head pod was lost", message)
    if reason in ("JobDeploymentStatusTransitionGracePeriodExceeded", "JobStatusCheckTimeoutExceeded", "PreRunningDeadlineExceeded"):
        return Failure("GTJ0213", "Infrastructure", "KubeRay lost sight of the job", f"{reason}: {message}")
    if status.get("jobStatus") == "STOPPED":
        return Failure("GTJ0213", "Preemption", "the Ray job was stopped from outside", message)
    return None


def _headless(pods: list[Object], message: str) -> Failure | None:
    """A head that ended under a driver: what fails in the driver, the driver tells, and Ray. KubeRay then knows of a container only."""
    if SUBMITTER not in message or head_runs(pods):
        return None
    for pod, container, state in containers(pods):
        if container == HEAD and (ended := state.get("terminated")):
            why = f"container {HEAD} of {named(pod)} ended with exit code {ended.get('exitCode')} ({ended.get('reason')})"
            return Failure("GTJ0213", "Infrastructure", "the head ended under the training", _text(why, 512), node=node_of(pod))
    return Failure("GTJ0213", "Infrastructure", "the head pod was lost", message)


def _text(value: Any, limit: int) -> str:
    return clean(value, limit) if isinstance(value, str) else ""


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 2**53 else None


def _tail(value: Any) -> str | None:
    """The last 4,096 characters of a log, its line breaks kept."""
    if not isinstance(value, str) or not value:
        return None
    return "".join(character if character.isprintable() or character == "\n" else " " for character in value[-4096:])
