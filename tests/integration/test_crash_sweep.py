"""The operator is killed before and after every write of a job's life, in each of eleven lives, and starts again from a stale list.
Besides, each life is lived with every list late, and once unruly: events get lost, others come three times, and the clock is set back and
forth.

What must hold, whatever the moment: the job ends as it would have ended undisturbed (phase, attempts, restarts, failure), nothing is left
that belongs to nobody, and there never are two clusters at the same time. The API server is real; time is made up; KubeRay is played.
"""

from __future__ import annotations

import datetime
import itertools
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from gentrain_operator.controller import Controller, Stores, light_rayjob
from gentrain_operator.decide import TERMINAL
from gentrain_operator.kube.client import Client, from_kubeconfig
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.events import Event
from gentrain_operator.kube.resource import CONFIGMAPS, JOBS, PROFILES, RAYJOBS, Object
from gentrain_operator.kube.store import Key, Store, controller_of
from gentrain_operator.polls import Polls
from tests.cluster.control_plane import ControlPlane
from tests.cluster.kuberay_standin import KubeRay

pytestmark = pytest.mark.slow

BEGIN = datetime.datetime(2026, 1, 1, 0, 5, tzinfo=datetime.UTC)
WRITES = ("create", "apply", "merge", "delete")
# Every moment of every life takes minutes, which is for GENTRAIN_SWEEP=all; else every sixth moment, another sixth in each life. Dying
# after a write and before the next one leave the same behind, so that every third state is met.
ALL = os.environ.get("GENTRAIN_SWEEP") == "all"
STRIDE = 1 if ALL else 6
_numbers = itertools.count(1)


class Killed(BaseException):
    """The process is gone: no `except Exception` of ours may see it."""


class Mortal:
    """A client that counts its writes, and those that the server took, and dies before or after the one it is told to."""

    def __init__(self, client: Client, die_at: tuple[int, str] | None) -> None:
        self._client, self.die_at, self.writes, self.done = client, die_at, 0, 0

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._client, name)
        if name not in WRITES:
            return call

        def write(*arguments: Any, **more: Any) -> Any:
            self.writes += 1
            number = self.writes
            if self.die_at == (number, "before"):
                raise Killed
            try:
                answer = call(*arguments, **more)
                self.done += 1
                return answer
            finally:
                if self.die_at == (number, "after"):
                    raise Killed

        return write


class Silent:
    def record(self, obj: Object, event: Event) -> None:
        pass


