"""The operator on one page: observe a job, decide, apply.

`decide` knows what should happen and does nothing; this module does, and knows nothing. Whatever fails here leaves the job to be looked at
again, and looking again always starts from what is really there.
"""

from __future__ import annotations

import datetime
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from gentrain_operator import pricing
from gentrain_operator.conditions import events
from gentrain_operator.decide import TERMINAL, Decision, Observed, decide
from gentrain_operator.forerunner import Forerunner
from gentrain_operator.gang import holding
from gentrain_operator.identity import DEFAULT, RunAs, running_as
from gentrain_operator.kube.apply import Taken, create_child, write_status
from gentrain_operator.kube.client import Client
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.events import Recorder
from gentrain_operator.kube.resource import CONFIGMAPS, JOBS, RAYJOBS, Object, Resource
from gentrain_operator.kube.store import Key, Store, controller_of, key_of, trimmed
from gentrain_operator.lastvalid import configmap_of, content, with_accepted
from gentrain_operator.names import JOB_LABEL, attempt_of, rayjob_name
from gentrain_operator.pace import Pace
from gentrain_operator.pods import of_job, told
from gentrain_operator.polls import Endpoint, Polls
from gentrain_operator.present import starting, taken_up
from gentrain_operator.profiles import Profiles, demanding, pools
from gentrain_operator.queues import UNKNOWN, look
from gentrain_operator.rayjob import PORT, QUEUE_LABEL, configmaps_of
from gentrain_operator.refusals import Refusal, Refused, refusal
from gentrain_operator.rivals import Rivals
from gentrain_operator.served import Served
from gentrain_operator.spending import counted
from gentrain_operator.surroundings import Surroundings
from gentrain_operator.times import time
from gentrain_operator.webhook import Webhook

log = logging.getLogger(__name__)


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass(frozen=True)
class Stores:
    jobs: Store
    profiles: Store
    rayjobs: Store


def light_rayjob(obj: Object) -> Object:
    """What is kept of a RayJob: its templates, most of it, are never read."""
    kept = trimmed(obj)
    return {**kept, "spec": {"suspend": kept.get("spec", {}).get("suspend", False)}}


def job_of(obj: Object) -> Key | None:
    """The job to look at when a child changes: the one that controls it, or that did before somebody took the reference away."""
    owner, name = controller_of(obj), obj["metadata"].get("labels", {}).get(JOB_LABEL)
    if owner is not None:
        name = owner["name"] if owner["kind"] == JOBS.kind else None
    return Key(obj["metadata"]["namespace"], name) if name else None


