"""The same with the real KubeRay beside the real Kueue: whoever lets a RayJob go that Kueue holds starts a cluster each time."""

from __future__ import annotations

import contextlib
import datetime
import json
import re
import threading
from collections.abc import Callable, Iterator

import pytest

from gentrain_operator.kube.resource import JOBS, PODS, RAYCLUSTERS, RAYJOBS
from gentrain_operator.times import parsed_time
from tests.cluster.at_work import Bench, Driver
from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane, control_plane
from tests.cluster.faulty import Fault, First, Request, faulty
from tests.cluster.kueue import Kueue, RayOperator, admitting
from trainjobs.api import crd

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None]) -> Iterator[tuple[ControlPlane, Kueue]]:
    """A control plane of this module's own, with Kueue, and KubeRay of the version that Kueue is built with."""
    with contextlib.ExitStack() as stack:
        try:
            running = stack.enter_context(control_plane(tmp_path_factory.mktemp("kuberay"), say))
            kuberay, kueue = RayOperator(running, say), Kueue(running, say)
        except Unavailable as reason:
            pytest.skip(str(reason))
        running.kubectl("apply", "--server-side", "-f", str(kuberay.definitions))
        for definition in crd.definitions().values():
            running.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
        running.wait_for_kinds("gentrain.dev", 2)
        running.wait_for_kinds("ray.io", 3)
        stack.callback(kueue.stop)
        kueue.start()
        stack.callback(kuberay.stop)
        kuberay.start()
        running.start_controller_manager()
        yield running, kueue


@pytest.fixture(scope="module")
def cluster(parts: tuple[ControlPlane, Kueue]) -> ControlPlane:
    return parts[0]


@pytest.fixture
def bench(cluster: ControlPlane, namespace: str, driver: Driver) -> Iterator[Bench]:
    running = Bench(cluster, namespace, driver)
    yield running
    running.stop()


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


def pods(bench: Bench, *, gated: bool = False) -> int:
    """Of this namespace, those that go on; without those that Kueue holds back."""
    found = [one for one in bench.client.list(PODS, bench.namespace)["items"] if not one["metadata"].get("deletionTimestamp")]
    return sum(1 for one in found if gated or not one["spec"].get("schedulingGates"))


def resized(bench: Bench, workers: int) -> None:
    """What Ray's autoscaler does once it runs in the head."""
    found = bench.client.list(RAYCLUSTERS, bench.namespace)["items"][0]
    group = {**found["spec"]["workerGroupSpecs"][0], "replicas": workers}
    bench.client.merge(RAYCLUSTERS, bench.namespace, found["metadata"]["name"], {"spec": {"workerGroupSpecs": [group]}})


def test_an_elastic_job_is_refused_without_kueues_gate_and_follows_its_quota_with_it(
    bench: Bench, parts: tuple[ControlPlane, Kueue]
) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10")  # a head and two workers take nine
    training = {"steps": 100, "batch": {"global": 12}}
    bench.apply(training=training, compute={"gpusPerWorker": 0, "workers": "1-3", "queue": "team", "queueElastic": True})
    bench.until(lambda: bench.reason("Accepted") == "AdmissionDenied")
    told = next(one["message"] for one in bench.status()["conditions"] if one["type"] == "Accepted")
    assert "GTJ0305" in told
    assert "workload slicing" in told
    assert bench.client.list(RAYJOBS, bench.namespace)["items"] == []
    kueue = parts[1]
    kueue.kill()
    kueue.run("ElasticJobsViaWorkloadSlices")
    try:
        bench.until(lambda: pods(bench) == 2)  # the head and the smallest group, as soon as it is tried again
        resized(bench, 2)
        bench.until(lambda: pods(bench) == 3)
        resized(bench, 3)
        bench.until(lambda: pods(bench, gated=True) == 4)
        assert pods(bench) == 3, "a worker beyond the quota has not been held back"
        resized(bench, 1)
        bench.until(lambda: pods(bench, gated=True) == 2)
    finally:
        kueue.kill()
        kueue.run()


def test_kueue_killed_at_every_write_of_the_operator_leaves_one_cluster_within_the_quota(
    cluster: ControlPlane, parts: tuple[ControlPlane, Kueue], namespace: str, driver: Driver
) -> None:
    """What KubeRay and Kueue had under way goes on from what they wrote; a RayJob that Kueue's webhook cannot answer for is tried again."""
    admitting(cluster, namespace, cpu="10")  # a head and two workers take nine
    kueue, lock, killed = parts[1], threading.Lock(), list[str]()
    down = threading.Event()

    def kill() -> None:
        with lock:
            kueue.kill()
            down.set()

    def script(request: Request) -> Fault | None:
        write = request.method != "GET" and not re.search("/(leases|events)", request.path)
        if not write or (request.method == "POST" and request.count > 1):  # the try that comes after a refusal finds a Kueue
            return None
        killed.append(f"{request.method} {request.path.rpartition(namespace)[2]}")
        return First(kill)

    def steady(bench: Bench) -> None:
        """Looks at all that holds at any time, and brings Kueue back."""
        found = bench.client.list(RAYCLUSTERS, namespace)["items"]
        jobs = [one["metadata"]["labels"]["gentrain.dev/job"] for one in found if not one["metadata"].get("deletionTimestamp")]
        assert len(jobs) == len({*jobs}), "two clusters of one job"
        let_go = [one for one in bench.client.list(RAYJOBS, namespace)["items"] if not one["spec"].get("suspend")]
        assert len(let_go) <= 1, "both jobs have the quota of one"
        if down.is_set():
            with lock:
                down.clear()
                kueue.run()

    with faulty(cluster) as proxy:
        proxy.script = script
        bench = Bench(cluster, namespace, driver, proxy.kubeconfig("kueue-killed"))
        try:
            bench.apply("first", compute={"gpusPerWorker": 0, "workers": 2, "queue": "team"})
            bench.until(lambda: (steady(bench), pods(bench) == 3)[1], 180)
            bench.apply("second", compute={"gpusPerWorker": 0, "workers": 2, "queue": "team"})
            bench.until(lambda: (steady(bench), bench.status("second").get("phase") == "Queued")[1], 180)
            bench.client.merge(JOBS, namespace, "first", {"spec": {"suspend": True}})
            bench.until(lambda: (steady(bench), bench.status("first").get("phase") == "Suspended")[1], 180)
            bench.until(lambda: (steady(bench), cluster_of(bench) == "second" and pods(bench) == 3)[1], 180)
        finally:
            proxy.script = lambda request: None
            bench.stop()
            if down.is_set():
                kueue.run()
    assert {"POST /rayjobs", "POST /configmaps"} <= {*killed}
    assert any("DELETE" in one for one in killed)
    assert any("status" in one for one in killed)


def cluster_of(bench: Bench) -> str:
    found = bench.client.list(RAYCLUSTERS, bench.namespace)["items"]
    return str(found[0]["metadata"]["labels"]["gentrain.dev/job"]) if len(found) == 1 else ""
