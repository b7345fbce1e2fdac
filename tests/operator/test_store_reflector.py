"""The store and the reflector: after any order of events, interruptions and relists, the store is what the server has."""

from __future__ import annotations

import copy
import json
import tracemalloc
import weakref
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gentrain_operator.controller import light_rayjob
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.reflector import Reflector
from gentrain_operator.kube.resource import JOBS, Object, Resource
from gentrain_operator.kube.store import Key, Store, trimmed

GONE = ApiError(410, "Expired", "too old resource version")


def thing(name: str, version: int, owner: str | None = None) -> Object:
    metadata: dict[str, Any] = {"namespace": "n", "name": name, "resourceVersion": str(version), "managedFields": ["long"]}
    if owner:
        metadata["ownerReferences"] = [{"uid": "other"}, {"uid": owner, "controller": True}]
    return {"metadata": metadata, "spec": {"version": version}}


class Server:
    """Keeps every change; a watch replays from a version and then does what the test says next: ends, breaks or expires."""

    def __init__(self) -> None:
        self.objects: dict[str, Object] = {}
        self.log: list[tuple[int, str, Object]] = []
        self.version = 1
        self.oldest = 0
        self.endings: list[ApiError | None] = []
        self.lists = 0
        self.seen_versions: list[str] = []

    def change(self, kind: str, name: str, owner: str | None = None) -> None:
        self.version += 1
        event = "ADDED" if name not in self.objects else "MODIFIED"
        if kind == "delete":
            if name not in self.objects:
                return
            event, obj = "DELETED", {**self.objects.pop(name)}
            obj["metadata"] = {**obj["metadata"], "resourceVersion": str(self.version)}
        else:
            obj = self.objects[name] = thing(name, self.version, owner)
        self.log.append((self.version, event, obj))

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object:
        self.lists += 1
        names, start = sorted(self.objects), int(page or 0)
        more = {"continue": str(start + 2)} if start + 2 < len(names) else {}
        items = [copy.deepcopy(self.objects[name]) for name in names[start : start + 2]]
        return {"metadata": {"resourceVersion": str(self.version), **more}, "items": items}

    def watch(self, resource: Resource, namespace: str | None = None, *, labels: str = "", version: str, seconds: int) -> Stream:
        assert 240 <= seconds <= 300
        self.seen_versions.append(version)
        if int(version) < self.oldest:
            raise GONE
        return Stream(self, int(version), self.endings.pop(0) if self.endings else None)


class Stream:
    def __init__(self, server: Server, version: int, ending: ApiError | None) -> None:
        self.server, self.version, self.ending = server, version, ending

    def __iter__(self) -> Iterator[Object]:
        for version, kind, obj in self.server.log:
            if version > self.version:
                yield {"type": kind, "object": copy.deepcopy(obj)}
        yield {"type": "BOOKMARK", "object": {"metadata": {"resourceVersion": str(self.server.version)}}}
        if self.ending:
            raise self.ending

    def close(self) -> None:
        pass


def reflector(server: Server, store: Store, changes: list[str] | None = None) -> Reflector:
    heard = changes if changes is not None else []
    return Reflector(server, JOBS, store, lambda obj: heard.append(obj["metadata"]["name"]))


steps = st.one_of(
    st.tuples(st.sampled_from(["put", "delete"]), st.sampled_from("abcde")),
    st.tuples(st.sampled_from(["end", "break", "expire", "compact"]), st.just("")),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(steps, max_size=30))
def test_the_store_ends_as_the_server(script: list[tuple[str, str]]) -> None:
    server, store = Server(), Store()
    changes: list[str] = []
    subject = reflector(server, store, changes)
    for kind, name in script:
        if kind in ("put", "delete"):
            server.change(kind, name)
        elif kind == "compact":
            server.oldest = server.version
        else:
            ending = {"end": None, "break": ApiError(0, "Unreachable", "reset"), "expire": GONE}[kind]
            server.endings.append(ending)
            subject.step()
    server.endings.clear()
    subject.step()
    subject.step()  # the second lists again if the first was told that its version expired
    assert {key.name: obj["spec"] for key, obj in ((Key("n", o["metadata"]["name"]), o) for o in store.all())} == {
        name: obj["spec"] for name, obj in server.objects.items()
    }
    assert set(changes) >= set(server.objects)


def test_pages_are_followed() -> None:
    server, store = Server(), Store()
    for name in "abcde":
        server.change("put", name)
    reflector(server, store).step()
    assert (len(store), server.lists) == (5, 3)


def test_an_interruption_goes_on_from_the_last_version_and_backs_off() -> None:
    server, store = Server(), Store()
    server.change("put", "a")
    server.endings = [ApiError(0, "Unreachable", "reset")] * 3
    subject = reflector(server, store)
    delays = [subject.step() for _ in range(4)]
    assert server.lists == 1
    assert server.seen_versions == ["2", "2", "2", "2"]
    assert 0 < delays[0] <= 0.5
    assert delays[3] == 0


