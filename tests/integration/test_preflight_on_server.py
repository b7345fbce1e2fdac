"""Preflights on a real API server: the pod as it is taken, its phases as a kubelet would set them, and no RayJob before it has passed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gentrain_operator import preflight
from gentrain_operator.kube.resource import CONFIGMAPS, JOBS, Object
from tests.cluster.at_work import Driver, manifest
from tests.cluster.control_plane import ControlPlane
from tests.cluster.looking import Looking
from tests.operator.test_preflight import PASSED, REFUSED, ended, nowhere, waits

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(installed: ControlPlane, namespace: str, driver: Driver, monkeypatch: pytest.MonkeyPatch) -> Iterator[Looking]:
    monkeypatch.setattr(preflight, "AGAIN", (0.2, 0.2))
    monkeypatch.setattr(Looking, "other", f"{namespace}-other")
    installed.kubectl("create", "namespace", f"{namespace}-other")
    installed.kubectl("label", "namespace", namespace, "pod-security.kubernetes.io/enforce=restricted")
    running = Looking(installed, namespace, driver)
    yield running
    running.stop()


def test_a_job_begins_after_its_pod_has_passed_whatever_the_operator_does_meanwhile(bench: Looking) -> None:
    bench.apply(pod={"volumes": [{"claimName": "runs", "mountPath": "/runs"}]})
    pod = bench.pod()
    assert bench.client.get(CONFIGMAPS, bench.namespace, pod["spec"]["volumes"][0]["configMap"]["name"])["immutable"]
    bench.until(lambda: bench.reason("ResourcesReady") == "Preflight")
    bench.stop()
    bench.says(ended(json.dumps(PASSED)))
    bench.start()
    bench.rayjob("job-a1")
    bench.until(bench.gone)
    assert bench.status()["preflight"]["said"].startswith("1797 images")

    # Another one, in another namespace at the same time.
    for namespace in (bench.namespace, bench.other):
        bench.client.create(JOBS, namespace, manifest("soon"))
    for namespace in (bench.namespace, bench.other):
        bench.pod("soon", namespace)
    bench.says(ended(json.dumps(REFUSED), 1, "Error", "Failed"), "soon", bench.other)
    bench.says(ended(json.dumps(PASSED)), "soon")
    bench.until(lambda: "soon-a1" in bench.rayjobs())
    assert bench.rayjobs(bench.other) == []

    # Jobs of an operator that knew no preflights.
    bench.running("job")
    bench.stop()
    bench.client.create(JOBS, bench.namespace, manifest("skips", preflight=False))
    bench.start()
    bench.rayjob("skips-a1")
    assert bench.gone("skips")
    assert bench.gone("job")


def test_what_is_wrong_is_said_no_rayjob_is_made_and_mended_it_goes_on(bench: Looking) -> None:
    rows: list[tuple[str, Object, str, str]] = [
        ("image", {"phase": "Pending", **waits("ImagePullBackOff", "no such tag")}, "ImagePullFailed", "GTJ0204"),
        ("secret", {"phase": "Pending", **waits("CreateContainerConfigError", 'secret "s" not found')}, "SecretNotFound", "GTJ0111"),
        ("bucket", ended(json.dumps(REFUSED), 1, "Error", "Failed"), "PreflightFailed", "GTJ0112"),
        ("data", ended(json.dumps({**REFUSED, "code": "GTJ0113"}), 1, "Error", "Failed"), "PreflightFailed", "GTJ0113"),
        ("node", {"phase": "Pending", **nowhere("0/3 nodes are available: 3 Insufficient cpu.")}, "Unschedulable", "GTJ0202"),
    ]
    for name, _, _, _ in rows:
        bench.apply(name)
    for name, status, reason, code in rows:
        bench.says(status, name)
        bench.until(lambda name=name, reason=reason: bench.reason("Accepted", name) == reason)
        assert bench.status(name)["message"].startswith(code), name
        assert bench.status(name)["phase"] == "Pending"
    assert bench.rayjobs() == []
    # One pod at a time, looked at again by itself; and a spec that was mended is looked at at once.
    bench.until(lambda: not bench.gone("bucket") and bench.pod("bucket")["status"].get("phase") == "Pending")
    bench.says(ended(json.dumps(PASSED)), "bucket")
    bench.rayjob("bucket-a1")
    before = bench.pod("image")["metadata"]["uid"]
    bench.client.merge(JOBS, bench.namespace, "image", {"spec": {"pod": {"image": "trainer:right"}}})
    bench.until(lambda: bench.pod("image")["metadata"]["uid"] != before)
    assert bench.pod("image")["spec"]["containers"][0]["image"] == "trainer:right"
    bench.client.merge(JOBS, bench.namespace, "image", {"spec": {"suspend": True}})
    bench.phase("Suspended", "image")
    bench.until(lambda: bench.gone("image"))
    assert "image-a1" not in bench.rayjobs()


def test_a_level_that_does_not_take_a_profile_is_said_before_a_pod_is_tried(bench: Looking, request: pytest.FixtureRequest) -> None:
    fabric: dict[str, Any] = {"provider": "azure", "pool": "pool", "fabric": "azure-ib", "accelerator": {"type": "h100-80gb", "perNode": 8}}
    spec = {**fabric, "node": {"instanceType": "Standard_ND96isr_H100_v5", "cpu": "90", "memory": "1700Gi"}}
    name = f"rdma-{bench.namespace}"
    profile = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": name}, "spec": spec}
    bench.cluster.kubectl("create", "-f", "-", stdin=json.dumps(profile))
    request.addfinalizer(lambda: bench.cluster.kubectl("delete", "computeprofile", name))
    bench.apply(compute={"profiles": [name], "gpusPerWorker": 8})
    bench.until(lambda: bench.reason("Accepted") == "PodsForbidden")
    said = bench.status()["message"]
    assert said.startswith(f"GTJ0303 the pods of ComputeProfile {name} need the Pod Security level privileged (fabric: azure-ib)")
    assert "pod-security.kubernetes.io/enforce=restricted" in said
    assert bench.gone()
    assert bench.rayjobs() == []
