"""Three jobs on a node for one and a half: a greedy scheduler that interleaves pods, virtual time, the operator's own decisions."""

from __future__ import annotations

import random
from typing import Any

import pytest

from gentrain_operator import gang
from gentrain_operator.decide import Observed, decide
from gentrain_operator.gang import holding
from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.store import Key
from gentrain_operator.names import attempt_of
from gentrain_operator.rivals import Rivals
from tests.operator.test_decide import at, job
from tests.operator.test_gang import stamp

PODS = 3  # a head and two workers
TRAINS = 10.0  # minutes, from when all pods run
LOOK = 1 / 6  # minutes


class Cluster:
    """A node with `room` for so many pods; jobs train for ten minutes once all their pods run. `skew` minutes: the operator's clock."""

    def __init__(self, room: int, wants: dict[str, int], seed: int, skew: float = 0) -> None:
        self.room, self.wants, self.random, self.skew = room, wants, random.Random(seed), skew
        self.jobs = {name: self._job(name, number) for number, name in enumerate(wants)}
        self.rayjobs: dict[str, Object] = {}
        self.pods: dict[str, list[Object]] = {name: [] for name in wants}
        self.ends: dict[str, float] = {}
        self.rivals = Rivals()

    def _job(self, name: str, number: int) -> Object:
        one = job(None, compute={"gpusPerWorker": 0, "workers": self.wants[name] - 1})
        return {**one, "metadata": {**one["metadata"], "name": name, "uid": name, "creationTimestamp": stamp(number / 60)}}

    def run(self, until: float) -> dict[str, float]:
        """When each job was done, in minutes; those that are not are missing."""
        minutes, done = 0.0, dict[str, float]()
        while minutes < until and len(done) < len(self.jobs):
            self.schedule(minutes)
            for name in self.random.sample(list(self.jobs), len(self.jobs)):
                self.kuberay(name, minutes)
                self.look(name, minutes)
                if (self.jobs[name].get("status") or {}).get("phase") == "Succeeded":
                    done.setdefault(name, minutes)
            minutes += LOOK
        return done

    def schedule(self, minutes: float) -> None:
        everything = [pod for pods in self.pods.values() for pod in pods]
        free = self.room - sum("nodeName" in pod["spec"] for pod in everything)
        waiting = [pod for pod in everything if "nodeName" not in pod["spec"]]
        for pod in self.random.sample(waiting, len(waiting)):
            if free > 0:
                pod["spec"]["nodeName"], free = "node", free - 1
                scheduled = {"type": "PodScheduled", "status": "True", "lastTransitionTime": stamp(minutes)}
            else:
                scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes"}
            pod["status"] = {"phase": "Running" if "nodeName" in pod["spec"] else "Pending", "conditions": [scheduled]}

    def kuberay(self, name: str, minutes: float) -> None:
        rayjob = self.rayjobs.get(name)
        if rayjob is None:
            self.pods[name] = []
        elif not rayjob["status"]:
            labels = {"gentrain.dev/attempt": str(attempt_of(rayjob))}
            self.pods[name] = [{"metadata": {"name": f"{name}-{n}", "labels": labels}, "spec": {}} for n in range(self.wants[name])]
            rayjob["status"] = {"jobDeploymentStatus": "Initializing", "startTime": stamp(minutes)}
        elif rayjob["status"]["jobDeploymentStatus"] == "Initializing" and all("nodeName" in pod["spec"] for pod in self.pods[name]):
            rayjob["status"] |= {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING"}
            self.ends[name] = minutes + TRAINS
        elif rayjob["status"]["jobDeploymentStatus"] == "Running" and minutes >= self.ends[name]:
            rayjob["status"] |= {"jobDeploymentStatus": "Complete", "jobStatus": "SUCCEEDED", "endTime": stamp(minutes)}
            self.pods[name] = []

    def look(self, name: str, minutes: float) -> None:
        one, rayjob = self.jobs[name], self.rayjobs.get(name)
        held = holding(one, rayjob, self.pods[name])
        rivals = self.rivals.told(Key("team", name), held)
        pods = [{**pod, "status": pod.get("status", {})} for pod in self.pods[name]]
        found = Observed(one, (rayjob,) if rayjob else (), {}, pods, holding=held, rivals=rivals)
        decision = decide(found, at(minutes + self.skew), "image")
        if decision.status is not None:
            self.jobs[name] = {**one, "status": decision.status}
        for made in decision.create[1:]:
            metadata = {**made["metadata"], "uid": made["metadata"]["name"], "resourceVersion": "1", "creationTimestamp": stamp(minutes)}
            self.rayjobs[name] = {**made, "metadata": metadata, "spec": {"suspend": False}, "status": {}}
        if decision.delete:
            self.rayjobs.pop(name, None)


THREE = {"a": PODS, "b": PODS, "c": PODS}
HALF_AGAIN = 4  # pods: one job, and a half


def test_three_jobs_end_once() -> None:
    assert set(Cluster(HALF_AGAIN, THREE, seed=0).run(240)) == set(THREE)


@pytest.mark.slow
@pytest.mark.parametrize("skew", [0.0, -2.0, 2.0], ids=["right", "behind", "ahead"])
def test_three_jobs_on_a_node_for_one_and_a_half_all_end(skew: float) -> None:
    for seed in range(8):
        done = Cluster(HALF_AGAIN, THREE, seed, skew).run(240)
        assert set(done) == set(THREE), (seed, done)
        assert max(done.values()) < 90, (seed, done)


@pytest.mark.slow
def test_without_the_rule_they_wait_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(*_: Any) -> None: ...

    monkeypatch.setattr(gang, "given_back", nobody)
    assert any(not Cluster(HALF_AGAIN, THREE, seed).run(240) for seed in range(8))


@pytest.mark.slow
def test_one_that_can_never_fit_keeps_no_other_from_its_end() -> None:
    for seed in range(4):
        done = Cluster(HALF_AGAIN, {"huge": 9, "b": PODS, "c": PODS}, seed).run(1200)
        assert set(done) == {"b", "c"}, (seed, done)


@pytest.mark.slow
def test_eight_jobs_all_end() -> None:
    jobs = {f"j{number}": PODS for number in range(8)}
    for seed in range(2):
        done = Cluster(7, jobs, seed).run(600)
        assert set(done) == set(jobs), (seed, done)