@dataclass
class World:
    """One job's life: what the user and KubeRay do, with the operator let loose in between."""

    client: Client
    namespace: str
    name: str
    die_at: tuple[int, str] | None = None
    stale: bool = False
    unruly: bool = False
    now: datetime.datetime = BEGIN
    deaths: int = 0
    newborn: bool = False
    set_back: datetime.timedelta = datetime.timedelta()
    before: dict[str, list[Object]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.kuberay = KubeRay(self.client, self.namespace)
        self.key = Key(self.namespace, self.name)
        self.mortal = Mortal(self.client, self.die_at)
        self._born()

    def _born(self) -> None:
        """A new process: empty stores, no memory."""
        self.stores = Stores(Store(), Store(), Store(light_rayjob))
        polls = Polls(lambda key: None, read=lambda address, port: {})
        self.controller = Controller(self.mortal, self.stores, polls, Silent(), image="i", now=self._clock)  # type: ignore[arg-type]

    def _clock(self) -> datetime.datetime:
        return self.now - self.set_back

    def apply(self, **spec: Any) -> None:
        base = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 10}, "compute": {"gpusPerWorker": 0}}
        manifest = {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": {"name": self.name}, "spec": {**base, **spec}}
        self.client.create(JOBS, self.namespace, manifest)
        self.settle()

    def change(self, spec: Object) -> None:
        self.client.merge(JOBS, self.namespace, self.name, {"spec": spec})
        self.settle()

    def settle(self) -> None:
        """Lets the operator look until it has nothing left to write; after a death, or always if `stale`, from an outdated list first."""
        for _ in range(60):
            before = self.mortal.writes
            lists = self._lists()
            late = self.stale or self.newborn
            self.newborn = False
            for seen in (self.before or lists, lists) if late else (lists,):
                for hours in (0, 3, 0) if self.unruly else (0,):
                    self.set_back = datetime.timedelta(hours=hours)
                    self._look(seen)
            self.before = lists
            job = self.job()
            retry = (job or {}).get("status", {}).get("retryAt")
            if retry and datetime.datetime.fromisoformat(retry) > self.now:
                self.now = datetime.datetime.fromisoformat(retry)
            elif self.mortal.writes == before:
                return
        raise AssertionError(f"it does not settle: {self.job()}")

    def _look(self, lists: dict[str, list[Object]]) -> None:
        writes = self.mortal.writes
        self.stores.jobs.replace(lists["jobs"])
        self.stores.profiles.replace(lists["profiles"])
        self.stores.rayjobs.replace(lists["rayjobs"])
        try:
            self.controller.reconcile(self.key)
        except ApiError as error:
            if not (error.conflict or error.not_found):  # those, a worker would have been told to try again
                raise
        except Killed:
            self.deaths += 1
            self.mortal.die_at = None
            self.newborn = True
            self._born()
        if self.mortal.writes > writes:
            self.check()

    def check(self) -> None:
        """After every write: one cluster at most, and everything belongs to a job."""
        rayjobs = self._mine(RAYJOBS)
        open_ = [one for one in rayjobs if (one.get("status") or {}).get("jobDeploymentStatus") not in TERMINAL]
        up = [one for one in open_ if not one["spec"].get("suspend")]
        assert len(up) <= 1, [one["metadata"]["name"] for one in up]
        for child in [*rayjobs, *self._mine(CONFIGMAPS)]:
            owner = controller_of(child)
            assert owner is not None
            assert owner["name"] == self.name

    def _mine(self, resource: Any) -> list[Object]:
        return list(self.client.list(resource, self.namespace, labels=f"gentrain.dev/job={self.name}")["items"])

    def _lists(self) -> dict[str, list[Object]]:
        job = self.job()
        return {"jobs": [job] if job else [], "profiles": self.client.list(PROFILES)["items"], "rayjobs": self._mine(RAYJOBS)}

    def job(self) -> Object | None:
        try:
            return self.client.get(JOBS, self.namespace, self.name)
        except ApiError as error:
            if not error.not_found:
                raise
            return None

    def attempt(self, number: int) -> str:
        """Brings an attempt to RUNNING."""
        name = f"{self.name}-a{number}"
        self.kuberay.initialize(name)
        if not self.unruly:  # else nobody hears of it
            self.settle()
        self.kuberay.run(name)
        self.settle()
        return name

    def after(self, act: Callable[..., None], *arguments: Any) -> None:
        act(*arguments)
        self.settle()

    def outcome(self) -> Object:
        status = (self.job() or {}).get("status")
        if status is None:
            return {"gone": True}
        failure = status.get("failure") or {}
        kept = {name: status.get(name) for name in ("phase", "attempts", "ended", "restarts")}
        rayjobs = sorted(one["metadata"]["name"].rpartition("-")[2] for one in self._mine(RAYJOBS))
        return {**kept, "code": failure.get("code"), "rayjobs": rayjobs}


def succeeds(world: World) -> None:
    world.apply()
    world.after(world.kuberay.succeed, world.attempt(1))


def fails_once(world: World) -> None:
    world.apply()
    world.after(world.kuberay.fail, world.attempt(1), "Traceback")
    world.after(world.kuberay.succeed, world.attempt(2))


def fails_for_good(world: World) -> None:
    world.apply(recovery={"maxRetries": 1})
    world.after(world.kuberay.fail, world.attempt(1), "Traceback")
    world.after(world.kuberay.fail, world.attempt(2), 'gentrain-failure: {"code": "GTJ0206", "what": "out of memory"}')


def loses_heads(world: World) -> None:
    world.apply()
    for number in (1, 2):
        world.after(world.kuberay.lose_head, world.attempt(number))
    world.after(world.kuberay.succeed, world.attempt(3))


def is_deleted_by_hand(world: World) -> None:
    world.apply()
    world.after(world.kuberay.delete, world.attempt(1))
    world.after(world.kuberay.succeed, world.attempt(2))


def is_suspended_and_resumed(world: World) -> None:
    world.apply()
    name = world.attempt(1)
    world.change({"suspend": True})
    world.after(world.kuberay.suspend, name)
    world.change({"suspend": False})
    world.after(world.kuberay.succeed, world.attempt(1))


def is_queued_and_given_up(world: World) -> None:
    world.apply(compute={"queue": "team-a", "gpusPerWorker": 0})
    name = f"{world.name}-a1"
    world.client.merge(RAYJOBS, world.namespace, name, {"spec": {"suspend": False}})
    world.attempt(1)
    world.change({"suspend": True})
    world.after(world.kuberay.clean_up, name)
    world.change({"suspend": False})
    world.client.merge(RAYJOBS, world.namespace, f"{world.name}-a2", {"spec": {"suspend": False}})
    world.after(world.kuberay.succeed, world.attempt(2))


def reaches_its_deadline(world: World) -> None:
    world.apply(activeDeadlineSeconds=3600)
    world.attempt(1)
    world.now += datetime.timedelta(hours=2)
    world.settle()


def is_deleted_after_its_time(world: World) -> None:
    world.apply(ttlSecondsAfterFinished=60)
    world.after(world.kuberay.succeed, world.attempt(1))
    world.now = BEGIN + datetime.timedelta(hours=5)
    world.settle()


def fits_nowhere_and_takes_the_next_profile(world: World) -> None:
    world.apply(compute={"profiles": ["sweep-a", "sweep-b"], "gpusPerWorker": 0})
    name = f"{world.name}-a1"
    world.kuberay.initialize(name)
    condition = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/3 nodes", "lastTransitionTime": None}
    for pod in world.kuberay.pods(name):
        world.kuberay.pod_status(pod["metadata"]["name"], {"conditions": [condition]})
    created = world.client.get(RAYJOBS, world.namespace, name)["metadata"]["creationTimestamp"]
    world.now = datetime.datetime.fromisoformat(created) + datetime.timedelta(minutes=11)
    world.settle()
    world.after(world.kuberay.clean_up, name)
    world.after(world.kuberay.succeed, world.attempt(2))


def is_refused_by_kuberay(world: World) -> None:
    world.apply()
    world.after(world.kuberay.refuse, f"{world.name}-a1", "nonsense")


LIVES: dict[Callable[[World], None], Object] = {
    succeeds: {"phase": "Succeeded", "attempts": 1, "restarts": None, "rayjobs": ["a1"]},
    fails_once: {"phase": "Succeeded", "attempts": 2, "restarts": {"application": 1}, "rayjobs": ["a1", "a2"]},
    fails_for_good: {"phase": "Failed", "attempts": 2, "restarts": {"application": 1}, "code": "GTJ0206"},
    loses_heads: {"phase": "Succeeded", "attempts": 3, "restarts": {"infrastructure": 2}, "rayjobs": ["a2", "a3"]},
    is_deleted_by_hand: {"phase": "Succeeded", "attempts": 2, "restarts": {"infrastructure": 1}},
    is_suspended_and_resumed: {"phase": "Succeeded", "attempts": 1, "restarts": None},
    is_queued_and_given_up: {"phase": "Succeeded", "attempts": 2, "restarts": None, "rayjobs": ["a2"]},
    reaches_its_deadline: {"phase": "Failed", "attempts": 1, "code": "GTJ0212", "rayjobs": []},
    is_deleted_after_its_time: {"gone": True},
    fits_nowhere_and_takes_the_next_profile: {"phase": "Succeeded", "attempts": 2, "restarts": {"infrastructure": 1}},
    is_refused_by_kuberay: {"phase": "Failed", "attempts": 1, "code": "GTJ0301"},
}


@pytest.fixture
def world(installed: ControlPlane, namespace: str) -> Iterator[Callable[..., World]]:
    client = Client(from_kubeconfig(str(installed.kubeconfig)))
    for profile in ("sweep-a", "sweep-b"):
        body: Object = {"apiVersion": PROFILES.api_version, "kind": PROFILES.kind, "metadata": {"name": profile}, "spec": {}}
        client.apply(PROFILES, None, body, manager="test")
    yield lambda die_at=None, **how: World(client, namespace, f"job{next(_numbers)}", die_at, **how)
    client.close()


@pytest.mark.parametrize("live", LIVES, ids=lambda live: live.__name__)
def test_killed_at_every_write_the_job_ends_the_same(
    world: Callable[..., World], live: Callable[[World], None], say: Callable[[str], None]
) -> None:
    plain = world()
    live(plain)
    expected = plain.outcome()
    assert {name: expected.get(name) for name in LIVES[live]} == LIVES[live]
    writes = plain.mortal.writes
    assert plain.mortal.done == writes <= 25  # the budget of a job's life, progress aside
    for how in ({"stale": True}, {"unruly": True}):
        other = world(**how)
        live(other)
        assert other.outcome() == expected, how
    moments = [(number, when) for number in range(1, writes + 1) for when in ("before", "after")]
    chosen = moments[list(LIVES).index(live) % STRIDE :: STRIDE]
    for number, when in chosen:
        killed = world((number, when))
        live(killed)
        assert killed.deaths == 1
        assert killed.outcome() == expected, f"killed {when} write {number} of {writes}"
    if ALL:
        say(f"{live.__name__}: {writes} writes, killed at {len(chosen)} moments, {len(chosen)} ended the same")
