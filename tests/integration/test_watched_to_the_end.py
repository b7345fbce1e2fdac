"""Attempts that the world does not let end by itself, on a real API server: a pod on a lost node, a spec that became unusable."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest

from gentrain_operator import lingering
from gentrain_operator.kube.resource import EVENTS, JOBS
from tests.cluster.at_work import Bench, Driver, report
from tests.cluster.control_plane import ControlPlane
from trainjobs.api import crd

pytestmark = pytest.mark.slow


def test_a_pod_that_hangs_on_a_lost_node_is_named_and_not_waited_for_for_ever(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lingering, "GRACE", datetime.timedelta(seconds=6))
    bench.apply()
    name = bench.running()
    head = f"{name}-head"
    # Nobody is the kubelet of this node: what is bound to it stays Terminating.
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": head}, "target": {"kind": "Node", "name": "lost-1"}}
    path = f"/api/v1/namespaces/{bench.namespace}/pods/{head}/binding"
    bench.cluster.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(binding))
    bench.cluster.kubectl("-n", bench.namespace, "delete", "pod", head, "--grace-period=1", "--wait=false")
    bench.kuberay.fail(name, "boom")
    bench.until(lambda: "of the last attempt to end: pod job-a1-head on node lost-1" in bench.status().get("message", ""))
    assert "job-a2" not in bench.kuberay.rayjobs()
    bench.rayjob("job-a2")
    bench.until(lambda: bench.reason("Running") == "PodsLost")

    def told() -> bool:
        found = [one for one in bench.client.list(EVENTS, bench.namespace)["items"] if one["reason"] == "PodsLost"]
        return bool(found) and "goes on without pod job-a1-head on node lost-1" in found[0]["note"]

    bench.until(told)
    bench.running(attempt=2)
    bench.kuberay.succeed("job-a2")
    assert bench.phase("Succeeded")["attempts"] == 2


def loosened(schema: Any) -> Any:
    """A definition of another version: without the rules, so that it lets through what this operator cannot use."""
    if isinstance(schema, dict):
        return {name: loosened(value) for name, value in schema.items() if name != "x-kubernetes-validations"}
    return [loosened(one) for one in schema] if isinstance(schema, list) else schema


@pytest.fixture
def loose(own_cluster: ControlPlane, kuberay_crds: str, driver: Driver) -> Any:
    own_cluster.define(kuberay_crds, ours=map(loosened, crd.definitions().values()))
    running = Bench(own_cluster, "default", driver)
    yield running
    running.stop()


def test_a_job_whose_spec_became_unusable_is_watched_to_its_end(loose: Bench) -> None:
    loose.apply()
    name = loose.running()
    loose.driver.report = report(40)
    loose.phase("Running")
    loose.client.merge(JOBS, "default", "job", {"spec": {"gan": {}}})
    loose.until(lambda: loose.reason("Accepted") == "InvalidSpec")
    loose.driver.report = report(60)
    loose.until(lambda: loose.status()["progress"]["step"] == 60)
    assert (loose.status()["phase"], loose.reason("Running")) == ("Running", "Stepping")
    # Suspended and resumed as before.
    for suspend in (True, False):
        loose.client.merge(JOBS, "default", "job", {"spec": {"suspend": suspend}})
        loose.until(lambda suspend=suspend: loose.rayjob(name)["spec"].get("suspend", False) is suspend)
    # A restart of the operator knows no more than what is on the server.
    loose.stop()
    loose.start()
    loose.kuberay.succeed(name)
    assert loose.phase("Succeeded")["progress"]["percent"] == 100


def test_the_deadline_of_a_job_whose_spec_became_unusable_still_counts(loose: Bench) -> None:
    loose.apply()
    name = loose.running()
    loose.driver.report = report(40)
    loose.phase("Running")
    loose.client.merge(JOBS, "default", "job", {"spec": {"gan": {}, "activeDeadlineSeconds": 60}})
    assert loose.phase("Failed")["failure"]["code"] == "GTJ0212"
    loose.until(lambda: name not in loose.kuberay.rayjobs())
