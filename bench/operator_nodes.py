"""Ten thousand nodes, and a thousand jobs that want GPUs, a third of them in a queue that admits none; beside it the same without nodes.

Nodes are objects that nobody runs, each as large as a cloud's, in ten pools by instance type; jobs name a profile of one of the pools.
Before an attempt the operator looks for nodes of that pool with a bad accelerator, and for a job in a queue at what Kueue has to say:
there are Kueue's definitions and a LocalQueue, and no Kueue.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from bench.operator_load import EVERY
from bench.operator_speed import NAMESPACE, Place, place, since, spread
from gentrain_operator.kube.resource import JOBS, NODES, PROFILES, RAYJOBS, Object, Resource
from tests.cluster.kueue import bare_definition

POOLS, REST = 10, 30  # instance types among the nodes; seconds at rest
PROFILE, QUEUE = "pool-0", "gpus"
LOCAL_QUEUES = Resource("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue")


def nodes(count: int = 10_000, jobs: int = 1_000) -> list[dict[str, Any]]:
    """Without nodes, and with `count` of them."""
    return [measured(0, jobs), measured(count, jobs)]


def measured(count: int, jobs: int) -> dict[str, Any]:
    """Latency in milliseconds of jobs that wait in a queue and of those that do not, at 50 a second; bytes; seconds of a core."""
    with place() as at:
        prepared(at, count)
        at.load("warm", 20, 10, PROFILE, QUEUE)
        memory = at.operator.memory()
        processor, looked, spent = at.operator.processor(), *reconciled(at)
        taken = at.load("job", jobs, 50, PROFILE, QUEUE)
        looks, seconds = reconciled(at)
        loaded = at.operator.processor() - processor
        row = {
            "nodes": count,
            "nodeBytes": len(json.dumps(node(0))),
            "jobs": jobs,
            "queued": spread(taken[::EVERY]),
            "others": spread([each for number, each in enumerate(taken) if number % EVERY]),
            "reconcile": 1000 * (seconds - spent) / (looks - looked),
            "processor": loaded,
            "memory": {"base": memory, "after": at.operator.memory(), "peak": at.operator.memory("VmHWM")},
        }
        # That they do wait, and that the node with a bad accelerator was found, or all this measured nothing.
        waiting = [waits(at, f"job-{number}") for number in range(jobs)]
        assert waiting == [number % EVERY == 0 for number in range(jobs)], f"{sum(waiting)} of {jobs} jobs wait in the queue"
        assert avoids(at, "job-1-a1") == (count > 0), "what the nodes say was not seen"
        before, processor = at.operator.writes(), at.operator.processor()
        time.sleep(REST)
        row["rest"] = {"seconds": REST, "writes": since(before, at.operator.writes()), "processor": at.operator.processor() - processor}
        return row


def prepared(at: Place, count: int) -> None:
    """The cluster's nodes, the profile of a pool, and the queue."""
    for plural, kind in (("localqueues", "LocalQueue"), ("workloads", "Workload")):
        at.cluster.kubectl("apply", "-f", "-", stdin=json.dumps(bare_definition(plural, kind)))
    at.cluster.wait_for_kinds("kueue.x-k8s.io", 2)
    queue = {"apiVersion": LOCAL_QUEUES.api_version, "kind": LOCAL_QUEUES.kind, "metadata": {"name": QUEUE}, "spec": {}}
    at.client.create(LOCAL_QUEUES, NAMESPACE, queue)
    spec = {
        "provider": "aws",
        "accelerator": {"type": "a10g-24gb", "perNode": 4},
        "node": {"cpu": "46", "memory": "168Gi", "sharedMemory": "16Gi"},
        "selector": {"node.kubernetes.io/instance-type": instance(0)},
    }
    at.client.create(
        PROFILES, None, {"apiVersion": PROFILES.api_version, "kind": PROFILES.kind, "metadata": {"name": PROFILE}, "spec": spec}
    )
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: at.client.create(NODES, None, node(number)), range(count)))


def instance(pool: int) -> str:
    return f"g5.{pool}xlarge"


def node(number: int) -> Object:
    """About as large as a cloud's: its labels, conditions and fifty images. The first one of all has a bad accelerator."""
    conditions = [
        {"type": kind, "status": "False", "reason": f"KubeletHas{kind}", "message": f"kubelet has nothing to say about {kind} today"}
        for kind in ("MemoryPressure", "DiskPressure", "PIDPressure")
    ]
    conditions += [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "kubelet is posting ready status"},
        {"type": "AcceleratedHardwareReady", "status": str(number > 0), "reason": "Watched", "message": "what the agent has seen"},
    ]
    registry = "602401143452.dkr.ecr.us-west-2.amazonaws.com"
    images = [{"names": [f"{registry}/image-{at}@sha256:{at:064x}", f"{registry}/image-{at}:v1"], "sizeBytes": at} for at in range(50)]
    labels = {
        "kubernetes.io/hostname": f"node-{number}",
        "kubernetes.io/arch": "amd64",
        "kubernetes.io/os": "linux",
        "node.kubernetes.io/instance-type": instance(number % POOLS),
        "topology.kubernetes.io/region": "us-west-2",
        "topology.kubernetes.io/zone": f"us-west-2{'abc'[number % 3]}",
    }
    capacity = {"cpu": "48", "memory": "196608Mi", "pods": "234", "nvidia.com/gpu": "4", "ephemeral-storage": "838810Mi"}
    status = {"capacity": capacity, "allocatable": capacity, "conditions": conditions, "images": images}
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": f"node-{number}", "labels": labels}, "status": status}


def waits(at: Place, name: str) -> bool:
    """Whether the job is said to wait for its queue's quota."""
    conditions = at.client.get(JOBS, NAMESPACE, name)["status"]["conditions"]
    return any(one["type"] == "QuotaReserved" and one["reason"] == "WaitingForQuota" for one in conditions)


def avoids(at: Place, name: str) -> bool:
    """Whether the RayJob's workers are kept off the first node of all."""
    return '"node-0"' in json.dumps(at.client.get(RAYJOBS, NAMESPACE, name)["spec"])


def reconciled(at: Place) -> tuple[float, float]:
    """How many reconciles so far, and their seconds."""
    return at.operator.value("gentrain_reconcile_seconds_count"), at.operator.value("gentrain_reconcile_seconds_sum")
