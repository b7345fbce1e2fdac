"""gtj doctor --cluster: the node pools of a cluster, the ComputeProfiles that fit them, and what is missing. Pure but for the asking.

Nodes are a pool together when provider, instance type, accelerators and capacity are the same; a provider is known by the labels that it
puts on nodes (the sources of these are in gentrain_operator/nodepools.py). A profile fits a pool when a worker that uses a whole node would
be scheduled there: selector, affinity, taints and what the node has. A pool without nodes cannot be seen.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pydantic import ValidationError

from gentrain_operator.kube.resource import NODES, PROFILES, Object
from gentrain_operator.nodepools import INSTANCE_TYPE, workers
from gentrain_operator.quantity import amount
from gentrain_operator.surroundings import sick
from trainjobs.api.problem import listed
from trainjobs.api.profile import Profile, ProfileSpec
from trainjobs.cli.cluster.server import Cluster
from trainjobs.cli.finding import Finding

# By the first of a node's labels that stands here, or begins so.
KINDS = (
    ("eks.amazonaws.com/compute-type", "aws/auto"),
    ("karpenter.k8s.aws/", "aws/karpenter"),
    ("eks.amazonaws.com/nodegroup", "aws/managed"),
    ("cloud.google.com/compute-class", "gcp/nap"),
    ("cloud.google.com/gke-nodepool", "gcp/standard"),
    ("karpenter.azure.com/", "azure/nap"),
    ("kubernetes.azure.com/", "azure/pool"),
)
# Labels that say which accelerator a node has; the first is also what NVIDIA's GPU feature discovery writes.
ACCELERATORS = (
    *("nvidia.com/gpu.product", "karpenter.k8s.aws/instance-gpu-name", "eks.amazonaws.com/instance-gpu-name"),
    *("cloud.google.com/gke-accelerator", "karpenter.azure.com/sku-gpu-name", "k8s.amazonaws.com/accelerator"),
    "kubernetes.azure.com/accelerator",
)
DEVICES = ("nvidia.com/gpu", "amd.com/gpu")
# What the Cluster Autoscaler knows a node group of GPUs by (GPULabel of its cloud provider), where people have to write it themselves.
FROM_ZERO = {"aws/managed": "k8s.amazonaws.com/accelerator"}
FABRICS = {
    "efa": ("vpc.amazonaws.com/efa", "the EFA device plugin (aws-efa-k8s-device-plugin)"),
    "azure-ib": ("rdma/ib", "the RDMA device plugin (Azure/aks-rdma-infiniband)"),
    "azure-ib-shared": ("rdma/shared_ib", "the RDMA shared device plugin (Azure/aks-rdma-infiniband)"),
}
LESS = "write what a node can give away (kubectl describe node: Allocatable), less what daemons ask for"
SPOT = {
    "eks.amazonaws.com/capacityType": "SPOT",
    "karpenter.sh/capacity-type": "spot",
    "cloud.google.com/gke-spot": "true",
    "kubernetes.azure.com/scalesetpriority": "spot",
    "kubernetes.azure.com/priority": "spot",
}


@dataclass(frozen=True)
class Pool:
    """Nodes that are alike; `gpus` of each, as its kubelet offers them. `profiles`: the names of those that fit."""

    kind: str
    instance: str
    accelerator: str
    gpus: int
    spot: bool
    nodes: tuple[str, ...]
    profiles: tuple[str, ...]

    def as_data(self) -> dict[str, object]:
        capacity = "spot" if self.spot else "on-demand"
        found = {"kind": self.kind, "instanceType": self.instance, "accelerator": self.accelerator, "perNode": self.gpus}
        return {**found, "capacity": capacity, "nodes": len(self.nodes), "profiles": list(self.profiles)}


def looked(cluster: Cluster) -> tuple[list[Pool], list[Finding]]:
    """What the cluster has. JobError where it does not say so."""
    nodes = cluster.everything(NODES, "list the nodes")
    written = cluster.everything(PROFILES, "list the compute profiles")
    profiles, unread = read(written)
    return pools(nodes, profiles), [*unread, *findings(nodes, profiles)]


def read(written: Iterable[Object]) -> tuple[dict[str, ProfileSpec], list[Finding]]:
    """Profiles by name, and those that cannot be used."""
    found: dict[str, ProfileSpec] = {}
    unread = []
    for one in written:
        name = str(one["metadata"]["name"])
        try:
            content = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "ComputeProfile", "spec": one.get("spec")}
            found[name] = Profile.model_validate(content, extra="ignore").spec
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            why = f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
            unread.append(Finding("warn", "profile", f"{name} is not usable: {why}", "mend it: kubectl edit computeprofile"))
    return found, unread


def pools(nodes: Sequence[Object], profiles: Mapping[str, ProfileSpec]) -> list[Pool]:
    alike: dict[tuple[str, str, str, int, bool], list[Object]] = {}
    for node in nodes:
        labels = labels_of(node)
        key = (kind(labels), labels.get(INSTANCE_TYPE, ""), accelerator(labels), devices(node), spot(labels))
        alike.setdefault(key, []).append(node)
    return [
        Pool(*key, tuple(map(name_of, members)), tuple(name for name, one in profiles.items() if any(fits(one, node) for node in members)))
        for key, members in sorted(alike.items(), key=lambda item: item[0])
    ]


def findings(nodes: Sequence[Object], profiles: Mapping[str, ProfileSpec]) -> Iterator[Finding]:
    """What is missing, each thing once, with the nodes that miss it."""
    without = [name_of(node) for node in nodes if accelerator(labels_of(node)) and not devices(node)]
    if without:
        how = "install the cloud's GPU driver and device plugin, or NVIDIA's GPU operator: until then no GPU can be asked for"
        yield Finding("fail", "device plugin", f"{some(without)}: labelled as having GPUs, and offering none", how)
    for pool, label in FROM_ZERO.items():
        unlabelled = [name_of(node) for node in nodes if kind(labels_of(node)) == pool and devices(node) and label not in labels_of(node)]
        if unlabelled:
            how = f"give the node group the label {label}: by it the Cluster Autoscaler makes a first GPU node, and waits for its driver"
            yield Finding("warn", "scale from zero", f"{some(unlabelled)}: GPU nodes without {label}", how)
    for fabric, (resource, plugin) in FABRICS.items():
        using = {name: one for name, one in profiles.items() if one.fabric == fabric}
        bare = [
            name_of(node)
            for node in nodes
            if any(fits(one, node, resources=False) for one in using.values()) and not quantity(node, resource)
        ]
        if bare:
            detail = f"{some(bare)}: profile {listed(sorted(using), 'and')} wants {resource}, and they offer none"
            yield Finding("fail", "fabric", detail, f"install {plugin}")
    for name, said in sorted(sick(nodes).items()):
        yield Finding("warn", "accelerator", f"{name}: {said}", "jobs keep off it for a day; drain and replace it")
    for name, one in sorted(profiles.items()):
        if any(fits(one, node) for node in nodes):
            continue
        near = [node for node in nodes if fits(one, node, resources=False)]
        lacks = lacking(one, near[0]) if near else ""
        if lacks:
            yield Finding("warn", "profile", f"{name} fits no node, although {some(list(map(name_of, near)))} would: {lacks}", LESS)
        else:
            how = "right for a pool that is scaled to zero; else compare its selector and tolerations with the pools above"
            yield Finding("warn", "profile", f"{name} fits no node that there is now", how)


def fits(profile: ProfileSpec, node: Object, *, resources: bool = True) -> bool:
    """Whether a worker that uses a whole node of the profile would be scheduled on this one."""
    place, labels = workers(profile, profile.accelerator.per_node), labels_of(node)
    if any(labels.get(name) != value for name, value in place.selector.items()):
        return False
    if not all(holds(expression, labels) for expression in place.expressions):
        return False
    taints = [one for one in node.get("spec", {}).get("taints") or () if one.get("effect") in ("NoSchedule", "NoExecute")]
    if not all(any(tolerates(one, taint) for one in place.tolerations) for taint in taints):
        return False
    return not resources or not lacking(profile, node)


def lacking(profile: ProfileSpec, node: Object) -> str:
    """What a node has less of than the profile says; "" when it has it all."""
    wanted = {"cpu": profile.node.cpu, "memory": profile.node.memory}
    if profile.accelerator.per_node:
        wanted[profile.accelerator.resource] = str(profile.accelerator.per_node)
    for name, much in wanted.items():
        there = (node.get("status", {}).get("allocatable") or {}).get(name, "0")
        if amount(str(there)) < amount(much):
            return f"it says {name} {much}, and they offer {there}"
    return ""


def holds(expression: Object, labels: Mapping[str, str]) -> bool:
    """Of node affinity: the operators that nodepools.py writes."""
    there, values = labels.get(expression["key"]), expression.get("values") or []
    if expression["operator"] == "DoesNotExist":
        return there is None
    if expression["operator"] == "NotIn":
        return there not in values
    if expression["operator"] == "Gt":
        return there is not None and there.isdigit() and int(there) > int(values[0])
    return there in values


def tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key") in (None, "", taint.get("key"))
    return bool(toleration.get("key") == taint.get("key") and (toleration.get("value") or "") == (taint.get("value") or ""))


def kind(labels: Mapping[str, str]) -> str:
    return next(
        (pool for key, pool in KINDS if any(name == key or (key[-1] == "/" and name.startswith(key)) for name in labels)), "generic"
    )


def accelerator(labels: Mapping[str, str]) -> str:
    return next((labels[name] for name in ACCELERATORS if labels.get(name)), "")


def spot(labels: Mapping[str, str]) -> bool:
    return any(labels.get(name) == value for name, value in SPOT.items())


def devices(node: Object) -> int:
    return sum(quantity(node, name) for name in DEVICES)


def quantity(node: Object, resource: str) -> int:
    text = str((node.get("status", {}).get("allocatable") or {}).get(resource, "0"))
    return int(text) if text.isdigit() else 0


def labels_of(node: Object) -> Mapping[str, str]:
    return node["metadata"].get("labels") or {}


def name_of(node: Object) -> str:
    return str(node["metadata"]["name"])


def some(names: Sequence[str]) -> str:
    """ "a, b and 3 more"."""
    return listed(names, "and") if len(names) < 3 else f"{names[0]}, {names[1]} and {len(names) - 2} more"
