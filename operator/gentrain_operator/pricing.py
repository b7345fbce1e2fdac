"""What an attempt is priced by where its profile says nothing: the list prices of the nodes on which its first worker and its head are.

A worker has its node, or the part of it that its accelerators are; a head shares one with others, so that its part is the greater of its
parts of what pods can have of CPU and memory there.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Protocol

from gentrain_operator import spending
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import NODES, Object, Resource
from gentrain_operator.kube.store import Key
from gentrain_operator.names import ATTEMPT_LABEL, attempt_of
from gentrain_operator.observed import Observed
from gentrain_operator.pods import labels_of, node_of
from gentrain_operator.present import starting
from gentrain_operator.quantity import amount
from gentrain_operator.spending import GROUP
from trainjobs.api.job import Spec
from trainjobs.api.profile import Head
from trainjobs.plan import prices


class Server(Protocol):
    def get(self, resource: Resource, namespace: str | None, name: str) -> Object: ...


def unpriced(job: Object) -> bool:
    """Whether nobody has found out yet what the attempt under way costs."""
    status = job.get("status") or {}
    plan = status.get("plan") or {}
    return (
        status.get("attempts", 0) > status.get("ended", 0) and "gpusPerWorker" in plan and not {"usdPerNodeHour", "priceSource"} & {*plan}
    )


def headless(job: Object) -> bool:
    """Whether nobody has found out yet what its head costs, of an attempt whose workers have a price, or may have one."""
    status = job.get("status") or {}
    plan = status.get("plan") or {}
    under_way = status.get("attempts", 0) > status.get("ended", 0) and "gpusPerWorker" in plan
    return under_way and not {"headUsdPerHour", "headPriceSource"} & {*plan} and ("usdPerNodeHour" in plan or "priceSource" not in plan)


def worker_s_node(job: Object, current: Object, pods: Sequence[Object]) -> str | None:
    """Whose price is to be found out: the node of a worker of the current attempt, once one is on a node."""
    return _node(current, pods, "worker") if unpriced(job) else None


def _node(current: Object, pods: Sequence[Object], kind: str) -> str | None:
    mine = [pod for pod in pods if labels_of(pod).get(ATTEMPT_LABEL) == str(attempt_of(current)) and labels_of(pod).get(GROUP) == kind]
    return next((name for pod in sorted(mine, key=lambda pod: str(pod["metadata"]["name"])) if (name := node_of(pod))), None)


@dataclass(frozen=True)
class Found:
    """`worker`: labels of the node of a worker, `head`: the node of the head; {} where the operator may not look, as with a role of before,
    and of a node that is gone already. None while there is none, and where nobody asks."""

    worker: Mapping[str, str] | None = None
    head: Object | None = None


class Nodes:
    """Whose labels an attempt is priced by, looked for once. What was found is kept beside: an older definition of a job does not keep the
    answer, and a write that carries it may be refused, and comes again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._found = dict[Key, tuple[int, Found]]()  # by job: the attempt, and its nodes

    def forget(self, key: Key) -> None:
        self._found.pop(key, None)

    def wanted(self, key: Key, job: Object, current: Object | None) -> bool:
        """Whether the pods of the current attempt have to be looked at for its price."""
        return current is not None and (unpriced(job) or headless(job)) and self._found.get(key, (0, Found()))[0] != attempt_of(current)

    def look(self, key: Key, job: Object, current: Object | None, pods: Sequence[Object]) -> Found:
        """Of both at once, when both are on nodes or the start is over."""
        if current is None:
            return Found()
        if self.wanted(key, job, current):
            on, head_on = worker_s_node(job, current, pods), _node(current, pods, "head") if headless(job) else None
            if starting(current) and ((unpriced(job) and on is None) or (headless(job) and head_on is None)):
                return Found()
            worker, head = (self._of(name) if name else None for name in (on, head_on))
            self._found[key] = attempt_of(current), Found(None if worker is None else worker.get("labels") or {}, head)
        attempt, found = self._found.get(key, (0, Found()))
        return found if attempt == attempt_of(current) else Found()

    def _of(self, name: str) -> Object:
        """What a price is found by; {} where there is nothing to see."""
        try:
            node = self._server.get(NODES, None, name)
        except ApiError as error:
            if error.status != 403 and not error.not_found:
                raise
            return {}
        return {"labels": node["metadata"].get("labels") or {}, "allocatable": (node.get("status") or {}).get("allocatable") or {}}


def priced(seen: Observed) -> Observed:
    """With the prices in the plan of the attempt, where they were looked for: from there on it is priced by them."""
    status = seen.job.get("status") or {}
    plan: Object = status.get("plan") or {}
    profile = ((seen.profiles or {}).get(plan.get("profile", "")) or {}).get("spec") or {}
    if seen.node is not None and unpriced(seen.job):
        found = prices.seen(seen.node or None, str(profile.get("capacity", "on-demand")))
        plan = {**plan, "priceSource": found.source, **({"usdPerNodeHour": found.usd} if found.usd else {})}
        if found.gpus and not plan.get("perNode"):
            plan["perNode"] = found.gpus
    if seen.head is not None and "usdPerNodeHour" in plan and headless(seen.job):
        found = prices.seen(seen.head.get("labels"), "on-demand")  # a head keeps off spot nodes
        plan = {**plan, "headPriceSource": found.source}
        if found.usd:
            part = _part(Head.model_validate(profile.get("head") or {}), seen.head.get("allocatable") or {})
            plan |= {
                "headUsdPerHour": f"{float(Fraction(found.usd) * part):.6f}",
                "headPriceSource": f"{float(part):.0%} of {found.source}",
            }
    return replace(seen, job={**seen.job, "status": {**status, "plan": plan}}) if plan != status.get("plan", {}) else seen


def _part(head: Head, allocatable: Mapping[str, str]) -> Fraction:
    """The head's part of its node; all of one that does not say what it has."""
    parts = [
        amount(asked) / amount(allocatable[name]) for name, asked in (("cpu", head.cpu), ("memory", head.memory)) if name in allocatable
    ]
    return min(Fraction(1), max(parts, default=Fraction(1)))


def held(seen: Observed) -> Sequence[Object]:
    """The pods whose time of starting counts: none where it could not be kept that it did."""
    return seen.pods if seen.starts else ()


def costs(seen: Observed, spec: Spec, now: datetime.datetime, child: Object | None, *, final: bool = False) -> Object:
    """`status.cost` of what is seen."""
    return spending.cost(seen.job, spec, seen.profiles or {}, child, now, pods=held(seen), final=final)
