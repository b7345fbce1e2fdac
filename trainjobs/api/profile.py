"""The ComputeProfile: what a pool of GPU nodes looks like. It belongs to the platform team; jobs only name it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import Field

from trainjobs.api.fields import DecimalString, Identifier, ImageName, LabelText, Model, ObjectName
from trainjobs.api.keys import DOMAIN, LONGEST, NAME, map_rule, taint_rule
from trainjobs.api.pools import FOREIGN
from trainjobs.api.pools import RULES as POOL_RULES
from trainjobs.api.rule import Breach, Rule

Quantity = Annotated[str, Field(min_length=1, max_length=32, pattern=r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|Ki|Mi|Gi|Ti|Pi)?$")]


# What a pod may ask for beside CPU and memory: a resource with a domain, which leaves room for the "requests." that quotas put before it.
RESOURCE = rf"^{DOMAIN}/{NAME}$"
_RESOURCE_DOMAIN = 244


class Accelerator(Model):
    """The accelerators of a node."""

    type: Identifier | None = Field(None, description="Kind of accelerator, e.g. h100-80gb; for people and for the plan.")
    resource: Annotated[str, Field(min_length=1, max_length=LONGEST)] = Field(
        "nvidia.com/gpu", description="Extended resource that a worker asks for."
    )
    per_node: Annotated[int, Field(ge=0, le=64)] = Field(0, description="Accelerators of one node; 0 for a CPU pool.")


class Node(Model):
    """What one node offers to workers. A worker asks for its share: one per accelerator it uses, or the whole on a CPU pool."""

    cpu: Quantity = Field("4", description="CPUs.")
    memory: Quantity = Field("16Gi", description="Memory.")
    shared_memory: Quantity = Field("2Gi", description="Size of /dev/shm in each pod, taken from its memory.")
    instance_type: LabelText | None = Field(
        None, description="The cloud's name of the machine, e.g. p5.48xlarge: which nodes are meant, their EFA devices and list price."
    )
    scratch: Literal["disk", "nvme"] = Field(
        "disk", description="Where a pod's /tmp lies: on the node's disk, or on its local NVMe, which the nodes must have as their storage."
    )


class Toleration(Model):
    """As Kubernetes writes it, but for a key alone, which there would tolerate the taint without a value and here tolerates every one."""

    key: Annotated[str, Field(min_length=1, max_length=LONGEST)] = Field(description="Taint key.")
    operator: Literal["Exists", "Equal"] | None = Field(
        None, description="Exists (any value) or Equal (to value). Default: Equal where there is a value, Exists for a key alone."
    )
    value: LabelText | None = Field(None, description="Taint value (Equal only).")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(None, description="Taint effect; default: every effect.")

    @property
    def meant(self) -> str:
        """The operator, whether written or not."""
        return self.operator or ("Exists" if self.value is None else "Equal")


class HeadPrice(Model):
    usd_per_hour: DecimalString = Field(alias="usdPerHour", description="Price of the head pod for an hour: of its part of its node.")
    source: Annotated[str, Field(max_length=253)] = Field("", description="Where the price comes from and when it was read.")


class Head(Model):
    """The head pod. It runs Ray's control processes and the driver, never a worker: an on-demand CPU node suits it."""

    cpu: Quantity = Field("1", description="CPUs.")
    memory: Quantity = Field("4Gi", description="Memory.")
    selector: Annotated[dict[str, LabelText], Field(max_length=16)] = Field(
        {}, description="Node labels the head needs. Without any it keeps off the nodes of accelerators and off spot nodes."
    )
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field(
        [], description="Taints the head tolerates, beside the profile's that are about neither accelerators nor spot nodes."
    )
    price: HeadPrice | None = Field(
        None, description="For cost and budget; without it the head's part of the list price of its node counts, where one is known."
    )


class Price(Model):
    usd_per_node_hour: DecimalString = Field(alias="usdPerNodeHour", description="Price of a node for an hour.")
    source: Annotated[str, Field(max_length=253)] = Field("", description="Where the price comes from and when it was read.")


