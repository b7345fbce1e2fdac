"""The decision, as a table: what is there, and what is done about it."""

from __future__ import annotations

import copy
import datetime
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from gentrain_operator.conditions import events
from gentrain_operator.decide import Decision, Observed, decide
from gentrain_operator.kube.resource import Object
from gentrain_operator.lastvalid import spec_of
from gentrain_operator.queues import Looked, held
from gentrain_operator.rayjob import configmap
from trainjobs.api.job import Spec

NOW = datetime.datetime(2026, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)
STARTED = "2026-01-01T11:00:00Z"
IMAGE = "trainer:1"


def at(minutes: float) -> datetime.datetime:
    return NOW + datetime.timedelta(minutes=minutes)


def job(status: Object | None = None, **spec: Any) -> Object:
    base = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 100}, "compute": {"gpusPerWorker": 0}}
    metadata = {"name": "job", "namespace": "team", "uid": "u1", "generation": 2, "resourceVersion": "9"}
    whole: Object = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": metadata, "spec": {**base, **spec}}
    return {**whole, "status": status} if status else whole


def child(attempt: int = 1, suspend: bool = False, created: str = STARTED, **status: Any) -> Object:
    metadata = {"name": f"job-a{attempt}", "namespace": "team", "uid": f"c{attempt}", "resourceVersion": "5", "creationTimestamp": created}
    return {"kind": "RayJob", "metadata": metadata, "spec": {"suspend": suspend}, "status": status}


def running(attempt: int = 1, **status: Any) -> Object:
    cluster = {"readyWorkerReplicas": 1, "head": {"podIP": "10.0.0.1"}}
    given = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "startTime": STARTED, "rayClusterStatus": cluster, **status}
    return child(attempt, **given)


def failed(attempt: int = 1, message: str = "Traceback", **status: Any) -> Object:
    return child(attempt, **{"jobDeploymentStatus": "Failed", "jobStatus": "FAILED", "reason": "AppFailed", "message": message, **status})


def pod(attempt: int = 1, **status: Any) -> Object:
    return {"metadata": {"name": f"job-a{attempt}-w", "labels": {"gentrain.dev/attempt": str(attempt)}}, "spec": {}, "status": status}


def profile(name: str, **spec: Any) -> dict[str, Object]:
    return {name: {"metadata": {"name": name}, "spec": spec}}


def decided(seen: Observed, now: datetime.datetime = NOW) -> Decision:
    """The decision; what was observed is left as it was, and deciding again on its outcome writes nothing more."""
    before = copy.deepcopy(seen)
    decision = decide(seen, now, IMAGE)
    assert seen == before, "what was observed was changed"
    types = [one["type"] for one in (decision.status or {}).get("conditions", ())]
    assert len(types) == len(set(types)), "a list-map with a key twice, which no server takes"
    if decision.status is not None and not decision.create:
        again = decide(replace(seen, job={**seen.job, "status": decision.status}), now, IMAGE)
        ends = decision.status.get("ended") != (seen.job.get("status") or {}).get("ended")
        assert ends or again.status in (None, decision.status), "a status that is never settled"
    return decision


def reasons(decision: Decision) -> dict[str, str]:
    assert decision.status is not None
    return {one["type"]: f"{one['status']} {one['reason']}" for one in decision.status["conditions"] if one["type"] != "Ready"}


def seen(status: Object | None = None, rayjobs: Sequence[Object] = (), **more: Any) -> Observed:
    observed = {name: more.pop(name) for name in ("profiles", "pods", "report", "taken", "kueue") if name in more}
    return Observed(job(status, **more), tuple(rayjobs), **observed)


ONE = {"attempts": 1}
TWO_ENDED = {"attempts": 1, "ended": 1}


def test_a_new_job_gets_its_first_attempt() -> None:
    decision = decided(seen())
    assert [one["kind"] for one in decision.create] == ["ConfigMap", "RayJob"]
    assert decision.create[1]["metadata"]["name"] == "job-a1"
    assert decision.status is not None
    assert (decision.status["phase"], decision.status["attempts"], decision.status["observedGeneration"]) == ("Provisioning", 1, 2)
    assert reasons(decision)["ResourcesReady"] == "False ScalingUp"


@pytest.mark.parametrize("compute", [{"gpusPerWorker": 1}, {"gpusPerWorker": 0, "queue": "q"}], ids=["plain", "queued"])
@pytest.mark.parametrize("attempt", [1, 2])
def test_the_event_of_the_new_rayjob_is_no_reason_to_write(compute: Object, attempt: int) -> None:
    before = {"attempts": attempt - 1, "ended": attempt - 1}
    first = decided(seen(before, compute=compute, activeDeadlineSeconds=60))
    assert first.status is not None
    assert first.status["attempts"] == attempt
    later = decided(seen(first.status, [{**first.create[1], "status": {}}], compute=compute, activeDeadlineSeconds=60), at(5))
    assert later.status == first.status


def test_an_attempt_that_was_created_but_not_counted_is_not_created_again() -> None:
    decision = decided(seen(None, [child()]))
    assert decision.create == ()
    assert decision.status is not None
    assert decision.status["attempts"] == 1


