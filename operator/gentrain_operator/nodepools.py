"""What the pods of a job need so that they land on a profile's nodes and reach their fabric. Pure: a table, and how it is read.

Every key with the place that says so:

eks.amazonaws.com/capacityType                 EKS user guide, managed node groups
karpenter.sh/capacity-type, do-not-disrupt     karpenter.sh, well-known labels; scheduling
karpenter.k8s.aws/instance-gpu-name, -count    karpenter.sh, well-known labels of the AWS provider
eks.amazonaws.com/instance-gpu-name, -count,
  compute-type                                 EKS user guide, Auto Mode: labels
cloud.google.com/gke-accelerator, gke-spot,
  gke-ephemeral-storage-local-ssd              GKE documentation: GPUs, Spot VMs, local SSD
cloud.google.com/compute-class                 GKE documentation: custom compute classes (it brings its own labels and tolerations)
kubernetes.azure.com/accelerator, priority,
  scalesetpriority (the taint)                 AKS documentation: use labels, GPU node pools, spot node pools
karpenter.azure.com/sku-gpu-name, -count       karpenter-provider-azure, designs/0006 and its labels
vpc.amazonaws.com/efa, FI_EFA_USE_HUGE_PAGE    EKS user guide, EFA; libfabric's EFA provider (huge pages break a fork of data loaders)
networking.gke.io/interfaces, gib              GKE documentation, GPUDirect RDMA (A3 Ultra, A4)
devices.gke.io/container.*                     gpudirect.py
rdma/ib, rdma/shared_ib, IPC_LOCK              Azure/aks-rdma-infiniband (without it `ulimit -l` is 64 kB)
azure.workload.identity/use                    Azure workload identity: of every pod that is to get a token

A job's own wishes never come here: they are the workers' selectors beside these. Not tried on a cloud: what is held by tests is that the
API server, the scheduler and the Pod Security levels take these pods, on nodes that carry the clouds' labels and taints.
"""

from __future__ import annotations

from typing import Any

from gentrain_operator import gpudirect
from gentrain_operator.fragment import Fragment
from gentrain_operator.kube.resource import Object
from trainjobs.api.pools import COMPUTE_CLASS
from trainjobs.api.problem import listed
from trainjobs.api.profile import ProfileSpec
from trainjobs.plan import prices
from trainjobs.plan.catalogue import efa_of

INSTANCE_TYPE = prices.TYPE

# GPUs, as a profile's accelerator.type calls them, in each cloud's words.
KARPENTER_AWS = {
    "t4": "t4",
    "a10g": "a10g",
    "l4": "l4",
    "l40s": "l40s",
    "v100": "v100",
    "a100-40gb": "a100",
    "a100-80gb": "a100",
    "h100-80gb": "h100",
    "h200-141gb": "h200",
    "b200": "b200",
    "b300": "b300",
}
GKE = {
    "t4": "nvidia-tesla-t4",
    "v100": "nvidia-tesla-v100",
    "l4": "nvidia-l4",
    "a100-40gb": "nvidia-tesla-a100",
    "a100-80gb": "nvidia-a100-80gb",
    "h100-80gb": "nvidia-h100-80gb",
    "h100-mega-80gb": "nvidia-h100-mega-80gb",
    "h200-141gb": "nvidia-h200-141gb",
    "b200": "nvidia-b200",
    "gb200": "nvidia-gb200",
    "gb300": "nvidia-gb300",
    "rtx-pro-6000": "nvidia-rtx-pro-6000",
}
KARPENTER_AZURE = {
    "t4": "T4",
    "a10": "A10",
    "v100": "V100",
    "a100-40gb": "A100",
    "a100-80gb": "A100",
    "h100-80gb": "H100",
    "h200-141gb": "H200",
}
# As people write them, without the memory where there is one size only, or with it.
_ALSO = {"h100": "h100-80gb", "h200": "h200-141gb", "a10g-24gb": "a10g", "l4-24gb": "l4", "l40s-48gb": "l40s", "t4-16gb": "t4"}

_CAPACITY = {
    "managed": {"on-demand": "ON_DEMAND", "spot": "SPOT", "reserved": "CAPACITY_BLOCK"},
}
_GPU_TAINTS = ("nvidia.com/gpu", "amd.com/gpu", "sku")
_SPOT_TAINTS = ("cloud.google.com/gke-spot", "kubernetes.azure.com/scalesetpriority", "cloud.google.com/gke-queued")


def workers(profile: ProfileSpec, gpus: int) -> Fragment:
    """Of a worker that uses `gpus` accelerators of a node."""
    selector, expressions, tolerations = _placed(profile)
    if gpus and profile.pool:
        tolerations.append({"key": profile.accelerator.resource, "operator": "Exists", "effect": "NoSchedule"})
    tolerations += _own(profile.tolerations)
    fabric = _fabric(profile, gpus)
    return Fragment(
        selector={**selector, **profile.selector},
        expressions=expressions,
        tolerations=_each_once(tolerations),
        labels=_identity(profile),
        annotations=fabric.annotations,
        resources=fabric.resources,
        environment=fabric.environment,
        host_paths=fabric.host_paths,
        written_paths=fabric.written_paths,
        sidecars=fabric.sidecars,
        claim_template=profile.claim_template,
        capabilities=fabric.capabilities,
    )


