"""A cluster as the verbs see it: jobs, and what belongs to them. What the server refuses is a JobError that says where and as whom."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import JOBS, PODS, PROFILES, RAYJOBS, Object, Resource
from gentrain_operator.names import JOB_LABEL, label_value
from trainjobs.api.errors import JobError
from trainjobs.api.problem import did_you_mean
from trainjobs.cli.cluster.refusal import refusal
from trainjobs.cli.cluster.target import Target
from trainjobs.cli.cluster.view import moment_of

if TYPE_CHECKING:
    from trainjobs.cli.cluster.api import Api

T = TypeVar("T")

# What every role that may read pods may read as well; events.k8s.io is the same store under another name.
CORE_EVENTS = Resource("", "v1", "events", "Event")
_KUEUE = (("workloads", "Workload"), ("localqueues", "LocalQueue"))
MANAGER = "gtj"
TRIES = 3


@dataclass(frozen=True)
class Kueue:
    """Whether it is `installed` and has the `queue` (None: not allowed to look), and the Workload that stands for the job there."""

    installed: bool | None
    queue: bool | None
    workload: Object | None


class Cluster:
    """`where` says which cluster, and as whom, for messages."""

    def __init__(self, api: Api, target: Target, namespace: str, where: str, sleep: Callable[[float], None] = time.sleep) -> None:
        self.api, self.target, self.namespace, self.where, self._sleep = api, target, namespace, where, sleep

    def command(self, verb: str, name: str, *more: str, namespace: str = "") -> str:
        return self.target.command(verb, name, *more, namespace=namespace or self.namespace)

    def job(self, name: str) -> Object:
        """GTJ0118, with the nearest name, when there is none."""
        try:
            return self.ask(f"read job {name}", lambda: self.api.get(JOBS, self.namespace, name))
        except JobError as error:
            if error.code != "GTJ0118":
                raise
            raise self.missing(name) from None

    def missing(self, name: str) -> JobError:
        names: list[str] = []
        with contextlib.suppress(JobError):
            names = [str(job["metadata"]["name"]) for job in self.jobs()]
        how = did_you_mean(name, names) or (
            f"jobs there: {', '.join(names[:8])}{' ...' if len(names) > 8 else ''}"
            if names
            else "name another namespace with -n; gtj ls -A lists all"
        )
        return JobError("GTJ0118", f'no job called "{name}" in namespace {self.namespace}', where=self.where, how=how)

    def jobs(self, everywhere: bool = False) -> list[Object]:
        """All jobs of the namespace, or of all namespaces, by name."""
        namespace = None if everywhere else self.namespace
        return list(self._pages(JOBS, namespace, "list the jobs " + ("of all namespaces" if everywhere else f"in namespace {namespace}")))

    def create(self, body: Object, *, dry_run: bool = False) -> Object | None:
        """The job as created; None when there is one of that name already."""
        doing = f"create job {body['metadata']['name']} in namespace {self.namespace}"
        try:
            return self.ask(doing, lambda: self.api.create(JOBS, self.namespace, body, manager=MANAGER, dry_run=dry_run))
        except _Exists:
            return None

    def change(self, job: Mapping[str, Any], patch: Object) -> Object:
        """Merges a patch into this very job: not into one that was made since under its name."""
        name = job["metadata"]["name"]
        body = {**patch, "metadata": {"uid": job["metadata"]["uid"]}}
        try:
            return self.ask(f"change job {name}", lambda: self.api.merge(JOBS, self.namespace, name, body))
        except _Exists:
            raise self.missing(name) from None

    def delete(self, job: Mapping[str, Any]) -> None:
        """Its RayJobs, pods and configuration follow by themselves: they belong to it."""
        name, uid = job["metadata"]["name"], job["metadata"]["uid"]
        self.ask(f"delete job {name}", lambda: self.api.delete(JOBS, self.namespace, name, uid=uid))

    def pods(self, job: Mapping[str, Any]) -> list[Object]:
        """The pods of all its attempts that are still there."""
        name = str(job["metadata"]["name"])
        return list(self._pages(PODS, self.namespace, f"list the pods of job {name}", f"{JOB_LABEL}={label_value(name)}"))

    def events(self, uid: str) -> list[Object]:
        """The events about one object, oldest first; none when reading them is not allowed: they only add detail."""
        found: Object = {}
        with self._if_allowed():
            found = self.ask("read events", lambda: self.api.select(CORE_EVENTS, self.namespace, f"involvedObject.uid={uid}"))
        return sorted(found.get("items") or (), key=moment_of)

    def visible_pods(self, job: Mapping[str, Any]) -> list[Object]:
        """The same as `pods`; none when reading them is not allowed."""
        with self._if_allowed():
            return self.pods(job)
        return []

    @contextlib.contextmanager
    def _if_allowed(self) -> Iterator[None]:
        try:
            yield
        except JobError as error:
            if error.code != "GTJ0303":
                raise

    def rayjob(self, name: str) -> Object | None:
        """None when there is none, or when reading it is not allowed: it only adds detail."""
        with contextlib.suppress(JobError):
            return self.ask(f"read RayJob {name}", lambda: self.api.get(RAYJOBS, self.namespace, name))
        return None

    def profiles(self) -> list[str] | None:
        """The names of all ComputeProfiles; None when reading them is not allowed."""
        with contextlib.suppress(JobError):
            return [str(one["metadata"]["name"]) for one in self._pages(PROFILES, None, "list the compute profiles")]
        return None

    def everything(self, resource: Resource, doing: str) -> list[Object]:
        """All objects of a kind that belongs to no namespace."""
        return list(self._pages(resource, None, doing))

    def kueue(self, queue: str, owner: str) -> Kueue:
        """What Kueue knows about the object with uid `owner`."""
        for version in ("v1beta2", "v1beta1"):
            workloads, queues = (Resource("kueue.x-k8s.io", version, plural, kind) for plural, kind in _KUEUE)
            listed = self._there(lambda workloads=workloads: self.api.list(workloads, self.namespace, limit=500))  # type: ignore[misc]
            if listed is False:
                continue
            if listed is None:
                return Kueue(None, None, None)
            mine = [one for one in listed["items"] if any(ref.get("uid") == owner for ref in one["metadata"].get("ownerReferences") or ())]
            found = self._there(lambda queues=queues: self.api.get(queues, self.namespace, queue))  # type: ignore[misc]
            return Kueue(True, None if found is None else found is not False, next(iter(mine), None))
        return Kueue(False, None, None)

    def _there(self, call: Callable[[], Object]) -> Object | Literal[False] | None:
        """The answer; False for what is not there, None when it cannot be told."""
        try:
            return call()
        except ApiError as error:
            return False if error.not_found else None

    def ask(self, doing: str, call: Callable[[], T]) -> T:
        """Asks again, a little later, when the server says that it is busy. Other refusals are JobErrors; GTJ0118 for what is not there."""
        for attempt in range(1, TRIES + 1):
            try:
                return call()
            except ApiError as error:
                if error.status == 429 and attempt < TRIES:
                    self._sleep(min(error.retry_after or 1.0, 10.0))
                    continue
                if error.conflict:
                    raise _Exists from None
                if error.not_found and error.message and "namespaces" not in error.message:
                    raise JobError("GTJ0118", f"cannot {doing}: not there", where=self.where, why=error.message) from error
                raise refusal(error, doing, self.where) from error
        raise AssertionError("the last try returns or raises")

    def _pages(self, resource: Resource, namespace: str | None, doing: str, labels: str = "") -> Iterator[Object]:
        page = ""
        while True:
            listed = self.ask(doing, lambda page=page: self.api.list(resource, namespace, labels=labels, limit=500, page=page))  # type: ignore[misc]
            yield from listed.get("items") or ()
            page = (listed.get("metadata") or {}).get("continue") or ""
            if not page:
                return


class _Exists(Exception):
    """409: there is one of that name, or it is another one than was meant."""


def connect(target: Target, timeout: tuple[float, float] = (5, 30)) -> Cluster:
    """GTJ0302 when there is nothing to connect to. Asks the server nothing yet."""
    try:
        from trainjobs.cli.cluster.api import Api, login
    except ImportError as error:
        how = "pip install kubernetes, or '.[cluster]' in a clone of Gentrain's repository"
        raise JobError("GTJ0302", "the Kubernetes client is not installed", why=f"no module {error.name}", how=how) from None
    found = login(target)
    return Cluster(Api(found.configuration, timeout), target, found.namespace, found.where)