class Controller:
    """Reconciles jobs. `image` is the trainer image of jobs and profiles that name none; `served` the definition that the server serves;
    `preflight`: whether a pod looks before a job's first attempt."""

    def __init__(
        self,
        client: Client,
        stores: Stores,
        polls: Polls,
        recorder: Recorder,
        *,
        image: str,
        now: Callable[[], datetime.datetime] = _now,
        served: Served | None = None,
        run_as: RunAs | None = DEFAULT,
        preflight: bool = False,
        webhook: Webhook | None = None,
    ) -> None:
        self._webhook = webhook
        self._pace, self._rivals, self._run_as = Pace(), Rivals(), run_as
        self._served = served or Served(lambda: client.schema(JOBS))
        self._forerunner = Forerunner(client, enabled=preflight, run_as=run_as, keeps=self._served.keeps)
        self._around, self._nodes = Surroundings(client), pricing.Nodes(client)
        self._client, self._stores, self._polls, self._recorder, self._image, self._now = client, stores, polls, recorder, image, now

    def reconcile(self, key: Key) -> float | None:
        """One look at one job; seconds until the next one is due, if anything is. Raises ApiError to be called again."""
        seen = self.observe(key)
        if seen is None:
            self._polls.forget(key)
            self._pace.forget(key)
            self._nodes.forget(key)
            self._rivals.told(key, None)
            return None
        decision = self._decided(seen)
        if decision.needs_frozen:
            seen = replace(seen, frozen=self._frozen(seen))
            decision = self._decided(seen)
        before, after = seen.job.get("status") or {}, decision.status
        wait = self._pace.wait(key, before, self._served.fitting(after)) if after is not None and seen.report is not None else 0.0
        if wait > 0:  # only a pod has spoken, and what it said last is not old enough
            decision = replace(decision, status=None, again=min(wait, decision.again or wait))
        try:
            decision = self._forerunner.before(seen, decision, self._now())
            self.apply(seen.job, decision)
        except Taken as taken:
            decision = self._decided(replace(seen, taken=str(taken)))
            self.apply(seen.job, replace(decision, create=()))
        except Refused as refused:
            decision = self._refused(seen, refused.refusal)
            self.apply(seen.job, decision)
        return decision.again

    def _refused(self, seen: Observed, said: Refusal) -> Decision:
        """What to do where the server refuses to create an attempt, or to suspend one or let it go: to say so and to try again. The attempt
        goes on as it is meanwhile."""
        decision, now = self._decided(replace(seen, refused=said)), self._now()
        if decision.suspend is not None and decision.status is not None:
            told = with_accepted(seen.job, decision.status, said.conditions()[0], time(now))
            decision = replace(decision, status=told, again=said.again(seen.job.get("status") or {}, now))
        return replace(decision, create=(), suspend=None)

    def _decided(self, seen: Observed) -> Decision:
        now = self._now()
        decision = decide(seen, now, self._image)
        return decision if self._webhook is None else self._webhook.noticed(seen.job, decision, now)

    # -- observe

    def observe(self, key: Key) -> Observed | None:
        job = self._stores.jobs.get(key)
        if job is None:
            return None
        rayjobs = self._rayjobs(job)
        current = max(rayjobs, key=attempt_of, default=None)
        self._polls.follow(key, _endpoint(job, current))
        profiles = {one["metadata"]["name"]: one for one in self._stores.profiles.all()}
        starts = self._served.keeps("cost.startOf")
        asked = self._nodes.wanted(key, job, current) or (starts and not counted(job, current))
        pods = self._pods(job) if _pods_matter(job, current, asked) else []
        kueue = look(self._client, key.namespace, current) if current is not None and _queued(current) else UNKNOWN
        held = holding(job, current, pods)
        rivals = self._rivals.told(key, held)
        events = told(self._client, key.namespace, pods, current) if current is not None and starting(current) else {}
        nodes = self._nodes.look(key, job, current, pods)
        report = self._polls.report(key)
        found = Observed(job, rayjobs, profiles, pods, report, kueue=kueue, holding=held, rivals=rivals, told=events, node=nodes.worker)
        enforced = self._around.enforced(key.namespace) if demanding(job, profiles) else ""
        return replace(found, head=nodes.head, starts=starts, enforced=enforced, sick=self._sick(job, profiles))

    def _sick(self, job: Object, known: Profiles) -> Mapping[str, str]:
        """Before an attempt with accelerators: nodes of its pools that have a bad one."""
        status = job.get("status") or {}
        if status.get("finishedAt") or status.get("attempts", 0) > status.get("ended", 0):
            return {}
        return {name: why for selector in pools(job, known) for name, why in self._around.sick(selector).items()}

    def _rayjobs(self, job: Object) -> list[Object]:
        """The job's RayJobs. One that should be there and is not in the store is asked for: the store may trail, or its label be gone."""
        found = self._stores.rayjobs.owned_by(job["metadata"]["uid"])
        status = job.get("status") or {}
        attempt = status.get("attempts", 0)
        if attempt > status.get("ended", 0) and all(attempt_of(one) < attempt for one in found):
            there = self._there(RAYJOBS, job["metadata"]["namespace"], rayjob_name(job["metadata"]["name"], attempt))
            if there is not None and (controller_of(there) or {}).get("uid") == job["metadata"]["uid"]:
                found = [*found, there]
        return found

    def _pods(self, job: Object) -> list[Object]:
        listed = of_job(self._client, key_of(job))
        return [pod for pod in listed if pod.get("status", {}).get("phase") not in ("Succeeded", "Failed") or _is_current(job, pod)]

    def _frozen(self, seen: Observed) -> Object:
        """The job as the current attempt was started with; {} when its RayJob or ConfigMap is gone."""
        current = max(seen.rayjobs, key=attempt_of, default=None)
        namespace = seen.job["metadata"]["namespace"]
        whole = self._there(RAYJOBS, namespace, current["metadata"]["name"]) if current else None
        name = configmap_of(whole) if whole is not None else ""
        return content((self._there(CONFIGMAPS, namespace, name) if name else None) or {})

    # -- apply

    def apply(self, job: Object, decision: Decision) -> None:
        """Carries out a decision, in the order that its doc states. Any step may fail: the next look decides anew."""
        namespace = job["metadata"]["namespace"]
        if decision.create:
            self._create(job, decision.create)
        if decision.suspend is not None:
            child, value = decision.suspend
            version = {"resourceVersion": child["metadata"]["resourceVersion"]}
            try:
                self._client.merge(RAYJOBS, namespace, child["metadata"]["name"], {"metadata": version, "spec": {"suspend": value}})
            except ApiError as error:
                found = None if error.not_found else refusal(error, RAYJOBS.kind)
                if found is None:
                    raise
                raise Refused(found) from error
        if decision.status is not None and self._written(job, decision.status):
            for event in events((job.get("status") or {}).get("conditions") or (), decision.status["conditions"]):
                self._recorder.record(job, event)
        for child in decision.delete:
            # What the current attempt read, and the one before, stays for people.
            if attempt_of(child) < (decision.status or {}).get("attempts", 0) - 1:
                whole = self._there(RAYJOBS, namespace, child["metadata"]["name"])  # the store keeps no templates
                if whole is not None and whole["metadata"]["uid"] == child["metadata"]["uid"]:
                    self._forget_configmaps(job, whole)
            self._client.delete(RAYJOBS, namespace, child["metadata"]["name"], uid=child["metadata"]["uid"])
        if decision.delete_job:
            log.info("deleting %s/%s: its time after it finished is over", *key_of(job))
            self._client.delete(JOBS, namespace, job["metadata"]["name"], uid=job["metadata"]["uid"])

    def _create(self, job: Object, children: Sequence[Object]) -> None:
        """The ConfigMap and the RayJob of an attempt. A ConfigMap whose RayJob is refused goes again: the spec may change meanwhile."""
        namespace = job["metadata"]["namespace"]
        for child in children:
            resource = CONFIGMAPS if child["kind"] == CONFIGMAPS.kind else RAYJOBS
            try:
                create_child(self._client, resource, job, running_as(child, self._run_as) if resource is RAYJOBS else child)
            except ApiError as error:
                found = refusal(error, resource.kind)
                if found is None:
                    raise
                # Admission comes before the look whether the name is taken: a RayJob may be there that the store has not seen.
                if resource is RAYJOBS and self._there(RAYJOBS, namespace, child["metadata"]["name"]) is None:
                    self._forget_configmaps(job, child)
                raise Refused(found) from error

    def _forget_configmaps(self, job: Object, rayjob: Object) -> None:
        """Deletes what the pods of a RayJob read; another's ConfigMap, never."""
        namespace = job["metadata"]["namespace"]
        for name in configmaps_of(rayjob):
            there = self._there(CONFIGMAPS, namespace, name)
            if there is not None and (controller_of(there) or {}).get("uid") == job["metadata"]["uid"]:
                self._client.delete(CONFIGMAPS, namespace, name, uid=there["metadata"]["uid"])

    def _there(self, resource: Resource, namespace: str, name: str) -> Object | None:
        """An object as the server has it; None where there is none."""
        try:
            return self._client.get(resource, namespace, name)
        except ApiError as error:
            if not error.not_found:
                raise
            return None

    def _written(self, job: Object, status: Object) -> bool:
        self._served.look()
        try:
            written = write_status(self._client, JOBS, job, self._served.fitting(status))
        except ApiError as error:
            if not error.not_found:
                if error.status in (400, 422, 500):  # perhaps a definition that was exchanged since: known at the next try
                    self._served.look(soon=True)
                raise
            return False  # deleted a moment ago: the garbage collector takes what is its
        if written is not None:
            self._pace.wrote(key_of(job))
            self._stores.jobs.advance(job, written)
        return written is not None


