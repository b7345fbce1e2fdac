"""What a job has used: time, worker-seconds, GPU-seconds and money, added up look by look.

Time counts while an attempt's cluster is whole: from the moment at which KubeRay saw head and all workers ready, to the attempt's end.
Waiting does not count: KubeRay sets a RayJob's `startTime` when it takes it up, before there is a pod. What has been added
stays as it is: each look adds the time since the last one at the price, the workers and the GPUs that `status.plan` has
kept since the attempt began, so that neither another profile nor another price, another number of workers or a deleted
profile changes what was spent before.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from fractions import Fraction

from gentrain_operator.kube.resource import Object
from gentrain_operator.times import parsed_time, time
from trainjobs.api.job import Spec
from trainjobs.api.profile import ProfileSpec
from trainjobs.plan import prices

_MICRO = 10**6


def frozen(spec: Spec, name: str, profile: ProfileSpec) -> Object:
    """`status.plan` of an attempt that begins: what it is priced by as long as it runs."""
    plan: Object = {"workers": spec.compute.worker_range[0], "gpusPerWorker": spec.compute.gpus_per_worker}
    if name:
        plan |= {"profile": name, "perNode": profile.accelerator.per_node}
    if (price := prices.foreseen(profile)) is not None:
        plan |= {"usdPerNodeHour": price.usd, "priceSource": price.source}
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
    job: Object, spec: Spec, profiles: Mapping[str, Object], child: Object | None, now: datetime.datetime, *, final: bool = False
) -> Object:
    """`status.cost`; until an attempt's end in steps of a minute, so that time alone is no reason to write more often."""
    status = job.get("status") or {}
    before, plan = status.get("cost") or {}, _plan(status, spec, profiles)
    workers, gpus, price, per_node = group(status, spec), plan["gpusPerWorker"], plan.get("usdPerNodeHour"), plan.get("perNode", 0)
    seconds = active_seconds(job, child, now)
    # A status of before these fields: its cost covers the whole minutes of its time.
    whole = before.get("minutes", status.get("activeSeconds", 0) // 60 if before else 0)
    covered = before.get("seconds", whole * 60)
    reached = max(covered, seconds if final else seconds // 60 * 60)
    added = (reached - covered) * workers
    worker_seconds = before.get("workerSeconds", before.get("workerMinutes", 0) * 60)
    hours = before.get("gpuHours")
    gpu_seconds = before.get("gpuSeconds", worker_seconds * gpus if hours is None else round(_number(hours) * 3600)) + added * gpus
    worker_seconds += added
    micro = before.get("microUSD", round(_number(before.get("usd")) * _MICRO))
    out: Object = {"usd": "unknown", "ratePerHourUSD": "unknown"}
    if price is not None:
        rate = Fraction(price) * (Fraction(gpus, per_node) if gpus and per_node else 1)  # of one worker
        micro += round(rate * added * _MICRO / 3600)
        out["ratePerHourUSD"] = f"{float(rate * workers):.2f}"
    if price is not None or micro:
        out |= {"usd": f"{micro / _MICRO:.2f}", "microUSD": micro}
    if price is not None or gpus or final or "seconds" in before:
        out |= {"seconds": reached, "workerSeconds": worker_seconds, "gpuSeconds": gpu_seconds}
    if plan.get("priceSource"):
        out["source"] = plan["priceSource"]
    if price is None and not gpus and not final and "seconds" in before:
        out |= {"seconds": covered, "workerSeconds": before.get("workerSeconds", 0)}  # nobody asks: no reason to write
    return {"cost": {**out, "gpuHours": f"{gpu_seconds / 3600:.2f}"}}


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
