"""What to do about one job, given all that is known of it. Pure and total: no clock, no I/O, no state but the job's own status.

Level-triggered: every decision follows from what is there now, so that a missed event, a stale read or a crash between two writes ends in
the same place. Two numbers in the status carry the history: `attempts`, the highest attempt that was created, and `ended`, the highest
whose end has been accounted for. An attempt is under way while they differ. An end is written to the status first and its RayJob is removed
afterwards; a RayJob is created first and counted afterwards, which is safe because its name says which attempt it is.
"""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from dataclasses import replace

from gentrain_operator import free_restarts, gang, planned, present, pricing, profiles, queues, report, resting, spending
from gentrain_operator.conditions import Condition, is_true
from gentrain_operator.diagnose import UNEXPLAINED, Failure, diagnosed
from gentrain_operator.finished import TERMINAL as TERMINAL
from gentrain_operator.finished import finished
from gentrain_operator.finished import over as _over
from gentrain_operator.kube.resource import Object
from gentrain_operator.lastvalid import last_valid, spec_of, with_accepted
from gentrain_operator.limits import left, overdue, spent_up
from gentrain_operator.lingering import awaited, left_behind, lost
from gentrain_operator.names import ATTEMPT_LABEL, attempt_of
from gentrain_operator.observed import Decision as Decision
from gentrain_operator.observed import Observed as Observed
from gentrain_operator.pods import exit_status, head_runs
from gentrain_operator.queues import held, queue_of
from gentrain_operator.rayjob import SUBMITTER, configmap, rayjob
from gentrain_operator.times import parsed_time, time
from gentrain_operator.waiting import Waiting, given_up, spoken_by, waiting
from trainjobs.api.job import Spec
from trainjobs.api.profile import ProfileSpec

RETRY = (10.0, 300.0)  # seconds before the next attempt: doubled from the first to the second
EVIDENCE = datetime.timedelta(seconds=5)  # for pods to say why an attempt ended that nothing else explains


def decide(seen: Observed, now: datetime.datetime, image: str) -> Decision:
    """The next step of a job. `image` is the trainer image of jobs and profiles that name none."""
    job, status = seen.job, seen.job.get("status") or {}
    if job["metadata"].get("deletionTimestamp"):
        return Decision()
    if is_true(status.get("conditions") or (), "Finished"):
        return finished(seen, now)
    spec, complaint = spec_of(job)
    attempt = max([status.get("attempts", 0), *map(attempt_of, seen.rayjobs)])
    child = next((one for one in seen.rayjobs if attempt_of(one) == attempt), None)
    if spec is None:
        return _unusable(seen, now, attempt, child, complaint)
    if attempt > status.get("ended", 0):
        return _under_way(seen, spec, now, attempt, child)
    seen, spec = _afforded(seen, spec, now, None)
    # Accounted for, but the operator died before it could remove them.
    leftover = tuple(one for one in seen.rayjobs if not _over(one))
    if spec.suspend:
        conditions = [_ACCEPTED, present.suspension(seen.poor)]
        saved = _saved(seen, spec)  # a job in a queue saves while its RayJob is already gone
        changes = {"retryAt": None, **({"checkpoint": saved} if saved else {})}
        return Decision(status=present.status(job, now, "Suspended", conditions, spec, changes), delete=leftover)
    if leftover:
        message = f"waiting for {leftover[0]['metadata']['name']} to be deleted"
        conditions = [_ACCEPTED, gang.pausing(status, message)]
        return Decision(status=present.status(job, now, "Recovering", conditions, spec, {}, message), delete=leftover, again=5.0)
    return _start(seen, spec, now, attempt + 1, image)


_ACCEPTED = Condition("Accepted", True, "Accepted")


def _afforded(seen: Observed, spec: Spec, now: datetime.datetime, child: Object | None) -> tuple[Observed, Spec]:
    """A job whose budget is used up is as one that is suspended, until the budget is raised."""
    poor = "" if spec.suspend else spent_up(seen.job, spec, seen.profiles or {}, now, child, pricing.held(seen))
    return (replace(seen, poor=poor), spec.model_copy(update={"suspend": True})) if poor else (seen, spec)


