"""Why the pods of an attempt do not run yet, and who has to do something about it."""

from __future__ import annotations

import datetime
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from gentrain_operator import autoscaler
from gentrain_operator.kube.events import clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.pods import containers, fits_nowhere, named, refused_at
from gentrain_operator.times import time
from trainjobs.api.errors import sentences

# Seconds in which an autoscaler has its say of a pod, from the scheduler's first: where the cloud makes the nodes (`pool` of the profile),
# and elsewhere. Karpenter gathers pods for 1 to 10 s before it decides (batch-idle-duration and batch-max-duration, 1.14); the Cluster
# Autoscaler looks every 10 s (scan-interval) and is to have decided within 60 on up to a thousand nodes (objectives in its FAQ).
POOLED, UNPOOLED = 60, 5
SOLD_OUT = 60  # seconds that are given an autoscaler which says that there is no capacity
_LONG_AGO = datetime.datetime.min.replace(tzinfo=datetime.UTC)
_NOTHING: Mapping[str, Sequence[Object]] = {}
_PULL = {"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"}


@dataclass(frozen=True)
class Waiting:
    """Why pods do not run yet: a reason of the condition ResourcesReady, or of Accepted for what the user has to bring. `since`: when the
    node was asked for that is on its way."""

    condition: Literal["ResourcesReady", "Accepted"]
    reason: str
    message: str
    since: datetime.datetime | None = None


def spoken_by(pool: str | None, now: datetime.datetime) -> datetime.datetime:
    """Of a pod that the scheduler refused later than this, an autoscaler's silence says nothing yet. `pool`: its profile's."""
    return now - datetime.timedelta(seconds=POOLED if pool else UNPOOLED)


def waiting(
    pods: Iterable[Object],
    rayjob: Object,
    told: Mapping[str, Sequence[Object]] = _NOTHING,
    by: datetime.datetime | None = None,
) -> Waiting | None:
    """Why the pods of a young attempt do not all run; None when nothing is wrong with them. `told`: events about pods, and about a RayJob
    without any, by their UID. `by`: what spoken_by() says; None: silence of an autoscaler means that there is none."""
    found = list(pods)
    complaints = [*_complaints(rayjob), *_unmade(told.get(str((rayjob.get("metadata") or {}).get("uid", "")), ()))]
    return _quota(complaints) or _forbidden(complaints) or _unmountable(found) or _unpullable(found) or _unschedulable(found, told, by)


def _quota(complaints: Iterable[str]) -> Waiting | None:
    for text in complaints:
        if "exceeded quota" in text:
            return Waiting("ResourcesReady", "QuotaExceeded", f"GTJ0203 the namespace's quota is used up: {clean(text, 512)}")
    return None


def _forbidden(complaints: Iterable[str]) -> Waiting | None:
    """Pods that the API server does not let KubeRay create, by Pod Security or another policy, or because nobody can be asked."""
    for text in complaints:
        if "failed calling webhook" in text:
            message = f"GTJ0303 a webhook that must agree to the job's pods fails: {clean(text, 512)}"
            return Waiting("ResourcesReady", "PodsForbidden", message)
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


def _unmade(events: Iterable[Object]) -> Iterator[str]:
    """What KubeRay said last of a RayCluster that it could not create: the RayJob's status says nothing of it."""
    found = [event for event in events if event.get("reason") == "FailedToCreateRayCluster"]
    if found:
        latest = max(found, key=lambda event: autoscaler.said_at(event) or _LONG_AGO)
        yield str(latest.get("note") or latest.get("message") or "")


def _unmountable(pods: list[Object]) -> Waiting | None:
    for _, _, state in containers(pods):
        stuck = state.get("waiting") or {}
        if stuck.get("reason") == "CreateContainerConfigError":
            message = sentences(f"GTJ0111 {clean(str(stuck.get('message', '')), 512)}", "It goes on by itself once that exists")
            return Waiting("Accepted", "SecretNotFound", message)
    return None


