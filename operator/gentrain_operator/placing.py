"""How what a node pool asks of a pod is joined to what the job asks. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from gentrain_operator.fragment import Fragment
from gentrain_operator.kube.resource import Object
from trainjobs.api.compute import Topology


def allowed(restricted: Object, capabilities: tuple[str, ...]) -> Object:
    """The security context of a container that needs these capabilities beyond `restricted`."""
    if not capabilities:
        return dict(restricted)
    return {**restricted, "capabilities": {**restricted["capabilities"], "add": list(capabilities)}}


def kept_to(place: Fragment, theirs: Object, avoided: Sequence[str] = ()) -> Object:
    """The job's affinity, and beside it what the pool asks of a node, and the nodes that have failed the job (by the label that a kubelet
    gives its node's name): every term of the job's own must hold with both."""
    off = [{"key": "kubernetes.io/hostname", "operator": "NotIn", "values": list(avoided)}] if avoided else []
    needed = [*(place.expressions if place.required else ()), *off]
    if not needed and not place.expressions:
        return theirs
    node = dict(theirs.get("nodeAffinity") or {})
    if needed:
        terms = (node.get("requiredDuringSchedulingIgnoredDuringExecution") or {}).get("nodeSelectorTerms") or [{}]
        both = [{**term, "matchExpressions": [*(term.get("matchExpressions") or ()), *needed]} for term in terms]
        node["requiredDuringSchedulingIgnoredDuringExecution"] = {"nodeSelectorTerms": both}
    if place.expressions and not place.required:
        wish = {"weight": 100, "preference": {"matchExpressions": place.expressions}}
        node["preferredDuringSchedulingIgnoredDuringExecution"] = [
            *(node.get("preferredDuringSchedulingIgnoredDuringExecution") or ()),
            wish,
        ]
    return {**theirs, "nodeAffinity": node}


def together(topology: Topology | None) -> dict[str, str]:
    """The annotation by which Kueue places the workers' pods within one domain of its topology, in their template."""
    if topology is None:
        return {}
    how = "required" if topology.required else "preferred"
    return {f"kueue.x-k8s.io/podset-{how}-topology": str(topology.required or topology.preferred)}