@pytest.mark.parametrize(
    ("rayjob", "phase", "resources"),
    [
        (child(), "Provisioning", "False ScalingUp"),
        (child(jobDeploymentStatus="Initializing"), "Provisioning", "False ScalingUp"),
        (child(jobDeploymentStatus="Waiting"), "Provisioning", "False ScalingUp"),
        (running(jobStatus=""), "Starting", "True Ready"),
        (running(jobStatus="PENDING"), "Starting", "True Ready"),
        (running(), "Starting", "True Ready"),
        (running(rayClusterStatus={"state": "ready", "readyWorkerReplicas": 0}), "Starting", "False ScalingUp"),
    ],
    ids=["new", "initializing", "waiting", "submitting", "pending", "no step yet", "a worker short although ready"],
)
def test_phases_of_a_young_attempt(rayjob: Object, phase: str, resources: str) -> None:
    decision = decided(seen(ONE, [rayjob]))
    assert decision.status is not None
    assert decision.status["phase"] == phase
    assert reasons(decision)["ResourcesReady"] == resources
    # Nobody waits for the pods of a RayJob that KubeRay has not begun with.
    assert (decision.again is None) == (rayjob == child())


REPORT = {"step": 40, "updatedAt": NOW.timestamp() - 5, "metrics": {"loss/G": 1.32}, "etaSeconds": 4320.5, "stage": 2}


def test_a_report_makes_it_run() -> None:
    decision = decided(seen(ONE, [running()], report=REPORT))
    assert decision.status is not None
    assert decision.status["message"] == "step 40/100, loss/G 1.32, ETA 1h12m"
    assert decision.status["progress"]["display"] == "40% 40/100"
    assert decision.status["plan"]["zeroStage"] == 2
    assert reasons(decision)["Running"] == "True Stepping"
    assert reasons(decision)["CheckpointReady"] == "False NeverSaved"


def test_what_the_trainer_warns_of_is_a_condition_and_an_event_as_long_as_it_lasts() -> None:
    told = "GTJ0220 the generator has collapsed: samples differ by 3 % of what data differ by"
    decision = decided(seen(rayjobs=[running()], report={**REPORT, "warning": told}))
    assert reasons(decision)["TrainingHealthy"] == "False Troubled"
    assert reasons(decision)["Running"] == "True Stepping"
    assert decision.status is not None
    by_type = {one["type"]: one for one in decision.status["conditions"]}
    assert by_type["TrainingHealthy"]["message"] == told
    assert by_type["Ready"]["status"] == "True", "it trains"
    (event,) = [one for one in events([], decision.status["conditions"]) if one.reason == "Troubled"]
    assert (event.type, event.action, event.note) == ("Warning", "TrainingHealthy", told)
    again = list(events(decision.status["conditions"], decision.status["conditions"]))
    assert again == [], "it is told once"
    assert "TrainingHealthy" not in reasons(decided(seen(rayjobs=[running()], report={**REPORT, "warning": None})))
    assert "TrainingHealthy" not in reasons(decided(seen(rayjobs=[running()], report={**REPORT, "warning": {"not": "text"}})))


def test_a_checkpoint_that_could_not_be_written_is_shown_and_the_one_before_is_named() -> None:
    saved = {"uri": "steps/000000000500-a1", "step": 500}
    report = {"step": 700, "updatedAt": NOW.timestamp(), "checkpoint": saved, "checkpointFailure": "GTJ0211 a checkpoint cannot be written"}
    decision = decided(seen(rayjobs=[running()], report=report))
    assert reasons(decision)["CheckpointReady"] == "False UploadFailed"
    assert reasons(decision)["Running"] == "True Stepping"
    assert decision.status is not None
    (condition,) = [one for one in decision.status["conditions"] if one["type"] == "CheckpointReady"]
    assert condition["message"] == "GTJ0211 a checkpoint cannot be written; step 500 is kept"
    again = decided(seen(rayjobs=[running()], report={**report, "checkpointFailure": None}))
    assert reasons(again)["CheckpointReady"] == "True Saved"


def test_silence_beyond_the_stall_timeout_is_shown() -> None:
    decision = decided(seen(ONE, [running()], report=REPORT), at(31))
    assert reasons(decision)["Running"] == "False Stalled"
    assert decision.status is not None
    assert decision.status["message"] == "GTJ0210 no step for 31m05s, at step 40"


def test_what_the_last_attempt_reported_is_no_news_of_this_one() -> None:
    status = {"attempts": 2, "ended": 1, "progress": {"step": 40, "updatedAt": "2026-01-01T10:00:00Z"}}
    decision = decided(seen(status, [running(2)]))
    assert decision.status is not None
    assert (decision.status["phase"], reasons(decision)["Running"]) == ("Recovering", "False Recovering")


def test_success() -> None:
    ended = child(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", endTime="2026-01-01T11:59:00Z")
    decision = decided(seen(ONE, [ended], report=REPORT))
    assert decision.status is not None
    assert decision.status["progress"]["display"] == "100% 100/100"
    assert decision.status["finishedAt"] == "2026-01-01T11:59:00Z"
    assert reasons(decision) == {"Accepted": "True Accepted", "Complete": "True Succeeded", "Finished": "True Succeeded"}


@pytest.mark.parametrize(
    ("rayjob", "pods", "kind"),
    [
        (failed(), [], "application"),
        (failed(message="Ray head pod not found."), [], "infrastructure"),
        (child(jobDeploymentStatus="Complete", jobStatus="STOPPED"), [], "preemption"),
        (None, [], "infrastructure"),
        (failed(), [pod(reason="Evicted")], "infrastructure"),
        (failed(), [pod(2, reason="Evicted")], "application"),
    ],
    ids=["raised", "head lost", "stopped", "vanished", "evicted", "another attempt's pod"],
)
def test_an_attempt_that_ends_is_counted_and_followed(rayjob: Object | None, pods: list[Object], kind: str) -> None:
    decision = decided(seen(ONE, [rayjob] if rayjob else [], pods=pods))
    assert decision.status is not None
    assert decision.status["restarts"] == {kind: 1}
    assert (decision.status["ended"], decision.status["retryAt"], decision.again) == (1, "2026-01-01T12:00:10Z", 10)
    assert decision.create == ()


def test_backoff_grows_to_its_limit() -> None:
    delays = []
    for count in range(8):
        decision = decided(seen({**ONE, "restarts": {"infrastructure": count}}, [failed(message="Ray head pod not found.")]))
        delays.append(decision.again)
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]


