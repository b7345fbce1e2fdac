"""What an attempt is priced by where its profile says nothing: the list price of the node on which its first worker is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import NODES, Object, Resource
from gentrain_operator.kube.store import Key
from gentrain_operator.names import ATTEMPT_LABEL, attempt_of
from gentrain_operator.observed import Observed
from gentrain_operator.pods import node_of
from gentrain_operator.present import starting
from trainjobs.plan import prices

GROUP = "ray.io/node-type"  # KubeRay's label: head or worker


class Server(Protocol):
    def get(self, resource: Resource, namespace: str | None, name: str) -> Object: ...


def unpriced(job: Object) -> bool:
    """Whether nobody has found out yet what the attempt under way costs."""
    status = job.get("status") or {}
    plan = status.get("plan") or {}
    return (
        status.get("attempts", 0) > status.get("ended", 0) and "gpusPerWorker" in plan and not {"usdPerNodeHour", "priceSource"} & {*plan}
    )


def worker_s_node(job: Object, current: Object, pods: Sequence[Object]) -> str | None:
    """Whose price is to be found out: the node of a worker of the current attempt, once one is on a node."""
    if not unpriced(job):
        return None
    mine = [pod for pod in pods if (pod["metadata"].get("labels") or {}).get(ATTEMPT_LABEL) == str(attempt_of(current))]
    workers = [pod for pod in mine if pod["metadata"]["labels"].get(GROUP) == "worker"]
    return next((name for pod in sorted(workers, key=lambda pod: str(pod["metadata"]["name"])) if (name := node_of(pod))), None)


class Nodes:
    """Whose labels an attempt is priced by, looked for once. What was found is kept beside: an older definition of a job does not keep the
    answer, and a write that carries it may be refused, and comes again."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._found = dict[Key, tuple[int, Mapping[str, str] | None]]()  # the attempt, and the labels of its node

    def forget(self, key: Key) -> None:
        self._found.pop(key, None)

    def wanted(self, key: Key, job: Object, current: Object | None) -> bool:
        """Whether the pods of the current attempt have to be looked at for its price."""
        return current is not None and unpriced(job) and self._found.get(key, (0, None))[0] != attempt_of(current)

    def labels(self, key: Key, job: Object, current: Object | None, pods: Sequence[Object]) -> Mapping[str, str] | None:
        """Of the node of a worker: {} where the operator may not look, as with a role of before, and of a node that is gone already. None
        while no worker is on one, and of an attempt that runs on none."""
        if current is None:
            return None
        if self.wanted(key, job, current):
            name = worker_s_node(job, current, pods)
            if name is None and starting(current):
                return None
            self._found[key] = attempt_of(current), self._of(name) if name else None
        attempt, found = self._found.get(key, (0, None))
        return found if attempt == attempt_of(current) else None

    def _of(self, name: str) -> Mapping[str, str]:
        try:
            found: Mapping[str, str] = self._server.get(NODES, None, name)["metadata"].get("labels") or {}
        except ApiError as error:
            if error.status != 403 and not error.not_found:
                raise
            return {}
        return found


def priced(seen: Observed) -> Observed:
    """With the price in the plan of the attempt, where one was looked for: from there on it is priced by that."""
    if seen.node is None or not unpriced(seen.job):
        return seen
    status = seen.job["status"]
    plan = status["plan"]
    profile = ((seen.profiles or {}).get(plan.get("profile", "")) or {}).get("spec") or {}
    found = prices.seen(seen.node or None, str(profile.get("capacity", "on-demand")))
    plan = {**plan, "priceSource": found.source, **({"usdPerNodeHour": found.usd} if found.usd else {})}
    if found.gpus and not plan.get("perNode"):
        plan["perNode"] = found.gpus
    return replace(seen, job={**seen.job, "status": {**status, "plan": plan}})
