"""Why an attempt ended, and what one waits for."""

from __future__ import annotations

from typing import Any

import pytest

from gentrain_operator.diagnose import diagnosed, record_in, waiting
from gentrain_operator.kube.resource import Object


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
    assert len(status["summary"]) == 512
    assert "\x1b" not in status["summary"]
    assert len(status["logTail"]) == 4096
    assert not {"rank", "step", "detail"} & set(status)


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
        (pod_with(), replica_failure("the server is busy"), None),
    ],
)
def test_waiting_for_what(pod: Object, status: Object, reason: str | None) -> None:
    found = waiting([pod], {"status": status})
    assert (found.reason if found else None) == reason
