"""What was spent: waiting costs nothing, and what was spent once is never priced anew."""

from __future__ import annotations

import datetime
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
    held = life.look(118, rayjob(1, "Running", 0, 0))
    assert (held["phase"], held["cost"]["usd"]) == ("Suspended", "19.67")
    assert "GTJ0212 19.67 of 20.00 USD are spent, and 0.34 are kept for its last checkpoint" in held["message"]


def test_a_budget_without_a_price_starts_nothing() -> None:
    for profiles in ({"a": {"spec": {"accelerator": {"perNode": 1}}}}, {}):
        life = Life(profiles, compute={**compute("a"), "profiles": list(profiles)}, budget={"maxUSD": "20"})
        refused = life.look(0)
        assert refused["phase"] == "Pending"
        assert "GTJ0132 budget.maxUSD is set" in refused["message"]
        assert refused.get("attempts", 0) == 0


def test_a_budget_that_is_raised_goes_on() -> None:
    life = Life({"a": pool("60")}, compute=compute("a"), budget={"maxUSD": "30"})
    life.look(0)
    early = life.look(23, rayjob(1, "Running", 0, 0))
    assert [one["reason"] for one in early["conditions"] if one["type"] == "WithinBudget"] == ["WithinBudget"]
    warned = life.look(25, rayjob(1, "Running", 0, 0))
    assert [one["reason"] for one in warned["conditions"] if one["type"] == "WithinBudget"] == ["BudgetNearlySpent"]
    assert life.look(28, rayjob(1, "Running", 0, 0))["phase"] == "Suspended"
    stopped = {**rayjob(1, "Suspended", 0, 0), "spec": {"suspend": True}}
    held = life.look(40, stopped)
    assert [one["reason"] for one in held["conditions"] if one["type"] == "Suspended"] == ["BudgetReached"]
    assert held["cost"]["usd"] == "28.00", "nothing is spent while it is suspended"
    life.spec["budget"] = {"maxUSD": "60"}
    now = START + datetime.timedelta(minutes=50)
    raised = decide(Observed(job(life.status, life.spec), (stopped,), life.profiles), now, "i")
    assert raised.suspend == (stopped, False)


@given(
    price=st.integers(100, 2000),
    limit=st.integers(2, 100),
    grace=st.integers(15, 3600),
    polls=st.lists(st.floats(0.2, 90), min_size=1, max_size=8),
)
@settings(max_examples=40)
def test_a_checkpoint_comes_before_the_limit(price: int, limit: int, grace: int, polls: list[float]) -> None:
    """For any price, grace and rhythm of looks, of an operator that looks when it said that it would: what is spent when the job is told to
    save, and its grace, are within the budget; a budget that does not pay for a grace at all is told at the first look."""
    profiles: dict[str, Object] = {"a": {"spec": {**pool(str(price))["spec"], "gracePeriodSeconds": grace}}}
    life, at, number = Life(profiles, compute=compute("a"), budget={"maxUSD": str(limit)}), 0.0, 0
    life.look(0)
    while True:
        child = rayjob(1, "Running", 0, 0)
        now = START + datetime.timedelta(minutes=at)
        told = decide(Observed(job(life.status, life.spec), (child,), life.profiles), now, "i")
        life.status = told.status or life.status
        if told.suspend:
            break
        assert told.again is not None
        at, number = at + min(told.again / 60, polls[number % len(polls)]), number + 1
    whole = math.ceil(at * 60)
    assert price * (whole + grace) / 3600 <= limit + price * 2 / 3600 or whole <= 1, (at, told.status)


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
