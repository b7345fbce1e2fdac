"""Which profile an attempt runs on: of those that the job names, exist, can be used and fit its workers, the one whose turn it is.

A worker is one pod, and a pod is on one node: a profile fits when a node has the accelerators that a worker wants, and when a worker's
share of the node is something. One that does not fit is passed over for those that do. Pure.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping

from pydantic import ValidationError

from gentrain_operator import nodepools, resting
from gentrain_operator.conditions import Condition
from gentrain_operator.kube.resource import Object
from gentrain_operator.quantity import amount
from gentrain_operator.rayjob import worker_resources
from gentrain_operator.surroundings import ENFORCE, takes
from trainjobs.api.errors import sentences
from trainjobs.api.job import API_VERSION, Spec
from trainjobs.api.problem import listed
from trainjobs.api.profile import Profile, ProfileSpec
from trainjobs.api.rules import check_profile
from trainjobs.plan import prices

Profiles = Mapping[str, Object]


def chosen(
    spec: Spec, profiles: Profiles, status: Object, now: datetime.datetime, enforced: str = ""
) -> tuple[str, ProfileSpec] | Condition:
    """The name and the profile of the next attempt ("" and the defaults when the job names none), or why there is none. `enforced`: the
    Pod Security level of its namespace."""
    if not spec.compute.profiles:
        unpriced = misfit(spec, "", ProfileSpec()) if spec.budget else ""
        return Condition("Accepted", False, "PlanDoesNotFit", unpriced) if unpriced else ("", ProfileSpec())
    found = {name: _read(profiles[name]) for name in spec.compute.profiles if name in profiles}
    good = {name: profile for name, profile in found.items() if isinstance(profile, ProfileSpec)}
    fits = fitting(spec, profiles, enforced)
    if fits:
        name = resting.order(status, fits, now)[0]
        return name, fits[name]
    broken = [f"GTJ0111 ComputeProfile {name} is not usable: {said}" for name, said in found.items() if isinstance(said, str)]
    absent = [name for name in spec.compute.profiles if name not in profiles]
    missing = [f"GTJ0111 there is no ComputeProfile {listed(absent)}", "The job goes on by itself once one exists"] if absent else []
    if good:
        unfit = [misfit(spec, name, profile) or forbidden(name, profile, enforced) for name, profile in good.items()]
        reason = "PodsForbidden" if any(one.startswith("GTJ0303") for one in unfit) else "PlanDoesNotFit"
        return Condition("Accepted", False, reason, sentences(*unfit, *broken, *missing))
    return Condition("Accepted", False, "ProfileNotFound", sentences(*broken, *missing))


def fitting(spec: Spec, profiles: Profiles, enforced: str = "") -> dict[str, ProfileSpec]:
    """Those of its profiles that the job could run on now, as it prefers them."""
    found = {name: _read(profiles[name]) for name in spec.compute.profiles if name in profiles}
    return {
        name: profile
        for name, profile in found.items()
        if isinstance(profile, ProfileSpec) and not misfit(spec, name, profile) and not forbidden(name, profile, enforced)
    }


def forbidden(name: str, profile: ProfileSpec, enforced: str) -> str:
    """Why a namespace that enforces a Pod Security level will not take the profile's pods, and the ways out; "" when it will."""
    level = nodepools.level(profile)
    if takes(enforced, level):
        return ""
    return (
        f"GTJ0303 the pods of ComputeProfile {name} need the Pod Security level {level} (fabric: {profile.fabric}), and the namespace of "
        f"the job has the label {ENFORCE}={enforced}: name a profile with fabric none or efa, submit to a namespace that allows {level}, "
        f"or have the label changed (kubectl label --overwrite namespace NAMESPACE {ENFORCE}={level})"
    )


def demanding(job: Object, profiles: Profiles) -> bool:
    """Whether the pods of one of the job's profiles need more than the strictest Pod Security level."""
    return any(nodepools.level(one) != "restricted" for one in _named(job, profiles))


def pools(job: Object, profiles: Profiles) -> list[dict[str, str]]:
    """The labels of the nodes on which the job's workers may run, by profile; none of a job without accelerators, or that is suspended."""
    spec = job.get("spec") or {}
    gpus = (spec.get("compute") or {}).get("gpusPerWorker", 1)
    if spec.get("suspend") or not isinstance(gpus, int) or gpus <= 0:
        return []
    return [nodepools.workers(one, gpus).selector for one in _named(job, profiles) if one.accelerator.per_node]


def _named(job: Object, profiles: Profiles) -> list[ProfileSpec]:
    """The profiles that the job names, as far as they can be read, whatever else is wrong with it."""
    names = ((job.get("spec") or {}).get("compute") or {}).get("profiles") or ()
    found = [_read(profiles[name]) for name in names if name in profiles]
    return [one for one in found if isinstance(one, ProfileSpec)]


def misfit(spec: Spec, name: str, profile: ProfileSpec) -> str:
    """Why no node of the profile can hold a worker, and the ways out; "" when one can."""
    if spec.budget is not None and prices.foreseen(profile) is None:
        which = f"ComputeProfile {name} has no price" if name else "the job names no profile, and so has no price"
        return (
            f"GTJ0132 budget.maxUSD is set, and {which}: nobody would ever know that it is used up. Write the profile's "
            "price.usdPerNodeHour, or its node.instanceType and a selector of topology.kubernetes.io/region of which a list price is known "
            "(docs/reference/nodes.md), name a profile that has one, or take the budget out (activeDeadlineSeconds limits time)"
        )
    wanted, there = spec.compute.gpus_per_worker, profile.accelerator.per_node
    if wanted and not there:
        return (
            f"GTJ0108 a worker wants {wanted} GPUs (compute.gpusPerWorker), and the nodes of ComputeProfile {name} have 0 "
            "(accelerator.perNode): write gpusPerWorker: 0 to train on CPUs, or name a profile of GPU nodes; if these are, "
            "the profile has to say how many GPUs one has"
        )
    if wanted > there:
        return (
            f"GTJ0108 a worker wants {wanted} GPUs (compute.gpusPerWorker), and a node of ComputeProfile {name} has {there} "
            f"(accelerator.perNode): write gpusPerWorker: {there} and more workers, or name a profile of larger nodes"
        )
    if misplaced := nodepools.misplaced(name, profile, wanted):
        return misplaced
    share = worker_resources(spec, profile)
    for field, unit in (("cpu", "1m"), ("memory", "1Mi")):
        if not amount(share[field]):
            part = f"{wanted} of {there} parts of {getattr(profile.node, field)}" if wanted else getattr(profile.node, field)
            return (
                f"GTJ0108 a worker's {field} on ComputeProfile {name} would be {part} (node.{field}), less than {unit}: "
                f"write what a node has into the profile's node.{field}, or name another profile"
            )
    return ""


def _read(found: Object) -> ProfileSpec | str:
    """The profile as this operator can use it, or what is wrong with it. Fields of a newer definition are ignored."""
    try:
        content = {"apiVersion": API_VERSION, "kind": "ComputeProfile", "spec": found.get("spec")}
        profile = Profile.model_validate(content, extra="ignore")
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        return f"{'.'.join(map(str, first['loc']))}: {first['msg']}"
    problems = check_profile(profile)
    return problems[0].error().line().removeprefix(f"{problems[0].code} ") if problems else profile.spec
