"""Ten thousand nodes, and a thousand jobs that want GPUs, a third of them in a queue that admits none; beside it the same without nodes.

Nodes are objects that nobody runs, each as large as a cloud's, in ten pools by instance type; jobs name a profile of one of the pools.
Before an attempt the operator looks for nodes of that pool with a bad accelerator, and for a job in a queue at what Kueue has to say:
there are Kueue's definitions and a LocalQueue, and no Kueue. Both clusters stand all the time, and take turns at the jobs: they come at a
rate that two cores' API server keeps up with, or its queue would be all that is measured.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

from bench.operator_load import EVERY
from bench.operator_speed import NAMESPACE, Place, place, since, spread
from gentrain_operator.kube.resource import JOBS, NODES, PROFILES, RAYJOBS, Object, Resource
from tests.cluster.kueue import bare_definition

POOLS, REST = 10, 60  # instance types among the nodes; seconds at rest
PROFILE, QUEUE = "pool-0", "gpus"
LOCAL_QUEUES = Resource("kueue.x-k8s.io", "v1beta1", "localqueues", "LocalQueue")


def nodes(count: int = 10_000, jobs: int = 1_000, rate: float = 3, turns: int = 4) -> list[dict[str, Any]]:
    """Without nodes, and with `count` of them: jobs at `rate` a second in each, in turns."""
    with place() as without, place() as among:
        sides = [Side(without, 0), Side(among, count)]
        for turn in range(turns):
            for side in sides if turn % 2 else reversed(sides):
                side.turn(jobs // turns, rate)
        for side in sides:
            side.check()
        return [{"nodeBytes": len(json.dumps(node(0))), "rate": rate, **side.row()} for side in sides]


class Side:
    """One of the two clusters, and what was measured in it: milliseconds, bytes, seconds of a core."""

    def __init__(self, at: Place, count: int) -> None:
        self.at, self.count = at, count
        prepared(at, count)
        at.load("warm", 20, 2, PROFILE, QUEUE)
        self.base = at.operator.memory()
        self.turns: list[list[float]] = []  # seconds of each job
        self.spent = dict.fromkeys(self._so_far(), 0.0)

    def turn(self, jobs: int, rate: float) -> None:
        before = self._so_far()
        self.turns.append(self.at.load(f"turn{len(self.turns)}", jobs, rate, PROFILE, QUEUE))
        self.spent = {name: self.spent[name] + now - before[name] for name, now in self._so_far().items()}

    def _so_far(self) -> dict[str, float]:
        operator = self.at.operator
        looked = {name: operator.value(f"gentrain_reconcile_seconds_{name}") for name in ("count", "sum")}
        return {"processor": operator.processor(), **looked, "nodeLists": operator.asked("list", "nodes")}

    def check(self) -> None:
        """That those in the queue do wait, and that the node with a bad accelerator was found, or all this measured nothing."""
        for turn, taken in enumerate(self.turns):
            for number in range(len(taken)):
                assert waits(self.at, f"turn{turn}-{number}") == (number % EVERY == 0), f"job {number} of turn {turn}"
            assert avoids(self.at, f"turn{turn}-1-a1") == (self.count > 0), "what the nodes say was not seen"

    def row(self) -> dict[str, Any]:
        queued = [taken[::EVERY] for taken in self.turns]
        others = [[each for number, each in enumerate(taken) if number % EVERY] for taken in self.turns]
        operator, added = self.at.operator, sum(map(len, self.turns))
        row = {
            "nodes": self.count,
            "jobs": added,
            "queued": {**spread([*chain(*queued)]), "turns": [spread(taken) for taken in queued]},
            "others": {**spread([*chain(*others)]), "turns": [spread(taken) for taken in others]},
            "reconcile": 1000 * self.spent["sum"] / self.spent["count"],
            "processor": self.spent["processor"],
            "nodeLists": self.spent["nodeLists"],
            "memory": {"base": self.base, "after": operator.memory(), "peak": operator.memory("VmHWM")},
        }
        before, processor, asked = operator.writes(), operator.processor(), operator.asked("list")
        time.sleep(REST)
        writes, asked = since(before, operator.writes()), operator.asked("list") - asked
        return {**row, "rest": {"seconds": REST, "writes": writes, "lists": asked, "processor": operator.processor() - processor}}


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