@pytest.mark.parametrize(("asked", "least", "most"), [(7.0, 7.0, 7.0), (0.1, 0.25, 0.5), (10.0**6, 30.0, 30.0), (None, 0.25, 0.5)])
def test_a_busy_server_is_left_alone_for_as_long_as_it_asks(asked: float | None, least: float, most: float) -> None:
    server = Server()
    server.endings = [ApiError(429, "TooManyRequests", "busy", asked)]
    assert least <= reflector(server, Store()).step() <= most


class Curt(Server):
    """Every watch ends after `lasts` seconds of made-up time and shows nothing: what a proxy does that drops what it does not know."""

    def __init__(self, clock: list[float], lasts: float) -> None:
        super().__init__()
        self.clock, self.lasts, self.watches = clock, lasts, 0

    def watch(self, resource: Resource, namespace: str | None = None, *, labels: str = "", version: str, seconds: int) -> Any:
        self.watches += 1
        self.clock[0] += self.lasts
        return Nothing()


class Nothing:
    def __iter__(self) -> Iterator[Object]:
        return iter(())

    def close(self) -> None:
        pass


@pytest.mark.parametrize(("lasts", "least", "most"), [(0.0003, 8, 25), (0.99, 8, 25), (1.0, 290, 300), (270.0, 2, 2)])
def test_a_watch_that_ends_at_once_and_shows_nothing_is_not_reopened_at_once(lasts: float, least: int, most: int) -> None:
    """Watches in five minutes: client-go counts one of under a second without an event as failed."""
    clock = [0.0]
    server = Curt(clock, lasts)
    subject = Reflector(server, JOBS, Store(), lambda obj: None, clock=lambda: clock[0])
    while clock[0] < 300:
        pause = subject.step()
        clock[0] += pause
    assert least <= server.watches <= most
    assert server.lists == 1


def test_a_short_watch_that_showed_something_is_followed_at_once_and_ends_the_pauses() -> None:
    clock = [0.0]
    server = Curt(clock, 0.1)
    subject = Reflector(server, JOBS, Store(), lambda obj: None, clock=lambda: clock[0])
    pauses = [subject.step() for _ in range(6)]
    assert pauses[0] <= 0.5
    assert pauses[5] >= 8
    server.watch = lambda *arguments, version, **options: Stream(server, int(version), None)  # type: ignore[method-assign]
    assert subject.step() == 0
    del server.watch  # type: ignore[method-assign]
    assert subject.step() <= 0.5


@pytest.mark.parametrize("status", [403, 404])
def test_a_refusal_and_its_end_are_told_once(status: int) -> None:
    told: list[str] = []
    server = Server()
    subject = Reflector(
        server, JOBS, Store(), lambda obj: None, on_standing=lambda: told.append(f"{subject.synced.is_set()} {subject.refused}")
    )
    server.list = lambda *arguments, **options: refuse(ApiError(status, "Why", "no"))  # type: ignore[method-assign]
    for _ in range(3):
        assert subject.step() > 0
    assert told == [f"False {status} Why: no"]
    del server.list  # type: ignore[method-assign]
    subject.step()
    server.watch = lambda *arguments, **options: refuse(ApiError(status, "Why", "no"))  # type: ignore[method-assign]
    for _ in range(3):
        subject.step()
    del server.watch  # type: ignore[method-assign]
    subject.step()
    subject.step()
    assert told == [f"False {status} Why: no", "True ", f"True {status} Why: no", "True "]
    assert server.lists == 1


def test_an_expired_version_lists_again_and_reports_what_went_away() -> None:
    server, store = Server(), Store()
    server.change("put", "a")
    changes: list[str] = []
    subject = reflector(server, store, changes)
    subject.step()
    server.change("delete", "a")
    server.log.clear()
    server.oldest = server.version + 1
    subject.step()
    server.oldest = 0
    changes.clear()
    subject.step()
    assert changes == ["a"]
    assert (len(store), server.lists) == (0, 2)


def test_a_handler_that_raises_costs_a_relist_and_nothing_more() -> None:
    server, store = Server(), Store()
    server.change("put", "a")
    calls = []

    def handler(obj: Object) -> None:
        calls.append(obj)
        if len(calls) == 1:
            raise KeyError("ours")

    subject = Reflector(server, JOBS, store, handler)
    subject.step()
    assert not subject.synced.is_set()
    server.change("put", "a")
    subject.step()
    assert subject.synced.is_set()
    assert len(calls) == 2


def test_silence_is_measured_from_the_last_event() -> None:
    now = [0.0]
    server = Server()
    subject = Reflector(server, JOBS, Store(), lambda obj: None, clock=lambda: now[0])
    subject.step()
    now[0] = 70
    assert subject.silence() == 70
    subject.step()
    assert subject.silence() == 0


