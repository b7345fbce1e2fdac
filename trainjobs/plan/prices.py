"""What a node costs an hour: as its profile says, else by the catalogue's list price of its type in its region, else nobody knows. Pure.

A list price is on demand. Of spot nodes it is what they cost at most; of reserved ones it says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trainjobs.api.profile import ProfileSpec
from trainjobs.plan import catalogue

TYPE, REGION = "node.kubernetes.io/instance-type", "topology.kubernetes.io/region"
MOST = "at most, on demand: "  # how the source of a spot node's list price begins
UNKNOWN = "unknown: "  # how a source begins that has no price


@dataclass(frozen=True)
class Price:
    """USD an hour of a whole node, and where that is from and of what day. `gpus` of such a node, 0 where that is not known."""

    usd: str
    source: str
    gpus: int = 0


def foreseen(profile: ProfileSpec) -> Price | None:
    """What is known before there is a node: the profile's own price, else that of the type and region on which it insists."""
    if profile.price is not None:
        return Price(profile.price.usd_per_node_hour, profile.price.source or "price of the ComputeProfile")
    kind = profile.node.instance_type or profile.selector.get(TYPE, "")
    return listed(kind, profile.selector.get(REGION, ""), profile.capacity)


def listed(kind: str, region: str, capacity: str) -> Price | None:
    """The catalogue's price of a type of node in a region. None where it has none, and for reserved nodes."""
    node = catalogue.nodes().get(kind)
    if node is None or region not in node.prices or capacity == "reserved":
        return None
    most = MOST if capacity == "spot" else ""
    # A source names its region where it has one alone.
    where = region if region not in catalogue.source(node.provider) else ""
    source = ", ".join(part for part in (catalogue.source(node.provider), where, kind) if part)
    return Price(node.prices[region], f"{most}{source}", node.gpus)


def seen(labels: Mapping[str, str] | None, capacity: str) -> Price:
    """The price of a node with these labels, None of one that could not be looked at; without one, `usd` is "" and `source` says why."""
    if labels is None:
        return Price("", f"{UNKNOWN}the profile has no price, and the operator may not look at its nodes")
    kind, region = labels.get(TYPE, ""), labels.get(REGION, "")
    if found := listed(kind, region, capacity):
        return found
    why = "reserved nodes have no list price" if capacity == "reserved" else f"no list price of {kind or 'a node without a type'}"
    return Price("", f"{UNKNOWN}{why}" + (f" in {region}" if region and capacity != "reserved" else ""))