def test_application_failures_are_bounded_and_others_are_not() -> None:
    status = {**ONE, "restarts": {"application": 3, "infrastructure": 50}}
    assert "Failed" in reasons(decided(seen(status, [failed()])))
    assert "Failed" not in reasons(decided(seen(status, [failed(message="Ray head pod not found.")])))


def test_a_configuration_failure_is_final() -> None:
    decision = decided(seen(ONE, [child(jobDeploymentStatus="ValidationFailed", message="no")]))
    assert reasons(decision)["Finished"] == "True Failed"
    assert decision.status is not None
    assert decision.status["failure"]["class"] == "Configuration"


def test_between_attempts() -> None:
    status = {**TWO_ENDED, "retryAt": "2026-01-01T12:01:00Z"}
    waiting = decided(seen(status, [failed()]))
    assert (waiting.create, waiting.again) == ((), 60)
    lingering = decided(seen(status, [failed()], pods=[pod()]), at(2))
    assert lingering.create == ()
    assert lingering.again == 5
    due = decided(seen(status, [failed()]), at(2))
    assert due.create[1]["metadata"]["name"] == "job-a2"
    assert due.status is not None
    assert "retryAt" not in due.status


def test_what_was_accounted_for_and_still_runs_is_removed_before_the_next_attempt() -> None:
    """A sweep of crashes found it: the operator died between the status and the deletion, and the next one started a second cluster."""
    for suspend in (False, True):
        decision = decided(seen(TWO_ENDED, [running()], suspend=suspend))
        assert decision.create == ()
        assert decision.delete == (running(),)


def test_only_the_last_failed_rayjob_is_kept() -> None:
    decision = decided(seen({"attempts": 3, "ended": 3}, [failed(1), failed(2), failed(3)]))
    assert [one["metadata"]["name"] for one in decision.delete] == ["job-a1", "job-a2"]


@pytest.mark.parametrize(
    ("profiles", "restarts", "chosen"),
    [
        ({}, {}, None),
        (profile("b"), {}, "b"),
        (profile("a") | profile("b"), {}, "a"),
        (profile("a") | profile("b"), {"infrastructure": 1}, "a"),
        (profile("a") | profile("b"), {"infrastructure": 4}, "a"),  # which of them rest is what counts: see test_resting.py
        (profile("a") | profile("b"), {"application": 2}, "a"),
        (profile("a", node={"cpu": 7}), {}, None),
    ],
)
def test_profiles_are_tried_in_order(profiles: dict[str, Object], restarts: Object, chosen: str | None) -> None:
    compute = {"profiles": ["a", "b"], "gpusPerWorker": 0}
    decision = decided(seen({"restarts": restarts} if restarts else None, profiles=profiles, compute=compute))
    assert decision.status is not None
    assert (decision.status.get("plan") or {}).get("profile") == chosen
    if chosen is None:
        assert reasons(decision)["Accepted"] == "False ProfileNotFound"


UNSCHEDULABLE = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]


def test_pods_that_fit_nowhere_are_shown_and_then_the_next_profile_is_tried() -> None:
    lonely = {"profiles": ["a"], "gpusPerWorker": 0}
    both = {"profiles": ["a", "b"], "gpusPerWorker": 0}
    young, old = child(created="2026-01-01T11:59:00Z"), child(created="2026-01-01T11:00:00Z")
    pods = [pod(conditions=UNSCHEDULABLE)]
    for rayjob, compute in ((young, both), (old, lonely)):
        decision = decided(seen(ONE, [rayjob], pods=pods, compute=compute, profiles=profile("a")))
        assert reasons(decision)["ResourcesReady"] == "False Unschedulable"
        assert decision.delete == ()
    decision = decided(seen(ONE, [old], pods=pods, compute=both, profiles=profile("a") | profile("b")))
    assert decision.delete == (old,)
    assert decision.status is not None
    assert (decision.status["restarts"], decision.status["failure"]["code"]) == ({"infrastructure": 1}, "GTJ0202")


def test_suspending() -> None:
    turned = decided(seen(ONE, [running()], suspend=True))
    assert turned.suspend == (running(), True)
    assert reasons(turned)["Suspended"] == "False Suspending"
    done = decided(seen(ONE, [child(suspend=True, jobDeploymentStatus="Suspended")], suspend=True))
    assert done.suspend is None
    assert reasons(done)["Suspended"] == "True Suspended"
    resumed = decided(seen(ONE, [child(suspend=True, jobDeploymentStatus="Suspended")]))
    assert resumed.suspend is not None
    assert resumed.suspend[1] is False
    assert decided(seen(None, suspend=True)).create == ()


