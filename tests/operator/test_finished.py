"""A job that has ended: what is still said of it, and when it is deleted."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from gentrain_operator.decide import decide
from gentrain_operator.finished import SEEN, finished
from gentrain_operator.kube.resource import Object
from gentrain_operator.observed import Observed

NOW = datetime.datetime(2026, 1, 1, 12, 0, 0, tzinfo=datetime.UTC)


def ended(generation: int = 1, **spec: Any) -> Object:
    """A job that succeeded at NOW, with its first spec."""
    conditions = [
        {"type": "Finished", "status": "True", "reason": "Succeeded", "message": "", "lastTransitionTime": "2026-01-01T12:00:00Z"}
    ]
    status = {"phase": "Succeeded", "observedGeneration": 1, "finishedAt": "2026-01-01T12:00:00Z", "conditions": conditions}
    metadata = {"name": "job", "namespace": "team", "uid": "u", "generation": generation}
    base = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}}
    return {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": metadata,
        "spec": {**base, **spec},
        "status": status,
    }


def after(job: Object, seconds: float) -> Any:
    return finished(Observed(job), NOW + datetime.timedelta(seconds=seconds))


def test_a_spec_that_changes_afterwards_is_seen_and_changes_nothing() -> None:
    """Argo CD and Flux wait until the status speaks of the generation that they applied."""
    assert after(ended(), 1).status is None
    told = after(ended(generation=2), 1).status
    assert told == {**ended()["status"], "observedGeneration": 2}


@pytest.mark.parametrize(("ttl", "least"), [(0, SEEN), (5, SEEN), (60, 60.0)])
def test_it_stays_long_enough_to_be_seen(ttl: int, least: float) -> None:
    """`gtj wait` and `kubectl wait` look every few seconds: deleted at once, a job would be gone with what became of it."""
    job = ended(ttlSecondsAfterFinished=ttl)
    early, late = after(job, least - 1), after(job, least)
    assert (early.delete_job, early.again) == (False, 1.0)
    assert (late.delete_job, late.again) == (True, None)


def test_a_deadline_is_met_to_the_second_though_nobody_reports() -> None:
    cluster = {"readyWorkerReplicas": 1, "head": {"podIP": "10.0.0.1"}, "stateTransitionTimes": {"ready": "2026-01-01T12:00:00Z"}}
    ray = {"jobDeploymentStatus": "Running", "jobStatus": "RUNNING", "startTime": "2026-01-01T11:00:00Z", "rayClusterStatus": cluster}
    metadata = {"name": "job-a1", "namespace": "team", "uid": "c", "resourceVersion": "1", "creationTimestamp": "2026-01-01T11:00:00Z"}
    child = {"kind": "RayJob", "metadata": metadata, "spec": {"suspend": False}, "status": ray}
    job = {**ended(activeDeadlineSeconds=100, compute={"gpusPerWorker": 0}), "status": {"attempts": 1}}
    decision = decide(Observed(job, (child,)), NOW + datetime.timedelta(seconds=93), "image")
    assert decision.again == 7.0
    late = decide(Observed(job, (child,)), NOW + datetime.timedelta(seconds=100), "image")
    assert late.status is not None
    assert (late.status["phase"], late.status["failure"]["code"]) == ("Failed", "GTJ0212")
    # While it waits for its pods, time stands still and there is nothing to look at then.
    waiting = {**child, "status": {**ray, "jobDeploymentStatus": "Initializing", "jobStatus": "", "rayClusterStatus": {}}}
    assert decide(Observed(job, (waiting,)), NOW + datetime.timedelta(seconds=93), "image").again == 10.0
