"""Jobs in queues, with the real Kueue on a real API server; KubeRay is the stand-in, which does what `suspend` says."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import JOBS, RAYJOBS, Object
from tests.cluster.at_work import Bench, Driver, over_cluster, report
from tests.cluster.binaries import Unavailable
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kueue import WORKLOADS, admitting, queueing, used

pytestmark = pytest.mark.slow
bench = over_cluster


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, say: Callable[[str], None], kuberay_crds: str) -> Iterator[ControlPlane]:
    """A control plane of this module's own, with Kueue: what it leaves behind is nobody else's business."""
    with contextlib.ExitStack() as stack:
        try:
            running, _ = stack.enter_context(queueing(tmp_path_factory.mktemp("kueue"), kuberay_crds, say))
        except Unavailable as reason:
            pytest.skip(str(reason))
        yield running


def rayjob(bench: Bench, name: str) -> Object:
    return bench.client.get(RAYJOBS, bench.namespace, name)


def suspended(bench: Bench, name: str) -> bool:
    return bool(rayjob(bench, name)["spec"].get("suspend"))


def quota(bench: Bench, name: str = "job") -> tuple[str, str]:
    """Reason and message of QuotaReserved."""
    conditions = bench.status(name).get("conditions", ())
    return next(((one["reason"], one["message"]) for one in conditions if one["type"] == "QuotaReserved"), ("", ""))


def compute(**more: Any) -> Object:
    return {"gpusPerWorker": 0, "workers": 2, **more}


def test_who_suspends_a_rayjob_with_a_queue_is_kueue(bench: Bench) -> None:
    """A LocalQueue called `default` takes jobs that name none. With the quota used up Kueue holds the RayJob, and nobody lets it go."""
    admitting(bench.cluster, bench.namespace, cpu="1", name="default")
    bench.apply()
    bench.until(lambda: quota(bench)[0] == "ExceedsQuota", 60)
    assert quota(bench)[1].startswith("GTJ0203 queue default can never admit the job: ")
    assert "insufficient quota for cpu" in quota(bench)[1]
    assert "> maximum capacity (1)" in quota(bench)[1]
    before = rayjob(bench, "job-a1")["metadata"]["generation"]
    for _ in range(5):  # each look at it could let it go
        bench.client.merge(JOBS, bench.namespace, "job", {"metadata": {"annotations": {"look": str(_)}}})
        bench.until(lambda: bench.status()["phase"] == "Queued")
    found = rayjob(bench, "job-a1")
    assert found["spec"]["suspend"] is True
    assert found["metadata"]["generation"] == before
    assert list(bench.kuberay.rayjobs()) == ["job-a1"]


def test_a_second_job_waits_for_the_quota_of_the_first_and_says_so(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10")  # a head and two workers take nine
    bench.apply("first", compute=compute(queue="team"))
    bench.until(lambda: not suspended(bench, "first-a1"))
    bench.running("first")
    bench.apply("second", compute=compute(queue="team"))
    assert "insufficient unused quota for cpu" in bench.until(
        lambda: "unused" in quota(bench, "second")[1] and quota(bench, "second")[1], 60
    )
    assert bench.status("second")["phase"] == "Queued"
    bench.kuberay.succeed("first-a1")
    bench.until(lambda: not suspended(bench, "second-a1"))
    bench.running("second")
    bench.phase("Starting", "second")
    assert quota(bench, "second")[0] == "Admitted"


def test_an_eviction_is_called_that_and_waiting_again_is_not(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10")
    bench.apply(compute=compute(queue="team"))
    bench.until(lambda: not suspended(bench, "job-a1"))
    bench.driver.report = report(5)
    bench.running()
    bench.phase("Running")
    both = f"{bench.namespace}-team"
    stop = ("patch", "clusterqueue", both, "--type=merge", "-p")
    bench.cluster.kubectl(*stop, json.dumps({"spec": {"stopPolicy": "HoldAndDrain"}}))
    bench.until(lambda: suspended(bench, "job-a1"))
    bench.kuberay.suspend("job-a1")
    assert bench.until(lambda: quota(bench) if quota(bench)[0] == "Preempted" else None)[1].startswith(
        "queue team has taken the quota back"
    )
    assert bench.status()["progress"]["step"] == 5
    # Stopped by its user and resumed, it waits in the queue like any other.
    bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": True}})
    bench.until(lambda: not bench.kuberay.rayjobs())
    bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": False}})
    bench.rayjob("job-a2")
    bench.until(lambda: quota(bench)[0] == "WaitingForQuota")
    bench.cluster.kubectl(*stop, json.dumps({"spec": {"stopPolicy": "None"}}))
    bench.until(lambda: not suspended(bench, "job-a2"))


def test_a_misspelt_queue_is_named_and_a_queue_stays_where_it_began(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10")
    bench.apply(compute=compute(queue="taem"))
    bench.until(lambda: quota(bench)[0] == "QueueNotFound")
    assert quota(bench)[1] == "GTJ0111 there is no LocalQueue taem in this namespace; did you mean team?"
    for change in ({"queue": None}, {"queue": "team"}):
        with pytest.raises(ApiError, match=r"spec\.compute\.queue cannot change once the job has started"):
            bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"compute": change}})
    admitting(bench.cluster, bench.namespace, cpu="10", name="taem")
    bench.until(lambda: not suspended(bench, "job-a1"), 60)


def workload(bench: Bench) -> Object | None:
    found = bench.client.list(WORKLOADS, bench.namespace)["items"]
    return found[0] if found else None


def test_priority_and_topology_reach_the_workload_and_a_stopped_queue_says_so(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10")
    urgent = {"apiVersion": "kueue.x-k8s.io/v1beta2", "kind": "WorkloadPriorityClass", "metadata": {"name": bench.namespace}, "value": 77}
    bench.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(urgent))
    both = f"{bench.namespace}-team"
    bench.cluster.kubectl("patch", "clusterqueue", both, "--type=merge", "-p", json.dumps({"spec": {"stopPolicy": "Hold"}}))
    level = "cloud.google.com/gce-topology-block"
    bench.apply(compute=compute(queue="team", priorityClass=bench.namespace, topology={"required": level}))
    made = bench.until(lambda: workload(bench))
    assert made["spec"]["priority"] == 77
    asked = {one["name"]: (one.get("topologyRequest") or {}).get("required") for one in made["spec"]["podSets"]}
    assert asked == {"head": None, "workers": level}
    bench.until(lambda: quota(bench)[0] == "QueueStopped", 60)
    assert quota(bench)[1].startswith("GTJ0203 queue team admits nothing now: ")


def test_a_priority_class_that_is_not_there_is_asked_about(bench: Bench) -> None:
    admitting(bench.cluster, bench.namespace, cpu="10")
    bench.apply(compute=compute(queue="team", priorityClass="urgnet"))
    bench.until(lambda: "is there a WorkloadPriorityClass urgnet (compute.priorityClass)?" in quota(bench)[1], 60)


def starting(bench: Bench) -> None:
    """A job whose queue has let it go, and whose cluster is there."""
    admitting(bench.cluster, bench.namespace, cpu="10")
    bench.apply(compute=compute(queue="team"))
    bench.until(lambda: not suspended(bench, "job-a1"))
    bench.running()
    bench.phase("Starting")


def test_stopped_resumed_and_deleted_a_job_gives_its_quota_back(bench: Bench) -> None:
    """Within five seconds each time, and a resumed job asks for it anew."""
    starting(bench)
    bench.until(lambda: used(bench) == "9")
    bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": True}})
    bench.until(lambda: used(bench) == "0", 5)
    bench.kuberay.clean_up("job-a1")
    bench.client.merge(JOBS, bench.namespace, "job", {"spec": {"suspend": False}})
    bench.rayjob("job-a2")
    bench.until(lambda: used(bench) == "9")
    bench.running(attempt=2)
    bench.client.delete(JOBS, bench.namespace, "job", uid=bench.job()["metadata"]["uid"])
    bench.until(lambda: used(bench) == "0", 5)


def test_a_retry_waits_for_quota_and_is_not_called_preemption(bench: Bench) -> None:
    """The queue holds new jobs when the attempt fails, so that the next one waits: nobody has evicted it."""
    starting(bench)
    hold = ("patch", "clusterqueue", f"{bench.namespace}-team", "--type=merge", "-p")
    bench.cluster.kubectl(*hold, json.dumps({"spec": {"stopPolicy": "Hold"}}))
    bench.kuberay.fail("job-a1", "Traceback")
    bench.rayjob("job-a2")
    bench.until(lambda: quota(bench)[0] == "QueueStopped", 60)
    assert "Preempted" not in {one["reason"] for one in bench.status()["conditions"]}
    bench.cluster.kubectl(*hold, json.dumps({"spec": {"stopPolicy": "None"}}))
    bench.until(lambda: not suspended(bench, "job-a2"))


SHIPPED = Path(__file__).parents[2] / "manifests" / "queues"


def test_the_queues_that_ship_admit_and_pin_no_head_to_gpus(cluster: ControlPlane, driver: Driver) -> None:
    for team in ("team-a", "team-b"):
        cluster.kubectl("create", "namespace", team)
    cluster.kubectl("apply", "--server-side", "--validate=strict", "-f", str(SHIPPED))
    for team in ("team-a", "team-b"):
        cluster.kubectl("-n", team, "wait", "--for=condition=Active", "localqueue/training", "--timeout=60s")
    profile = {"accelerator": {"perNode": 4}, "node": {"cpu": "44", "memory": "160Gi"}}
    made = {"apiVersion": JOBS.api_version, "kind": "ComputeProfile", "metadata": {"name": "four"}, "spec": profile}
    cluster.kubectl("apply", "-f", "-", stdin=json.dumps(made))
    with contextlib.ExitStack() as stack:
        bench = Bench(cluster, "team-a", driver)
        stack.callback(bench.stop)
        # Sixteen GPUs: eight more than its own, which the other team lends.
        bench.apply(compute={"workers": 4, "gpusPerWorker": 4, "profiles": ["four"], "queue": "training", "priorityClass": "high"})
        bench.until(lambda: quota(bench)[0] == "Admitted", 60)
        found = workload(bench)
        assert found is not None
        assert found["spec"]["priority"] == 1000
        given = {one["name"]: set(one["flavors"].values()) for one in found["status"]["admission"]["podSetAssignments"]}
        assert given == {"head": {"cpu"}, "workers": {"gpu"}}
        made = rayjob(bench, "job-a1")["spec"]["rayClusterSpec"]
        for template in (made["headGroupSpec"]["template"], made["workerGroupSpecs"][0]["template"]):
            assert not template["spec"].get("nodeSelector"), "a flavor has put a label of nodes there"
        # Eight more do not fit now, and wait; a job without GPUs does not wait behind them.
        bench.apply("second", compute={"workers": 2, "gpusPerWorker": 4, "profiles": ["four"], "queue": "training", "priorityClass": "low"})
        bench.until(lambda: "nvidia.com/gpu" in quota(bench, "second")[1], 60)
        bench.apply("plain", compute=compute(queue="training", priorityClass="low"))
        bench.until(lambda: quota(bench, "plain")[0] == "Admitted", 60)
        # With a topology, workers get nodes whose places are known, and the head still none of them.
        standing(cluster, "near-1")
        near = {"required": "topology.kubernetes.io/zone"}
        bench.apply("near", compute={"workers": 2, "gpusPerWorker": 4, "profiles": ["four"], "queue": "training", "topology": near})
        bench.until(lambda: quota(bench, "near")[0] == "Admitted", 60)
        placed = {
            one["name"]: (set(one["flavors"].values()), "topologyAssignment" in one)
            for made in bench.client.list(WORKLOADS, "team-a")["items"]
            if "near" in made["metadata"]["name"]
            for one in made["status"]["admission"]["podSetAssignments"]
        }
        assert placed == {"head": ({"cpu"}, False), "workers": ({"gpu-near"}, True)}
        # What was borrowed goes back to its owner when the owner needs it, whatever the priorities.
        owner = Bench(cluster, "team-b", driver)
        stack.callback(owner.stop)
        owner.apply("mine", compute={"workers": 2, "gpusPerWorker": 4, "profiles": ["four"], "queue": "training", "priorityClass": "low"})
        bench.until(lambda: suspended(bench, "job-a1"), 60)
        bench.kuberay.suspend("job-a1")
        owner.until(lambda: quota(owner, "mine")[0] == "Admitted", 60)


def standing(cluster: ControlPlane, name: str) -> None:
    """A node with eight GPUs of those that the shipped topology knows."""
    room = {"cpu": "96", "memory": "400Gi", "pods": "30", "nvidia.com/gpu": "8"}
    labels = {"gentrain.dev/pool": "gpu-near", "topology.kubernetes.io/zone": "a", "kubernetes.io/hostname": name}
    ready = [{"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""}]
    node: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}}
    node["status"] = {"capacity": room, "allocatable": room, "conditions": ready}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(node))
    cluster.kubectl("replace", "--subresource=status", "-f", "-", stdin=json.dumps(node))
    cluster.kubectl("taint", "nodes", name, "node.kubernetes.io/not-ready-", check=False)
