"""Several watched namespaces fill one store, each by reflectors of its own, and what befalls one is nothing to the others."""

from __future__ import annotations

import logging
import threading
from typing import Any

import pytest

from gentrain_operator.kube.client import Configuration
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.reflector import Reflector
from gentrain_operator.kube.resource import JOBS, PROFILES, RAYJOBS, Object, Resource
from gentrain_operator.kube.store import Key, Store
from gentrain_operator.main import Operator, Settings
from gentrain_operator.watched import Place, Watched, names


def thing(namespace: str, name: str) -> Object:
    return {"metadata": {"namespace": namespace, "name": name, "resourceVersion": "1"}}


def test_a_list_of_one_namespace_says_nothing_about_another() -> None:
    store = Store()
    store.replace([thing("red", "a")], "red")
    store.replace([thing("blue", "b")], "blue")
    assert [one["metadata"]["name"] for one in store.replace([], "red")] == ["a"]
    assert store.get(Key("blue", "b")) is not None
    assert [one["metadata"]["name"] for one in store.replace([])] == ["b"]


class Server:
    """Lists each namespace's objects; a watch ends at once. What is in `refusing` is refused."""

    def __init__(self) -> None:
        self.objects = {"red": [thing("red", "a")], "blue": [thing("blue", "b")]}
        self.refusing: dict[str | None, int] = {}

    def _answers(self, namespace: str | None) -> None:
        if namespace in self.refusing:
            raise ApiError(self.refusing[namespace], "Refused", "not yours")

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object:
        self._answers(namespace)
        return {"metadata": {"resourceVersion": "1"}, "items": self.objects[namespace or "red"]}

    def watch(self, resource: Resource, namespace: str | None = None, *, labels: str = "", version: str, seconds: int) -> Any:
        self._answers(namespace)
        raise ApiError(410, "Gone", "list again")


def test_reflectors_of_two_namespaces_leave_each_others_objects_alone() -> None:
    """Also when they list again, and when one's jobs are gone."""
    server, store, changed = Server(), Store(), list[str]()
    both = [Reflector(server, JOBS, store, lambda obj: changed.append(obj["metadata"]["name"]), namespace=name) for name in ("red", "blue")]
    for _ in range(3):
        for one in both:
            one.step()
    assert (changed, len(store)) == (["a", "b"], 2)
    server.objects["red"] = []
    for one in both:
        one.step()
    assert (changed, store.all_keys()) == (["a", "b", "a"], [Key("blue", "b")])


def test_two_reflectors_for_each_namespace_and_one_for_profiles() -> None:
    def kinds(namespace: str | None) -> list[str]:
        operator = Operator(Configuration(), Settings("image", "home", namespace, port=0))
        operator.probes._server.server_close()
        return sorted(one.resource.kind for one in operator.reflectors)

    assert kinds(None) == kinds("red") == sorted(one.kind for one in (JOBS, RAYJOBS, PROFILES))
    assert (
        kinds("red,blue")
        == kinds("red, blue")
        == kinds(" blue,red,,red ")
        == sorted(one.kind for one in (JOBS, RAYJOBS, JOBS, RAYJOBS, PROFILES))
    )


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (None, ()),
        ("", ()),
        ("a", ("a",)),
        ("a,b", ("a", "b")),
        ("a, b", ("a", "b")),
        (" b\t,a,,\n b", ("b", "a")),
        ("a b", ("a", "b")),
        ("9-x", ("9-x",)),
    ],
)
def test_namespaces_as_they_are_written(text: str | None, found: tuple[str, ...]) -> None:
    assert names(text) == found


@pytest.mark.parametrize("text", [",", "  ", "Team_A", "a,-b", "a/b", "x" * 64])
def test_what_names_no_namespace_is_refused_and_does_not_mean_all(text: str) -> None:
    with pytest.raises(ValueError, match="give names with commas"):
        names(text)


class Half:
    def __init__(self, resource: Resource) -> None:
        self.resource, self.synced, self.refused = resource, threading.Event(), ""

    def stand(self, refused: str) -> None:
        self.refused = refused
        if not refused:
            self.synced.set()