def _endpoint(job: Object, rayjob: Object | None) -> Endpoint | None:
    """Where the current attempt reports; None when nothing runs there."""
    status = (rayjob or {}).get("status") or {}
    address = ((status.get("rayClusterStatus") or {}).get("head") or {}).get("podIP")
    if rayjob is None or not address or status.get("jobDeploymentStatus") not in ("Initializing", "Running"):
        return None
    return Endpoint(str(address), PORT, attempt_of(rayjob), job["metadata"]["uid"])


def _queued(rayjob: Object) -> bool:
    """Whether a queue holds the RayJob back."""
    return bool(rayjob["spec"].get("suspend")) and QUEUE_LABEL in (rayjob["metadata"].get("labels") or {})


def _pods_matter(job: Object, current: Object | None, price: bool) -> bool:
    """Whether pods have to be listed: while they come up, for their `price` and how long they took, when an attempt has just ended, and
    before the next may start."""
    status = job.get("status") or {}
    attempts, ended = status.get("attempts", 0), status.get("ended", 0)
    if status.get("finishedAt") or not attempts:
        return False
    if current is None or attempt_of(current) <= ended:
        return True
    return (taken_up(current) and (starting(current) or price)) or (current.get("status") or {}).get("jobDeploymentStatus") in TERMINAL


def _is_current(job: Object, pod: Object) -> bool:
    """Whether a pod that has ended is evidence, because its attempt's end is still to be accounted for."""
    status = job.get("status") or {}
    return bool(status.get("attempts", 0) > status.get("ended", 0))
