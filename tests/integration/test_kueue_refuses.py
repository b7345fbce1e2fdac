"""Kueue that is down, or refuses, and Kueue that takes a job's quota back while it saves. KubeRay is the stand-in."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from gentrain_operator import queues, refusals
from gentrain_operator.kube.resource import CONFIGMAPS, EVENTS, JOBS, Object, Resource
from tests.cluster.at_work import Bench, over_cluster, report
from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kueue import Kueue, admitting, queueing

pytestmark = pytest.mark.slow
bench = over_cluster
WORKLOADS = Resource("kueue.x-k8s.io", "v1beta2", "workloads", "Workload")


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None], kuberay_crds: str) -> Iterator[tuple[ControlPlane, Kueue]]:
    """A control plane whose Kueue may be killed."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(queueing(tmp_path_factory.mktemp("refuses"), kuberay_crds, say))
        except Unavailable as reason:
            pytest.skip(str(reason))


@pytest.fixture(scope="module")
def cluster(parts: tuple[ControlPlane, Kueue]) -> ControlPlane:
    return parts[0]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who was refused, or waits, is looked at again at once."""
    monkeypatch.setattr(refusals, "AGAIN", (0.2, 1.0))
    monkeypatch.setattr(queues, "LOOK", (0.5, 0.5))


def compute(**more: Any) -> Object:
    return {"gpusPerWorker": 0, "workers": 2, "queue": "team", **more}


def refused(bench: Bench) -> str:
    """What the job says while the server refuses its RayJob."""
    for one in bench.status().get("conditions", ()):
        if (one["type"], one["status"]) == ("Accepted", "False"):
            return f"{one['reason']}: {one['message']}"
    return ""


def let_go(bench: Bench, name: str) -> bool:
    return not bench.rayjob(name)["spec"].get("suspend")


def told(bench: Bench, reason: str) -> bool:
    """Whether an event about the job has that reason."""
    found = bench.client.list(EVENTS, bench.namespace)["items"]
    return any(one["reason"] == reason and one["regarding"]["kind"] == "GenerativeTrainingJob" for one in found)


def tries(bench: Bench, verb: str) -> float:
    """How often a write of a RayJob was refused by a failing webhook."""
    pattern = rf'^gentrain_api_requests_total{{code="500",resource="rayjobs",verb="{verb}"}} ([\d.]+)$'
    return sum(map(float, re.findall(pattern, bench.operator.metrics.text().decode(), re.MULTILINE)))


def left(bench: Bench) -> list[str]:
    """ConfigMaps of attempts."""
    found = [one["metadata"]["name"] for one in bench.client.list(CONFIGMAPS, bench.namespace)["items"]]
    return [name for name in found if name.startswith("job-a")]


@contextlib.contextmanager
def down(kueue: Kueue) -> Iterator[None]:
    """Kueue's process is gone, and its webhooks stay."""
    kueue.kill()
    try:
        yield
    finally:
        kueue.run()


def test_while_kueue_is_down_the_job_says_so_and_goes_on_when_it_is_back(bench: Bench, parts: tuple[ControlPlane, Kueue]) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10")
    with down(parts[1]):
        bench.apply(compute=compute())
        said = bench.until(lambda: refused(bench))
        assert said.startswith("WebhookFailed: GTJ0305 a webhook that must agree to the RayJob fails: ")
        assert 'failed calling webhook "mrayjob.kb.io"' in said
        bench.until(lambda: told(bench, "WebhookFailed"))
        bench.until(lambda: tries(bench, "create") >= 4)
        assert bench.status()["phase"] == "Pending"
        assert not bench.kuberay.rayjobs()
        bench.until(lambda: not left(bench))
    bench.until(lambda: let_go(bench, "job-a1"))
    bench.until(lambda: bench.reason("QuotaReserved") == "Admitted")
    assert bench.reason("Accepted") == "Accepted"
    assert bench.status()["attempts"] == 1
    assert list(bench.kuberay.rayjobs()) == ["job-a1"]


def test_a_job_that_cannot_be_suspended_meanwhile_says_so_and_is_suspended_and_let_go_afterwards(
    bench: Bench, parts: tuple[ControlPlane, Kueue]
) -> None:
    """Kueue's webhooks judge every RayJob, those that are in no queue as well."""
    bench.apply(compute=compute(queue=None))
    bench.running()
    bench.driver.report = report(5)
    bench.phase("Running")
    turned(bench, parts[1], suspend=True)
    bench.kuberay.suspend("job-a1")
    bench.until(lambda: (bench.reason("Accepted"), bench.reason("Suspended")) == ("Accepted", "Suspended"))
    turned(bench, parts[1], suspend=False)
    bench.until(lambda: (bench.reason("Accepted"), bench.reason("Suspended")) == ("Accepted", "NotSuspended"))
    assert bench.status()["attempts"] == 1


