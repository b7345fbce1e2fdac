"""What a user sees of a job over time while the cluster fails it: the lines of `kubectl get gtj -w`, minute by minute, on a clock of the
test's own. Columns are those of the definition; the message stands beside them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from gentrain_operator.decide import Observed
from gentrain_operator.kube.resource import Object
from gentrain_operator.queues import Looked
from tests.operator.test_autoscaler import KARPENTER, LIMIT, SOLD_OUT, event
from tests.operator.test_decide import at, child, decided, failed, job, pod, profile, running
from trainjobs.api import crd

COLUMNS = {
    one["name"]: one["jsonPath"].removeprefix(".status.").split(".")
    for one in crd.job_definition()["spec"]["versions"][0]["additionalPrinterColumns"]
}
TWO = profile("spot", capacity="spot") | profile("sure")
UNFIT = [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes are available"}]
PULLING = {"waiting": {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "mirror.a/trainer:2"'}}


class Watched:
    """A job, what the operator has written of it, and the lines that its user has seen: minute, phase, reason, profile, message."""

    def __init__(self, profiles: dict[str, Object], **compute: Any) -> None:
        self.profiles = profiles
        self.compute = {"gpusPerWorker": 0, "profiles": list(self.profiles), **compute}
        self.status: Object = {}
        self.lines: list[tuple[float, str, str, str, str]] = []
        self.made: list[Object] = []

    def look(self, minutes: float, rayjobs: Sequence[Object] = (), **more: Any) -> None:
        asked = job(self.status or None, compute=self.compute)
        decision = decided(Observed(asked, tuple(rayjobs), self.profiles, **more), at(minutes))
        self.status = self.status if decision.status is None else decision.status
        self.made += [one for one in decision.create if one["kind"] == "RayJob"]
        line = (*(self._cell(name) for name in ("Phase", "Reason")), self.status["plan"]["profile"], str(self.status.get("message", "")))
        if not self.lines or self.lines[-1][1:] != line:
            self.lines.append((minutes, *line))

    def _cell(self, column: str) -> str:
        found: Any = self.status
        for key in COLUMNS[column]:
            found = (found or {}).get(key)
        return str(found or "")

    @property
    def short(self) -> list[tuple[float, str, str, str]]:
        return [line[:4] for line in self.lines]

    def said(self, minutes: float) -> str:
        return next(line[4] for line in reversed(self.lines) if line[0] <= minutes)


def clock(minutes: float) -> str:
    return f"{at(minutes):%Y-%m-%dT%H:%M:%SZ}"


def waits(attempt: int = 1) -> Object:
    one = pod(attempt, conditions=UNFIT)
    one["metadata"]["uid"] = f"p{attempt}"
    return one


def report(minutes: float, step: int) -> Object:
    return {"step": step, "updatedAt": at(minutes).timestamp(), "checkpoint": {"step": step, "uri": "u"}}


@pytest.mark.parametrize(("note", "words"), [(SOLD_OUT, "required offering"), (LIMIT, "exceed limits")], ids=["spot exhausted", "limit"])
def test_a_pool_without_capacity_is_named_and_left_after_a_minute(note: str, words: str) -> None:
    watched = Watched(TWO)
    watched.look(0)
    said = event("FailedScheduling", note, KARPENTER, clock(0.4))
    for minutes in (0.5, 0.9, 1.2):
        watched.look(minutes, [child(created=clock(0))], pods=[waits()], told={"p1": [said]})
    watched.look(1.5)
    watched.look(2, [running(2, startTime=clock(1.6))], report=report(2, 40))
    assert watched.short == [
        (0, "Provisioning", "ScalingUp", "spot"),
        (0.5, "Provisioning", "NoCapacity", "spot"),
        (1.2, "Recovering", "Recovering", "spot"),
        (1.5, "Provisioning", "ScalingUp", "sure"),
        (2, "Running", "", "sure"),
    ]
    for minutes in (0.5, 1.2):
        assert watched.said(minutes).startswith("GTJ0201 no ")
        assert words in watched.said(minutes)
    assert watched.said(2) == "step 40/100"


def test_a_quota_that_is_used_up_is_waited_for_with_what_is_missing() -> None:
    missing = "couldn't assign flavors to pod set workers: insufficient unused quota for nvidia.com/gpu in flavor gpu, 2 more needed"
    workload = {"status": {"conditions": [{"type": "QuotaReserved", "status": "False", "message": missing}]}}
    watched = Watched(profile("gpu"), queue="team")
    watched.look(0)
    for minutes in (1, 30, 600):  # hours in a queue are no fault
        watched.look(minutes, [child(suspend=True, jobDeploymentStatus="Suspended")], kueue=Looked(True, ("team",), workload))
    watched.look(601, [child(jobDeploymentStatus="Initializing", startTime=clock(601))], kueue=Looked(True, ("team",)))
    watched.look(603, [running(startTime=clock(601))], report=report(603, 40))
    assert watched.short == [
        (0, "Queued", "WaitingForQuota", "gpu"),
        (1, "Queued", "WaitingForQuota", "gpu"),
        (601, "Provisioning", "ScalingUp", "gpu"),
        (603, "Running", "", "gpu"),
    ]
    assert watched.said(600) == f"queue team has not admitted the job: {missing}"
    assert watched.status["attempts"] == 1


def test_an_image_that_is_missing_on_one_pool_is_named_and_the_pool_left_after_its_patience() -> None:
    watched = Watched(profile("a", image="mirror.a/trainer:2") | profile("b", image="mirror.b/trainer:2"))
    watched.look(0)
    for minutes in (1, 9.9, 10.1):
        watched.look(minutes, [child(created=clock(0))], pods=[pod(containerStatuses=[{"name": "ray-worker", "state": PULLING}])])
    watched.look(10.5)
    watched.look(12, [running(2, startTime=clock(11))], report=report(12, 40))
    assert watched.short == [
        (0, "Provisioning", "ScalingUp", "a"),
        (1, "Provisioning", "ImagePullFailed", "a"),
        (10.1, "Recovering", "Recovering", "a"),
        (10.5, "Provisioning", "ScalingUp", "b"),
        (12, "Running", "", "b"),
    ]
    assert watched.said(1).startswith("GTJ0204 ray-worker cannot pull its image: ")
    assert watched.said(10.1).startswith("GTJ0204 no image for the pods: ")
    assert ["mirror.b/trainer:2" in str(one) for one in watched.made] == [False, True]


def test_an_image_that_is_missing_on_the_only_pool_is_waited_for() -> None:
    watched = Watched(profile("a", image="mirror.a/trainer:2"))
    watched.look(0)
    for minutes in (1, 10.1, 600):
        watched.look(minutes, [child(created=clock(0))], pods=[pod(containerStatuses=[{"name": "ray-worker", "state": PULLING}])])
    assert watched.short == [(0, "Provisioning", "ScalingUp", "a"), (1, "Provisioning", "ImagePullFailed", "a")]


def test_a_lost_node_costs_an_attempt_and_lost_twice_it_is_kept_off() -> None:
    watched = Watched(profile("gpu"))
    watched.look(0)
    for attempt, begins in ((1, 0.0), (2, 10.0)):
        watched.look(begins + 1, [running(attempt, startTime=clock(begins))], report=report(begins + 1, 40 * attempt))
        gone = pod(attempt, phase="Failed", reason="NodeLost", message="Node n1 is gone")
        gone["spec"] = {"nodeName": "n1"}
        watched.look(begins + 5, [failed(attempt, message="Ray head pod not found.")], pods=[gone])
        watched.look(begins + 10)
    watched.look(21, [running(3, startTime=clock(20))], report=report(21, 90))
    once = [("Running", ""), ("Recovering", "Recovering"), ("Provisioning", "ScalingUp")]
    assert [line[1:3] for line in watched.short] == [("Provisioning", "ScalingUp"), *once, *once, ("Running", "")]
    assert [line[0] for line in watched.short] == [0, 1, 5, 10, 11, 15, 20, 21]
    assert watched.said(5) == "GTJ0213 pod job-a1-w was stopped by its node (NodeLost): Node n1 is gone"
    assert ["n1" in str(one) for one in watched.made] == [False, False, True]


def test_a_node_with_a_bad_accelerator_is_kept_off_before_it_costs_an_attempt() -> None:
    gpu = profile("gpu", accelerator={"type": "l4", "perNode": 1})
    watched = Watched(gpu, gpusPerWorker=1)
    watched.look(0, sick={"n9": "XIDErrors is True"})
    watched.look(1, [running(startTime=clock(0))], report=report(1, 40))
    assert watched.short == [(0, "Provisioning", "ScalingUp", "gpu"), (1, "Running", "", "gpu")]
    assert [one["name"] for one in watched.status["avoidedNodes"]] == ["n9"]
    assert "n9" in str(watched.made[0])


def test_a_profile_that_has_rested_is_gone_back_to_at_the_next_checkpoint() -> None:
    watched = Watched(TWO, **{"return": True})
    watched.look(0)
    for minutes in (1.0, 10.1):
        watched.look(minutes, [child(created=clock(0))], pods=[waits()])
    watched.look(10.5)
    for minutes, step in (
        (12, 10),
        (20, 20),
        (25.2, 20),
        (26, 30),
    ):  # its rest ends at 25.1, step 30 is saved at 26
        watched.look(minutes, [running(2, startTime=clock(11))], report=report(minutes, step))
    watched.look(27)
    watched.look(28, [running(3, startTime=clock(27))], report=report(28, 40))
    assert watched.short == [
        (0, "Provisioning", "ScalingUp", "spot"),
        (1, "Provisioning", "Unschedulable", "spot"),
        (10.1, "Recovering", "Recovering", "spot"),
        (10.5, "Provisioning", "ScalingUp", "sure"),
        (12, "Running", "", "sure"),
        (20, "Running", "", "sure"),
        (26, "Recovering", "Recovering", "sure"),
        (27, "Provisioning", "ScalingUp", "spot"),
        (28, "Running", "", "spot"),
    ]
    assert "the rest of profile spot is over, and step 30 is saved" in watched.said(26)
