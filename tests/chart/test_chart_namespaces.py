"""Two watched namespaces, under the chart's own Roles: the operator is restarted, and one of them loses its Role while both train."""

from __future__ import annotations

import json
import logging
import urllib.request
from collections.abc import Callable, Iterator

import pytest

from gentrain_operator import controller as controller_module
from gentrain_operator import decide as decide_module
from gentrain_operator import polls as polls_module
from gentrain_operator.kube import reflector as reflector_module
from gentrain_operator.kube.resource import JOBS, Object
from tests.chart.helm import CHART, RELEASE, on
from tests.chart.test_chart_rbac import Confined
from tests.cluster.at_work import Driver, manifest, report
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kuberay_standin import KubeRay

pytestmark = pytest.mark.slow


@pytest.fixture
def bench(kuberay: ControlPlane, monkeypatch: pytest.MonkeyPatch) -> Iterator[Confined]:
    for name in ("team", "other"):
        kuberay.kubectl("create", "namespace", name)
    on(kuberay, "install", RELEASE, str(CHART), "--create-namespace", '--set-json=watchNamespaces=["team", " other"]')
    kuberay.wait_for_kinds("gentrain.dev", 2)
    driver = Driver()
    monkeypatch.setattr(controller_module, "PORT", driver.port)
    monkeypatch.setattr(polls_module, "EVERY", 0.1)
    monkeypatch.setattr(decide_module, "RETRY", (0.01, 0.1))
    # Rights are looked at when a watch begins.
    monkeypatch.setattr(reflector_module, "WATCH_SECONDS", (1, 1))
    monkeypatch.setattr(reflector_module, "BACKOFF", (0.05, 0.2))
    monkeypatch.setattr(Confined, "watched", "team, other", raising=False)
    running = Confined(kuberay, "team", driver)
    yield running
    if running._thread.is_alive():
        running.stop()
    driver.close()


def begun(bench: Confined, namespace: str, name: str) -> KubeRay:
    """Brings a job up to where its driver reports; who plays KubeRay there."""
    kuberay = KubeRay(bench.client, namespace)
    bench.client.create(JOBS, namespace, manifest(name, preflight=False))  # nobody runs pods here
    rayjob = f"{name}-a1"
    bench.until(lambda: rayjob in kuberay.rayjobs())
    kuberay.initialize(rayjob)
    kuberay.run(rayjob)
    return kuberay


def phase(bench: Confined, namespace: str, name: str) -> Callable[[], str]:
    def ask() -> str:
        status: Object = bench.client.get(JOBS, namespace, name).get("status") or {}
        return str(status.get("phase"))

    return ask


def answer(bench: Confined, path: str) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{bench.operator.probes.port}{path}", timeout=5) as said:
        return str(said.read().decode())


def test_a_restart_in_the_middle_ends_the_jobs_of_both_namespaces(bench: Confined) -> None:
    playing = {name: begun(bench, name, "job") for name in ("team", "other")}
    bench.driver.report = report(40)
    for name in playing:
        bench.until(lambda name=name: phase(bench, name, "job")() == "Running")
    bench.stop()
    bench.start()
    # Each namespace has been listed, and listed again after its watch ended, before anything happens.
    bench.until(lambda: min(one.restarts for one in bench.operator.reflectors) >= 2)
    assert len(bench.operator.stores.jobs) == len(bench.operator.stores.rayjobs) == 2
    for name, kuberay in playing.items():
        kuberay.succeed("job-a1")
        bench.until(lambda name=name: phase(bench, name, "job")() == "Succeeded")


def test_a_namespace_that_loses_its_role_stops_nobody_else_and_is_taken_up_when_it_is_back(
    bench: Confined, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    team, other = begun(bench, "team", "one"), begun(bench, "other", "one")
    bench.driver.report = report(40)
    for name in ("team", "other"):
        bench.until(lambda name=name: phase(bench, name, "one")() == "Running")
    assert answer(bench, "/readyz") == "ok"
    binding = json.loads(bench.cluster.kubectl("-n", "other", "get", "rolebinding", RELEASE, "-o", "json").stdout)
    bench.cluster.kubectl("-n", "other", "delete", "rolebinding", RELEASE)
    bench.until(lambda: "GTJ0307 namespace other cannot be watched" in answer(bench, "/readyz"))
    assert answer(bench, "/livez") == "ok"
    assert 'gentrain_namespace_watched{namespace="other"} 0.0' in answer(bench, "/metrics")
    assert 'gentrain_namespace_watched{namespace="team"} 1.0' in answer(bench, "/metrics")
    team.succeed("one-a1")
    bench.until(lambda: phase(bench, "team", "one")() == "Succeeded")

    # A start with the Role gone waits for nobody: the one that is left trains.
    bench.stop()
    bench.start()
    bench.until(lambda: bench.operator.lease.held())
    assert answer(bench, "/readyz").startswith("ok\nGTJ0307 namespace other cannot be watched (generativetrainingjobs: 403")
    team = begun(bench, "team", "two")
    bench.until(lambda: phase(bench, "team", "two")() == "Running")
    other.succeed("one-a1")
    team.succeed("two-a1")
    bench.until(lambda: phase(bench, "team", "two")() == "Succeeded")
    assert phase(bench, "other", "one")() == "Running", "nobody could have looked"

    for field in ("resourceVersion", "uid", "creationTimestamp", "managedFields"):
        binding["metadata"].pop(field, None)
    bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(binding))
    bench.until(lambda: phase(bench, "other", "one")() == "Succeeded")
    bench.until(lambda: answer(bench, "/readyz") == "ok")
    # Once for each of the two operators, however often it was asked again.
    assert sum("GTJ0307" in record.getMessage() for record in caplog.records) == 2
    assert sum("namespace other is watched again" in record.getMessage() for record in caplog.records) == 1
