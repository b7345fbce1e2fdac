"""Profiles of every kind of node pool, and what the pods of a job on them look like."""

from __future__ import annotations

from typing import Any

from gentrain_operator.kube.resource import Object
from gentrain_operator.rayjob import rayjob
from tests.operator.test_rayjob import JOB, spec
from trainjobs.api.parse import parse_profile
from trainjobs.api.pools import POOLS
from trainjobs.api.profile import ProfileSpec

# What else a profile of the pool says: GPUs of one kind, eight of them on a node.
NODES: dict[str, dict[str, Any]] = {
    "aws": {"node": {"instanceType": "p5.48xlarge", "cpu": "180", "memory": "1800Gi"}},
    "gcp": {"node": {"cpu": "200", "memory": "1800Gi"}},
    "azure": {"node": {"instanceType": "Standard_ND96isr_H100_v5", "cpu": "90", "memory": "1700Gi"}},
}
FABRICS: dict[str, dict[str, Any]] = {
    "efa-dra": {"claimTemplate": "efa"},
    "dranet": {"claimTemplate": "rdma"},
    "tcpx": {"networks": [f"vpc{number}" for number in range(1, 5)], "fabricImage": "gpudirect-tcpx/tcpgpudmarxd-dev:v2.0.12"},
    "tcpxo": {
        "networks": [f"vpc{number}" for number in range(1, 9)],
        "fabricImage": "gpudirect-tcpxo/tcpgpudmarxd-dev:v1.0.21",
        "accelerator": {"type": "h100-mega-80gb", "perNode": 8},
    },
    "gke-rdma": {"networks": ["gvnic-1", *(f"rdma-{number}" for number in range(8))]},
}


def written(provider: str, pool: str, capacity: str, fabric: str) -> dict[str, Any]:
    """The spec of a profile of such a pool, as a platform team writes it."""
    notice = POOLS[provider, pool].notice
    return {
        "provider": provider,
        "pool": pool,
        "capacity": capacity,
        "fabric": fabric,
        "accelerator": {"type": "h100-80gb", "perNode": 8},
        "gracePeriodSeconds": min(120, notice) if capacity == "spot" else 120,
        **NODES[provider],
        **FABRICS.get(fabric, {}),
        **({"selector": {"cloud.google.com/reservation-name": "ours"}} if (provider, capacity) == ("gcp", "reserved") else {}),
    }


def profile(provider: str, pool: str, capacity: str, fabric: str) -> ProfileSpec:
    """The same, through the reading of manifests."""
    spec = written(provider, pool, capacity, fabric)
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "metadata": {"name": "pool"}, "spec": spec}
    read, problems = parse_profile(manifest)
    assert read is not None, problems
    assert not problems, problems
    return read.spec


ROWS = [
    (provider, pool, capacity, fabric)
    for (provider, pool), known in POOLS.items()
    for capacity in known.capacities
    for fabric in known.fabrics
    if fabric == "none" or capacity == known.capacities[0]  # a fabric's part is the same whatever the nodes cost
]


def cluster(provider: str, pool: str, capacity: str, fabric: str, gpus: int = 8) -> Object:
    """The RayJob of a job of two workers on such a pool."""
    return rayjob(JOB, spec(compute={"workers": 2, "gpusPerWorker": gpus}), profile(provider, pool, capacity, fabric), 1, "trainer:1")


def templates(made: Object) -> dict[str, Object]:
    inner = made["spec"]["rayClusterSpec"]
    return {"head": inner["headGroupSpec"]["template"], "worker": inner["workerGroupSpecs"][0]["template"]}


def told(template: Object) -> Object:
    """What a node pool decides of a pod; the rest is that of every pod."""
    body, container = template["spec"], template["spec"]["containers"][0]
    places = {one["name"]: one["hostPath"]["path"] for one in body["volumes"] if "hostPath" in one}
    found: Object = {
        "labels": {key: value for key, value in template["metadata"]["labels"].items() if not key.startswith(("gentrain.dev", "app."))},
        "annotations": template["metadata"]["annotations"],
        "nodeSelector": body.get("nodeSelector", {}),
        "affinity": body.get("affinity", {}),
        "tolerations": body.get("tolerations", []),
        "limits": container["resources"]["limits"],
        "claims": body.get("resourceClaims", []),
        "capabilities": container["securityContext"]["capabilities"],
        "env": {one["name"]: one["value"] for one in container["env"] if one["name"].startswith(("FI_", "NCCL_", "LD_", "GENTRAIN_NCCL"))},
        "sidecars": body.get("initContainers", []),
        "hostPaths": {one["mountPath"]: places[one["name"]] for one in container["volumeMounts"] if one["name"] in places},
    }
    return {key: value for key, value in found.items() if value}
