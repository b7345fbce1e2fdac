"""Jobs that each hold a part of their pods and wait for each other: who gives back, and when.

Kubernetes places pods one by one, so two jobs may each get a head and a worker and wait for the rest for ever. With Kueue that does not
arise: it admits a job whole, and such jobs are left alone. Without it the rule is this. An attempt that holds some of its machines, and
whose other pods fit nowhere, gives its pods back

- after GRACE (with a jitter), when an older job that is in the same state wants what it holds: the youngest first, and the oldest never.
  So of jobs that block each other one always keeps what it has and gets what the others let go;
- after LONG, whether others wait or not: what has stood still for so long may be more than the cluster has, and keeps others out. Nodes
  that an autoscaler brings take minutes, which are no deadlock: hence no give-back before, while nobody else is in need.

All times are those that the scheduler and the API server wrote on the pods. What is random follows from the job's UID and the attempt.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from gentrain_operator.conditions import Condition
from gentrain_operator.diagnose import Failure
from gentrain_operator.kube.resource import Object
from gentrain_operator.names import ATTEMPT_LABEL, attempt_of
from gentrain_operator.present import duration, starting, taken_up
from gentrain_operator.rayjob import QUEUE_LABEL
from gentrain_operator.times import parsed_time
from gentrain_operator.waiting import waiting

CODE = "GTJ0218"
GRACE = datetime.timedelta(minutes=5)  # since the first pod had a machine; a fifth more by jitter
LONG = datetime.timedelta(minutes=30)  # since the last pod got one
PAUSE = (30.0, 300.0)  # seconds before the next attempt, doubled from the first to the second; down to half of it by jitter

Selector = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Holding:
    """A job whose attempt holds a part. `created` and `uid` order jobs by age; `holds` and `wants` are the node selectors of its pods that
    have a machine and of those that have none; `short` of the namespace's quota, its missing pods do not exist. `since` the first pod had
    a machine, at `last` the newest got one."""

    created: str
    uid: str
    namespace: str
    name: str
    holds: tuple[Selector, ...]
    wants: tuple[Selector, ...]
    short: bool
    since: datetime.datetime
    last: datetime.datetime
    jitter: float

    @property
    def age(self) -> tuple[str, str]:
        """Smaller is older."""
        return self.created, self.uid

    @property
    def until(self) -> datetime.datetime:
        return self.since + GRACE * (1 + self.jitter / 5)


def holding(job: Object, rayjob: Object | None, pods: Iterable[Object]) -> Holding | None:
    """What a job holds while it waits for the rest; None when its pods are all there, or none is, and for jobs that a queue admits."""
    if rayjob is None or not starting(rayjob) or not taken_up(rayjob):
        return None
    spec, metadata, attempt = job.get("spec") or {}, job["metadata"], attempt_of(rayjob)
    queued = (rayjob["metadata"].get("labels") or {}).get(QUEUE_LABEL) or (spec.get("compute") or {}).get("queue")
    if queued or spec.get("suspend") or rayjob["spec"].get("suspend"):
        return None
    mine = [pod for pod in pods if pod["metadata"].get("labels", {}).get(ATTEMPT_LABEL) == str(attempt)]
    placed = [pod for pod in mine if _placed(pod)]
    times = [at for pod in placed if (at := _placed_at(pod)) is not None]
    unplaced = [pod for pod in mine if _fits_nowhere(pod)]
    stuck = waiting((), rayjob)
    short = stuck is not None and stuck.reason == "QuotaExceeded"
    if not times or not (unplaced or short):
        return None
    return Holding(
        created=str(metadata.get("creationTimestamp", "")),
        uid=str(metadata.get("uid", "")),
        namespace=str(metadata.get("namespace", "")),
        name=str(metadata["name"]),
        holds=tuple({_selector(pod) for pod in placed}),
        wants=tuple({_selector(pod) for pod in unplaced}),
        short=short,
        since=min(times),
        last=max(times),
        jitter=_jitter(metadata, attempt),
    )


def given_back(mine: Holding | None, rivals: Sequence[Holding], job: Object, now: datetime.datetime) -> tuple[Failure, float] | None:
    """Why an attempt has to give its pods back now, and the seconds before the next; None while it may wait on."""
    if mine is None:
        return None
    tries = ((job.get("status") or {}).get("sinceProgress") or {}).get("gaveBack", 0)
    first, most = PAUSE
    if now >= mine.last + LONG:
        return _failure(f"for {duration((now - mine.last).total_seconds())} no other has come"), _pause(most, mine)
    elder = _in_need(mine, rivals)
    if now < mine.until or elder is None:
        return None
    everybody = (mine, *rivals)
    if any(one.age > mine.age and now >= one.until and _in_need(one, everybody) for one in rivals):
        return None  # a younger one is due as well: what it lets go may be enough
    waited = duration((now - mine.since).total_seconds())
    other = f"job {elder.name}" if elder.namespace == mine.namespace else f"a job of namespace {elder.namespace}"
    why = f"after {waited} the others are not there, and {other}, which is older, waits in the same way"
    return _failure(why), _pause(min(most, first * 2.0 ** min(tries, 16)), mine)


def pausing(status: Object, message: str) -> Condition:
    """The condition Running between two attempts: apart from failures, when the last gave its pods back."""
    gave = (status.get("failure") or {}).get("code") == CODE
    return Condition("Running", False, "GaveBack" if gave else "Recovering", message)


def _failure(why: str) -> Failure:
    detail = f"some of its pods had a machine and the others fit nowhere; {why}"
    return Failure(CODE, "Infrastructure", "gave its pods back", detail, "it tries again by itself")


def _pause(longest: float, mine: Holding) -> float:
    return longest * (1 - mine.jitter / 2)


def _in_need(one: Holding, others: Iterable[Holding]) -> Holding | None:
    """The oldest job, older than this one, that may want what this one holds."""
    found = (other for other in others if other.age < one.age and _wants_of(other, one))
    return min(found, key=lambda other: other.age, default=None)


def _wants_of(other: Holding, one: Holding) -> bool:
    if other.short and other.namespace == one.namespace:
        return True
    return any(_may_share(wanted, held) for wanted in other.wants for held in one.holds)


def _may_share(one: Selector, other: Selector) -> bool:
    """Whether a node can satisfy both selectors: no key of theirs with two values."""
    mine = dict(one)
    return all(mine.get(key, value) == value for key, value in other)


def _selector(pod: Object) -> Selector:
    found: Mapping[str, str] = (pod.get("spec") or {}).get("nodeSelector") or {}
    return tuple(sorted((str(key), str(value)) for key, value in found.items()))


def _placed(pod: Object) -> bool:
    ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
    return bool((pod.get("spec") or {}).get("nodeName")) and not ended and not pod["metadata"].get("deletionTimestamp")


def _placed_at(pod: Object) -> datetime.datetime | None:
    told = next((one.get("lastTransitionTime") for one in _scheduled(pod) if one.get("status") == "True"), None)
    return parsed_time(told) or parsed_time(pod["metadata"].get("creationTimestamp"))


def _fits_nowhere(pod: Object) -> bool:
    return not (pod.get("spec") or {}).get("nodeName") and any(one.get("reason") == "Unschedulable" for one in _scheduled(pod))


def _scheduled(pod: Object) -> list[Object]:
    return [one for one in (pod.get("status") or {}).get("conditions") or () if one.get("type") == "PodScheduled"]


def _jitter(metadata: Object, attempt: int) -> float:
    """In [0, 1)."""
    digest = hashlib.sha256(f"{metadata.get('uid')}/{attempt}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
