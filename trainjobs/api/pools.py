"""What the clouds' node pools can be: which capacity and which fabric each kind has, and how long a reclaimed node lets a pod live.

Sources: EKS (managed node groups; Auto Mode), Karpenter 1.14 for AWS and Azure, GKE (Standard, Autopilot, node auto-provisioning), AKS
(node pools; node auto-provisioning), as documented in 2026.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from trainjobs.api.problem import listed
from trainjobs.api.rule import Breach, Rule

# The rules see a ProfileSpec, which profile.py has.
ALL = ("on-demand", "spot", "reserved")


@dataclass(frozen=True)
class Pool:
    """`notice`: seconds that a pod has at most when its spot node is taken away. `needs`: the field that says which nodes are meant."""

    capacities: tuple[str, ...]
    fabrics: tuple[str, ...]
    notice: int
    needs: str


_EFA = ("none", "efa", "efa-dra")
_IB = ("none", "azure-ib", "azure-ib-shared")
POOLS: dict[tuple[str, str], Pool] = {
    ("aws", "managed"): Pool(ALL, _EFA, 120, "node.instanceType"),
    ("aws", "karpenter"): Pool(ALL, _EFA, 120, "accelerator.type"),
    ("aws", "auto"): Pool(("on-demand", "spot"), _EFA, 120, "accelerator.type"),
    # 15 s, but for Standard pools whose kubelet was configured to give more (GKE 1.35).
    ("gcp", "standard"): Pool(ALL, ("none", "gke-rdma", "dranet", "tcpx", "tcpxo"), 120, "accelerator.type"),
    ("gcp", "autopilot"): Pool(("on-demand", "spot"), ("none", "dranet"), 15, "accelerator.type"),
    ("gcp", "nap"): Pool(ALL, ("none", "gke-rdma", "dranet"), 15, "accelerator.type"),
    ("azure", "pool"): Pool(("on-demand", "spot"), _IB, 30, "node.instanceType"),
    ("azure", "nap"): Pool(("on-demand", "spot"), _IB, 30, "accelerator.type"),
}
RESERVATION, COMPUTE_CLASS = "cloud.google.com/reservation-name", "cloud.google.com/compute-class"
CLAIMED = ("efa-dra", "dranet")  # fabrics whose devices come by a claim
ATTACHED = {"tcpx": 4, "tcpxo": 8}  # fabrics with a daemon beside each worker, and how many interfaces it has

# Devices that pods can ask for and torch, as the images have it, cannot train on.
FOREIGN = r"^(cloud-tpus\.)?google\.com/tpu$|^cloud-tpus\.google\.com/|^aws\.amazon\.com/neuron|(^|[./-])fpga|^habana\.ai/"


def _named(provider: str) -> list[str]:
    return [pool for cloud, pool in POOLS if cloud == provider]


def pool_is_of_provider(spec: Any) -> Iterator[Breach]:
    if spec.pool is not None and (spec.provider, spec.pool) not in POOLS:
        known = _named(spec.provider)
        what = f"provider {spec.provider} has no pool {spec.pool}"
        how = f"pools of {spec.provider}: {listed(known)}" if known else "leave pool out, and write selector and tolerations by hand"
        yield Breach(("pool",), what, "a pool says how that cloud labels and taints its nodes", how)


def capacity_is_of_pool(spec: Any) -> Iterator[Breach]:
    pool = POOLS.get((spec.provider, spec.pool or ""))
    if pool and spec.capacity not in pool.capacities:
        why = f"{spec.provider} has no label that says so"
        yield Breach(("capacity",), f"pool {spec.pool} has no {spec.capacity} nodes", why, f"it has {listed(pool.capacities)}")


def fabric_is_of_pool(spec: Any) -> Iterator[Breach]:
    pool = POOLS.get((spec.provider, spec.pool or ""))
    if spec.fabric == "none" or (spec.pool and not pool):
        return
    if pool is None:
        how = "name the pool, or leave fabric out"
        yield Breach(("fabric",), f"fabric {spec.fabric} without a pool", "how a pod reaches it is the pool's matter", how)
    elif spec.fabric not in pool.fabrics:
        what, how = f"nodes of {spec.provider}/{spec.pool} have no fabric {spec.fabric}", f"they have {listed(pool.fabrics)}"
        yield Breach(("fabric",), what, "workers would wait for devices that no node has", how)


def fabric_has_what_it_needs(spec: Any) -> Iterator[Breach]:
    if spec.fabric in CLAIMED and spec.claim_template is None:
        why = "its devices come by a claim, and a job makes no claims"
        how = "make a ResourceClaimTemplate in the jobs' namespaces and name it in claimTemplate"
        yield Breach(("claimTemplate",), f"fabric {spec.fabric} without claimTemplate", why, how)
    elif spec.fabric not in CLAIMED and spec.claim_template is not None:
        why = f"only {listed(CLAIMED)} take devices by a claim"
        yield Breach(("claimTemplate",), f"fabric {spec.fabric} has no claims", why, "leave claimTemplate out, or name such a fabric")
    networked, count = (*ATTACHED, "gke-rdma"), ATTACHED.get(spec.fabric)
    if (spec.fabric in networked) != bool(spec.networks):
        why, how = "each of its interfaces is one of a Network of the cluster", "list them: networks: [gvnic-1, rdma-0, rdma-1]"
        what = f"fabric {spec.fabric} without networks" if not spec.networks else f"fabric {spec.fabric} attaches no networks"
        yield Breach(("networks",), what, why, how if not spec.networks else f"leave networks out, or name one of {listed(networked)}")
    elif count and len(spec.networks) != count:
        what, why = f"fabric {spec.fabric} with {len(spec.networks)} networks", f"its nodes have {count} interfaces beside eth0"
        yield Breach(("networks",), what, why, f"list {count} Networks of the cluster, in the order of eth1 to eth{count}")
    if (spec.fabric in ATTACHED) != (spec.fabric_image is not None):
        without = spec.fabric_image is None
        what = f"fabric {spec.fabric} without fabricImage" if without else f"fabric {spec.fabric} has no daemon"
        why = "its daemon must be of the release of the nodes' NCCL plugin" if without else f"only {listed(tuple(ATTACHED))} have one"
        how = "name the tcpgpudmarxd image of that release" if without else "leave fabricImage out, or name such a fabric"
        yield Breach(("fabricImage",), what, why, how)


def reservation_is_named(spec: Any) -> Iterator[Breach]:
    if spec.provider == "gcp" and spec.pool and spec.capacity == "reserved" and not {RESERVATION, COMPUTE_CLASS} & spec.selector.keys():
        what, why = "reserved nodes of gcp without the reservation's name", "GKE's pods find them by it"
        yield Breach(("selector",), what, why, f"write {RESERVATION} into selector, or {COMPUTE_CLASS} of a ComputeClass that has them")


def pool_has_what_it_needs(spec: Any) -> Iterator[Breach]:
    pool = POOLS.get((spec.provider, spec.pool or ""))
    if pool is None or not spec.accelerator.per_node:
        return
    if pool.needs == "node.instanceType" and spec.node.instance_type is None:
        how = "write the nodes' type, such as p5.48xlarge or Standard_ND96isr_H100_v5"
        yield Breach(("node", "instanceType"), f"pool {spec.pool} without node.instanceType", "its nodes are told apart by it", how)
    if pool.needs == "accelerator.type" and spec.accelerator.type is None:
        how = "write the kind of GPU, such as h100-80gb"
        yield Breach(("accelerator", "type"), f"pool {spec.pool} without accelerator.type", "its nodes are told apart by it", how)


def grace_is_what_there_is(spec: Any) -> Iterator[Breach]:
    pool = POOLS.get((spec.provider, spec.pool or ""))
    if pool and spec.capacity == "spot" and spec.grace_period_seconds > pool.notice:
        what = f"{spec.grace_period_seconds} s of grace on a spot node of {spec.provider}/{spec.pool}"
        why = f"it is gone {pool.notice} s after its notice, and a checkpoint that counts on more is lost"
        yield Breach(("gracePeriodSeconds",), what, why, f"write {pool.notice} or less")


def _pairs(values: Iterator[str]) -> str:
    return "[" + ", ".join(f"'{value}'" for value in values) + "]"


_HERE = "self.provider + '/' + self.pool"
_POOLED = f"!has(self.pool) || !({_HERE} in {_pairs('/'.join(key) for key in POOLS)})"
_CAPACITIES = _pairs("/".join((*key, capacity)) for key, pool in POOLS.items() for capacity in pool.capacities)
_FABRICS = _pairs("/".join((*key, fabric)) for key, pool in POOLS.items() for fabric in pool.fabrics)
_NOTICES = " && ".join(f"({_HERE} != '{'/'.join(key)}' || self.gracePeriodSeconds <= {pool.notice})" for key, pool in POOLS.items())
_COUNTS = " : ".join(f"self.fabric == '{name}' ? {count}" for name, count in ATTACHED.items())
_TYPED = _pairs("/".join(key) for key, pool in POOLS.items() if pool.needs == "node.instanceType")
_KINDED = _pairs("/".join(key) for key, pool in POOLS.items() if pool.needs == "accelerator.type")

RULES = (
    Rule(
        "spec",
        "GTJ0131",
        pool_is_of_provider,
        f"!has(self.pool) || {_HERE} in {_pairs('/'.join(key) for key in POOLS)}",
        "the provider has no such pool",
        field="pool",
    ),
    Rule(
        "spec",
        "GTJ0131",
        capacity_is_of_pool,
        f"{_POOLED} || ({_HERE} + '/' + self.capacity) in {_CAPACITIES}",
        "the pool has no nodes of that capacity",
        field="capacity",
    ),
    Rule(
        "spec",
        "GTJ0131",
        fabric_is_of_pool,
        f"self.fabric == 'none' || (has(self.pool) && ({_POOLED} || ({_HERE} + '/' + self.fabric) in {_FABRICS}))",
        "the pool's nodes have no such fabric",
        field="fabric",
    ),
    Rule(
        "spec",
        "GTJ0131",
        fabric_has_what_it_needs,
        f"(self.fabric in {_pairs(iter(CLAIMED))}) == has(self.claimTemplate) && "
        f"(self.fabric in {_pairs(iter(ATTACHED))}) == has(self.fabricImage) && "
        "(self.fabric == 'gke-rdma' ? self.networks.size() > 0 : self.networks.size() == "
        f"({_COUNTS} : 0))",
        "efa-dra and dranet need claimTemplate, gke-rdma needs networks, tcpx 4 and tcpxo 8 of them and fabricImage, and no other fabric "
        "has them",
        field="fabric",
    ),
    Rule(
        "spec",
        "GTJ0131",
        reservation_is_named,
        f"self.provider != 'gcp' || !has(self.pool) || self.capacity != 'reserved' || '{RESERVATION}' in self.selector "
        f"|| '{COMPUTE_CLASS}' in self.selector",
        f"reserved nodes of gcp are found by {RESERVATION} or {COMPUTE_CLASS}",
        field="selector",
    ),
    Rule(
        "spec",
        "GTJ0131",
        pool_has_what_it_needs,
        f"{_POOLED} || self.accelerator.perNode == 0 || "
        f"((!({_HERE} in {_TYPED}) || has(self.node.instanceType)) && (!({_HERE} in {_KINDED}) || has(self.accelerator.type)))",
        "managed and pool need node.instanceType, the other pools accelerator.type",
        field="pool",
    ),
    Rule(
        "spec",
        "GTJ0131",
        grace_is_what_there_is,
        f"{_POOLED} || self.capacity != 'spot' || ({_NOTICES})",
        "a spot node of that pool is gone before",
        field="gracePeriodSeconds",
    ),
)
