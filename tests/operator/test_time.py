"""Time that counts: deadlines and cost across suspensions and attempts, and clocks that are set forwards and back."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from gentrain_operator.decide import RETRY, Observed, decide
from gentrain_operator.kube.resource import Object

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def at(minutes: float) -> datetime.datetime:
    return START + datetime.timedelta(minutes=minutes)


def stamp(minutes: float) -> str:
    return at(minutes).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(status: Object, **spec: Any) -> Object:
    base = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 100}, "compute": {"gpusPerWorker": 1}}
    metadata = {"name": "job", "namespace": "team", "uid": "u1", "generation": 1, "resourceVersion": "9"}
    kind = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob"}
    return {**kind, "metadata": metadata, "spec": {**base, **spec}, "status": status}


def rayjob(deployment: str, started: float | None, suspend: bool = False, **status: Any) -> Object:
    """As KubeRay 1.7 writes it: a suspended RayJob keeps the startTime of before, a resumed one gets another."""
    metadata = {"name": "job-a1", "uid": "c1", "resourceVersion": "5", "creationTimestamp": stamp(0)}
    ray = {"jobDeploymentStatus": deployment, **({} if started is None else {"startTime": stamp(started)}), **status}
    return {"kind": "RayJob", "metadata": metadata, "spec": {"suspend": suspend}, "status": ray}


class Life:
    """Looks at one job, each look with the status that the one before wrote."""

    def __init__(self, **spec: Any) -> None:
        self.spec = spec
        self.status: Object = {"attempts": 1}

    def look(self, minutes: float, child: Object | None) -> Object:
        seen = Observed(job(self.status, **self.spec), (child,) if child else ())
        written = decide(seen, at(minutes), "i").status
        self.status = written if written is not None else self.status
        return self.status


LONG = {"activeDeadlineSeconds": 3600}


def test_the_time_before_a_suspension_counts_and_the_suspension_does_not() -> None:
    life = Life(**LONG, suspend=True)
    life.look(40, rayjob("Running", 0))
    life.look(41, rayjob("Suspending", 0, suspend=True))
    life.look(42, rayjob("Suspended", 0, suspend=True))
    assert life.look(300, rayjob("Suspended", 0, suspend=True))["activeSeconds"] == 41 * 60
    life.spec["suspend"] = False
    life.look(301, rayjob("Suspended", 0))
    life.look(302, rayjob("", 0))
    life.look(303, rayjob("Initializing", 302))
    assert life.look(320, rayjob("Running", 302))["phase"] == "Starting"
    ended = life.look(322, rayjob("Running", 302))
    assert ended["failure"]["code"] == "GTJ0212"
    assert ended["activeSeconds"] == (41 + 20) * 60


def test_kueue_may_suspend_without_our_seeing_it() -> None:
    """What was written down last stands: a minute at most is lost, and nothing is counted twice when an old state is seen again."""
    life = Life(**LONG, compute={"queue": "q", "gpusPerWorker": 0})
    for minute in range(0, 31):
        life.look(minute, rayjob("Running", 0))
    life.look(100, rayjob("Running", 99))
    assert life.status["activeSeconds"] == 31 * 60
    life.look(100.5, rayjob("Running", 0))
    assert life.look(110, rayjob("Running", 99))["activeSeconds"] == 41 * 60


def test_a_rayjob_that_was_deleted_has_run_nevertheless() -> None:
    life = Life(**LONG)
    life.look(50, rayjob("Running", 0))
    assert life.look(51, None)["phase"] == "Recovering"
    assert life.status["activeSeconds"] == 50 * 60


def test_time_is_not_written_where_nobody_asks_for_it() -> None:
    life = Life(compute={"gpusPerWorker": 0})
    first = dict(life.look(1, rayjob("Running", 0)))
    assert life.look(600, rayjob("Running", 0)) == first


@pytest.mark.parametrize("jump", [-10_000, -61, 61, 3000])
def test_a_clock_set_right_again_leaves_the_sum_right(jump: float) -> None:
    life = Life(activeDeadlineSeconds=10**6)
    life.look(10, rayjob("Running", 0))
    life.look(11 + jump, rayjob("Running", 0))
    life.look(12, rayjob("Running", 0))
    ended = life.look(4000, rayjob("Failed", 0, endTime=stamp(3900), jobStatus="FAILED"))
    assert ended["activeSeconds"] == 3900 * 60


@pytest.mark.parametrize("jump", [-100_000, -1000, -6])
def test_a_clock_set_back_does_not_hold_up_the_next_attempt(jump: float) -> None:
    status = {"attempts": 1, "ended": 1, "retryAt": stamp(1)}
    decision = decide(Observed(job(status, compute={"gpusPerWorker": 0})), at(1 + jump), "i")
    assert [one["kind"] for one in decision.create] == ["ConfigMap", "RayJob"]


def test_a_wait_that_was_asked_for_is_kept() -> None:
    status = {"attempts": 1, "ended": 1, "retryAt": stamp(RETRY[1] / 60)}
    decision = decide(Observed(job(status)), at(0), "i")
    assert (decision.create, decision.again) == ((), RETRY[1])


@pytest.mark.parametrize("jump", [-100_000, 100_000])
def test_a_jump_ends_no_attempt_without_a_deadline(jump: float) -> None:
    life = Life(recovery={"maxRetries": 0})
    life.look(10, rayjob("Running", 0))
    assert life.look(10 + jump, rayjob("Running", 0))["attempts"] == 1
    assert "failure" not in life.status
    assert life.look(11, rayjob("Running", 0))["phase"] == "Starting"


def test_a_finished_job_waits_for_its_time_by_the_clock_there_is() -> None:
    finished = {"finishedAt": stamp(0), "conditions": [{"type": "Finished", "status": "True", "reason": "Succeeded"}]}
    for minutes, gone in ((-1000.0, False), (0.5, False), (2.0, True)):
        decision = decide(Observed(job(finished, ttlSecondsAfterFinished=60)), at(minutes), "i")
        assert decision.delete_job is gone