class ProfileSpec(Model):
    provider: Literal["aws", "gcp", "azure", "generic"] = Field("generic", description="Cloud the nodes run on.")
    pool: Literal["managed", "karpenter", "auto", "standard", "autopilot", "nap", "pool"] | None = Field(
        None,
        description="How the cloud makes the nodes: aws managed, karpenter or auto; gcp standard, autopilot or nap; azure pool or nap. It "
        "brings the labels and taints by which workers find them; without it selector and tolerations are all there is.",
    )
    accelerator: Accelerator = Accelerator()
    capacity: Literal["on-demand", "spot", "reserved"] = Field("on-demand", description="How the nodes are bought.")
    fabric: Literal["none", "efa", "efa-dra", "gke-rdma", "dranet", "tcpx", "tcpxo", "azure-ib", "azure-ib-shared"] = Field(
        "none", description="The network between nodes that GPUs use directly. All but none, efa and efa-dra need the privileged level."
    )
    networks: Annotated[list[ObjectName], Field(max_length=16)] = Field(
        [], description="Network objects that workers attach as eth1, eth2 and so on (gke-rdma; tcpx: 4; tcpxo: 8)."
    )
    fabric_image: ImageName | None = Field(
        None,
        description="Image of the daemon beside each worker, of the release of the NCCL plugin that the nodes have (tcpx, tcpxo).",
    )
    claim_template: ObjectName | None = Field(
        None, description="ResourceClaimTemplate in the jobs' namespaces that claims a worker's fabric devices (efa-dra, dranet)."
    )
    node: Node = Node()
    head: Head = Head()
    grace_period_seconds: Annotated[int, Field(ge=15, le=3600)] = Field(
        120, description="Time a pod has to checkpoint and stop; on spot, not more than the cloud's notice."
    )
    unschedulable_seconds: Annotated[int, Field(ge=60, le=86400)] = Field(
        600,
        description="Time that pods wait for a node before the job tries its next profile, if it has one; a minute where the autoscaler "
        "says that there is no capacity. Of a node on its way it counts from when that was asked for.",
    )
    service_account_name: ObjectName | None = Field(None, description="Service account of jobs that name none.")
    image: ImageName | None = Field(None, description="Trainer image of jobs that name none; default: the chart's.")
    selector: Annotated[dict[str, LabelText], Field(max_length=16)] = Field({}, description="Node labels workers need.")
    tolerations: Annotated[list[Toleration], Field(max_length=16)] = Field([], description="Taints workers tolerate, beside the pool's.")
    priority_class_name: ObjectName | None = Field(None, description="Priority class of jobs that name none.")
    price: Price | None = Field(
        None, description="For cost and budget; without it the list price of the nodes' type in their region counts, where one is known."
    )


class Profile(Model):
    """One manifest: kind ComputeProfile, cluster-scoped."""

    api_version: Literal["gentrain.dev/v1alpha1"]
    kind: Literal["ComputeProfile"]
    spec: ProfileSpec


def resource_is_one(accelerator: Accelerator) -> Iterator[Breach]:
    name = accelerator.resource
    fine = re.fullmatch(RESOURCE, name) and name.find("/") <= _RESOURCE_DOMAIN and not name.startswith("requests.")
    if accelerator.per_node and not fine:
        what = f'"{name[:64]}" is no resource that a pod can ask for'
        yield Breach(("resource",), what, "accelerators are extended resources: a domain, / and a name", "such as nvidia.com/gpu")


def torch_trains_on_it(accelerator: Accelerator) -> Iterator[Breach]:
    if accelerator.per_node and re.search(FOREIGN, accelerator.resource):
        why = "torch, as the trainer has it, trains on GPUs and CPUs alone"
        yield Breach(("resource",), f"{accelerator.resource} cannot be trained on", why, "name a pool of GPUs, or write perNode: 0")


def existence_has_no_value(toleration: Toleration) -> Iterator[Breach]:
    if toleration.operator == "Exists" and toleration.value:
        what = f"a toleration of {toleration.key[:64]} has operator Exists and a value"
        yield Breach((), what, "Exists tolerates every value, and no pod may have both", "take one of them out; a value alone means Equal")


RULES = (
    map_rule("spec.selector"),
    map_rule("spec.head.selector"),
    taint_rule("spec.tolerations.*.key"),
    taint_rule("spec.head.tolerations.*.key"),
    Rule(
        "spec.tolerations.*",
        "GTJ0108",
        existence_has_no_value,
        "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
        "operator Exists has no value; a value alone means Equal",
    ),
    Rule(
        "spec.head.tolerations.*",
        "GTJ0108",
        existence_has_no_value,
        "!has(self.operator) || self.operator != 'Exists' || !has(self.value) || self.value == ''",
        "operator Exists has no value; a value alone means Equal",
    ),
    Rule(
        "spec.accelerator",
        "GTJ0102",
        resource_is_one,
        f"self.perNode == 0 || (self.resource.matches(r'{RESOURCE}') && self.resource.indexOf('/') <= {_RESOURCE_DOMAIN} "
        "&& !self.resource.startsWith('requests.'))",
        "a resource that a pod can ask for has a domain, / and a name, such as nvidia.com/gpu",
        field="resource",
    ),
    Rule(
        "spec.accelerator",
        "GTJ0130",
        torch_trains_on_it,
        f"self.perNode == 0 || !self.resource.matches(r'{FOREIGN}')",
        "torch does not train on such devices",
        field="resource",
    ),
    *POOL_RULES,
)
