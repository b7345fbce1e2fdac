"""Why an attempt ended, and what one waits for."""

from __future__ import annotations

from typing import Any

import pytest

from gentrain_operator.diagnose import diagnosed, record_in
from gentrain_operator.kube.resource import Object
from gentrain_operator.waiting import waiting


def ended(message: str = "", **status: Any) -> Object:
    return {"metadata": {"name": "j"}, "status": {"jobDeploymentStatus": "Failed", "message": message, **status}}


def pod_with(**status: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": status}


OOM = pod_with(containerStatuses=[{"name": "ray-worker", "state": {"terminated": {"reason": "OOMKilled"}}}])
DISRUPTED = pod_with(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "spot"}])


@pytest.mark.parametrize(
    ("rayjob_", "pods", "record", "code", "class_"),
    [
        (None, [], None, "GTJ0213", "Infrastructure"),
        (ended("Ray head pod not found.", reason="AppFailed"), [], None, "GTJ0213", "Infrastructure"),
        (ended("x", reason="JobStatusCheckTimeoutExceeded"), [], None, "GTJ0213", "Infrastructure"),
        (ended("x", jobStatus="STOPPED"), [], None, "GTJ0213", "Preemption"),
        (ended("x", jobDeploymentStatus="ValidationFailed"), [], None, "GTJ0301", "Configuration"),
        (ended("ValueError: x", reason="AppFailed"), [], None, "GTJ0214", "Application"),
        (ended("x"), [OOM], None, "GTJ0205", "Application"),
        (ended("Ray head pod not found."), [DISRUPTED], None, "GTJ0213", "Preemption"),
        (ended("x"), [OOM], {"code": "GTJ0113", "what": "no data"}, "GTJ0113", "Configuration"),
        (ended("x"), [], {"code": "GTJ0211"}, "GTJ0211", "Infrastructure"),
        (ended("a\nGTJ0207 loss/G is not finite\nb"), [], None, "GTJ0207", "Application"),
        (ended("x"), [], {"code": "GTJ9999", "what": "forged"}, "GTJ0214", "Application"),
    ],
)
def test_diagnoses(rayjob_: Object | None, pods: list[Object], record: Object | None, code: str, class_: str) -> None:
    failure = diagnosed(rayjob_, pods, record)
    assert (failure.code, failure.class_) == (code, class_)
    assert failure.summary
    assert failure.line().startswith(code)


def head_in(state: Object) -> Object:
    return pod_with(
        containerStatuses=[{"name": "ray-head", "state": state}, {"name": "ray-job-submitter", "state": {"terminated": {"exitCode": 1}}}]
    )


CRASHED = {"terminated": {"exitCode": 1, "reason": "Error"}}


@pytest.mark.parametrize(
    ("state", "heard", "record", "code", "class_"),
    [
        (CRASHED, True, None, "GTJ0213", "Infrastructure"),
        (None, True, None, "GTJ0213", "Infrastructure"),
        # A driver that fails says so; one that was never heard of may not have begun: an image without the trainer, for one.
        (CRASHED, True, {"code": "GTJ0206", "what": "out of device memory"}, "GTJ0206", "Application"),
        (CRASHED, False, None, "GTJ0214", "Application"),
        ({"running": {}}, True, None, "GTJ0214", "Application"),
        ({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}, True, None, "GTJ0205", "Application"),
    ],
)
def test_a_head_that_ends_under_its_driver(state: Object | None, heard: bool, record: Object | None, code: str, class_: str) -> None:
    pods = [head_in(state)] if state else []
    said = "Ray head pod container ray-job-submitter terminated with exit code 1: Error"
    failure = diagnosed(ended(said, reason="AppFailed"), pods, record, heard=heard)
    assert (failure.code, failure.class_) == (code, class_)


def test_a_driver_that_ray_knows_to_have_failed_had_a_head() -> None:
    said = "Job entrypoint command failed with exit code 1, last available logs: Traceback"
    assert diagnosed(ended(said, reason="AppFailed"), [], None, heard=True).class_ == "Application"