@pytest.fixture
def two() -> tuple[dict[str, list[Half]], Watched[Half], list[str | None]]:
    halves = {name: [Half(JOBS), Half(RAYJOBS)] for name in ("red", "blue")}
    taken_up: list[str | None] = []
    return halves, Watched([Place(name, pair) for name, pair in halves.items()], taken_up.append), taken_up


Two = tuple[dict[str, list[Half]], Watched[Half], list[str | None]]


def test_a_namespace_that_is_refused_at_the_start_is_not_waited_for_and_taken_up_later(two: Two, caplog: pytest.LogCaptureFixture) -> None:
    halves, watched, taken_up = two

    def turn(half: Half, refused: str = "") -> None:
        half.stand(refused)
        watched.turned()

    caplog.set_level(logging.INFO)
    turn(halves["red"][0])
    assert watched.waiting() == "waiting for namespace red (not listed yet), namespace blue (not listed yet)"
    turn(halves["blue"][0], "403 Forbidden: no")
    assert "namespace blue (generativetrainingjobs: 403 Forbidden: no)" in watched.waiting()
    turn(halves["red"][1])
    assert (watched.waiting(), taken_up) == ("", ["red"])
    assert (watched.workable("red"), watched.workable("blue"), watched.workable("green")) == (True, False, False)
    for _ in range(3):
        turn(halves["blue"][1], "403 Forbidden: no")
    assert watched.left_out().startswith("GTJ0307 namespace blue cannot be watched")
    turn(halves["blue"][0])
    assert not watched.workable("blue"), "its RayJobs are not known"
    turn(halves["blue"][1])
    turn(halves["blue"][1])
    assert (taken_up, watched.left_out(), watched.workable("blue")) == (["red", "blue"], "", True)
    assert [(one.levelname, one.getMessage().split(" (")[0]) for one in caplog.records] == [
        ("ERROR", "GTJ0307 namespace blue cannot be watched"),
        ("INFO", "namespace blue is watched again"),
    ]


def test_a_namespace_that_is_lost_on_the_way_comes_back_with_all_its_jobs(two: Two) -> None:
    halves, watched, taken_up = two
    for half in (*halves["red"], *halves["blue"]):
        half.stand("")
    watched.turned()
    halves["blue"][1].refused = "404 Not Found: gone"
    watched.turned()
    assert (watched.workable("blue"), watched.waiting()) == (False, "")
    halves["blue"][1].refused = ""
    watched.turned()
    assert taken_up == ["red", "blue", "blue"]


def test_nothing_goes_on_where_every_namespace_is_refused(two: Two) -> None:
    halves, watched, _ = two
    for half in (*halves["red"], *halves["blue"]):
        half.refused = "404 Not Found: no such kind"
    watched.turned()
    assert watched.waiting().startswith("waiting for namespace red (generativetrainingjobs: 404")


def test_all_namespaces_are_one_place() -> None:
    pair = [Half(JOBS), Half(RAYJOBS)]
    watched = Watched([Place(None, pair)], lambda name: None)
    assert watched.waiting() == "waiting for all namespaces (not listed yet)"
    for half in pair:
        half.stand("")
    assert (watched.waiting(), watched.workable("any")) == ("", True)


def test_a_job_where_nothing_can_be_listed_is_left_alone_and_looked_at_afterwards() -> None:
    operator = Operator(Configuration(), Settings("image", "home", "red,blue", port=0))
    operator.probes._server.server_close()
    looked: list[Key] = []
    operator.controller.reconcile = looked.append  # type: ignore[method-assign,assignment]
    keys = [Key("red", "a"), Key("blue", "b")]
    for key in keys:
        operator.stores.jobs.put(thing(*key))
    for place in operator.watched.places:
        for one in place.reflectors:
            one.synced.set()
    blue = operator.watched.places[1].reflectors[1]
    blue.refused = "403 Forbidden: no"
    operator.watched.turned()

    def work() -> None:
        while (key := operator.queue.take()) is not None:
            operator._reconcile(key)
            operator.queue.done(key)

    for key in keys:
        operator.queue.add(key)
    work()
    assert looked == keys[:1]
    text = operator.metrics.text().decode()
    assert 'gentrain_namespace_watched{namespace="red"} 1.0' in text
    assert 'gentrain_namespace_watched{namespace="blue"} 0.0' in text
    blue.refused = ""
    operator.watched.turned()
    work()
    assert looked == keys