def head(profile: ProfileSpec) -> Fragment:
    """Of the head, which is no worker: it tolerates neither the taints of accelerators nor those of spot nodes, and keeps off both where
    nothing says where it belongs. On hardware of one's own that is a wish only: there may be no other node."""
    tolerations = [one for one in profile.tolerations if one.key not in (*_GPU_TAINTS, *_SPOT_TAINTS, profile.accelerator.resource)]
    divided = profile.pool is not None or profile.accelerator.per_node > 0
    expressions = _elsewhere(profile) if divided and not profile.head.selector else []
    return Fragment(
        selector=dict(profile.head.selector),
        expressions=expressions,
        required=profile.provider != "generic" and profile.pool is not None,
        tolerations=_each_once([*_own(tolerations), *_own(profile.head.tolerations)]),
        labels=_identity(profile),
    )


def level(profile: ProfileSpec) -> str:
    """The least Pod Security level at which a namespace takes the profile's pods."""
    return "restricted" if profile.fabric in ("none", "efa", "efa-dra") else "privileged"


def misplaced(name: str, profile: ProfileSpec, gpus: int) -> str:
    """Why the pool cannot be asked for such workers, and the ways out; "" when it can."""
    kinds = _kinds(profile)
    if profile.pool and profile.accelerator.per_node and kinds and _kind(profile) not in kinds and COMPUTE_CLASS not in profile.selector:
        return (
            f"GTJ0131 ComputeProfile {name} has accelerator.type {profile.accelerator.type}, which {profile.provider}/{profile.pool} does "
            f"not know: write one of {listed(sorted(kinds))}"
        )
    if profile.fabric in gpudirect.NODES and gpus:
        return gpudirect.misplaced(name, profile, _kind(profile), gpus)
    if profile.fabric == "efa" and gpus:
        there, instance = efa_of(profile.node.instance_type, _kind(profile), profile.accelerator.per_node), profile.node.instance_type
        if there is None:
            return (
                f"GTJ0131 how many EFA devices a node of ComputeProfile {name} has is not known: write its node.instanceType, one of the "
                "types that docs/reference/nodes.md lists"
            )
        if there * gpus < profile.accelerator.per_node:
            which = instance or f"node with {profile.accelerator.per_node} x {profile.accelerator.type}"
            return (
                f"GTJ0131 a worker of {gpus} GPUs gets no EFA device on ComputeProfile {name}, where a {which} has {there}: write more "
                "GPUs per worker (compute.gpusPerWorker), or fabric: none in the profile"
            )
    return ""


def _kind(profile: ProfileSpec) -> str | None:
    written = (profile.accelerator.type or "").lower()
    return _ALSO.get(written, written) or None


def _kinds(profile: ProfileSpec) -> dict[str, str]:
    """GPUs in the words of the pool; {} where it is not by them that nodes are found."""
    if profile.provider == "gcp":
        return GKE
    return {("aws", "karpenter"): KARPENTER_AWS, ("aws", "auto"): KARPENTER_AWS, ("azure", "nap"): KARPENTER_AZURE}.get(
        (profile.provider, profile.pool or ""), {}
    )


def _placed(profile: ProfileSpec) -> tuple[dict[str, str], list[Object], list[Object]]:
    """Selector, node affinity and tolerations that the pool of a worker asks for."""
    key, spot, found = f"{profile.provider}/{profile.pool}", profile.capacity == "spot", {}
    expressions: list[Object] = []
    tolerations: list[Object] = []
    gpu, count = _kinds(profile).get(_kind(profile) or ""), str(profile.accelerator.per_node)
    has_gpus = profile.accelerator.per_node > 0
    if profile.pool and profile.node.instance_type:
        found[INSTANCE_TYPE] = profile.node.instance_type
    if key == "aws/managed":
        found["eks.amazonaws.com/capacityType"] = _CAPACITY["managed"][profile.capacity]
    elif key in ("aws/karpenter", "aws/auto", "azure/nap"):
        domain = {
            "aws/karpenter": "karpenter.k8s.aws/instance",
            "aws/auto": "eks.amazonaws.com/instance",
            "azure/nap": "karpenter.azure.com/sku",
        }
        found["karpenter.sh/capacity-type"] = profile.capacity
        if key == "aws/auto":
            found["eks.amazonaws.com/compute-type"] = "auto"
        if has_gpus and gpu:
            found |= {f"{domain[key]}-gpu-name": gpu, f"{domain[key]}-gpu-count": count}
        if profile.node.scratch == "nvme" and key != "azure/nap":
            expressions.append({"key": f"{domain[key]}-local-nvme", "operator": "Gt", "values": ["0"]})
    elif profile.provider == "gcp" and profile.pool and COMPUTE_CLASS not in profile.selector:
        if has_gpus and gpu:
            found["cloud.google.com/gke-accelerator"] = gpu
        if spot:
            found["cloud.google.com/gke-spot"] = "true"
            if profile.pool != "autopilot":  # which tolerates by itself
                tolerations.append({"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true", "effect": "NoSchedule"})
        elif profile.pool != "autopilot":  # Standard does not taint its spot nodes by itself
            expressions.append({"key": "cloud.google.com/gke-spot", "operator": "DoesNotExist"})
        if profile.node.scratch == "nvme":
            found["cloud.google.com/gke-ephemeral-storage-local-ssd"] = "true"
    elif key == "azure/pool":
        if has_gpus:
            found["kubernetes.azure.com/accelerator"] = "nvidia"
            tolerations.append({"key": "sku", "operator": "Equal", "value": "gpu", "effect": "NoSchedule"})
        if spot:
            found["kubernetes.azure.com/priority"] = "spot"
            tolerations.append(
                {"key": "kubernetes.azure.com/scalesetpriority", "operator": "Equal", "value": "spot", "effect": "NoSchedule"}
            )
    return found, expressions, tolerations


