"""A cluster whose nodes come and go: the real Karpenter with its provider for kwok, and the real kwok, which plays the kubelets, as
ordinary processes beside a control plane. No root, no containers.

Karpenter is told of the clouds' instance types by a file: those of trainjobs/plan/catalogue.json, at their prices and with the labels that
the cloud's own provider writes on their nodes. What is sold out in one zone is to be had in another, and what is left out of the file is
sold out everywhere; a NodePool's limits are a quota. Both programs come from the Go module proxy, as Kueue does (kueue.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml

from gentrain_operator.nodepools import GKE, KARPENTER_AWS, KARPENTER_AZURE
from tests.cluster.control_plane import ControlPlane, free_ports
from tests.cluster.kueue import provide
from tests.cluster.program import Program
from trainjobs.plan import catalogue

Capacity = Literal["spot", "on-demand"]
SHARES: dict[Capacity, float] = {"spot": 0.4, "on-demand": 1.0}  # of the price on demand
ZONE, ELSEWHERE, AT, REGION = "zone-a", "zone-b", "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
# What tells nodes with GPUs from others: which GPU, on EKS, AKS and GKE; and, of all nodes, EKS' and AKS' kinds.
NAMES = ("karpenter.k8s.aws/instance-gpu-name", "karpenter.azure.com/sku-gpu-name", "cloud.google.com/gke-accelerator")
GKE_SPOT = "cloud.google.com/gke-spot"
CATEGORY, FAMILY = "karpenter.k8s.aws/instance-category", "karpenter.azure.com/sku-family"


def offered(provider: str, name: str, *capacities: Capacity) -> dict[str, Any]:
    """An instance type of the catalogue as Karpenter's kwok provider reads it: what of it is to be had in ZONE. Elsewhere all is, and here
    what others have reserved: Karpenter tells a type that is sold out from one that the zone does not have.

    What the catalogue does not know of a type, CPUs and memory, is enough for any of its workers."""
    node = catalogue.nodes()[name]
    labels = {"aws": _aws, "azure": _azure, "gcp": _gke}[provider](node.gpu, node.gpus)
    region, price = next((region, float(price)) for region, price in node.prices.items())
    room = {"cpu": node.cpu or "96", "memory": node.memory or "600Gi", "ephemeral-storage": "500Gi", "nvidia.com/gpu": str(node.gpus)}
    offers = [(one, zone, price * SHARES[one]) for one in SHARES for zone in ((ZONE, ELSEWHERE) if one in capacities else (ELSEWHERE,))]
    offers.append(("reserved", ZONE, price))
    return _type(name, room, offers, {**labels, REGION: region})


def plain(name: str = "m7i.4xlarge") -> dict[str, Any]:
    """One for heads, without GPUs, on demand, that every cloud's pool for them takes."""
    aws = {CATEGORY: "m", "karpenter.k8s.aws/instance-generation": "7"}
    azure = {FAMILY: "D", "karpenter.azure.com/sku-version": "5"}
    room = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "100Gi"}
    return _type(name, room, [("on-demand", ZONE, 0.8)], {**aws, **azure}, without=NAMES)


def _aws(gpu: str, count: int) -> dict[str, str]:
    return {NAMES[0]: KARPENTER_AWS[gpu], "karpenter.k8s.aws/instance-gpu-count": str(count), CATEGORY: "g"}


def _azure(gpu: str, count: int) -> dict[str, str]:
    return {NAMES[1]: KARPENTER_AZURE[gpu], "karpenter.azure.com/sku-gpu-count": str(count), FAMILY: "N"}


def _gke(gpu: str, count: int) -> dict[str, str]:
    return {NAMES[2]: GKE[gpu], CATEGORY: "g"}


def _type(
    name: str, room: dict[str, str], offers: list[tuple[str, str, float]], labels: dict[str, str], without: tuple[str, ...] = ()
) -> dict[str, Any]:
    """`offers`: capacity, zone, price. `without`: labels that it does not have: where nothing is said, Karpenter takes any value for
    possible."""
    offerings = []
    for capacity, zone, price in offers:
        told = {"karpenter.sh/capacity-type": capacity, AT: zone, **labels}
        lacking = without
        if NAMES[2] in labels and capacity == "spot":
            told[GKE_SPOT] = "true"
        elif NAMES[2] in labels:
            lacking = (*without, GKE_SPOT)
        required: list[dict[str, Any]] = [{"key": key, "operator": "In", "values": [value]} for key, value in told.items()]
        required += [{"key": key, "operator": "DoesNotExist"} for key in lacking]
        offerings.append({"Price": price, "Available": True, "Requirements": required})
    return {"name": name, "architecture": "amd64", "operatingSystems": ["linux"], "resources": room, "offerings": offerings}


