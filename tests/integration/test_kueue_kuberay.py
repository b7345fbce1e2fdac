"""The same with the real KubeRay beside the real Kueue: whoever lets a RayJob go that Kueue holds starts a cluster each time."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Callable, Iterator

import pytest

from gentrain_operator.kube.resource import JOBS, PODS, RAYCLUSTERS, RAYJOBS, Object
from gentrain_operator.times import parsed_time
from tests.cluster.at_work import Bench, over_cluster
from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kueue import WORKLOADS, Kueue, admitting, queueing, used

pytestmark = pytest.mark.slow
bench = over_cluster


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]) -> Iterator[tuple[ControlPlane, Kueue]]:
    """A control plane of this module's own, with Kueue, and KubeRay of the version that Kueue is built with."""
    with contextlib.ExitStack() as stack:
        try:
            yield stack.enter_context(queueing(tmp_path_factory.mktemp("kuberay"), None, say))
        except Unavailable as reason:
            pytest.skip(str(reason))


@pytest.fixture(scope="module")
def cluster(parts: tuple[ControlPlane, Kueue]) -> ControlPlane:
    return parts[0]


def test_with_the_quota_used_up_no_cluster_and_no_pod_is_made(bench: Bench) -> None:
    """There were 25 RayClusters and 80 pods in 25 seconds: Kueue suspended what the operator let go."""
    admitting(bench.cluster, bench.namespace, cpu="1", name="default")
    bench.apply()
    bench.until(lambda: bench.status().get("phase") == "Queued")
    generation = bench.client.get(RAYJOBS, bench.namespace, "job-a1")["metadata"]["generation"]
    for number in range(20):
        bench.client.merge(JOBS, bench.namespace, "job", {"metadata": {"annotations": {"look": str(number)}}})
        bench.until(lambda: bench.status()["phase"] == "Queued")
    bench.until(lambda: bench.client.get(RAYJOBS, bench.namespace, "job-a1").get("status", {}).get("jobDeploymentStatus") == "Suspended")
    assert bench.client.list(RAYCLUSTERS, bench.namespace)["items"] == []
    assert bench.client.list(PODS, bench.namespace)["items"] == []
    assert bench.client.get(RAYJOBS, bench.namespace, "job-a1")["metadata"]["generation"] == generation


def test_with_quota_kuberay_makes_one_cluster_of_three_pods(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10", name="default")
    bench.apply()
    pods = bench.until(lambda: len(found := bench.client.list(PODS, bench.namespace)["items"]) >= 3 and found)
    assert {one["metadata"]["labels"]["gentrain.dev/job"] for one in pods} == {"job"}
    assert len(bench.client.list(RAYCLUSTERS, bench.namespace)["items"]) == 1
    bench.until(lambda: bench.status().get("phase") == "Provisioning")


def test_a_start_time_is_written_before_any_pod_runs_and_waiting_counts_for_nothing(bench: Bench) -> None:
    """What the stand-in has to be no kinder than: KubeRay takes a RayJob up, and its pods fit nowhere for as long as you like."""
    bench.apply(activeDeadlineSeconds=1)

    def begun() -> datetime.datetime | None:
        rayjob = bench.client.get(RAYJOBS, bench.namespace, "job-a1").get("status") or {}
        return parsed_time(rayjob.get("startTime")) if rayjob.get("jobDeploymentStatus") == "Initializing" else None

    since = bench.until(begun)
    assert {one["status"]["phase"] for one in bench.client.list(PODS, bench.namespace)["items"]} <= {"Pending"}
    bench.until(lambda: (datetime.datetime.now(datetime.UTC) - since).total_seconds() > 3)
    bench.client.merge(JOBS, bench.namespace, "job", {"metadata": {"annotations": {"look": "again"}}})
    bench.until(lambda: bench.status().get("phase") == "Provisioning")
    assert bench.status().get("activeSeconds", 0) == 0
    assert bench.reason("Finished") == ""


def asked(bench: Bench) -> list[tuple[int, bool]]:
    """Workers that each Workload asks for, and whether it is over."""

    def over(made: Object) -> bool:
        conditions = (made.get("status") or {}).get("conditions") or ()
        return any(one["type"] == "Finished" and one["status"] == "True" for one in conditions)

    found = bench.client.list(WORKLOADS, bench.namespace)["items"]
    return sorted((next(one["count"] for one in made["spec"]["podSets"] if one["name"] == "workers"), over(made)) for made in found)


def test_with_its_gate_an_elastic_job_grows_by_a_slice_that_takes_the_place_of_the_one_before(
    bench: Bench, parts: tuple[ControlPlane, Kueue]
) -> None:
    kueue = parts[1]
    kueue.kill()
    try:
        kueue.run("ElasticJobsViaWorkloadSlices")
        admitting(bench.cluster, bench.namespace, cpu="20")
        bench.apply(compute={"gpusPerWorker": 0, "workers": "2-4", "queue": "team", "queueElastic": True})
        bench.until(lambda: used(bench) == "9")
        assert asked(bench) == [(2, False)]
        made = bench.until(lambda: bench.client.list(RAYCLUSTERS, bench.namespace)["items"])[0]
        # What Ray's autoscaler writes.
        grow = json.dumps([{"op": "replace", "path": "/spec/workerGroupSpecs/0/replicas", "value": 4}])
        name = made["metadata"]["name"]
        bench.cluster.kubectl("-n", bench.namespace, "patch", "raycluster", name, "--type=json", "-p", grow)
        bench.until(lambda: used(bench) == "17")
        bench.until(lambda: asked(bench) in ([(4, False)], [(2, True), (4, False)]))
        bench.until(lambda: len(bench.client.list(PODS, bench.namespace)["items"]) == 5)
        assert len(bench.client.list(RAYCLUSTERS, bench.namespace)["items"]) == 1
        assert used(bench) == "17"  # not the 26 of both
    finally:
        kueue.kill()
        kueue.run()


def test_stopped_resumed_and_deleted_a_job_gives_quota_and_pods_back(bench: Bench) -> None:
    """Quota within five seconds each time; never two clusters, never more pods than the quota holds."""
    admitting(bench.cluster, bench.namespace, cpu="10")

    def pods() -> int:
        found = len(bench.client.list(PODS, bench.namespace)["items"])
        assert found <= 3
        assert len(bench.client.list(RAYCLUSTERS, bench.namespace)["items"]) <= 1
        return found

    bench.apply(compute={"gpusPerWorker": 0, "workers": 2, "queue": "team"})
    bench.until(lambda: pods() == 3)
    bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": True}})
    bench.until(lambda: used(bench) == "0", 5)
    bench.until(lambda: pods() == 0)
    bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": False}})
    bench.until(lambda: pods() == 3)
    bench.client.delete(JOBS, bench.namespace, "job", uid=bench.job()["metadata"]["uid"])
    bench.until(lambda: used(bench) == "0", 5)
    bench.until(lambda: pods() == 0)