def test_a_record_is_bounded_and_cleaned() -> None:
    record = {
        "code": "GTJ0206",
        "what": "a\x1b[2J" + "x" * 5000,
        "why": ["not", "text"],
        "rank": True,
        "step": -1,
        "logTail": "line\nline\x00" + "y" * 9000,
    }
    status = diagnosed(ended(), [], record).status()
    assert len(status["summary"]) == 350
    assert "\x1b" not in status["summary"]
    assert len(status["logTail"]) == 4096
    assert not {"rank", "step", "detail"} & set(status)


def test_a_failure_says_where() -> None:
    record = {"code": "GTJ0113", "what": "the data does not exist", "where": "/data/faces"}
    assert diagnosed(ended(), [], record).status()["summary"] == "the data does not exist (/data/faces)"
    long = diagnosed(ended(), [], {**record, "what": "x" * 5000, "where": "y" * 5000}).status()["summary"]
    assert len(long) <= 512


def test_the_last_record_in_a_log_counts() -> None:
    log = 'x\ngentrain-failure: {"code": "GTJ0206"}\ngentrain-failure: {"code": "GTJ0207"}\ngentrain-failure: {broken'
    assert record_in(log) == {"code": "GTJ0207"}
    assert record_in("nothing") is None
    assert record_in("GTJ0206 out of memory") == {"code": "GTJ0206", "what": "out of memory"}


def replica_failure(message: str) -> Object:
    """How KubeRay 1.7 says that it could not create a pod."""
    return {"rayClusterStatus": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}}


@pytest.mark.parametrize(
    ("pod", "status", "reason"),
    [
        (pod_with(), {}, None),
        (pod_with(containerStatuses=[{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]), {}, "ImagePullFailed"),
        (pod_with(conditions=[{"type": "PodScheduled", "reason": "Unschedulable"}]), {}, "Unschedulable"),
        (pod_with(), {"rayClusterStatus": {"reason": "pods are forbidden: exceeded quota: gpu"}}, "QuotaExceeded"),
        (pod_with(), replica_failure('pods "a" is forbidden: exceeded quota: cpu'), "QuotaExceeded"),
        (pod_with(), replica_failure('pods "a" is forbidden: violates PodSecurity "restricted:latest"'), "PodsForbidden"),
        (pod_with(), replica_failure('Internal error occurred: failed calling webhook "a.b.c": connection refused'), "PodsForbidden"),
        (pod_with(), replica_failure("the server is busy"), None),
    ],
)
def test_waiting_for_what(pod: Object, status: Object, reason: str | None) -> None:
    found = waiting([pod], {"status": status})
    assert (found.reason if found else None) == reason


def test_a_raycluster_that_cannot_be_made_is_said_in_the_words_of_the_last_try() -> None:
    """KubeRay tells of it in events of its RayJob alone."""
    refused = "Failed to create RayCluster a: rayclusters.ray.io is forbidden: {}"
    events = [
        {
            "reason": "FailedToCreateRayCluster",
            "note": refused.format("exceeded quota: q"),
            "deprecatedLastTimestamp": "2026-01-01T00:00:00Z",
        },
        {"reason": "FailedToCreateRayCluster", "note": refused.format("no team"), "deprecatedLastTimestamp": "2026-01-01T00:01:00Z"},
        {"reason": "CreatedRayJobSubmitter", "note": "is forbidden", "deprecatedLastTimestamp": "2026-01-01T00:02:00Z"},
    ]
    for order in (events, events[::-1]):
        found = waiting([], {"metadata": {"uid": "r"}}, {"r": order})
        assert found is not None
        assert (found.reason, found.message.partition(": ")[2]) == ("PodsForbidden", refused.format("no team"))
    assert waiting([], {"metadata": {"uid": "r"}}, {"r": events[2:]}) is None
    assert waiting([], {"metadata": {"uid": "r"}}, {"other": events}) is None