def test_kueue_owns_suspend() -> None:
    compute = {"queue": "team-a", "gpusPerWorker": 0}
    waiting = decided(seen(ONE, [child(suspend=True)], compute=compute))
    assert (waiting.suspend, reasons(waiting)["QuotaReserved"]) == (None, "False WaitingForQuota")
    # Progress is no sign of it: an attempt that resumes waits like any other.
    back = seen({**ONE, "progress": {"step": 5}}, [child(suspend=True, jobDeploymentStatus="Suspended")], compute=compute)
    assert reasons(decided(back))["QuotaReserved"] == "False WaitingForQuota"
    evicted = {"status": {"conditions": [{"type": "Evicted", "status": "True", "message": "preempted by another"}]}}
    assert reasons(decided(replace(back, kueue=Looked(True, ("team-a",), evicted))))["QuotaReserved"] == "False Preempted"
    given_up = decided(seen(ONE, [running()], compute=compute, suspend=True))
    assert given_up.suspend is None
    assert [one["metadata"]["name"] for one in given_up.delete] == ["job-a1"]
    assert given_up.status is not None
    assert (given_up.status["ended"], given_up.status.get("restarts")) == (1, None)


def held_by_kueue(attempt: int = 1, **status: Any) -> Object:
    """A RayJob to which Kueue itself gave a queue, a LocalQueue called default."""
    one = child(attempt, suspend=True, **status)
    return {**one, "metadata": {**one["metadata"], "labels": {"kueue.x-k8s.io/queue-name": "default"}}}


def test_a_rayjob_that_kueue_took_by_itself_is_not_let_go() -> None:
    waiting = decided(seen(ONE, [held_by_kueue()], kueue=Looked(True, ("default",), None)))
    assert (waiting.suspend, waiting.again) == (None, 30.0)
    assert reasons(waiting) == {"Accepted": "True Accepted", "QuotaReserved": "False WaitingForQuota"}
    assert waiting.status is not None
    assert waiting.status["phase"] == "Queued"
    stopped = decided(seen(ONE, [held_by_kueue()], suspend=True))
    assert stopped.suspend is None
    assert [one["metadata"]["name"] for one in stopped.delete] == ["job-a1"]


def test_a_queue_that_is_not_there_is_said() -> None:
    def told(looked: Looked) -> tuple[str, str]:
        status = decided(seen(ONE, [child(suspend=True)], compute={"queue": "taem", "gpusPerWorker": 0}, kueue=looked)).status
        assert status is not None
        return next((one["reason"], one["message"]) for one in status["conditions"] if one["type"] == "QuotaReserved")

    assert told(Looked(False)) == (
        "KueueNotInstalled",
        "GTJ0111 compute.queue is taem, and this cluster has no Kueue (kueue.x-k8s.io): install it, or make the job without a queue",
    )
    assert told(Looked(True, ("team", "other"))) == (
        "QueueNotFound",
        "GTJ0111 there is no LocalQueue taem in this namespace; did you mean team?",
    )
    assert told(Looked(True, ()))[1].endswith("there is none at all: ask who runs the cluster for one")
    assert told(Looked())[0] == "WaitingForQuota"
    waits = {"status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": "insufficient unused quota"}]}}
    assert told(Looked(True, ("taem",), waits)) == ("WaitingForQuota", "queue taem has not admitted the job: insufficient unused quota")


