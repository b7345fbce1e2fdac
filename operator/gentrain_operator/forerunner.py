"""The preflight pod of a job: made, looked at and taken away. What it means is decided in preflight.py.

A job that has or had a RayJob never gets one, so that an operator that learns of preflights leaves the jobs of before alone.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence

from gentrain_operator import preflight, present, profiles, resting
from gentrain_operator.conditions import Condition
from gentrain_operator.identity import RunAs, running_as
from gentrain_operator.kube.apply import Taken, create_child
from gentrain_operator.kube.client import Client
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import CONFIGMAPS, EVENTS, PODS, RAYJOBS, Object
from gentrain_operator.kube.store import controller_of
from gentrain_operator.lastvalid import spec_of
from gentrain_operator.names import preflight_name
from gentrain_operator.observed import Decision, Observed
from gentrain_operator.refusals import Refused, of_pod
from gentrain_operator.times import parsed_time
from gentrain_operator.waiting import given_up, spoken_by
from trainjobs.api.errors import sentences
from trainjobs.api.profile import ProfileSpec

log = logging.getLogger(__name__)

AT_ONCE = 0.05  # seconds: what was written a moment ago is read back


class Forerunner:
    """`enabled`: whether this operator asks for preflights at all; `run_as` as of every pod of a job; `keeps`: whether the server keeps a
    field of the status. Where it does not keep verdicts there are no preflights, which would never end."""

    def __init__(self, client: Client, *, enabled: bool, run_as: RunAs | None, keeps: Callable[[str], bool] = lambda name: True) -> None:
        self._client, self._enabled, self._run_as, self._keeps = client, enabled, run_as, keeps

    def before(self, seen: Observed, decision: Decision, now: datetime.datetime) -> Decision:
        """What to do in place of a decision that begins the first attempt; any other decision as it is. Raises Taken, Refused, ApiError."""
        job, status = seen.job, seen.job.get("status") or {}
        if not self._enabled or status.get("attempts", 0) or seen.rayjobs or not self._keeps("preflight"):
            return decision
        configmap, rayjob = (next((one for one in decision.create if one["kind"] == kind.kind), None) for kind in (CONFIGMAPS, RAYJOBS))
        if configmap is None or rayjob is None or not (job.get("spec") or {}).get("preflight", True):
            if status.get("phase") == "Pending":  # suspended, broken or changed meanwhile
                self._gone(job, self._there(job), "")
            return decision
        wanted = preflight.pod(job, running_as(rayjob, self._run_as))
        there = self._there(job)
        known = preflight.remembered(status, preflight.key(wanted), now)
        if known is not None and (known["passed"] or preflight.pause(known, now) > 0):
            self._gone(job, there, configmap["metadata"]["name"])
            return decision if known["passed"] else self._waits(job, now, _failed(known), again=preflight.pause(known, now))
        if there is not None and (preflight.key(there) != preflight.key(wanted) or there["metadata"].get("deletionTimestamp")):
            self._gone(job, there, configmap["metadata"]["name"])
            return self._waits(job, now, _looking(job, known), again=preflight.POLL[0])
        if there is None:
            return self._begun(job, now, configmap, wanted, known)
        return self._looked(seen, there, known, now)

    def _begun(self, job: Object, now: datetime.datetime, configmap: Object, wanted: Object, known: Object | None) -> Decision:
        try:
            create_child(self._client, CONFIGMAPS, job, configmap)
            create_child(self._client, PODS, job, wanted)
        except ApiError as error:
            found = of_pod(error, wanted)
            if found is None:
                raise
            if found.reason != "Forbidden":
                raise Refused(found) from error
            # A role of an operator of before: what cannot be looked at does not keep the job from running.
            log.warning("%s/%s begins without a preflight: %s", job["metadata"]["namespace"], job["metadata"]["name"], error.message)
            said = "GTJ0306 there was no preflight, and the job goes on: the operator may not create pods. helm upgrade brings the role"
            return self._told(job, now, preflight.key(wanted), preflight.Verdict(True, said))
        return self._waits(job, now, _looking(job, known), again=preflight.POLL[0])

    def _looked(self, seen: Observed, there: Object, known: Object | None, now: datetime.datetime) -> Decision:
        found = preflight.verdict(there)
        if found is not None:
            return self._told(seen.job, now, preflight.key(there), found)
        name, profile, others = _mine(seen, now)
        stuck = preflight.stuck(there, self._events(there), spoken_by(profile.pool, now))
        if stuck is None:
            return self._waits(seen.job, now, _looking(seen.job, known), again=preflight.poll(there, now))
        begun = parsed_time(there["metadata"].get("creationTimestamp"))
        if others and given_up(stuck, begun, profile.unschedulable_seconds, now):
            rest = {"profiles": resting.rested(seen.job.get("status") or {}, name, stuck.message, now)}
            self._gone(seen.job, there, "")
            return self._waits(seen.job, now, _looking(seen.job, None), again=AT_ONCE, changes=rest)
        kind = "ResourcesReady" if stuck.condition == "ResourcesReady" else "Accepted"
        condition = Condition(kind, False, stuck.reason, stuck.message)
        return self._waits(seen.job, now, condition, again=preflight.poll(there, now))

    def _told(self, job: Object, now: datetime.datetime, looks_at: str, found: preflight.Verdict) -> Decision:
        """The verdict, written before its pod goes: the look that follows at once does the rest."""
        entry = preflight.kept(job.get("status") or {}, looks_at, found, now)
        return self._waits(job, now, _passed(entry) if found.passed else _failed(entry), again=AT_ONCE, changes={"preflight": entry})

    def _waits(self, job: Object, now: datetime.datetime, condition: Condition, *, again: float, changes: Object | None = None) -> Decision:
        spec, _ = spec_of(job)
        message = condition.message if condition.reason == "Preflight" else ""
        return Decision(status=present.status(job, now, "Pending", [condition], spec, changes, message), again=again)

    def _there(self, job: Object) -> Object | None:
        try:
            found = self._client.get(PODS, job["metadata"]["namespace"], preflight_name(job["metadata"]["name"]))
        except ApiError as error:
            if error.not_found or error.status == 403:  # who may not read pods may not create them either
                return None
            raise
        if (controller_of(found) or {}).get("uid") != job["metadata"]["uid"]:
            raise Taken(f"Pod {found['metadata']['name']} exists and is not this job's")
        return found

    def _gone(self, job: Object, pod: Object | None, keep: str) -> None:
        """Deletes the pod, and the job as it read it unless that is `keep`, which the attempt is about to read."""
        if pod is None:
            return
        namespace = job["metadata"]["namespace"]
        for volume in pod["spec"].get("volumes") or ():
            name = (volume.get("configMap") or {}).get("name", "") if volume.get("name") == "job" else ""
            if name and name != keep:
                self._forget(job, name)
        if not pod["metadata"].get("deletionTimestamp"):
            self._client.delete(PODS, namespace, pod["metadata"]["name"], uid=pod["metadata"]["uid"])

    def _forget(self, job: Object, name: str) -> None:
        namespace = job["metadata"]["namespace"]
        try:
            there = self._client.get(CONFIGMAPS, namespace, name)
        except ApiError as error:
            if error.not_found:
                return
            raise
        if (controller_of(there) or {}).get("uid") == job["metadata"]["uid"]:
            self._client.delete(CONFIGMAPS, namespace, name, uid=there["metadata"]["uid"])

    def _events(self, pod: Object) -> Mapping[str, Sequence[Object]]:
        """What was said about a pod that does not run; nothing where the operator may not read it."""
        uid = str(pod["metadata"].get("uid", ""))
        if pod.get("status", {}).get("phase") != "Pending":
            return {}
        try:
            return {uid: self._client.list(EVENTS, pod["metadata"]["namespace"], fields=f"regarding.uid={uid}", limit=100)["items"]}
        except ApiError as error:
            if error.status != 403:
                raise
            return {}


def _mine(seen: Observed, now: datetime.datetime) -> tuple[str, ProfileSpec, bool]:
    """The profile whose turn it is ("" and the defaults of a job without), and whether there are others that it could give way to."""
    spec, _ = spec_of(seen.job)
    fitting = profiles.fitting(spec, seen.profiles or {}, seen.enforced) if spec is not None else {}
    name = next(iter(resting.order(seen.job.get("status") or {}, fitting, now)), "")
    return name, fitting.get(name, ProfileSpec()), len(fitting) > 1


def _looking(job: Object, known: Object | None) -> Condition:
    """While a pod looks: what an earlier one found against just this still stands."""
    if known is not None:
        return _failed(known)
    name = preflight_name(job["metadata"]["name"])
    return Condition(
        "ResourcesReady", False, "Preflight", f"pod {name} looks at image, account, data and store before machines are asked for"
    )


def _failed(entry: Object) -> Condition:
    return Condition("Accepted", False, "PreflightFailed", sentences(entry["said"][:960], "It is looked at again by itself"))


def _passed(entry: Object) -> Condition:
    open_ = entry["said"].startswith("GTJ0306")
    return Condition("Accepted", True, "PreflightInconclusive" if open_ else "Accepted", entry["said"])