def turned(bench: Bench, kueue: Kueue, *, suspend: bool) -> None:
    """The job is suspended, or resumed, while Kueue is down; returns when its RayJob is, because Kueue is back."""
    with down(kueue):
        before = tries(bench, "patch")
        bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": suspend}})
        said = bench.until(lambda: refused(bench))
        assert said.startswith("WebhookFailed: GTJ0305 a webhook that must agree to the RayJob fails: ")
        bench.until(lambda: tries(bench, "patch") >= before + 4)
        assert let_go(bench, "job-a1") is suspend, "it is as it was"
    bench.until(lambda: let_go(bench, "job-a1") is not suspend)


def asked(bench: Bench) -> dict[str, int]:
    """Pods of each kind that the job's Workload asks for."""
    (made,) = bench.until(lambda: bench.client.list(WORKLOADS, bench.namespace)["items"])
    return {one["name"]: one["count"] for one in made["spec"]["podSets"]}


def test_an_elastic_job_asks_for_its_largest_size(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="16")  # a head and two workers take nine, and four seventeen
    bench.apply(compute=compute(workers="2-4"))
    assert asked(bench) == {"head": 1, "workers": 4}
    bench.until(lambda: bench.reason("QuotaReserved") == "ExceedsQuota", 60)
    admitting(bench.cluster, bench.namespace, cpu="17")
    bench.until(lambda: let_go(bench, "job-a1"), 60)
    assert asked(bench) == {"head": 1, "workers": 4}


def test_without_kueues_gate_a_job_that_scales_in_its_queue_is_refused_in_kueues_words(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="20")
    bench.apply(compute=compute(workers="2-4", queueElastic=True))
    said = bench.until(lambda: refused(bench))
    assert said.startswith("AdmissionDenied: GTJ0305 a policy of the cluster does not allow the RayJob: ")
    assert "autoscaling when workload slicing is enabled" in said
    assert not bench.kuberay.rayjobs()


def test_a_level_that_no_flavor_has_is_named(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10")
    bench.apply(compute=compute(topology={"required": "topology.kubernetes.io/rack"}))
    bench.until(lambda: bench.reason("QuotaReserved") == "TopologyNotFound")
    said = bench.status()["message"]
    assert said.startswith("GTJ0111 no flavor of queue team has the level that compute.topology names: ")
    assert f'Flavor "{bench.namespace}-team" does not support TopologyAwareScheduling' in said


def test_what_is_saved_while_the_quota_is_taken_back_is_what_the_job_goes_on_from(bench: Bench) -> None:
    """Kueue evicts; the pods have their grace period, in which the trainer commits the step that it was saving."""
    admitting(bench.cluster, bench.namespace, cpu="10")
    bench.apply(compute=compute())
    bench.until(lambda: let_go(bench, "job-a1"))

    def saved(step: int) -> bool:
        return bool(bench.status().get("checkpoint", {}).get("step") == step)

    def commit(step: int) -> Object:
        return {"uri": f"s3://b/{step}", "step": step}

    bench.driver.report = report(40, checkpoint=commit(30))
    bench.running()
    bench.until(lambda: saved(30))
    bench.driver.report = report(41, checkpoint=commit(30), activity="saving step 41")
    stop = ("patch", "clusterqueue", f"{bench.namespace}-team", "--type=merge", "-p")
    bench.cluster.kubectl(*stop, json.dumps({"spec": {"stopPolicy": "HoldAndDrain"}}))
    bench.until(lambda: not let_go(bench, "job-a1"))
    bench.until(lambda: bench.status()["progress"]["step"] == 41)
    assert saved(30)
    bench.driver.report = report(41, checkpoint=commit(41))
    bench.until(lambda: saved(41))
    bench.driver.report = {}
    bench.kuberay.suspend("job-a1")
    bench.until(lambda: bench.reason("QuotaReserved") == "Preempted")
    assert saved(41)
    bench.cluster.kubectl(*stop, json.dumps({"spec": {"stopPolicy": "None"}}))
    bench.until(lambda: let_go(bench, "job-a1"))
    bench.running()
    bench.phase("Starting")
    bench.driver.report = report(42)  # it has resumed, and saved nothing yet itself
    bench.until(lambda: bench.status()["progress"]["step"] == 42)
    assert saved(41)
    assert bench.status()["attempts"] == 1
    assert not bench.status().get("restarts")
