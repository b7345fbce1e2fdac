"""Mount paths and variables that are not the job's to take."""

from __future__ import annotations

from typing import Any

import pytest

from trainjobs.api.job import API_VERSION, KIND, Job
from trainjobs.api.parse import parse
from trainjobs.api.reserved import RULES


def codes(**pod: Any) -> list[str]:
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}, "pod": pod}
    given = Job.model_validate(
        {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "x"}, "spec": spec}
    )
    return [problem.code for rule in RULES for problem in rule.problems(given)]


def claims(*paths: str) -> list[dict[str, str]]:
    return [{"claimName": f"c{number}", "mountPath": path} for number, path in enumerate(paths)]


TAKEN = [
    "/tmp",
    "/tmp/",
    "/dev",
    "/dev/shm",
    "/etc",
    "/etc/gentrain",
    "/etc/gentrain/x",
    "/proc/self",
    "/sys",
    "/a//b",
    "/a/../tmp",
    "/a:b",
]
FREE = ["/data", "/data/", "/tmp/cache", "/etc/ssl", "/dev/shm/x", "/home/me", "/a..b", "/.cache", "/tmpfs"]


@pytest.mark.parametrize("path", TAKEN)
def test_a_path_that_is_taken_is_refused(path: str) -> None:
    assert codes(volumes=claims(path)) == ["GTJ0129"]


@pytest.mark.parametrize("path", FREE)
def test_another_path_is_free(path: str) -> None:
    assert codes(volumes=claims(path)) == []


def test_two_claims_at_one_path_are_refused() -> None:
    assert codes(volumes=claims("/data", "/other", "/data/")) == ["GTJ0129"]
    assert codes(volumes=claims("/data", "/data/inner")) == []


@pytest.mark.parametrize("name", ["HOME", "GENTRAIN_ATTEMPT", "GENTRAIN_X", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_ADDRESS", "KUBERAY_X"])
def test_a_variable_that_others_set_is_refused(name: str) -> None:
    assert codes(env=[{"name": name, "value": "x"}]) == ["GTJ0129"]


@pytest.mark.parametrize("name", ["HOMER", "MY_HOME", "RAY_DEDUP_LOGS", "RAY_memory_usage_threshold", "HF_TOKEN", "NCCL_DEBUG"])
def test_another_variable_is_free(name: str) -> None:
    assert codes(env=[{"name": name, "value": "x"}]) == []


def test_files_take_no_path_of_others_either() -> None:
    pod = {
        "volumes": [{"claimName": "a", "mountPath": "/data"}],
        "files": [{"secret": "s", "mountPath": "/data/"}, {"configMap": "c", "mountPath": "/etc"}, {"secret": "t", "mountPath": "/ok"}],
    }
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 1}, "pod": pod}
    whole = {"apiVersion": API_VERSION, "kind": KIND, "metadata": {"name": "job"}, "spec": spec}
    found = {(problem.error().code, problem.error().where) for problem in parse(whole)[1]}
    assert found == {("GTJ0129", "spec.pod.files[0].mountPath"), ("GTJ0129", "spec.pod.files[1].mountPath")}