def pools(folder: Path, *, gpus: str | None = None) -> list[dict[str, Any]]:
    """The NodePools of manifests/nodepools, of nodes that kwok plays and that go as soon as they are empty. `gpus` is another limit.

    GKE has no Karpenter: its pools are those of EKS with the labels and taints of nodes that GKE makes."""
    google = not (folder / "nodepools.yaml").exists()
    found = []
    for pool in yaml.safe_load_all(((folder.parent / "eks-karpenter" if google else folder) / "nodepools.yaml").read_text()):
        spec = pool["spec"]
        spec["disruption"]["consolidateAfter"] = "0s"
        spec["template"]["spec"]["nodeClassRef"] = {"group": "karpenter.kwok.sh", "kind": "KWOKNodeClass", "name": "default"}
        if gpus is not None and "nvidia.com/gpu" in spec["limits"]:
            spec["limits"]["nvidia.com/gpu"] = gpus
        if google:
            _as_on_gke(spec["template"]["spec"])
        found.append(pool)
    return found


def _as_on_gke(spec: dict[str, Any]) -> None:
    required = {one["key"]: one for one in spec["requirements"]}
    if required.pop(NAMES[0], None):
        required[NAMES[2]] = {"key": NAMES[2], "operator": "Exists"}
        spec["taints"] = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        if required["karpenter.sh/capacity-type"]["values"] == ["spot"]:
            spec["taints"].append({"key": GKE_SPOT, "value": "true", "effect": "NoSchedule"})
    spec["requirements"] = list(required.values())


class Autoscaled:
    """Karpenter, kwok and the scheduler at work on a control plane, which has one provider's pools at a time."""

    def __init__(self, cluster: ControlPlane, say: Callable[[str], None] = lambda line: None) -> None:
        self._cluster, self._folder = cluster, cluster.folder / "karpenter"
        (self._karpenter, self._definitions), (self._kwok, self._stages) = (provide(name, say) for name in ("karpenter-kwok", "kwok"))
        self._folder.mkdir(exist_ok=True)
        self._processes = {name: Program(name, self._folder) for name in ("kwok", "karpenter")}

    def start(self) -> None:
        """What does not change: definitions, the class of nodes, kwok, the scheduler."""
        for part in ("pkg/apis/crds", "kwok/apis/crds"):
            self._cluster.kubectl("apply", "--server-side", "-f", str(self._definitions / part))
        self._cluster.wait_for_kinds("karpenter.sh", 2)
        self._cluster.wait_for_kinds("karpenter.kwok.sh", 1)
        self.start_up("0s")
        stages = self._stages / "kustomize" / "stage"
        files = [path for part in ("node", "pod") for path in sorted((stages / part / "fast").glob(f"{part}-*.yaml"))]
        (self._folder / "stages.yaml").write_text("\n---\n".join(path.read_text() for path in files))
        (port,) = free_ports(1)
        flags = [
            "--manage-all-nodes=true",
            "--node-lease-duration-seconds=40",
            f"--config={self._folder / 'stages.yaml'}",
            f"--server-address=127.0.0.1:{port}",
        ]
        self._processes["kwok"].start([self._kwok, f"--kubeconfig={self._cluster.kubeconfig}", *flags])
        self._cluster.start_scheduler()
        self._cluster.start_controller_manager("node-lifecycle-controller")  # which takes the taint of a new node away once it is ready

    def start_up(self, time: str) -> None:
        """How long nodes take from being asked for to being there: that of new ones, as in "10m"."""
        kind = {"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": "default"}}
        self._cluster.kubectl("apply", "-f", "-", stdin=json.dumps({**kind, "spec": {"nodeRegistrationDelay": time}}))

    def offer(self, pools: list[dict[str, Any]], types: list[dict[str, Any]]) -> None:
        """Have Karpenter make nodes of these types for these pools; returns when it is ready. Pools of all clouds have the same names."""
        self._processes["karpenter"].kill()
        (self._folder / "types.json").write_text(json.dumps(types))
        self._cluster.kubectl("apply", "-f", "-", stdin="\n---\n".join(map(json.dumps, pools)))
        metrics, health = free_ports(2)
        environment = {
            "KUBECONFIG": str(self._cluster.kubeconfig),
            "DISABLE_LEADER_ELECTION": "true",
            "SYSTEM_NAMESPACE": "kube-system",
            "INSTANCE_TYPES_FILE_PATH": str(self._folder / "types.json"),
            "METRICS_PORT": str(metrics),
            "HEALTH_PROBE_PORT": str(health),
            "BATCH_IDLE_DURATION": "200ms",
        }
        self._processes["karpenter"].start([self._karpenter], **environment)
        self._processes["karpenter"].wait_until_ready(health)

    def nodes(self) -> dict[str, dict[str, str]]:
        """Labels of every node that Karpenter made, by its name."""
        found = json.loads(self._cluster.kubectl("get", "nodes", "-l", "karpenter.sh/nodepool", "-o", "json").stdout)["items"]
        return {one["metadata"]["name"]: one["metadata"]["labels"] for one in found}

    def claims(self) -> list[str]:
        """The NodePool of every node that Karpenter has asked its provider for."""
        found = json.loads(self._cluster.kubectl("get", "nodeclaims", "-o", "json").stdout)["items"]
        return [one["metadata"]["labels"]["karpenter.sh/nodepool"] for one in found]

    def clear(self) -> None:
        """Have Karpenter take all of its nodes away; returns when they are gone."""
        self._cluster.kubectl("delete", "nodeclaims", "--all", "--timeout=120s")

    def last_words(self) -> str:
        """Karpenter's."""
        return self._processes["karpenter"].last_words()

    def stop(self) -> None:
        for process in self._processes.values():
            process.kill()
