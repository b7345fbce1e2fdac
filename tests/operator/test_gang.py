"""Jobs that each hold a part: who gives back and when, as a table."""

from __future__ import annotations

from typing import Any, cast

import pytest

from gentrain_operator.conditions import events
from gentrain_operator.controller import Controller, Stores, light_rayjob
from gentrain_operator.decide import Decision, Observed
from gentrain_operator.free_restarts import CAP
from gentrain_operator.gang import Holding, holding
from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.store import Key, Store
from gentrain_operator.rivals import MOST, Rivals
from tests.operator.test_decide import at, child, decided, job, profile, reasons
from trainjobs.cli.cluster.reasons import Seen, explanation

COMING: Object = {"jobDeploymentStatus": "Initializing", "startTime": "2026-01-01T11:59:00Z"}


def stamp(minutes: float) -> str:
    return at(minutes).strftime("%Y-%m-%dT%H:%M:%SZ")


def pod(name: str, placed: float | None, attempt: int = 1, **selector: str) -> Object:
    """One that got a machine at that minute, or that fits nowhere."""
    scheduled: Object = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
    spec: Object = {"nodeSelector": selector} if selector else {}
    if placed is not None:
        scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(placed)}
        spec["nodeName"] = "n"
    metadata = {"name": name, "labels": {"gentrain.dev/attempt": str(attempt)}}
    return {"metadata": metadata, "spec": spec, "status": {"phase": "Pending", "conditions": [scheduled]}}


HALF = [pod("head", 0), pod("w0", 1), pod("w1", None)]


def named(name: str, created: float, **spec: Any) -> Object:
    one = job({"attempts": 1}, **spec)
    return {**one, "metadata": {**one["metadata"], "name": name, "uid": name, "creationTimestamp": stamp(created)}}


def held(name: str, created: float, pods: list[Object] | None = None, **status: Any) -> Holding:
    found = holding(named(name, created), child(**COMING, **status), HALF if pods is None else pods)
    assert found is not None
    return found


def look(minutes: float, *rivals: Holding, pods: list[Object] | None = None, **more: Any) -> Decision:
    """At the job `mine`, created at minute 0."""
    rayjob = more.pop("rayjob", child(**COMING))
    one = named("mine", 0, **more.pop("spec", {}))
    one["status"] |= more.pop("status", {})
    mine = HALF if pods is None else pods
    seen = Observed(one, (rayjob,), more.pop("profiles", {}), mine, holding=holding(one, rayjob, mine), rivals=rivals)
    return decided(seen, at(minutes))


def gave_back(decision: Decision) -> bool:
    return bool(decision.status) and (decision.status or {}).get("failure", {}).get("code") == "GTJ0218"


