"""What a job has used: time, worker-seconds, GPU-seconds and money, added up look by look.

Time counts while an attempt's cluster is whole: from the moment at which KubeRay saw head and all workers ready, to the attempt's end.
Waiting does not count: KubeRay sets a RayJob's `startTime` when it takes it up, before there is a pod. What has been added
stays as it is: each look adds the time since the last one at the price, the workers and the GPUs that `status.plan` has
kept since the attempt began, so that neither another profile nor another price, another number of workers or a deleted
profile changes what was spent before.

What is paid is the time in which nodes are held, so cost counts more than that: of every pod the time from when it had a node until the
cluster was whole, or the attempt ended before it was; and the head's, where its price is known. A worker that is lost counts on
until the attempt ends: another one takes its place.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from gentrain_operator.kube.resource import Object
from gentrain_operator.pods import labels_of
from gentrain_operator.times import parsed_time, time
from trainjobs.api.job import Spec
from trainjobs.api.profile import ProfileSpec
from trainjobs.plan import prices

_MICRO = 10**6
CLUSTER, GROUP = "ray.io/cluster", "ray.io/node-type"  # KubeRay's labels of its pods; the second is head or worker


def frozen(spec: Spec, name: str, profile: ProfileSpec) -> Object:
    """`status.plan` of an attempt that begins: what it is priced by as long as it runs."""
    plan: Object = {"workers": spec.compute.worker_range[0], "gpusPerWorker": spec.compute.gpus_per_worker}
    if name:
        plan |= {"profile": name, "perNode": profile.accelerator.per_node}
    if (price := prices.foreseen(profile)) is not None:
        plan |= {"usdPerNodeHour": price.usd, "priceSource": price.source}
    if (head := profile.head.price) is not None:
        plan |= {"headUsdPerHour": head.usd_per_hour, "headPriceSource": head.source or "head.price of the ComputeProfile"}
    return plan


def active_seconds(job: Object, child: Object | None, now: datetime.datetime) -> int:
    """How long the clusters of all attempts have been whole, together; waiting and suspension do not count."""
    return _active(job, child, now)[0]


def spent(job: Object, child: Object | None, now: datetime.datetime) -> Object:
    """Writes down the time that counts towards the deadline: when an attempt ends, and on the way, because who suspends or deletes its
    RayJob wipes it out. What lies before `activeUntil` is never counted again, whatever the clocks do."""
    seconds, until = _active(job, child, now)
    return {"activeSeconds": seconds, **({"activeUntil": time(until)} if until else {})}


def cost(
    job: Object,
    spec: Spec,
    profiles: Mapping[str, Object],
    child: Object | None,
    now: datetime.datetime,
    *,
    pods: Sequence[Object] = (),
    final: bool = False,
) -> Object:
    """`status.cost`; until an attempt's end in steps of a minute, so that time alone is no reason to write more often. `pods`: the
    attempt's, where they are known, for the time of starting."""
    status = job.get("status") or {}
    before, plan = status.get("cost") or {}, _plan(status, spec, profiles)
    workers, gpus, price, per_node = group(status, spec), plan["gpusPerWorker"], plan.get("usdPerNodeHour"), plan.get("perNode", 0)
    seconds = active_seconds(job, child, now)
    # A status of before these fields: its cost covers the whole minutes of its time.
    whole = before.get("minutes", status.get("activeSeconds", 0) // 60 if before else 0)
    covered = before.get("seconds", whole * 60)
    reached = max(covered, seconds if final else seconds // 60 * 60)
    start = _start(before, child, pods, now, final=final) if price is not None or gpus else None
    added = (reached - covered) * workers + (start.workers if start else 0)
    with_head = reached - covered + (start.head if start else 0)
    worker_seconds = before.get("workerSeconds", before.get("workerMinutes", 0) * 60)
    hours = before.get("gpuHours")
    gpu_seconds = before.get("gpuSeconds", worker_seconds * gpus if hours is None else round(_number(hours) * 3600)) + added * gpus
    worker_seconds += added
    micro = before.get("microUSD", round(_number(before.get("usd")) * _MICRO))
    out: Object = {"usd": "unknown", "ratePerHourUSD": "unknown"}
    head = Fraction(plan.get("headUsdPerHour", 0))
    if price is not None:
        rate = Fraction(price) * (Fraction(gpus, per_node) if gpus and per_node else 1)  # of one worker
        micro += round((rate * added + head * with_head) * _MICRO / 3600)
        out["ratePerHourUSD"] = f"{float(rate * workers + head):.2f}"
    if (price is not None and head) or "headSeconds" in before:
        out["headSeconds"] = before.get("headSeconds", 0) + (with_head if price is not None and head else 0)
    if plan.get("headPriceSource"):
        out["head"] = plan["headPriceSource"]
    if start or before.get("startOf"):
        out["startOf"] = start.cluster if start else before["startOf"]
    if price is not None or micro:
        out |= {"usd": f"{micro / _MICRO:.2f}", "microUSD": micro}
    if price is not None or gpus or final or "seconds" in before:
        out |= {"seconds": reached, "workerSeconds": worker_seconds, "gpuSeconds": gpu_seconds}
    if plan.get("priceSource"):
        out["source"] = plan["priceSource"]
    if price is None and not gpus and not final and "seconds" in before:
        out |= {"seconds": covered, "workerSeconds": before.get("workerSeconds", 0)}  # nobody asks: no reason to write
    return {"cost": {**out, "gpuHours": f"{gpu_seconds / 3600:.2f}"}}


@dataclass(frozen=True)
class _Start:
    """Seconds for which the pods of a RayCluster had had nodes when it was whole, or when its attempt ended before that."""

    cluster: str
    workers: int
    head: int


def _start(before: Object, child: Object | None, pods: Sequence[Object], now: datetime.datetime, *, final: bool) -> _Start | None:
    """None where it is counted already, cannot be told yet, or is not known."""
    ray = (child or {}).get("status") or {}
    name, mine = ray.get("rayClusterName"), [pod for pod in pods if labels_of(pod).get(CLUSTER) == ray.get("rayClusterName")]
    at = _whole_since(child, None) or ((parsed_time(ray.get("endTime")) or now) if final else None)
    if not name or name == before.get("startOf") or not mine or at is None:
        return None
    held = [(pod, since) for pod in mine if (since := _on_node(pod)) is not None]
    each = [(labels_of(pod).get(GROUP) == "head", max(0, int((at - since).total_seconds()))) for pod, since in held]
    return _Start(str(name), sum(length for head, length in each if not head), sum(length for head, length in each if head))


def _on_node(pod: Object) -> datetime.datetime | None:
    """Since when a pod has a node."""
    found = (one for one in pod.get("status", {}).get("conditions") or () if one.get("type") == "PodScheduled" and one["status"] == "True")
    return next((parsed_time(one.get("lastTransitionTime")) for one in found), None)


def whole(child: Object | None) -> bool:
    """Whether head and all workers have been ready."""
    return _whole_since(child, None) is not None


def counted(job: Object, child: Object | None) -> bool:
    """Whether the time of starting of its cluster is in the cost, nobody asks for it, or it is not over."""
    status, name = job.get("status") or {}, ((child or {}).get("status") or {}).get("rayClusterName")
    plan, cost = status.get("plan") or {}, status.get("cost") or {}
    asked = plan.get("usdPerNodeHour") is not None or plan.get("gpusPerWorker")
    return not asked or not name or name == cost.get("startOf") or _whole_since(child, None) is None


def group(status: Object, spec: Spec) -> int:
    """How many workers the attempt has, from the plan it began with; of an elastic group what was last heard of it."""
    return int((status.get("plan") or {}).get("workers") or spec.compute.worker_range[0])


def _plan(status: Object, spec: Spec, profiles: Mapping[str, Object]) -> Object:
    """What the attempt is priced by. One that began before this was kept is priced by its profile as it is now."""
    plan: Object = status.get("plan") or {}
    if "gpusPerWorker" in plan:
        return plan
    profile = (profiles.get(plan.get("profile", "")) or {}).get("spec") or {}
    price = (profile.get("price") or {}).get("usdPerNodeHour")
    found = {"gpusPerWorker": spec.compute.gpus_per_worker, "perNode": (profile.get("accelerator") or {}).get("perNode", 0)}
    return {**plan, **found, **({"usdPerNodeHour": price} if price is not None else {})}


def _active(job: Object, child: Object | None, now: datetime.datetime) -> tuple[int, datetime.datetime | None]:
    """Seconds, and the moment until which they are counted."""
    status = job.get("status") or {}
    before, counted = int(status.get("activeSeconds", 0)), parsed_time(status.get("activeUntil"))
    begun = _whole_since(child, counted)
    if begun is None or child is None:
        return before, counted
    ended = parsed_time(child["status"].get("endTime")) or now
    since = max(begun, counted or begun)
    length = max(0, int((ended - since).total_seconds()))
    return before + length, since + datetime.timedelta(seconds=length)


def _whole_since(child: Object | None, counted: datetime.datetime | None) -> datetime.datetime | None:
    """When head and all workers were first ready; None while they are not, before KubeRay has begun and while it is suspended."""
    ray = (child or {}).get("status") or {}
    deployment = ray.get("jobDeploymentStatus") or ""
    if deployment in ("", "Suspended", "Initializing", "Retrying", "Waiting"):
        return None
    begun = parsed_time(ray.get("startTime"))
    ready = parsed_time(((ray.get("rayClusterStatus") or {}).get("stateTransitionTimes") or {}).get("ready"))
    if ready is not None:
        return max(ready, begun or ready)
    # Without that time: a Ray job exists only once the cluster was ready, and what was counted before had been ready.
    was = begun is not None and counted is not None and counted >= begun
    return begun if deployment == "Running" or ray.get("jobStatus") or was else None


def _number(text: object) -> Decimal:
    try:
        return Decimal(str(text))
    except InvalidOperation:
        return Decimal(0)