@pytest.mark.parametrize(("status", "silence"), [(404, 0), (403, 0), (0, 70)])
def test_a_refusal_is_an_answer_and_no_answer_is_silence(status: int, silence: float) -> None:
    now = [0.0]
    server = Server()
    subject = Reflector(server, JOBS, Store(), lambda obj: None, clock=lambda: now[0])
    subject.step()
    server.watch = lambda *arguments, **options: refuse(ApiError(status, "Why", "not to be had"))  # type: ignore[method-assign]
    now[0] = 70
    subject.step()
    assert subject.silence() == silence


def refuse(error: ApiError) -> Any:
    raise error


def test_owned_objects_are_found_by_the_controlling_owner_only() -> None:
    store = Store()
    store.put(thing("a", 1, "u1"))
    store.put(thing("b", 1, "u1"))
    assert [obj["metadata"]["name"] for obj in store.owned_by("u1")] == ["a", "b"]
    assert store.owned_by("other") == []
    store.put(thing("a", 2, "u2"))
    assert [obj["metadata"]["name"] for obj in store.owned_by("u1")] == ["b"]
    store.remove(Key("n", "b"))
    assert store.owned_by("u1") == []


def test_trimming_copies() -> None:
    last = "kubectl.kubernetes.io/last-applied-configuration"
    whole = {"metadata": {"name": "a", "managedFields": [1], "annotations": {last: "x", "mine": "y"}}}
    before = copy.deepcopy(whole)
    assert trimmed(whole) == {"metadata": {"name": "a", "annotations": {"mine": "y"}}}
    assert whole == before


def test_ten_thousand_objects_fit_into_the_operators_memory() -> None:
    """As dicts, with equal names kept once, a job of this size took 13 KB."""
    text = json.dumps({"conditions": [{"type": "Accepted", "n": 1.5, "reason": "ä"}] * 10, "phase": "Running"})
    store = Store()
    store.put({"metadata": {"namespace": "n", "name": "warm"}, "status": json.loads(text)})
    tracemalloc.start()
    try:
        for number in range(500):
            obj = {"metadata": {"namespace": "n", "name": f"job-{number}"}, "status": json.loads(text)}
            assert store.put(obj) == obj == store.get(Key("n", f"job-{number}"))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / 500 < len(text) + 600


def test_a_list_is_read_page_by_page_and_kept_trimmed() -> None:
    """No more than one page is in memory as it came, and nothing is kept of what trimming takes away, whichever way an object comes."""
    alive: list[weakref.ref[Any]] = []

    class Bulk(list[Any]):
        pass

    def page(number: int) -> Iterator[Object]:
        for at in range(5):
            bulk = Bulk(range(1000))
            alive.append(weakref.ref(bulk))
            yield {**thing(f"{number}-{at}", 1), "spec": {"suspend": True, "rayClusterSpec": bulk}}

    def listed() -> Iterator[Object]:
        for number in range(4):
            yield from page(number)
            assert sum(one() is not None for one in alive) <= 1

    store = Store(light_rayjob)
    for obj in store.replace(listed(), "n"):
        assert obj["spec"] == {"suspend": True}
        assert "managedFields" not in obj["metadata"]
    assert store.put({**thing("watched", 1), "spec": {"rayClusterSpec": 1}})["spec"] == {"suspend": False}
    assert [one["spec"] for one in store.all()] == [{"suspend": True}] * 20 + [{"suspend": False}]


def test_a_list_that_breaks_off_changes_nothing() -> None:
    def listed() -> Iterator[Object]:
        yield thing("new", 1)
        raise ApiError(500, "", "page 2")

    store = Store()
    store.put(thing("old", 1))
    with pytest.raises(ApiError):
        store.replace(listed())
    assert [one["metadata"]["name"] for one in store.all()] == ["old"]
    assert [one["metadata"]["name"] for one in store.replace([thing("new", 1)])] == ["old", "new"]


def test_what_is_handed_out_is_nobody_elses() -> None:
    store = Store()
    store.put(thing("a", 1))
    got = store.get(Key("n", "a"))
    assert got is not None
    got["spec"]["version"] = 7
    assert store.get(Key("n", "a")) == trimmed(thing("a", 1))


def versioned(version: str) -> Object:
    return {"metadata": {"name": "a", "namespace": "n", "resourceVersion": version}}


@pytest.mark.parametrize(("here", "after"), [("1", "2"), ("3", "3"), (None, None)], ids=["ours is newer", "the watch was ahead", "deleted"])
def test_the_answer_to_a_write_counts_until_the_watch_knows_better(here: str | None, after: str | None) -> None:
    store = Store()
    if here:
        store.put(versioned(here))
    store.advance(versioned("1"), versioned("2"))
    assert store.get(Key("n", "a")) == (versioned(after) if after else None)


def test_what_is_not_there() -> None:
    assert Store().get(Key("n", "a")) is None
    assert Store().remove(Key("n", "a")) is None


@pytest.mark.parametrize("version", ["1", "2"])
def test_an_unchanged_object_is_no_change(version: str) -> None:
    store = Store()
    store.put(thing("a", 1))
    assert len(list(store.replace([thing("a", int(version))]))) == int(version) - 1