def test_a_head_that_has_just_crashed_is_given_a_moment_to_be_seen_down() -> None:
    def after(seconds: float, state: Object) -> Decision:
        ended = (NOW - datetime.timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
        failed = running(
            jobDeploymentStatus="Failed",
            jobStatus="FAILED",
            endTime=ended,
            message="Ray head pod container ray-job-submitter terminated with exit code 1",
        )
        return decided(seen(ONE, [failed], pods=[pod(containerStatuses=[{"name": "ray-head", "state": state}])], report={"step": 7}))

    assert (after(1, {"running": {}}).status, after(1, {"running": {}}).again) == (None, 1.0)
    # A clock that is minutes behind KubeRay's does not make that moment one of minutes.
    early, late = after(-200, {"running": {}}), after(9, {"running": {}})
    for decision, kind in ((after(1, {"terminated": {"exitCode": 1}}), "infrastructure"), (late, "application"), (early, "application")):
        assert decision.status is not None
        assert decision.status["restarts"] == {kind: 1}


@pytest.mark.parametrize("queue", [None, "team-a"])
def test_the_checkpoint_that_a_suspended_attempt_saves_while_its_pods_go_is_named(queue: str | None) -> None:
    """Without a queue its RayJob is still there, with one it is gone already."""
    rayjobs = [] if queue else [child(suspend=True, jobDeploymentStatus="Suspended")]
    status = TWO_ENDED if queue else ONE
    told = {"step": 70, "checkpoint": {"uri": "steps/000000000070-a1", "step": 70}}
    compute = {"gpusPerWorker": 0, **({"queue": queue} if queue else {})}
    decision = decided(seen(status, rayjobs, suspend=True, report=told, compute=compute))
    assert decision.status is not None
    assert (decision.status["phase"], decision.status["checkpoint"]["step"]) == ("Suspended", 70)


def test_the_deadline_counts_all_attempts() -> None:
    limit = {"activeDeadlineSeconds": 5000}
    assert "Failed" not in reasons(decided(seen(ONE, [running()], **limit)))
    over = decided(seen({**TWO_ENDED, "attempts": 2, "activeSeconds": 2000}, [running(2)], **limit))
    assert over.status is not None
    assert over.status["failure"]["code"] == "GTJ0212"
    assert [one["metadata"]["name"] for one in over.delete] == ["job-a2"]


def test_cost_and_budget() -> None:
    compute = {"profiles": ["a"], "gpusPerWorker": 4, "workers": 2}
    profiles = profile("a", accelerator={"perNode": 8}, price={"usdPerNodeHour": "80"})
    status = {**ONE, "plan": {"profile": "a"}}
    priced = decided(seen(status, [running()], compute=compute, profiles=profiles))
    assert priced.status is not None
    assert priced.status["cost"].items() >= {"usd": "80.00", "gpuHours": "8.00", "ratePerHourUSD": "80.00"}.items()
    unpriced = decided(seen(status, [running()], compute=compute, profiles=profile("a")))
    assert unpriced.status is not None
    assert unpriced.status["cost"]["usd"] == "unknown"
    over = decided(seen(priced.status, [running()], compute=compute, profiles=profiles, budget={"maxUSD": "82"}))
    assert over.suspend == (running(), True)
    assert reasons(over) == {"Accepted": "True Accepted", "Suspended": "False Suspending", "WithinBudget": "False BudgetNearlySpent"}
    assert over.status is not None
    assert "GTJ0212 80.00 of 82.00 USD are spent, and 2.69 are kept for its last checkpoint" in over.status["message"]


@pytest.mark.parametrize(("end", "phase"), [({"jobStatus": "SUCCEEDED"}, "Succeeded"), ({"jobStatus": "FAILED"}, "Failed")])
@pytest.mark.parametrize("workers", [2, "2-8"], ids=["fixed", "elastic"])
def test_the_end_counts_the_last_attempt_to_the_second(workers: Any, end: Object, phase: str) -> None:
    """Another attempt of an hour and a half minute came before; this one began an hour ago."""
    profiles = profile("a", accelerator={"perNode": 8}, price={"usdPerNodeHour": "80"})
    earlier = {"cost": {"minutes": 60, "workerMinutes": 120, "usd": "80.00"}} if workers != 2 else {}
    status = {**TWO_ENDED, "attempts": 2, "plan": {"profile": "a", "workers": 2}, "activeSeconds": 3630, **earlier}
    last = running(2, **{"jobDeploymentStatus": "Complete" if phase == "Succeeded" else "Failed", "endTime": "2026-01-01T12:00:00Z", **end})
    compute = {"profiles": ["a"], "gpusPerWorker": 4, "workers": workers}
    decision = decided(seen(status, [last], compute=compute, profiles=profiles, recovery={"maxRetries": 0}))
    assert decision.status is not None
    assert (decision.status["phase"], decision.status["activeSeconds"]) == (phase, 7230)
    cost = decision.status["cost"]
    assert (cost["usd"], cost["gpuHours"]) == ("160.67", "16.07")


def test_an_elastic_group_costs_what_it_was() -> None:
    compute = {"profiles": ["a"], "gpusPerWorker": 4, "workers": "2-8"}
    profiles = profile("a", accelerator={"perNode": 8}, price={"usdPerNodeHour": "80"})
    status: Object = {**ONE, "plan": {"profile": "a", "workers": 2}}
    report = {"step": 7, "phase": "Running", "updatedAt": NOW.timestamp(), "stage": 1}
    found = []
    for minutes, workers in ((0, 2), (60, 8), (120, 8), (120, 2), (180, 9)):
        now = at(minutes)
        told = {**report, "workers": workers, "updatedAt": now.timestamp()}
        observed = Observed(job(status, compute=compute), (running(),), profiles, report=told)
        status = decide(observed, now, IMAGE).status or status
        found.append((status["cost"]["usd"], status["plan"]["workers"], status["summary"]["gpus"]))
    # An hour of two workers, on one node, before NOW and after it; then eight on four; nine are not allowed and not believed.
    assert found == [("80.00", 2, "8"), ("160.00", 8, "32"), ("480.00", 8, "32"), ("480.00", 2, "8"), ("560.00", 2, "8")]


@pytest.mark.parametrize("phase", ["Stopping", "Recovering"])
def test_what_the_trainer_does_about_a_machine_that_is_taken_back_is_shown(phase: str) -> None:
    why = "the node of rank 1 is taken away: a checkpoint of 1.2 GiB takes 8.0 s, 25 s are left: taken"
    report = {"step": 7, "phase": phase, "message": why, "updatedAt": NOW.timestamp(), "stage": 0}
    decision = decided(seen(ONE, [running()], report=report))
    assert decision.status is not None
    assert (decision.status["phase"], decision.status["message"]) == ("Recovering", why)
    assert ("Running", "False", "Recovering") in [(one["type"], one["status"], one["reason"]) for one in decision.status["conditions"]]
    again = decided(seen(decision.status, [running()], report={**report, "step": 8, "phase": "Running", "message": "resumed from step 7"}))
    assert again.status is not None
    assert again.status["phase"] == "Running"
    assert "message" not in again.status["progress"]


@pytest.mark.parametrize(("fits", "more"), [(True, False), (False, True), ("no", False)])
def test_a_checkpoint_that_would_not_fit_the_grace_is_told(fits: object, more: bool) -> None:
    checkpoint = {"uri": "steps/5-a1", "step": 5, "sizeBytes": 10**12, "fitsGrace": fits}
    report = {"step": 7, "phase": "Running", "updatedAt": NOW.timestamp(), "checkpoint": checkpoint}
    decision = decided(seen(ONE, [running()], report=report))
    assert decision.status is not None
    (told,) = [one["message"] for one in decision.status["conditions"] if one["type"] == "CheckpointReady"]
    assert told.startswith("step 5")
    assert ("longer than the grace period" in told) is more


def test_time_alone_is_written_once_a_minute() -> None:
    profiles = profile("a", price={"usdPerNodeHour": "60"})
    compute = {"profiles": ["a"], "gpusPerWorker": 0}
    now_status = decided(seen({**ONE, "plan": {"profile": "a"}}, [running()], compute=compute, profiles=profiles)).status
    assert now_status is not None
    for seconds, same in ((20, True), (59, True), (61, False)):
        later = decide(Observed(job(now_status, compute=compute), (running(),), profiles), at(seconds / 60), IMAGE)
        assert (later.status == now_status) is same


FINISHED = {
    "observedGeneration": 2,
    "attempts": 1,
    "ended": 1,
    "finishedAt": "2026-01-01T11:00:00Z",
    "conditions": [{"type": "Finished", "status": "True", "reason": "Succeeded"}],
}


def test_a_finished_job_is_left_alone_until_its_time_is_over() -> None:
    assert decided(seen(FINISHED, [failed()])) == Decision()
    assert decided(seen(FINISHED, [], ttlSecondsAfterFinished=7200)) == Decision(again=3600)
    assert decided(seen(FINISHED, [], ttlSecondsAfterFinished=3600)).delete_job
    assert decided(seen(FINISHED, [running()])).delete == (running(),)


def test_a_job_that_is_being_deleted_is_left_to_the_garbage_collector() -> None:
    going = job(ONE)
    going["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert decided(Observed(going, (running(),))) == Decision()


def test_a_taken_name_is_said_and_waited_for() -> None:
    decision = decided(seen(taken="RayJob job-a1 exists and is not this job's"))
    assert (reasons(decision)["Accepted"], decision.create) == ("False NameTaken", ())
    assert decision.again == 30


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"gan": {}}, "GTJ0106"),
        ({"training": {}}, "training.steps"),
        ({"data": None}, "data"),
        ({"vae": {"network": {"architecture": "of another version"}}}, "architecture"),
    ],
    ids=["two families", "missing", "null", "value of another version"],
)
def test_what_another_crd_let_through_is_said_and_nothing_is_started(spec: Object, words: str) -> None:
    decision = decided(seen(None, **spec))
    assert decision.status is not None
    assert reasons(decision) == {"Accepted": "False InvalidSpec"}
    assert words in decision.status["message"]
    assert decision.create == ()


