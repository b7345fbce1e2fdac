"""A cluster whose nodes come and go: the real Karpenter with its provider for kwok, and the real kwok, which plays the kubelets, as
ordinary processes beside a control plane. No root, no containers.

Karpenter is told of the clouds' instance types by a file: those of trainjobs/plan/catalogue.json, at their prices and with the labels that
the cloud's own provider writes on their nodes. What is sold out is to be had in another zone alone, so that Karpenter says what it says in
a cloud, where such an offering is known and not available; a NodePool's limits are a quota. Both
programs come from the Go module proxy, as Kueue does (kueue.py).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import yaml

from gentrain_operator.nodepools import GKE, KARPENTER_AWS, KARPENTER_AZURE
from tests.cluster.control_plane import START_TIMEOUT, ControlPlane, _die_with_parent, free_ports
from tests.cluster.kueue import provide
from trainjobs.plan import catalogue

Capacity = Literal["spot", "on-demand"]
SHARES: dict[Capacity, float] = {"spot": 0.4, "on-demand": 1.0}  # of the price on demand
ZONE, ELSEWHERE, REGION = "zone-a", "zone-b", "topology.kubernetes.io/region"


def offered(provider: str, name: str, *capacities: Capacity) -> dict[str, Any]:
    """An instance type of the catalogue as Karpenter's kwok provider reads it, in one zone, where so much of it is to be had.

    What the catalogue does not know of a type, CPUs and memory, is enough for any of its workers."""
    node = catalogue.nodes()[name]
    labels = {"aws": _aws, "azure": _azure, "gcp": _gke}[provider](node.gpu, node.gpus)
    region, price = next((region, float(price)) for region, price in node.prices.items())
    room = {"cpu": node.cpu or "96", "memory": node.memory or "600Gi", "ephemeral-storage": "500Gi", "nvidia.com/gpu": str(node.gpus)}
    offers = {one: (price * share, ZONE if one in capacities else ELSEWHERE) for one, share in SHARES.items()}
    return _type(name, room, offers, {**labels, REGION: region})


def plain(name: str = "m7i.4xlarge") -> dict[str, Any]:
    """One for heads, without GPUs, on demand, that every cloud's pool for them takes."""
    aws = {"karpenter.k8s.aws/instance-category": "m", "karpenter.k8s.aws/instance-generation": "7"}
    azure = {"karpenter.azure.com/sku-family": "D", "karpenter.azure.com/sku-version": "5"}
    room = {"cpu": "16", "memory": "64Gi", "ephemeral-storage": "100Gi"}
    return _type(name, room, {"on-demand": (0.8, ZONE)}, {**aws, **azure})


def _aws(gpu: str, count: int) -> dict[str, str]:
    return {"karpenter.k8s.aws/instance-gpu-name": KARPENTER_AWS[gpu], "karpenter.k8s.aws/instance-gpu-count": str(count)}


def _azure(gpu: str, count: int) -> dict[str, str]:
    return {"karpenter.azure.com/sku-gpu-name": KARPENTER_AZURE[gpu], "karpenter.azure.com/sku-gpu-count": str(count)}


def _gke(gpu: str, count: int) -> dict[str, str]:
    return {"cloud.google.com/gke-accelerator": GKE[gpu]}


def _type(name: str, room: dict[str, str], offers: dict[Capacity, tuple[float, str]], labels: dict[str, str]) -> dict[str, Any]:
    offerings = []
    for capacity, (price, zone) in offers.items():
        told = {"karpenter.sh/capacity-type": capacity, "topology.kubernetes.io/zone": zone, **labels}
        if capacity == "spot" and "cloud.google.com/gke-accelerator" in labels:
            told["cloud.google.com/gke-spot"] = "true"
        required = [{"key": key, "operator": "In", "values": [value]} for key, value in told.items()]
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
        spec["template"]["spec"]["requirements"].append({"key": "topology.kubernetes.io/zone", "operator": "In", "values": [ZONE]})
        found.append(pool)
    return found


def _as_on_gke(spec: dict[str, Any]) -> None:
    required = {one["key"]: one for one in spec["requirements"]}
    if required.pop("karpenter.k8s.aws/instance-gpu-name", None):
        required["cloud.google.com/gke-accelerator"] = {"key": "cloud.google.com/gke-accelerator", "operator": "Exists"}
        spec["taints"] = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
        if required["karpenter.sh/capacity-type"]["values"] == ["spot"]:
            spec["taints"].append({"key": "cloud.google.com/gke-spot", "value": "true", "effect": "NoSchedule"})
    spec["requirements"] = list(required.values())


class Autoscaled:
    """Karpenter, kwok and the scheduler at work on a control plane, which has one provider's pools at a time."""

    def __init__(self, cluster: ControlPlane, say: Callable[[str], None] = lambda line: None) -> None:
        self._cluster, self._folder = cluster, cluster.folder / "karpenter"
        (self._karpenter, self._definitions), (self._kwok, self._stages) = (provide(name, say) for name in ("karpenter-kwok", "kwok"))
        self._folder.mkdir(exist_ok=True)
        self._processes: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """What does not change: definitions, the class of nodes, kwok, the scheduler."""
        for part in ("pkg/apis/crds", "kwok/apis/crds"):
            self._cluster.kubectl("apply", "--server-side", "-f", str(self._definitions / part))
        self._cluster.wait_for_kinds("karpenter.sh", 2)
        self._cluster.wait_for_kinds("karpenter.kwok.sh", 1)
        kind = {"apiVersion": "karpenter.kwok.sh/v1alpha1", "kind": "KWOKNodeClass", "metadata": {"name": "default"}}
        self._cluster.kubectl("apply", "-f", "-", stdin=json.dumps(kind))
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
        self._run("kwok", [str(self._kwok), f"--kubeconfig={self._cluster.kubeconfig}", *flags])
        self._cluster.start_scheduler()
        self._cluster.start_controller_manager("node-lifecycle-controller")  # which takes the taint of a new node away once it is ready

    def offer(self, pools: list[dict[str, Any]], types: list[dict[str, Any]]) -> None:
        """Have Karpenter make nodes of these types for these pools; returns when it is ready. Pools of all clouds have the same names."""
        self.stop("karpenter")
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
        self._run("karpenter", [str(self._karpenter)], environment)
        deadline = time.monotonic() + START_TIMEOUT
        while True:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{health}/readyz", timeout=2):
                    break
            except (urllib.error.URLError, OSError) as error:
                if self._processes["karpenter"].poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"karpenter did not come up: {self.log('karpenter')}") from error
            time.sleep(0.05)

    def nodes(self) -> dict[str, dict[str, str]]:
        """Labels of every node that Karpenter made, by its name."""
        found = json.loads(self._cluster.kubectl("get", "nodes", "-l", "karpenter.sh/nodepool", "-o", "json").stdout)["items"]
        return {one["metadata"]["name"]: one["metadata"]["labels"] for one in found}

    def log(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-3000:]

    def stop(self, *names: str) -> None:
        for name in names or tuple(self._processes):
            if (process := self._processes.pop(name, None)) is not None:
                process.kill()
                process.wait()

    def _run(self, name: str, command: list[str], environment: dict[str, str] | None = None) -> None:
        with open(self._folder / f"{name}.log", "ab") as log:
            self._processes[name] = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self._folder, env={**os.environ, **(environment or {})}, preexec_fn=_die_with_parent
            )