def _unusable(seen: Observed, now: datetime.datetime, attempt: int, child: Object | None, complaint: str) -> Decision:
    """A spec that breaks a rule starts nothing; an attempt that is under way is watched to its end by the one that it was started with."""
    job, status = seen.job, seen.job.get("status") or {}
    condition = Condition("Accepted", False, "InvalidSpec", complaint)
    open_ = attempt > status.get("ended", 0)
    if open_:
        spec = last_valid(job, seen.frozen or {})
        if spec is not None:
            decision = _under_way(seen, spec, now, attempt, child)
            told = with_accepted(job, decision.status, condition, time(now)) if decision.status else None
            return replace(decision, status=told)
    leftover = () if open_ else tuple(one for one in seen.rayjobs if not _over(one))
    told = present.status(job, now, status.get("phase", "Pending"), [condition])
    return Decision(status=told, delete=leftover, needs_frozen=open_ and seen.frozen is None)


def _outdated(seen: Observed, attempt: int) -> tuple[Object, ...]:
    """RayJobs nobody looks at any more: the last failed one before the current attempt stays for people."""
    return tuple(one for one in seen.rayjobs if attempt_of(one) < attempt - 1)


def _start(seen: Observed, spec: Spec, now: datetime.datetime, attempt: int, image: str) -> Decision:
    """Create an attempt, once nothing is left of the one before and its profile exists."""
    job, status = seen.job, seen.job.get("status") or {}
    phase = "Recovering" if attempt > 1 else "Pending"
    wait = (parsed_time(status.get("retryAt")) or now) - now
    # Longer than any that is ever asked for: the clock was set back.
    if 0 < wait.total_seconds() <= RETRY[1]:
        message = f"attempt {attempt} at {status['retryAt']}"
        conditions = [_ACCEPTED, gang.pausing(status, message)]
        return Decision(status=present.status(job, now, phase, conditions, spec, {}, message), again=wait.total_seconds())
    if not all(lost(pod, now) for pod in seen.pods):
        message = awaited(seen.pods)
        conditions = [_ACCEPTED, gang.pausing(status, message)]
        return Decision(status=present.status(job, now, phase, conditions, spec, {}, message), again=5.0)
    choice = profiles.chosen(spec, seen.profiles or {}, status, now, seen.enforced)
    if isinstance(choice, Condition):
        return Decision(status=present.status(job, now, "Pending", [choice], spec), again=60.0 if seen.enforced else None)
    name, profile = choice
    if seen.taken:
        told = present.status(job, now, "Pending", [Condition("Accepted", False, "NameTaken", seen.taken)], spec)
        return Decision(status=told, again=30.0)
    if seen.refused is not None:
        told = present.status(job, now, phase, seen.refused.conditions(), spec)
        return Decision(status=told, again=seen.refused.again(status, now))
    child = rayjob(job, spec, profile, attempt, image, resting.avoided(status, now, seen.sick))
    begun = {**{name: value for name, value in status.items() if name != "retryAt"}, "attempts": attempt}
    begun |= {"startedAt": status.get("startedAt") or time(now)}
    begun |= {"plan": spending.frozen(spec, name, profile), **resting.noted(status, seen.sick, now)}
    # What the look after the next would say as well, so that the new RayJob's own event is no reason to write.
    afterwards = _running(replace(seen, job={**job, "status": begun}, report=None), spec, now, attempt, child, None)
    return Decision(create=(configmap(job, spec, attempt), child), status=afterwards, delete=_outdated(seen, attempt))


