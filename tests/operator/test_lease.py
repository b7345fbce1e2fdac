"""Leader election with made-up clocks and a server that fails: never two at once, and one in the end."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.lease import Lease
from gentrain_operator.kube.resource import LEASES, Object, Resource


class Server:
    """One Lease, with optimistic concurrency. `fault` is what the next requests meet: nothing, a refusal, or an answer that gets lost."""

    def __init__(self) -> None:
        self.record: Object | None = None
        self.version = 0
        self.fault = "none"

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        self._fail("refused")
        if self.record is None:
            raise ApiError(404, "NotFound", name)
        return self.record

    def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        if self.record is not None:
            raise ApiError(409, "AlreadyExists", "")
        return self._store(body)

    def replace(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        if self.record is None or body["metadata"]["resourceVersion"] != self.record["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "")
        return self._store(body)

    def _store(self, body: Object) -> Object:
        self._fail("refused")
        self.version += 1
        self.record = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        self._fail("lost")
        return self.record

    def _fail(self, kind: str) -> None:
        if self.fault == kind:
            raise ApiError(0, "Unreachable", kind)
        if self.fault == "defect":
            raise ZeroDivisionError


def candidate(server: Any, name: str, clock: list[float]) -> Lease:
    return Lease(server, "n", "lease", name, clock=lambda: clock[0])


steps = st.tuples(st.sampled_from("ab"), st.sampled_from(["none", "none", "refused", "lost", "defect"]), st.floats(0.1, 8))


@settings(max_examples=300, deadline=None)
@given(st.lists(steps, max_size=40))
def test_never_two_at_once(script: list[tuple[str, str, float]]) -> None:
    server, clock = Server(), [0.0]
    candidates = {name: candidate(server, name, clock) for name in "ab"}
    for name, fault, seconds in script:
        server.fault = fault
        candidates[name].attempt()
        assert not (candidates["a"].held() and candidates["b"].held())
        clock[0] += seconds
    # And with the server well again, one of them leads before long.
    server.fault = "none"
    for _ in range(12):
        for one in candidates.values():
            one.attempt()
        clock[0] += 2
    assert candidates["a"].attempt() != candidates["b"].attempt()


def test_clocks_of_different_machines_are_not_compared() -> None:
    server, mine, theirs = Server(), [1e9], [5.0]
    first, second = candidate(server, "first", mine), candidate(server, "second", theirs)
    assert first.attempt()
    for seconds in range(0, 14, 2):
        theirs[0] = 5.0 + seconds
        assert not second.attempt()
    theirs[0] = 21.0
    assert second.attempt()


def test_it_is_lost_before_another_may_take_it() -> None:
    server, clock = Server(), [0.0]
    lease = candidate(server, "a", clock)
    lease.attempt()
    server.fault = "refused"
    clock[0] = 9.9
    assert not lease.attempt()
    assert lease.held()
    clock[0] = 10.0
    assert not lease.held()


def test_released_it_can_be_had_at_once() -> None:
    server, clock = Server(), [0.0]
    first, second = candidate(server, "first", clock), candidate(server, "second", clock)
    first.attempt()
    assert not second.attempt()
    first.release()
    assert not first.held()
    assert second.attempt()
    assert server.record is not None
    assert server.record["spec"]["leaseTransitions"] == 1


def test_releasing_what_another_holds_leaves_it_alone() -> None:
    server, clock = Server(), [0.0]
    first, second = candidate(server, "first", clock), candidate(server, "second", clock)
    first.attempt()
    second.attempt()
    second.release()
    assert first.attempt()


def test_a_lease_that_was_taken_away_is_given_up_at_once() -> None:
    server, clock = Server(), [0.0]
    lease = candidate(server, "a", clock)
    lease.attempt()
    assert server.record is not None
    server.replace(LEASES, None, {**server.record, "spec": {**server.record["spec"], "holderIdentity": "b"}})
    assert not lease.attempt()
    assert not lease.held()


def test_keeping_returns_when_it_is_lost() -> None:
    server, clock = Server(), [0.0]
    lease = Lease(server, "n", "lease", "a", clock=lambda: clock[0], duration=0.03, renew_deadline=0.02, retry=0.001)
    lease.attempt()
    server.fault = "refused"
    clock[0] = 1.0
    lease.keep(threading.Event())
    assert not lease.held()


def test_keeping_returns_when_it_is_told_to_stop_and_still_holds() -> None:
    server, clock, stopped = Server(), [0.0], threading.Event()
    lease = candidate(server, "a", clock)
    assert lease.acquire(stopped)
    stopped.set()
    lease.keep(stopped)
    assert lease.held()
    assert not candidate(server, "b", clock).acquire(stopped)