def test_an_unreadable_spec_does_not_touch_what_runs() -> None:
    decision = decided(seen({**ONE, "phase": "Running"}, [running()], gan={}))
    assert (decision.delete, decision.suspend) == ((), None)
    assert decision.status is not None
    assert decision.status["phase"] == "Running"


def test_fields_of_a_newer_crd_are_ignored() -> None:
    assert decided(seen(None, somethingNew={"a": 1})).create != ()


def test_a_missing_secret_is_shown_where_it_belongs() -> None:
    stuck = [{"name": "ray-head", "state": {"waiting": {"reason": "CreateContainerConfigError", "message": 'secret "s" not found'}}}]
    decision = decided(seen(ONE, [child(jobDeploymentStatus="Initializing")], pods=[pod(containerStatuses=stuck)]))
    assert reasons(decision)["Accepted"] == "False SecretNotFound"
    assert decision.status is not None
    assert 'GTJ0111 secret "s" not found' in decision.status["message"]


def test_times_of_conditions_change_with_their_status_only() -> None:
    first = decided(seen(ONE, [child()])).status
    assert first is not None
    second = decide(Observed(job(first), (running(),)), at(1), IMAGE).status
    assert second is not None
    times = {one["type"]: one["lastTransitionTime"] for one in second["conditions"]}
    assert times["Accepted"] == "2026-01-01T12:00:00Z"
    assert times["ResourcesReady"] == "2026-01-01T12:01:00Z"