def _unpullable(pods: list[Object]) -> Waiting | None:
    for _, container, state in containers(pods):
        stuck = state.get("waiting") or {}
        if stuck.get("reason") in _PULL:
            message = f"GTJ0204 {container} cannot pull its image: {clean(str(stuck.get('message', '')), 512)}"
            return Waiting("ResourcesReady", "ImagePullFailed", message)
    return None


def _unschedulable(pods: list[Object], told: Mapping[str, Sequence[Object]], by: datetime.datetime | None) -> Waiting | None:
    """The first pod that an autoscaler refuses; else, of those that wait for a node that is on its way, the one asked for last; else the
    first of which only the scheduler spoke, for longer than an autoscaler needs if there is one. While nodes come for some, an autoscaler
    has yet to speak of the others, or was not asked."""
    found = [(pod, why, _word(pod, told)) for pod in pods if (why := fits_nowhere(pod)) is not None]
    refused = [_of(pod, why, word) for pod, why, word in found if word is not None and word.kind != "coming"]
    coming = [_of(pod, why, word) for pod, why, word in found if word is not None and word.kind == "coming"]
    wordless = [_wordless(pod, why, by) for pod, why, word in found if word is None]
    return (
        next(iter(refused), None)
        or max(coming, key=lambda one: one.since or _LONG_AGO, default=None)
        or max(wordless, key=lambda one: one.reason == "Unschedulable", default=None)
    )


def _word(pod: Object, told: Mapping[str, Sequence[Object]]) -> autoscaler.Word | None:
    return autoscaler.last(told.get(str(pod["metadata"].get("uid", "")), ()))


def _wordless(pod: Object, why: str, by: datetime.datetime | None) -> Waiting:
    """Of a pod of which the scheduler alone spoke. The time since is said as a moment: it stays true, and is no reason to write again."""
    since, scheduler = refused_at(pod), clean(why, 512)
    if by is not None and since is not None and since > by and "persistentvolumeclaim" not in why:  # which no node brings
        message = f"{named(pod)} waits for a node since {time(since)}: no autoscaler has spoken of it yet; the scheduler: {scheduler}"
        return Waiting("ResourcesReady", "ScalingUp", message)
    return Waiting("ResourcesReady", "Unschedulable", sentences(f"GTJ0202 {named(pod)} fits no node: {scheduler}", autoscaler.field(why)))


def _of(pod: Object, why: str, word: autoscaler.Word) -> Waiting:
    scheduler = clean(why, 512)
    if word.kind == "coming":
        return Waiting("ResourcesReady", "ScalingUp", f"a node for {named(pod)} is on its way ({word.who}: {word.said})", word.at)
    if word.kind == "sold out":
        message = f"GTJ0201 no capacity for {named(pod)}: {word.said} ({word.who}); the scheduler: {scheduler}"
        return Waiting("ResourcesReady", "NoCapacity", clean(message))
    message = f"GTJ0202 {named(pod)} fits no node, and none that {word.who} can make: {word.said}; the scheduler: {scheduler}"
    return Waiting("ResourcesReady", "Unschedulable", sentences(clean(message, 896), autoscaler.field(f"{word.said} {why}")))


def given_up(stuck: Waiting, begun: datetime.datetime | None, patience: int, now: datetime.datetime) -> bool:
    """Whether an attempt that began then has waited long enough for machines to try another profile, which is `patience` seconds; a
    minute where the autoscaler says that there are none. Of a node on its way it counts from when that was asked for. An image, too, may be
    missing on one pool alone: a profile has its own, and a registry that its nodes reach."""
    if begun is None or stuck.reason not in ("Unschedulable", "NoCapacity", "ScalingUp", "ImagePullFailed"):
        return False
    waited = (now - max(begun, stuck.since or begun)).total_seconds()
    return waited > (min(patience, SOLD_OUT) if stuck.reason == "NoCapacity" else patience)
