"""What was spent: waiting costs nothing, and what was spent once is never priced anew."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from gentrain_operator.decide import Observed, decide
from gentrain_operator.kube.resource import Object

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def stamp(minutes: float) -> str:
    return (START + datetime.timedelta(minutes=minutes)).strftime("%Y-%m-%dT%H:%M:%SZ")


def job(status: Object, spec: Object) -> Object:
    base = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 100}}
    metadata = {"name": "job", "namespace": "team", "uid": "u1", "generation": 1, "resourceVersion": "9"}
    kind = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob"}
    return {**kind, "metadata": metadata, "spec": {**base, **spec}, "status": status}


def pool(price: str, per_node: int = 1) -> Object:
    return {"spec": {"price": {"usdPerNodeHour": price}, "accelerator": {"perNode": per_node}}}


def rayjob(attempt: int, deployment: str, taken: float, ready: float | None = None, **more: Any) -> Object:
    """As KubeRay writes it: `startTime` when it takes the RayJob up, the cluster's time of readiness when all pods run."""
    cluster = {} if ready is None else {"rayClusterStatus": {"stateTransitionTimes": {"ready": stamp(ready)}}}
    status = {"jobDeploymentStatus": deployment, "startTime": stamp(taken), **cluster, **more}
    metadata = {"name": f"job-a{attempt}", "uid": f"c{attempt}", "resourceVersion": "5", "creationTimestamp": stamp(taken)}
    return {"kind": "RayJob", "metadata": metadata, "spec": {"suspend": False}, "status": status}


class Life:
    def __init__(self, profiles: dict[str, Object], **spec: Any) -> None:
        self.profiles, self.spec, self.status = profiles, spec, Object()

    def look(self, minutes: float, *children: Object, pods: tuple[Object, ...] = ()) -> Object:
        now = START + datetime.timedelta(minutes=minutes)
        written = decide(Observed(job(self.status, self.spec), children, self.profiles, pods), now, "i").status
        self.status = written if written is not None else self.status
        return self.status


def compute(*profiles: str, workers: int = 1) -> Object:
    return {"profiles": list(profiles), "gpusPerWorker": 1, "workers": workers}


def test_five_hours_of_waiting_at_98_usd_an_hour_cost_nothing_and_end_nothing() -> None:
    life = Life({"a": pool("98")}, compute=compute("a"), budget={"maxUSD": "400"}, activeDeadlineSeconds=3600)
    life.look(0)
    unschedulable = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    pod = {"metadata": {"name": "w", "labels": {"gentrain.dev/attempt": "1"}}, "status": {"conditions": [unschedulable]}}
    for minutes in range(1, 301):
        life.look(minutes, rayjob(1, "Initializing", 0), pods=(pod,))
    assert (life.status["phase"], life.status["cost"]["usd"]) == ("Provisioning", "0.00")
    assert life.status.get("activeSeconds", 0) == 0
    life.look(330, rayjob(1, "Running", 0, 300))
    assert (life.status["cost"]["usd"], life.status["activeSeconds"]) == ("49.00", 1800)


def test_an_attempt_that_ends_while_it_waits_cost_nothing() -> None:
    life = Life({"a": pool("98")}, compute=compute("a"))
    life.look(0)
    life.look(300, rayjob(1, "Initializing", 0))
    ended = life.look(301, rayjob(1, "Failed", 0, endTime=stamp(300), message="Ray head pod not found."))
    assert (ended["phase"], ended["activeSeconds"], ended["cost"]["usd"]) == ("Recovering", 0, "0.00")


def two_attempts_on_spot(life: Life) -> None:
    """Two of an hour each at 1 USD an hour, each ended by a preemption, then the first look at the third."""
    for attempt, begun in ((1, 0), (2, 70)):
        life.look(begun)
        life.look(begun + 30, rayjob(attempt, "Running", begun, begun))
        life.look(begun + 60, rayjob(attempt, "Failed", begun, begun, endTime=stamp(begun + 60), message="Ray head pod not found."))


@pytest.mark.parametrize("change", ["profile", "price", "workers"])
def test_what_was_spent_is_not_priced_anew(change: str) -> None:
    life = Life({"spot": pool("1"), "dear": pool("4")}, compute=compute("spot", "dear"), budget={"maxUSD": "20"})
    two_attempts_on_spot(life)
    assert life.status["cost"]["usd"] == "2.00"
    if change == "price":
        life.profiles = {"spot": pool("4")}
    elif change == "workers":
        life.profiles, life.spec["compute"] = {"spot": pool("1")}, compute("spot", workers=4)
    else:
        life.profiles = {"dear": pool("4")}
    life.look(140)
    ended = life.look(201, rayjob(3, "Running", 140, 140))
    assert ended["plan"].get("profile") == ("dear" if change == "profile" else "spot")
    assert (ended["phase"], ended["cost"]["usd"], ended["cost"]["ratePerHourUSD"]) == ("Recovering", "6.07", "4.00")


def test_workers_and_price_that_change_under_an_attempt_concern_the_next() -> None:
    life = Life({"a": pool("1")}, compute=compute("a"))
    life.look(0)
    life.look(60, rayjob(1, "Running", 0, 0))
    life.spec["compute"], life.profiles = compute("a", workers=4), {"a": pool("9")}
    assert life.look(120, rayjob(1, "Running", 0, 0))["cost"]["usd"] == "2.00"


def test_a_budget_counts_when_the_profile_is_deleted() -> None:
    life = Life({"a": pool("10")}, compute=compute("a"), budget={"maxUSD": "20"})
    life.look(0)
    life.look(60, rayjob(1, "Running", 0, 0))
    life.profiles = {}
    life.look(120, rayjob(1, "Running", 0, 0))
    ended = life.look(121, rayjob(1, "Running", 0, 0))
    assert (ended["failure"]["code"], ended["failure"]["detail"]) == ("GTJ0212", "20.00 of 20 USD")


def test_hours_that_the_operator_was_away_are_counted_when_it_is_back() -> None:
    often, once = (Life({"a": pool("7", 3)}, compute=compute("a", workers=2)) for _ in range(2))
    for life, looks in ((often, range(11, 611)), (once, range(610, 611))):
        life.look(0)
        for minutes in looks:
            life.look(minutes, rayjob(1, "Running", 0, 10))
    assert once.status["cost"]["usd"] == often.status["cost"]["usd"] == "46.67"
    assert once.status["cost"]["gpuHours"] == "20.00"


def test_a_status_of_an_earlier_operator_keeps_its_cost() -> None:
    life = Life({"a": pool("4")}, compute=compute("a"))
    cost = {"usd": "10.00", "gpuHours": "2.50", "ratePerHourUSD": "4.00"}
    life.status = {"attempts": 1, "plan": {"profile": "a", "workers": 1}, "activeSeconds": 9000, "activeUntil": stamp(150), "cost": cost}
    assert life.look(210, rayjob(1, "Running", 0, 0))["cost"]["usd"] == "14.00"
    assert life.status["cost"]["gpuHours"] == "3.50"
