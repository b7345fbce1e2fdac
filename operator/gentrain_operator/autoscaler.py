"""What a node autoscaler says about a pod that fits no node: events on the pod, of Karpenter, of the Cluster Autoscaler, which GKE and AKS
run as well. Pure.

Each autoscaler has its words, which are no contract; what is not recognised counts as "no pool of mine can hold it", which is what nearly
all of them mean, and is shown as it was said. Sources: Karpenter v1.14, pkg/controllers/provisioning/scheduling/{events,nodeclaim}.go;
Cluster Autoscaler 1.35, processors/status/eventing_scale_up_processor.go and its FAQ.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from gentrain_operator.kube.events import READ, clean
from gentrain_operator.kube.resource import Object
from gentrain_operator.times import parsed_time

COMING = {"Nominated", "TriggeredScaleUp"}
REFUSING = {"NotTriggerScaleUp", "FailedScaleUp"}
# Nodes of the kind exist, and there are none now: of the cloud, of its quota, or of the limit that the platform team set.
_SOLD_OUT = re.compile(
    r"exceeds? limits?|limits? (would be )?exceeded|max(imum)? (node group|cluster|total)[\w ]{0,80} reached|in backoff"
    r"|out of (resources|stock)|quota|insufficient (instance )?capacity|has the required offering"
    r"|which [^;]{0,400}, had a required offering"
    # Karpenter 1.14 asks whether a pod fits of types alone that are to be had; of those that are meant none is.
    r"|type had enough resources or had a required offering|filtered out all available instance types"
    r"|\bICE\b|ZONE_RESOURCE_POOL_EXHAUSTED|SkuNotAvailable|unavailable",
    re.IGNORECASE,
)
# Words of schedulers and autoscalers, and the field of a ComputeProfile that answers for them.
_FIELDS = (
    (r"did not tolerate|untolerated taint", "tolerations, or pool"),
    (r"node affinity|node selector|incompatible requirements|didn't match Pod's|does not have known values", "selector, or pool"),
    (r"enough resources|insufficient (cpu|memory|[\w.-]+/[\w-]+)", "node and accelerator.perNode"),
)


@dataclass(frozen=True)
class Word:
    """The last that an autoscaler said about a pod. `kind`: a node is on its way, there is none to be had now, or no pool can hold it."""

    kind: Literal["coming", "sold out", "impossible"]
    who: str
    said: str
    at: datetime.datetime | None


def last(events: Iterable[Object]) -> Word | None:
    """What counts is what was said last: a node that was promised and could not be had is followed by the reason.

    Karpenter forgets an offering for minutes when the cloud has none (its list of unavailable offerings), and then says of a pod that wants
    it what it says of one that no type can hold. So who promised a node before, and now refuses, has none now.
    """
    words = [word for event in events if (word := _word(event)) is not None]
    found = max(words, key=_when, default=None)
    if found and found.kind == "impossible" and any(one.kind == "coming" and one.who == found.who for one in words):
        return replace(found, kind="sold out")
    return found


def _when(word: Word) -> datetime.datetime:
    return word.at or datetime.datetime.min.replace(tzinfo=datetime.UTC)


def about(events: Iterable[Mapping[str, Any]]) -> dict[str, list[Object]]:
    """Events by the UID of what they are about, through either API for events."""
    found: dict[str, list[Object]] = {}
    for event in events:
        whom = event.get("regarding") or event.get("involvedObject") or {}
        found.setdefault(str(whom.get("uid", "")), []).append(dict(event))
    return found


def field(said: str) -> str:
    """Which of a profile's fields to look at, a sentence; "" where the words do not tell."""
    named = [fields for pattern, fields in _FIELDS if re.search(pattern, said[:READ], re.IGNORECASE)]
    return f"Look at the profile's {named[0]}" if named else ""


def _word(event: Object) -> Word | None:
    source = event.get("deprecatedSource") or event.get("source") or {}
    who = str(event.get("reportingController") or event.get("reportingComponent") or source.get("component") or "")
    reason, said = str(event.get("reason", "")), str(event.get("note") or event.get("message") or "")[:READ]
    if reason in COMING:
        return Word("coming", _name(who), clean(said, 400), said_at(event))
    if reason in REFUSING or (reason == "FailedScheduling" and "karpenter" in who):
        # Karpenter says of each pool why not, at length: the one that would do may come last.
        sold_out = next((part for part in said.split("; ") if _SOLD_OUT.search(part)), None)
        return Word("impossible" if sold_out is None else "sold out", _name(who), clean(sold_out or said, 400), said_at(event))
    return None


def _name(who: str) -> str:
    return clean(who, 63) or "the autoscaler"


def said_at(event: Object) -> datetime.datetime | None:
    """When it was last said: each API for events, and each way to count repeated ones, has a field of its own."""
    series = event.get("series") or {}
    times = (series.get("lastObservedTime"), event.get("deprecatedLastTimestamp"), event.get("lastTimestamp"), event.get("eventTime"))
    said = [time for text in times if (time := parsed_time(text)) is not None]
    return max(said, default=None) or parsed_time((event.get("metadata") or {}).get("creationTimestamp"))