def _under_way(seen: Observed, spec: Spec, now: datetime.datetime, attempt: int, child: Object | None) -> Decision:
    """An attempt that was created and not yet accounted for."""
    seen = pricing.priced(seen)
    job, ray = seen.job, (child or {}).get("status") or {}
    pods = [pod for pod in seen.pods if pod["metadata"].get("labels", {}).get(ATTEMPT_LABEL) == str(attempt)]
    # A driver that ends before all pods are ready takes the head's readiness along, and KubeRay 1.7 waits for that for ever.
    early = exit_status(pods) if child is not None and present.starting(child) else None
    if child is None or _over(child) or early is not None:
        if ray.get("jobStatus") == "SUCCEEDED" or early == 0:
            return _succeeded(seen, spec, now, attempt, child)
        record = report.failure(seen.report) if seen.report else None
        failure = diagnosed(child, pods, record, heard=seen.report is not None)
        ended = parsed_time(ray.get("endTime"))
        if failure.summary == UNEXPLAINED and SUBMITTER in failure.detail and head_runs(pods) and ended and abs(now - ended) < EVIDENCE:
            return Decision(again=1.0)  # a head that has crashed takes the driver along, and is seen to be down a moment later
        return _ended(seen, spec, now, attempt, child, failure)
    if (over := overdue(job, spec, now, child)) is not None:
        return _failed(seen, spec, now, attempt, child, over)
    seen, spec = _afforded(seen, spec, now, child)
    queued, suspended = queue_of(spec, child) is not None, bool(child["spec"].get("suspend"))
    if spec.suspend and queued:
        # Kueue owns `suspend`; giving the RayJob up gives its quota back as well.
        changes: Object = {"attempts": attempt, "ended": attempt, **_spent(seen, spec, now, child)}
        conditions = [_ACCEPTED, present.suspension(seen.poor)]
        return Decision(status=present.status(job, now, "Suspended", conditions, spec, changes), delete=(child,))
    given = gang.given_back(seen.holding, seen.rivals, job, now)
    if given is not None:
        return _ended(seen, spec, now, attempt, child, given[0], pause=given[1])
    fitting = profiles.fitting(spec, seen.profiles or {}, seen.enforced)
    mine = fitting.get(resting.present(job.get("status") or {}, fitting, now), ProfileSpec())
    stuck = waiting(pods, child, seen.told, spoken_by(mine.pool, now)) if present.starting(child) else None
    if stuck and len(fitting) > 1 and given_up(stuck, present.begun(child), mine.unschedulable_seconds, now):
        code, _, why = stuck.message.partition(" ") if stuck.message.startswith("GTJ") else ("GTJ0202", "", stuck.message)
        gone = Failure(code, "Infrastructure", "no image for the pods" if code == "GTJ0204" else "no node for the pods", why)
        return _ended(seen, spec, now, attempt, child, gone, moved=True)
    back = None if spec.suspend else _return(seen, spec, list(fitting), now)
    if back is not None:
        return _ended(seen, spec, now, attempt, child, back)
    turn = None if queued or suspended == spec.suspend else (child, spec.suspend)
    status = _running(seen, spec, now, attempt, child, stuck)
    waits = queues.again(job.get("status") or {}, now) if queued and suspended else None
    again = waits if not present.taken_up(child) else 10.0 if present.starting(child) else 60.0
    due = left(job, spec, seen.profiles or {}, now, child, pricing.held(seen))
    again = due if again is not None and due is not None and due < again else again
    return Decision(suspend=turn, status=status, delete=_outdated(seen, attempt), again=again)


def _return(seen: Observed, spec: Spec, names: Sequence[str], now: datetime.datetime) -> Failure | None:
    """Why an attempt ends at the checkpoint that it has just made: a profile that the job prefers to its own rests no longer."""
    status, saved = seen.job.get("status") or {}, _saved(seen, spec)
    if not spec.compute.return_ or saved is None or saved["step"] <= (status.get("checkpoint") or {}).get("step", 0):
        return None
    better = resting.homeward(status, names, now)
    detail = f"the rest of profile {better} is over, and step {saved['step']} is saved (compute.return)"
    how = "it goes on there by itself"
    return Failure("GTJ0213", "Infrastructure", f"gave its machines back for those of {better}", detail, how) if better else None


def _running(seen: Observed, spec: Spec, now: datetime.datetime, attempt: int, child: Object, stuck: Waiting | None) -> Object:
    """The status of an attempt under way."""
    job, status = seen.job, seen.job.get("status") or {}
    changes: Object = {"attempts": attempt, "ray": present.ray(child), **pricing.costs(seen, spec, now, child)}
    # Time alone is a reason to write once a minute, and when the attempt is about to lose its startTime.
    minute = spending.active_seconds(job, child, now) // 60 != status.get("activeSeconds", 0) // 60
    asked = spec.active_deadline_seconds is not None or changes["cost"] != status.get("cost")
    if asked and (minute or (child["spec"].get("suspend") and present.taken_up(child))):
        changes |= spending.spent(job, child, now)
    if seen.report is not None:
        changes["progress"] = report.progress(seen.report, spec.training.steps)
        saved, stage = _saved(seen, spec), report.stage(seen.report)
        changes |= {"checkpoint": saved} if saved else {}
        workers = report.workers(seen.report, *spec.compute.worker_range) if spec.compute.elastic else None
        changes |= planned.told(seen, spec, {"zeroStage": stage, "workers": workers}, changes["cost"])
    told = {"unsaved": report.unsaved(seen.report), "warning": report.warning(seen.report)} if seen.report is not None else {}
    queue = queue_of(spec, child)
    wait = held(queue, seen.kueue, spec.compute.priority_class) if queue else None
    phase, conditions = present.conditions(spec, child, {**status, **changes, **told}, attempt, stuck, now, wait, seen.poor)
    conditions += left_behind(job, seen.pods, conditions, attempt, now, listed=present.taken_up(child))
    return present.status(job, now, phase, conditions, spec, changes)


