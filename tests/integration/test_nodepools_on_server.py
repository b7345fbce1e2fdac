"""The pods of every kind of node pool on a real API server: KubeRay's definition and the Pod Security levels take them, and Kubernetes' own
scheduler puts workers on nodes with that cloud's labels and taints, and heads elsewhere."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from gentrain_operator import nodepools
from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import PODS, RAYJOBS, Object
from gentrain_operator.rayjob import rayjob
from tests.cluster.at_work import until
from tests.cluster.control_plane import ControlPlane
from tests.operator import pools
from tests.operator.test_rayjob import JOB, spec
from trainjobs.api.profile import ProfileSpec

pytestmark = pytest.mark.slow

LEVELS = ("restricted", "baseline", "privileged")


@pytest.fixture
def client(installed: ControlPlane) -> Iterator[Client]:
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    yield client
    client.close()


def pod(name: str, namespace: str, template: Object) -> Object:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {**template["metadata"], "name": name, "namespace": namespace},
        "spec": template["spec"],
    }


def test_every_pool_at_its_level_and_refused_below(installed: ControlPlane, namespace: str, client: Client) -> None:
    rooms = {level: f"{namespace}-{level}" for level in LEVELS}
    for level, room in rooms.items():
        installed.kubectl("create", "namespace", room)
        installed.kubectl("label", "namespace", room, f"pod-security.kubernetes.io/enforce={level}")
    for row in pools.ROWS:
        made, least = pools.cluster(*row), nodepools.level(pools.profile(*row))
        client.create(RAYJOBS, rooms[least], made, dry_run=True)
        for name, template in pools.templates(made).items():
            client.create(PODS, rooms[least], pod(name, rooms[least], template), dry_run=True)
        if least != "restricted":
            for below in ("restricted", "baseline"):
                worker = pod("worker", rooms[below], pools.templates(made)["worker"])
                with pytest.raises(ApiError, match=f'violates PodSecurity "{below}'):
                    client.create(PODS, rooms[below], worker, dry_run=True)


# What the cloud writes on the nodes of such a pool, from its documentation, and the taints that it or the usual set-up puts there.
SPOT: dict[tuple[str, str], tuple[dict[str, str], list[tuple[str, str]]]] = {
    ("aws", "managed"): (
        {"node.kubernetes.io/instance-type": "p5.48xlarge", "eks.amazonaws.com/capacityType": "SPOT"},
        [("nvidia.com/gpu", "present")],
    ),
    ("aws", "karpenter"): (
        {
            "node.kubernetes.io/instance-type": "p5.48xlarge",
            "karpenter.sh/capacity-type": "spot",
            "karpenter.k8s.aws/instance-gpu-name": "h100",
            "karpenter.k8s.aws/instance-gpu-count": "8",
        },
        [("nvidia.com/gpu", "true")],
    ),
    ("aws", "auto"): (
        {
            "node.kubernetes.io/instance-type": "p5.48xlarge",
            "karpenter.sh/capacity-type": "spot",
            "eks.amazonaws.com/compute-type": "auto",
            "eks.amazonaws.com/instance-gpu-name": "h100",
            "eks.amazonaws.com/instance-gpu-count": "8",
        },
        [("nvidia.com/gpu", "true")],
    ),
    ("gcp", "standard"): (
        {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-spot": "true"},
        [("nvidia.com/gpu", "present"), ("cloud.google.com/gke-spot", "true")],
    ),
    ("gcp", "autopilot"): (
        {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-spot": "true"},
        [("nvidia.com/gpu", "present")],
    ),
    ("gcp", "nap"): (
        {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb", "cloud.google.com/gke-spot": "true"},
        [("nvidia.com/gpu", "present"), ("cloud.google.com/gke-spot", "true")],
    ),
    ("azure", "pool"): (
        {
            "node.kubernetes.io/instance-type": "Standard_ND96isr_H100_v5",
            "kubernetes.azure.com/accelerator": "nvidia",
            "kubernetes.azure.com/priority": "spot",
        },
        [("sku", "gpu"), ("kubernetes.azure.com/scalesetpriority", "spot")],
    ),
    ("azure", "nap"): (
        {
            "node.kubernetes.io/instance-type": "Standard_ND96isr_H100_v5",
            "karpenter.sh/capacity-type": "spot",
            "karpenter.azure.com/sku-gpu-name": "H100",
            "karpenter.azure.com/sku-gpu-count": "8",
        },
        [("nvidia.com/gpu", "true")],
    ),
}


def node(cluster: ControlPlane, name: str, labels: dict[str, str], taints: list[tuple[str, str]], gpus: int) -> None:
    room = {"cpu": "192", "memory": "2000Gi", "pods": "30", **({"nvidia.com/gpu": str(gpus)} if gpus else {})}
    marks: list[Any] = [{"key": key, "value": value, "effect": "NoSchedule"} for key, value in taints]
    body: Object = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}, "spec": {"taints": marks}}
    body["status"] = {"capacity": room, "allocatable": room}
    cluster.kubectl("create", "-f", "-", stdin=json.dumps(body))
    cluster.kubectl("replace", "--subresource=status", "-f", "-", stdin=json.dumps(body))
    cluster.kubectl("taint", "nodes", name, "node.kubernetes.io/not-ready-", check=False)


@pytest.fixture
def clouds(installed: ControlPlane, namespace: str) -> Iterator[dict[str, tuple[str, str]]]:
    """Every cloud's spot GPU node, and one node for anything else; the scheduler at work. By the node's name, its pool."""
    names = {f"{provider}-{pool}-{namespace}": (provider, pool) for provider, pool in SPOT}
    for name, key in names.items():
        node(installed, name, *SPOT[key], gpus=8)
    node(installed, f"plain-{namespace}", {}, [], gpus=0)
    installed.start_scheduler()
    yield names
    installed.stop("kube-scheduler")
    installed.kubectl("delete", "node", f"plain-{namespace}", *names)


def test_workers_land_on_their_pool_and_heads_off_it(
    installed: ControlPlane, namespace: str, client: Client, clouds: dict[str, tuple[str, str]]
) -> None:
    """Nodes of GKE's three kinds of pool are told apart by nothing: a worker of one may land on another's."""
    installed.kubectl("create", "configmap", "job", "-n", namespace)
    for number, (provider, pool) in enumerate(SPOT):
        made = pools.templates(pools.cluster(provider, pool, "spot", "none", gpus=2))
        for name, template in made.items():
            client.create(PODS, namespace, pod(f"{name}-{number}", namespace, template))
    bare = pools.templates(
        rayjob(JOB, spec(compute={"workers": 1, "gpusPerWorker": 2}), ProfileSpec.model_validate({"accelerator": {"perNode": 8}}), 1, "i")
    )
    client.create(PODS, namespace, pod("bare", namespace, bare["worker"]))

    def placed() -> dict[str, str] | None:
        found = {one["metadata"]["name"]: one["spec"].get("nodeName", "") for one in client.list(PODS, namespace)["items"]}
        return found if all(where or name == "bare" for name, where in found.items()) else None

    found = until(placed, said=lambda: installed.kubectl("get", "pods", "-n", namespace, "-o", "wide").stdout)
    for number, (provider, pool) in enumerate(SPOT):
        assert found[f"head-{number}"] == f"plain-{namespace}", (provider, pool)
        there = clouds[found[f"worker-{number}"]]
        assert there == (provider, pool) or (there[0], provider) == ("gcp", "gcp"), (provider, pool)

    def told() -> str:
        conditions = client.get(PODS, namespace, "bare")["status"].get("conditions") or ()
        return next((one["message"] for one in conditions if one.get("reason") == "Unschedulable"), "")

    assert "untolerated taint" in until(told), "without the pool a worker finds no node"