def submitter(code: int | None) -> Object:
    """A head pod whose driver runs, or has ended."""
    state = {"running": {}} if code is None else {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    return pod(containerStatuses=[{"name": "ray-head", "state": {"running": {}}}, {"name": "ray-job-submitter", "state": state}])


@pytest.mark.parametrize("code", [None, 0, 7])
def test_a_driver_that_ends_before_all_pods_are_ready(code: int | None) -> None:
    """KubeRay 1.7 waits for such a head for ever: its RayJob stays Initializing."""
    early = child(jobDeploymentStatus="Initializing")
    told = {"failure": {"code": "GTJ0113", "what": "no data"}} if code else None
    decision = decided(seen(ONE, [early], pods=[submitter(code)], report=told))
    assert decision.status is not None
    assert decision.status["phase"] == {None: "Provisioning", 0: "Succeeded", 7: "Failed"}[code]
    assert decision.delete == ((early,) if code else ())
    if code:
        assert (decision.status["failure"]["code"], decision.status["attempts"]) == ("GTJ0113", 1)


def test_a_driver_that_ended_early_and_left_no_word_is_tried_again() -> None:
    decision = decided(seen(ONE, [child(jobDeploymentStatus="Initializing")], pods=[submitter(1)], recovery={"maxRetries": 1}))
    assert decision.status is not None
    assert (decision.status["phase"], decision.status["failure"]["code"]) == ("Recovering", "GTJ0214")


def test_an_end_is_left_to_kuberay_once_the_cluster_is_up() -> None:
    decision = decided(seen(ONE, [running()], pods=[submitter(0)]))
    assert decision.status is not None
    assert decision.status["phase"] == "Starting"


@pytest.mark.parametrize("attempt", [1, 2])
def test_a_job_that_ends_is_not_told_to_start_again(attempt: int) -> None:
    """KubeRay says SUCCEEDED some seconds before it says Complete."""
    counted = {"attempts": attempt, "ended": attempt - 1}
    heard = {"step": 100, "updatedAt": NOW.timestamp() - 5}
    decision = decided(seen(counted, [running(attempt, jobStatus="SUCCEEDED")], report=heard))
    assert decision.status is not None
    assert decision.status["phase"] == "Running"
    assert reasons(decision)["Running"] == "True Stepping"


def test_the_last_checkpoint_of_a_success_is_kept() -> None:
    last = {"step": 100, "phase": "Succeeded", "checkpoint": {"step": 100, "uri": "s3://runs/job/steps/100"}}
    over = child(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", endTime=STARTED)
    decision = decided(seen(ONE, [over], report=last))
    assert decision.status is not None
    assert decision.status["checkpoint"]["step"] == 100


@pytest.mark.parametrize(
    ("told", "known"),
    [("steps/000000000100-a1", "s3://runs/faces/u1/steps/000000000100-a1"), ("s3://else/where", "s3://else/where")],
)
def test_a_checkpoint_is_named_as_resume_from_takes_it(told: str, known: str) -> None:
    heard = {"step": 100, "updatedAt": NOW.timestamp(), "checkpoint": {"step": 100, "uri": told}}
    decision = decided(seen(ONE, [running()], report=heard, checkpoints={"uri": "s3://runs/faces/"}))
    assert decision.status is not None
    assert decision.status["checkpoint"]["uri"] == known
    over = child(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", endTime=STARTED)
    ended = decided(seen(ONE, [over], report=heard, checkpoints={"uri": "s3://runs/faces/"}))
    assert ended.status is not None
    assert ended.status["checkpoint"]["uri"] == known


def deleted(name: str, minutes: float, node: str = "n1", attempt: int = 1) -> Object:
    """A pod whose own grace was over so many minutes before NOW."""
    going = pod(attempt, phase="Running")
    going["metadata"] |= {"name": name, "deletionTimestamp": at(-minutes).strftime("%Y-%m-%dT%H:%M:%SZ")}
    return {**going, "spec": {"nodeName": node}}


def test_pods_that_the_next_attempt_waits_for_are_named_with_their_nodes() -> None:
    still = [deleted("job-a1-w1", 4), {**pod(phase="Pending"), "spec": {}}]
    decision = decided(seen(TWO_ENDED, [failed()], pods=still))
    assert (decision.create, decision.again) == ((), 5)
    assert decision.status is not None
    assert decision.status["message"] == (
        "waiting for 2 pods of the last attempt to end: pod job-a1-w1 on node n1, pod job-a1-w that is on no node; "
        "at 2026-01-01T12:01:00Z at the latest it goes on without what is being deleted and still there"
    )
    many = decided(seen(TWO_ENDED, [failed()], pods=[deleted(f"w{number}", 0) for number in range(9)]))
    assert many.status is not None
    assert "pod w2 on node n1, and 6 more; at" in many.status["message"]


def test_a_pod_that_hangs_on_a_lost_node_holds_the_next_attempt_up_for_five_minutes_and_no_longer() -> None:
    status = {**TWO_ENDED, "retryAt": "2026-01-01T11:50:00Z"}
    hanging = [deleted("job-a1-head", 4.5)]
    assert decided(seen(status, [failed()], pods=hanging)).create == ()
    assert decided(seen(status, [failed()], pods=[*hanging, deleted("job-a1-w", 60)]), at(0)).create == ()
    # One that is not being deleted is waited for, whatever the others are.
    assert decided(seen(status, [failed()], pods=[*hanging, pod(phase="Running")]), at(60)).create == ()
    first = decided(seen(status, [failed()], pods=hanging), at(0.5))
    assert first.create[1]["metadata"]["name"] == "job-a2"
    assert first.status is not None
    (told,) = [one for one in first.status["conditions"] if one["type"] == "Running"]
    assert (told["status"], told["reason"]) == ("False", "PodsLost")
    assert "goes on without pod job-a1-head on node n1" in told["message"]
    assert [one.type for one in events((), first.status["conditions"]) if one.reason == "PodsLost"] == ["Warning"]
    # It is told once: the look before KubeRay has begun lists no pods, the next ones do.
    later = decided(seen(first.status, [failed(), {**first.create[1], "status": {}}]), at(0.6))
    assert later.status == first.status
    starts = {**child(2, jobDeploymentStatus="Initializing"), "metadata": {**child(2)["metadata"], "name": "job-a2"}}
    started = decided(seen(first.status, [failed(), starts], pods=[*hanging, pod(2, phase="Pending")]), at(1))
    assert started.status is not None
    assert not list(events(first.status["conditions"], started.status["conditions"]))
    runs = decided(seen(started.status, [failed(), running(2)], pods=hanging), at(2))
    assert reasons(runs)["Running"] == "False Recovering"


def test_why_a_pod_of_the_last_attempt_waits_is_nothing_to_this_one() -> None:
    old = {**deleted("job-a1-w", 60), "status": {"conditions": UNSCHEDULABLE}}
    decision = decided(seen({"attempts": 2, "ended": 1}, [child(2, jobDeploymentStatus="Initializing")], pods=[old]))
    assert reasons(decision)["ResourcesReady"] == "False ScalingUp"


def unusable(live: Object, rayjobs: Sequence[Object], status: Object | None = None, **started: Any) -> Observed:
    """A job whose spec became one that no attempt can use, with what the attempt under way was started with."""
    frozen = json.loads(configmap(job(), parsed(job(**started)), 1)["data"]["job.json"])
    return replace(seen(status or ONE, rayjobs, gan={}, **live), frozen=frozen)


def parsed(job: Object) -> Spec:
    spec, complaint = spec_of(job)
    assert spec is not None, complaint
    return spec


def test_an_attempt_whose_jobs_spec_became_unusable_is_watched_by_the_one_it_was_started_with() -> None:
    went_on = decided(replace(unusable({}, [running()]), report=REPORT))
    assert went_on.status is not None
    assert (reasons(went_on)["Accepted"], reasons(went_on)["Running"]) == ("False InvalidSpec", "True Stepping")
    assert (went_on.status["phase"], went_on.status["progress"]["totalSteps"]) == ("Running", 100)
    assert went_on.status["summary"]["reason"] == "InvalidSpec"
    assert "GTJ0106" in next(one["message"] for one in went_on.status["conditions"] if one["type"] == "Accepted")


def test_suspension_deadline_and_budget_of_an_unusable_spec_still_count() -> None:
    suspended = decided(unusable({"suspend": True}, [running()]))
    assert suspended.suspend == (running(), True)
    assert reasons(suspended) == {"Accepted": "False InvalidSpec", "Suspended": "False Suspending"}
    for live, started in (({"activeDeadlineSeconds": 3600}, {}), ({"activeDeadlineSeconds": 3600}, {"activeDeadlineSeconds": 9999})):
        over = decided(unusable(live, [running()], **started))
        assert (reasons(over)["Finished"], over.delete) == ("True Failed", (running(),))
        assert over.status is not None
        assert over.status["failure"]["code"] == "GTJ0212"
    # Of the fields that are read fresh those count that can be used, and one that was taken out counts no more.
    for live in ({"activeDeadlineSeconds": -1}, {"activeDeadlineSeconds": "soon", "suspend": "yes"}):
        assert "Finished" in reasons(decided(unusable(live, [running()], activeDeadlineSeconds=3600)))
    assert "Finished" not in reasons(decided(unusable({}, [running()], activeDeadlineSeconds=3600)))
    compute = {"profiles": ["a"], "gpusPerWorker": 4, "workers": 2}
    profiles = profile("a", accelerator={"perNode": 8}, price={"usdPerNodeHour": "80"})
    spent = {**ONE, "plan": {"profile": "a"}, "cost": {"usd": "80.00"}}
    poor = unusable({"budget": {"maxUSD": "79.5"}}, [running()], spent, compute=compute)
    over = decided(replace(poor, profiles=profiles))
    assert over.suspend == (running(), True)


def test_the_end_of_an_attempt_counts_whatever_its_jobs_spec_became() -> None:
    ended = child(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED", endTime="2026-01-01T11:59:00Z")
    success = decided(unusable({}, [ended]))
    assert reasons(success) == {"Accepted": "True Accepted", "Complete": "True Succeeded", "Finished": "True Succeeded"}
    failure = decided(unusable({}, [failed()]))
    assert failure.status is not None
    assert (failure.status["ended"], failure.create, reasons(failure)["Accepted"]) == (1, (), "False InvalidSpec")
    # And nothing follows it: not another attempt, and no cluster that nobody looks at.
    after = decided(unusable({}, [failed()], failure.status), at(60))
    assert (after.create, reasons(after)) == ((), {"Accepted": "False InvalidSpec"})
    assert decided(unusable({}, [running()], TWO_ENDED)).delete == (running(),)


def test_without_the_spec_it_was_started_with_an_attempt_is_left_alone_and_that_is_asked_for_first() -> None:
    asked = decided(seen(ONE, [running()], gan={}))
    assert asked.needs_frozen
    nowhere = decided(replace(seen(ONE, [running()], gan={}), frozen={}))
    assert (nowhere.needs_frozen, nowhere.delete, reasons(nowhere)) == (False, (), {"Accepted": "False InvalidSpec"})
    assert not decided(seen(None, gan={})).needs_frozen


@pytest.mark.parametrize(
    ("why", "reason", "said"),
    [
        ("insufficient unused quota for cpu in flavor f, 3 more needed", "WaitingForQuota", "3 more needed"),
        ("insufficient quota for cpu in flavor f, … request (9) > maximum capacity (4)", "ExceedsQuota", "GTJ0203 queue q can never admit"),
        ("ClusterQueue team is inactive", "QueueStopped", "GTJ0203 queue q admits nothing now"),
        ('Flavor "f" does not support TopologyAwareScheduling', "TopologyNotFound", "GTJ0111 no flavor of queue q has the level"),
        ('Flavor "f" does not contain the requested level', "TopologyNotFound", "that compute.topology names"),
        (
            'Flavor "f" does not support TopologyAwareScheduling, insufficient unused quota for cpu in flavor g',
            "WaitingForQuota",
            "flavor g",
        ),
    ],
)
def test_why_a_queue_holds_a_job(why: str, reason: str, said: str) -> None:
    workload = {"status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": why}]}}
    found = held("q", Looked(True, ("q",), workload))
    assert (found.reason, found.status) == (reason, False)
    assert said in found.message
    assert why in found.message