OLDER, YOUNGER = held("older", -5), held("younger", 5)
QUOTA = {"rayClusterStatus": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": "exceeded quota: q"}]}}


@pytest.mark.parametrize(
    ("minutes", "rivals", "pods", "gives"),
    [
        (4.9, [OLDER], HALF, False),
        (6.1, [OLDER], HALF, True),
        (6.1, [], HALF, False),
        (29, [YOUNGER], HALF, False),
        (32, [], HALF, True),
        (32, [YOUNGER], HALF, True),
        (-300, [OLDER], HALF, False),
        (6.1, [OLDER], [pod("head", 0), pod("w0", 1)], False),
        (600, [OLDER], [pod("head", None), pod("w0", None)], False),
        (6.1, [held("older", -5, [pod("h", 0, pool="a"), pod("w", None, pool="a")])], [pod("h", 0, pool="b"), pod("w", None)], False),
        (6.1, [held("older", -5, [pod("h", 0, pool="a"), pod("w", None, zone="z")])], [pod("h", 0, pool="b"), pod("w", None)], True),
        (6.1, [held("older", -5, [pod("h", 0)], **QUOTA)], HALF, True),
        (29, [OLDER], [pod("h", 0), pod("w", None), pod("old", 0, attempt=7)], True),
    ],
    ids=[
        "within the grace",
        "an older one waits as well",
        "alone: an autoscaler may be at work",
        "the oldest keeps what it has",
        "alone, for too long",
        "the oldest, for too long",
        "a clock that was set back",
        "nothing is missing",
        "nothing is held",
        "nodes that the older one cannot use",
        "nodes that it may use",
        "the older one lacks quota",
        "pods of another attempt count for nothing",
    ],
)
def test_who_gives_back_and_when(minutes: float, rivals: list[Holding], pods: list[Object], gives: bool) -> None:
    assert gave_back(look(minutes, *rivals, pods=pods)) is gives


def test_the_youngest_gives_back_first_and_the_next_at_its_own_look() -> None:
    assert not gave_back(look(12, OLDER, YOUNGER))
    assert gave_back(look(12, OLDER))
    late = [pod("head", 11), pod("w", None)]
    assert gave_back(look(12, OLDER, held("younger", 5, late))), "one that has just come holds nobody up"


def test_what_is_said_when_pods_are_given_back() -> None:
    decision = look(7, OLDER)
    status = decision.status or {}
    assert [one["metadata"]["name"] for one in decision.delete] == ["job-a1"]
    assert reasons(decision)["Running"] == "False GaveBack"
    assert (status["phase"], status["ended"], status["restarts"]) == ("Recovering", 1, {"infrastructure": 1})
    assert "job older, which is older, waits in the same way" in status["message"]
    assert ("Warning", "GaveBack") in [(one.type, one.reason) for one in events([], status["conditions"])]
    pause = decided(Observed({**named("mine", 0), "status": status}, (), {}), at(7.1))
    assert reasons(pause)["Running"] == "False GaveBack", "also at the next looks, until the next attempt"
    told = explanation(Seen({**named("mine", 0), "status": status}, at(7).timestamp(), lambda *words: " ".join(words)))
    assert told.what.startswith("it gave its pods back because it could not get all of them, and attempt 2 starts in ")
    assert told.code == "GTJ0218"


def test_pauses_grow_to_a_bound_and_differ_between_jobs_and_attempts() -> None:
    pauses = [look(7, OLDER, status={"sinceProgress": {"step": 0, "restarts": 0, "moves": 0, "free": 0, "gaveBack": n}}) for n in range(9)]
    assert all(15 <= (one.again or 0) <= 30 for one in pauses[:1])
    assert all(150 <= (one.again or 0) <= 300 for one in pauses[4:])
    assert len({held(name, 0).jitter for name in "abcdefgh"}) == 8
    assert held("a", 0).jitter == held("a", 0).jitter


def test_waiting_ends_no_job_and_costs_nothing() -> None:
    status: Object = {}
    for _ in range(3 * CAP):
        decision = look(7, OLDER, status={**status, "attempts": 1, "ended": 0}, spec={"budget": {"maxUSD": "1"}})
        status = decision.status or {}
        assert status["phase"] == "Recovering"
    assert (status["sinceProgress"]["gaveBack"], status["sinceProgress"]["free"]) == (3 * CAP, 0)
    assert status["activeSeconds"] == 0


def test_a_checkpoint_starts_the_pauses_over() -> None:
    since = {"step": 1, "restarts": 0, "moves": 0, "free": 0, "gaveBack": 9}
    status = look(7, OLDER, status={"sinceProgress": since, "checkpoint": {"uri": "u", "step": 2}}).status or {}
    assert status["sinceProgress"]["gaveBack"] == 1


def test_two_give_backs_lead_to_the_next_profile() -> None:
    spec = {"compute": {"profiles": ["a", "b"], "gpusPerWorker": 0}}
    profiles = profile("a") | profile("b")
    since = {"step": 0, "restarts": 1, "moves": 0, "free": 0, "gaveBack": 1}
    status = look(7, OLDER, status={"sinceProgress": since}, spec=spec, profiles=profiles).status or {}
    again = decided(Observed({**named("mine", 0, **spec), "status": {**status, "retryAt": None}}, (), profiles), at(8)).status or {}
    assert again["plan"]["profile"] == "b"


@pytest.mark.parametrize("spec", [{"compute": {"gpusPerWorker": 0, "queue": "q"}}, {"suspend": True}], ids=["queue", "suspend"])
def test_what_a_queue_admits_or_is_being_suspended_is_left_alone(spec: Object) -> None:
    assert not gave_back(look(60, OLDER, spec=spec))


def test_a_rayjob_that_kueue_took_by_itself_is_left_alone() -> None:
    rayjob = child(**COMING)
    rayjob["metadata"]["labels"] = {"kueue.x-k8s.io/queue-name": "default"}
    assert not gave_back(look(60, OLDER, rayjob=rayjob))


def test_rivals_are_those_that_hold_a_part_now() -> None:
    rivals, keys = Rivals(), [Key("team", str(number)) for number in range(3)]
    assert rivals.told(keys[0], OLDER) == ()
    assert rivals.told(keys[1], YOUNGER) == (OLDER,)
    assert rivals.told(keys[2], None) == ()
    assert rivals.told(keys[0], OLDER) == (YOUNGER,)
    rivals.told(keys[1], None)
    assert rivals.told(keys[0], OLDER) == ()


def test_of_many_rivals_the_oldest_and_the_youngest_are_told() -> None:
    rivals = Rivals()
    for number in range(3 * MOST):
        rivals.told(Key("team", str(number)), held(f"j{number}", number))
    told = rivals.told(Key("team", "me"), OLDER)
    assert [one.name for one in (told[0], told[-1])] == ["j0", f"j{3 * MOST - 1}"]
    assert len(told) == 2 * MOST


class Standing:
    """A server that knows the pods of every job alike; nobody reports."""

    def list(self, *_: Any, **__: Any) -> Object:
        return {"items": HALF}

    def follow(self, *_: Any) -> None: ...

    def report(self, *_: Any) -> None: ...

    def forget(self, *_: Any) -> None: ...


def test_a_look_at_one_job_tells_the_next_what_it_holds() -> None:
    stores, world = Stores(Store(), Store(), Store(light_rayjob)), cast(Any, Standing())
    for name, created in (("older", -5), ("mine", 0)):
        one, rayjob = named(name, created), child(**COMING)
        owner = {"apiVersion": one["apiVersion"], "kind": one["kind"], "name": name, "uid": name, "controller": True}
        stores.jobs.put(one)
        stores.rayjobs.put({**rayjob, "metadata": {**rayjob["metadata"], "name": f"{name}-a1", "ownerReferences": [owner]}})
    controller = Controller(world, stores, world, world, image="i")
    first, second = controller.observe(Key("team", "older")), controller.observe(Key("team", "mine"))
    assert first is not None
    assert first.rivals == ()
    assert second is not None
    assert [one.name for one in second.rivals] == ["older"]
    assert gave_back(decided(second, at(7)))
    stores.jobs.remove(Key("team", "older"))
    controller.reconcile(Key("team", "older"))
    third = controller.observe(Key("team", "mine"))
    assert third is not None
    assert third.rivals == ()