def _saved(seen: Observed, spec: Spec) -> Object | None:
    """The newest checkpoint that the report names. The trainer names it within its store; whoever resumes from it needs the whole URI."""
    saved = report.checkpoint(seen.report) if seen.report else None
    if saved is None or spec.checkpoints.uri is None or "://" in saved["uri"]:
        return saved
    return {**saved, "uri": f"{spec.checkpoints.uri.rstrip('/')}/{seen.job['metadata']['uid']}/{saved['uri']}"[:1024]}


def _succeeded(seen: Observed, spec: Spec, now: datetime.datetime, attempt: int, child: Object | None) -> Decision:
    saved = _saved(seen, spec)
    changes: Object = {
        "attempts": attempt,
        "ended": attempt,
        "finishedAt": ((child or {}).get("status") or {}).get("endTime") or time(now),
        **_spent(seen, spec, now, child),
        **present.completed(seen.job, spec, seen.report),
        **({"checkpoint": saved} if saved else {}),
    }
    changes |= planned.told(seen, spec, {}, changes["cost"], done=True)
    conditions = [_ACCEPTED, Condition("Complete", True, "Succeeded"), Condition("Finished", True, "Succeeded")]
    return Decision(status=present.status(seen.job, now, "Succeeded", conditions, spec, changes), again=1.0)


def _ended(
    seen: Observed,
    spec: Spec,
    now: datetime.datetime,
    attempt: int,
    child: Object | None,
    failure: Failure,
    *,
    moved: bool = False,
    pause: float | None = None,
) -> Decision:
    """An attempt that did not succeed: the next one, or the end. `pause`: seconds before the next, of one that gave its pods back."""
    job, restarts = seen.job, {**((seen.job.get("status") or {}).get("restarts") or {})}
    kind = failure.class_.lower()
    if failure.class_ == "Configuration" or (failure.class_ == "Application" and restarts.get(kind, 0) >= spec.recovery.max_retries):
        return _failed(seen, spec, now, attempt, child, failure)
    restarts[kind] = restarts.get(kind, 0) + 1
    since, tries = {}, restarts[kind]
    if failure.class_ != "Application":
        since = free_restarts.counted(job.get("status") or {}, moved, gave_back=pause is not None)
        tries, end = since["free"], free_restarts.exhausted(since, failure)
        if end is not None:
            return _failed(seen, spec, now, attempt, child, end)
    fitting, status = profiles.fitting(spec, seen.profiles or {}, seen.enforced), job.get("status") or {}
    name = resting.present(status, fitting, now)
    spot = fitting.get(name, ProfileSpec()).capacity == "spot"
    worn = bool(since) and free_restarts.worn(since)
    learned = resting.learned(status, name, failure, now, spot=spot, worn=worn, moved=moved, others=len(fitting) > 1)
    delay = min(RETRY[1], RETRY[0] * 2.0 ** min(tries - 1, 16)) if pause is None else pause
    retry_at = time(now + datetime.timedelta(seconds=delay))
    saved = _saved(seen, spec)
    changes: Object = {
        "attempts": attempt,
        "ended": attempt,
        "restarts": restarts,
        **({"checkpoint": saved} if saved else {}),
        **({"sinceProgress": since} if since else {}),
        "retryAt": retry_at,
        "failure": failure.status(),
        **learned,
        **_spent(seen, spec, now, child),
    }
    message = resting.said(f"attempt {attempt + 1} at {retry_at}", learned, failure.line())
    taken_back = failure.class_ == "Preemption"
    conditions = [_ACCEPTED, Condition("Running", False, "Preempted", message) if taken_back else gang.pausing(changes, message)]
    live = (child,) if child is not None and not _over(child) else ()
    return Decision(status=present.status(job, now, "Recovering", conditions, spec, changes, failure.line()), delete=live, again=delay)


def _failed(seen: Observed, spec: Spec, now: datetime.datetime, attempt: int, child: Object | None, failure: Failure) -> Decision:
    changes: Object = {
        "attempts": attempt,
        "ended": attempt,
        "failure": failure.status(),
        "finishedAt": time(now),
        **_spent(seen, spec, now, child),
    }
    conditions = [_ACCEPTED, *(Condition(type_, True, "Failed", failure.line()) for type_ in ("Failed", "Finished"))]
    live = (child,) if child is not None and not _over(child) else ()
    return Decision(status=present.status(seen.job, now, "Failed", conditions, spec, changes, failure.line()), delete=live, again=1.0)


def _spent(seen: Observed, spec: Spec, now: datetime.datetime, child: Object | None) -> Object:
    """Time and money of all attempts, at the end of one."""
    return {**spending.spent(seen.job, child, now), **pricing.costs(seen, spec, now, child, final=True)}
