"""Why a job is where it is: from its status, pods, events and queue to one sentence, what supports it, and what to do. Pure.

A ladder, as the operator's own: gone? over? seen at all? accepted? suspended? admitted? between attempts? do its pods come up? does it
step? The first rung that has something to say answers, because what comes later waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from gentrain_operator.autoscaler import about
from gentrain_operator.names import ATTEMPT_LABEL
from gentrain_operator.waiting import waiting
from trainjobs.api.codes import CODES
from trainjobs.api.problem import did_you_mean, listed
from trainjobs.cli.cluster.sentences import PAUSED, REFUSED, STUCK, asked_of_autoscalers, without_quota
from trainjobs.cli.cluster.server import Kueue
from trainjobs.cli.cluster.view import Object, condition, failure_error, is_true, moment_of, name_of, phase, progress_of, status_of
from trainjobs.cli.line import position
from trainjobs.run.numbers import duration, instant

UNSEEN = 30.0  # seconds after which an operator that works has looked at a new job
COMING = {"ContainerCreating", "PodInitializing"}


OPERATOR = "gentrain.dev/operator"


@dataclass(frozen=True)
class Seen:
    """All there is to go by. `profiles` None: not allowed to look. `events` are those of the job, its RayJob and its waiting pods."""

    job: Object
    now: float
    command: Callable[..., str]
    rayjob: dict[str, Any] | None = None
    pods: Sequence[dict[str, Any]] = ()
    events: Sequence[Object] = ()
    profiles: Sequence[str] | None = None
    kueue: Kueue | None = None


@dataclass(frozen=True)
class Explanation:
    """`what` in one sentence; `why` supports it; `do` says in words what mends it, `next` are commands. `fault`: something is wrong."""

    what: str
    why: tuple[str, ...] = ()
    do: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    code: str | None = None
    fault: bool = False
    pods: tuple[tuple[str, str, str], ...] = field(default=())


def explanation(seen: Seen) -> Explanation:
    """Total: there is always an answer."""
    return (
        _deleted(seen)
        or _over(seen)
        or _unseen(seen)
        or _refused(seen)
        or _suspended(seen)
        or _queued(seen)
        or _between(seen)
        or _stuck(seen)
        or _coming(seen)
        or _stepping(seen)
    )


def _deleted(seen: Seen) -> Explanation | None:
    metadata = seen.job["metadata"]
    if not metadata.get("deletionTimestamp"):
        return None
    held = listed(metadata.get("finalizers") or ["nothing any more"], "and")
    return Explanation("it is being deleted", (f"what holds it: {held}",))


def _over(seen: Seen) -> Explanation | None:
    status = status_of(seen.job)
    if not is_true(seen.job, "Finished"):
        return None
    saved = status.get("checkpoint")
    where = (f"newest checkpoint: step {saved['step']}, {saved['uri']}",) if saved else ("it saved no checkpoint",)
    name = name_of(seen.job)
    if phase(seen.job) == "Succeeded":
        return Explanation(f"{position(progress_of(seen.job))} steps", where, next=(seen.command("rm", name),))
    failure = status.get("failure") or {}
    error = failure_error(failure)
    log = str(failure.get("logTail") or "")
    # The traceback of an error that is already told in words would only say where in our code it was raised; `gtj logs` has it.
    tail = () if f"JobError: {error.code} " in log else log.strip().splitlines()[-5:]
    why = (*(part for part in (error.why, error.where) if part), *where, *(f"log: {line}" for line in tail))
    how = (error.how,) if error.how else _remedies(error.code)
    class_ = f" ({failure['class']} failure, attempt {status.get('attempts', 1)})" if failure.get("class") else ""
    return Explanation(f"{error.what}{class_}", why, how, (f"gtj explain {error.code}",), error.code, True)


def _unseen(seen: Seen) -> Explanation | None:
    status = status_of(seen.job)
    if status.get("observedGeneration") is not None or status.get("conditions"):
        return None
    told = [event for event in seen.events if event.get("reportingComponent") == OPERATOR]
    if told or seen.pods:
        what = "the operator has looked at it, and its status cannot be read"
        why = tuple(f"{event.get('reason')}: {event.get('message')}" for event in sorted(told, key=moment_of)[-3:])
        return Explanation(what, why, _remedies("GTJ0301"), ("gtj explain GTJ0301",), "GTJ0301", True)
    created = instant(seen.job["metadata"].get("creationTimestamp"))
    age = seen.now - created if created is not None else UNSEEN
    if age < UNSEEN:
        return Explanation(f"it was created {duration(age)} ago, and the operator has not looked at it yet", next=(_again(seen),))
    how = "is the operator running, and does it watch this namespace?"
    find = "kubectl get deployments -A -l app.kubernetes.io/name=gentrain"
    return Explanation(f"no operator has looked at it since it was created {duration(age)} ago", do=(how,), next=(find,), fault=True)


def _refused(seen: Seen) -> Explanation | None:
    found = condition(seen.job, "Accepted")
    if found is None or found.get("status") == "True":
        found = without_quota(seen.job)
    if found is None:
        return None
    code, text = coded(str(found.get("message") or found.get("reason")))
    name = name_of(seen.job)
    why: tuple[str, ...] = (text,)
    how = _remedies(code)
    if found.get("reason") == "ProfileNotFound" and seen.profiles is not None:
        wanted = seen.job["spec"].get("compute", {}).get("profiles") or []
        there = f"profiles of this cluster: {listed(seen.profiles, 'and')}" if seen.profiles else "this cluster has no profiles at all"
        near = next((hint for one in wanted if (hint := did_you_mean(one, seen.profiles))), "")
        why = (text, there + (f"; {near}" if near else ""))
        verb = "mend" if set(wanted) & set(seen.profiles) else "create"
        how = (f"{verb} the profile (manifests/profiles has examples), and the job goes on by itself", "or submit it with another one")
        return Explanation("it waits for a compute profile", why, how, ("kubectl get computeprofiles",), code, True)
    what = REFUSED.get(str(found.get("reason")), "it is not accepted")
    return Explanation(what, why, how, tuple([f"gtj explain {code}"] if code else [seen.command("status", name)]), code, True)


def _suspended(seen: Seen) -> Explanation | None:
    if not seen.job["spec"].get("suspend"):
        return None
    resume = seen.command("resume", name_of(seen.job))
    if is_true(seen.job, "Suspended"):
        return Explanation("it is suspended (spec.suspend), and its machines are released", next=(resume,))
    return Explanation("it is being suspended", (f"{len(seen.pods)} of its pods are still there",), next=(_again(seen), resume))


def _queued(seen: Seen) -> Explanation | None:
    queue = seen.job["spec"].get("compute", {}).get("queue")
    found = condition(seen.job, "QuotaReserved")
    if queue is None or found is None or found.get("status") == "True":
        return None
    kueue = seen.kueue or Kueue(None, None, None)
    again = seen.command("rm", name_of(seen.job))
    if kueue.installed is False:
        how = "install Kueue, or submit the job without compute.queue"
        return Explanation(f"it waits for queue {queue}, and this cluster has no Kueue to admit it", do=(how,), next=(again,), fault=True)
    namespace = seen.job["metadata"].get("namespace")
    if kueue.queue is False:
        what = f"it waits for queue {queue}, and namespace {namespace} has no LocalQueue of that name"
        return Explanation(
            what, do=("name one that exists in compute.queue",), next=(f"kubectl get localqueues -n {namespace}",), fault=True
        )
    told = [
        f"{one.get('reason')}: {one.get('message')}"
        for one in ((kueue.workload or {}).get("status") or {}).get("conditions") or ()
        if one.get("message")
        and (one.get("type"), one.get("status")) in (("QuotaReserved", "False"), ("Evicted", "True"), ("Admitted", "False"))
    ]
    what = (
        f"queue {queue} took its machines for another job" if found.get("reason") == "Preempted" else f"it waits for quota in queue {queue}"
    )
    look = f"kubectl describe workload {kueue.workload['metadata']['name']} -n {namespace}" if kueue.workload else ""
    none = ("Kueue has made no Workload of it yet",) if kueue.installed and kueue.workload is None else ()
    return Explanation(what, (*told, *none), ("wait, or ask for fewer workers",), (look,) if look else (_again(seen),))


def _between(seen: Seen) -> Explanation | None:
    status = status_of(seen.job)
    attempts = status.get("attempts", 0)
    if not attempts or attempts > status.get("ended", 0):
        return None
    failure = status.get("failure")
    due = instant(status.get("retryAt"))
    when = f"starts in {duration(due - seen.now)}" if due is not None and due > seen.now else "is about to start"
    why = [str(status.get("message") or "")]
    if failure:
        why = [failure_error(failure).line(), *(why if why[0] and str(failure.get("code")) not in why[0] else [])]
    code = str(failure["code"]) if failure else None
    before = PAUSED.get(str((condition(seen.job, "Running") or {}).get("reason")), f"attempt {attempts} ended")
    return Explanation(f"{before}, and attempt {attempts + 1} {when}", tuple(filter(None, why)), next=(_again(seen),), code=code)


def _stuck(seen: Seen) -> Explanation | None:
    pods = _current(seen)
    found = waiting(pods, seen.rayjob or {}, about(seen.events), asked_of_autoscalers(seen.job, seen.now))
    if found is None:
        return None
    code, text = coded(found.message)
    what = STUCK.get(found.reason, "its pods do not come up")
    sick = [pod for pod in pods if described(pod)[1] not in ("Running", "Succeeded")]
    space = seen.job["metadata"].get("namespace")
    look = f"kubectl describe pod {sick[0]['metadata']['name']} -n {space}" if sick else f"kubectl get events -n {space}"
    next_, fault = (look, *((f"gtj explain {code}",) if code else ())), found.reason != "ScalingUp"
    return Explanation(what, (text, *_warnings(seen)), _remedies(code), next_, code, fault, tuple(map(described, pods)))


def _coming(seen: Seen) -> Explanation | None:
    """Nothing is wrong with the pods that there are; some may be missing."""
    pods = _current(seen)
    here = phase(seen.job)
    if here not in ("Provisioning", "Pending", "Queued"):
        return None
    namespace = seen.job["metadata"].get("namespace")
    name = (status_of(seen.job).get("ray") or {}).get("rayJob")
    shown = tuple(map(described, pods))
    if pods:
        up = sum(1 for pod in shown if pod[1] == "Running")
        return Explanation(f"its pods are coming up: {up} of {len(pods)} run", _warnings(seen), next=(_again(seen),), pods=shown)
    if seen.rayjob is not None and not seen.rayjob.get("status"):
        created = instant(seen.rayjob["metadata"].get("creationTimestamp"))
        what = f"KubeRay has not looked at RayJob {name} yet"
        if created is not None and seen.now - created < UNSEEN:
            return Explanation(what, _warnings(seen), next=(_again(seen),))
        how = "is the KubeRay operator running, and does it watch this namespace?"
        find = "kubectl get pods -A -l app.kubernetes.io/name=kuberay-operator"
        return Explanation(what, _warnings(seen), (how,), (find,), fault=True)
    look = (f"kubectl describe rayjob {name} -n {namespace}",) if name else ()
    return Explanation("its cluster is being made, and has no pods yet", _warnings(seen), next=(*look, _again(seen)))


def _stepping(seen: Seen) -> Explanation:
    job, name = seen.job, name_of(seen.job)
    running, ready = condition(job, "Running") or {}, condition(job, "ResourcesReady") or {}
    pods = tuple(map(described, _current(seen)))
    logs = seen.command("logs", name, "-f")
    if running.get("reason") == "Stalled":
        code, text = coded(str(running.get("message") or ""))
        return Explanation("it has stopped making steps", (text, *_warnings(seen)), _remedies(code), (logs,), code, True, pods)
    if ready.get("status") == "False":
        text = str(ready.get("message") or ready.get("reason"))
        how = "KubeRay replaces the pod, and training goes on from the last checkpoint"
        return Explanation("it has lost workers", (text, *_warnings(seen)), (how,), (_again(seen),), pods=pods)
    if running.get("status") != "True":
        return Explanation("its pods run, and the first step has not been made yet", _warnings(seen), next=(logs,), pods=pods)
    message = str(status_of(job).get("message") or "")
    return Explanation("nothing is wrong: it trains", (message,), next=(seen.command("status", name, "-w"),), pods=pods)


def described(pod: Object) -> tuple[str, str, str]:
    """Name, state and node of a pod: ("x-head", "ImagePullBackOff", "node-1")."""
    status = pod.get("status") or {}
    state = str(status.get("phase") or "Unknown")
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        now = container.get("state") or {}
        reason = (now.get("waiting") or {}).get("reason") or (now.get("terminated") or {}).get("reason")
        if reason and reason != "Completed":
            state = str(reason)
            break
    if state == "Pending":
        blocked = [one for one in status.get("conditions") or () if one.get("type") == "PodScheduled" and one.get("status") == "False"]
        state = str(blocked[0].get("reason") or state) if blocked else state
    if pod["metadata"].get("deletionTimestamp"):
        state = "Terminating"
    return str(pod["metadata"]["name"]), state, str((pod.get("spec") or {}).get("nodeName") or "-")


def coded(message: str) -> tuple[str | None, str]:
    """A message and the code it begins with: ("GTJ0202", "pod x fits no node ...")."""
    first, _, rest = message.partition(" ")
    return (first, rest) if first in CODES else (None, message)


def _current(seen: Seen) -> list[dict[str, Any]]:
    """The pods of the newest attempt: those of the last one say nothing about this."""
    attempt = str(status_of(seen.job).get("attempts", ""))
    mine = [pod for pod in seen.pods if (pod["metadata"].get("labels") or {}).get(ATTEMPT_LABEL, attempt) == attempt]
    return sorted(mine, key=lambda pod: str(pod["metadata"]["name"]))


def _warnings(seen: Seen) -> tuple[str, ...]:
    """The newest warnings, each reason once."""
    found = {
        str(event.get("reason")): f"{event.get('reason')}: {event.get('message')}"
        for event in sorted(seen.events, key=moment_of)
        if event.get("type") == "Warning" and (event.get("involvedObject") or {}).get("kind") != "GenerativeTrainingJob"
    }
    return tuple(list(found.values())[-3:])


def _remedies(code: str | None) -> tuple[str, ...]:
    """What a code's page advises."""
    return tuple(line[2:] for line in CODES[code].docs.splitlines() if line.startswith("- ")) if code else ()


def _again(seen: Seen) -> str:
    return seen.command("status", name_of(seen.job), "-w")