def _elsewhere(profile: ProfileSpec) -> list[Object]:
    """Node affinity of a head: not where accelerators are, not on spot nodes."""
    absent = {
        "aws/managed": ("k8s.amazonaws.com/accelerator", "nvidia.com/gpu.product"),
        "aws/karpenter": ("karpenter.k8s.aws/instance-gpu-name",),
        "aws/auto": ("eks.amazonaws.com/instance-gpu-name",),
        "azure/pool": ("kubernetes.azure.com/accelerator",),
        "azure/nap": ("karpenter.azure.com/sku-gpu-name",),
    }
    spot = {
        "aws/managed": ("eks.amazonaws.com/capacityType", "SPOT"),
        "aws/karpenter": ("karpenter.sh/capacity-type", "spot"),
        "aws/auto": ("karpenter.sh/capacity-type", "spot"),
        "azure/pool": ("kubernetes.azure.com/priority", "spot"),
        "azure/nap": ("karpenter.sh/capacity-type", "spot"),
    }
    key = f"{profile.provider}/{profile.pool}"
    keys: tuple[str, ...]
    if profile.provider == "gcp" and profile.pool:
        keys, lent = ("cloud.google.com/gke-accelerator",), ("cloud.google.com/gke-spot", "true")
    else:
        keys, lent = absent.get(key, ("nvidia.com/gpu.product",)), spot.get(key, ("", ""))
    found: list[Object] = [{"key": one, "operator": "DoesNotExist"} for one in keys]
    if key == "aws/managed" and profile.node.instance_type and profile.accelerator.per_node:
        found.append({"key": INSTANCE_TYPE, "operator": "NotIn", "values": [profile.node.instance_type]})
    if lent[0]:
        found.append({"key": lent[0], "operator": "NotIn", "values": [lent[1]]})
    return found


def _identity(profile: ProfileSpec) -> dict[str, str]:
    """Labels by which a cloud's webhook knows the pods that are to get its tokens."""
    azure = profile.provider == "azure"
    return {"azure.workload.identity/use": "true"} if azure else {}


def _fabric(profile: ProfileSpec, gpus: int) -> Fragment:
    if not gpus or profile.fabric == "none":
        return Fragment()
    if profile.fabric in ("efa", "efa-dra"):
        environment = {"FI_EFA_USE_HUGE_PAGE": "0", "NCCL_SOCKET_IFNAME": "^lo,docker,veth"}
        if profile.fabric == "efa-dra":
            return Fragment(environment=environment)
        there = efa_of(profile.node.instance_type, _kind(profile), profile.accelerator.per_node) or 0
        return Fragment(resources={"vpc.amazonaws.com/efa": str(there * gpus // profile.accelerator.per_node)}, environment=environment)
    if profile.fabric in gpudirect.NODES:
        return gpudirect.fragment(profile)
    if profile.fabric in ("gke-rdma", "dranet"):
        return Fragment(
            annotations=gpudirect.interfaces(profile.networks) if profile.networks else {},
            environment={"LD_LIBRARY_PATH": "/usr/local/nvidia/lib64", "GENTRAIN_NCCL_ENV": "/usr/local/gib/scripts/set_nccl_env.sh"},
            host_paths={"/usr/local/nvidia": "/home/kubernetes/bin/nvidia", "/usr/local/gib": "/home/kubernetes/bin/gib"},
        )
    shared = profile.fabric == "azure-ib-shared"
    return Fragment(
        resources={"rdma/shared_ib": "1"} if shared else {"rdma/ib": str(max(1, 8 * gpus // profile.accelerator.per_node))},
        environment={"NCCL_IB_DISABLE": "0", "NCCL_NET_GDR_LEVEL": "SYS"},
        capabilities=("IPC_LOCK",),
    )


def _own(tolerations: list[Any]) -> list[Object]:
    return [{**one.model_dump(by_alias=True, exclude_none=True), "operator": one.meant} for one in tolerations]


def _each_once(tolerations: list[Object]) -> list[Object]:
    return [one for number, one in enumerate(tolerations) if one not in tolerations[:number]]
