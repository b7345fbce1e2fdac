"""A definition of a job that is older than the operator: said, and lived with. On a server of its own, whose definition a test may cut."""

from __future__ import annotations

import copy
import json
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from gentrain_operator import controller, decide, polls, served
from tests.cluster.at_work import Bench, Driver, report
from tests.cluster.control_plane import ControlPlane
from trainjobs.api import crd

pytestmark = pytest.mark.slow


def older() -> dict[str, Any]:
    """Today's definitions without some fields of spec and status."""
    out: dict[str, Any] = copy.deepcopy(crd.definitions())
    jobs = next(one for one in out.values() if one["spec"]["names"]["kind"] == "GenerativeTrainingJob")
    schema = jobs["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for name in ("plan", "cost", "activeSeconds"):
        del schema["status"]["properties"][name]
    del schema["status"]["properties"]["progress"]["properties"]["message"]
    del schema["status"]["properties"]["progress"]["properties"]["display"]
    del schema["spec"]["properties"]["ttlSecondsAfterFinished"]
    return out


@pytest.fixture
def bench(own_cluster: ControlPlane, kuberay_crds: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    own_cluster.define(kuberay_crds, ours=older().values())
    driver = Driver()
    monkeypatch.setattr(controller, "PORT", driver.port)
    monkeypatch.setattr(polls, "EVERY", 0.1)
    monkeypatch.setattr(decide, "RETRY", (0.01, 0.1))
    monkeypatch.setattr(served, "EVERY", 1.0)
    monkeypatch.setattr(served, "RETRY", 0.5)
    own_cluster.kubectl("create", "namespace", "team")
    running = Bench(own_cluster, "team", driver)
    yield running
    running.stop()
    driver.close()


def readyz(bench: Bench) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{bench.operator.probes.port}/readyz", timeout=10) as answer:
        said: str = answer.read().decode()
        return said


def test_a_job_runs_to_its_end_and_the_missing_fields_are_named(bench: Bench) -> None:
    bench.apply()
    rayjob = bench.running()
    bench.driver.report = report(40)
    bench.until(lambda: bench.status().get("progress", {}).get("step") == 40)
    accepted = next(one for one in bench.status()["conditions"] if one["type"] == "Accepted")
    for words in ("GTJ0301", "spec.ttlSecondsAfterFinished", "status.plan"):
        assert words in accepted["message"]
        assert words in readyz(bench)
    assert readyz(bench).startswith("ok")
    assert "display" not in bench.status()["progress"]
    # The definitions are brought up to date: all fields again, without a restart.
    for definition in crd.definitions().values():
        bench.cluster.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", stdin=json.dumps(definition))
    step = iter(range(41, 99))

    def whole() -> bool:
        bench.driver.report = report(next(step, 99))
        return "display" in bench.status().get("progress", {}) and "plan" in bench.status()

    bench.until(whole)
    bench.until(lambda: "GTJ0301" not in readyz(bench))
    bench.kuberay.succeed(rayjob)
    assert bench.phase("Succeeded")["attempts"] == 1
