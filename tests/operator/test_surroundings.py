"""What a cluster says about a namespace and its nodes, and that a server which does not say it keeps no job from running."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from gentrain_operator import profiles
from gentrain_operator.conditions import Condition
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import Object, Resource
from gentrain_operator.surroundings import BAD, ENFORCE, LEVELS, MOST, PAGE, Surroundings, sick, takes
from tests.operator.pools import ROWS, written
from tests.operator.test_decide import NOW, job
from trainjobs.api.job import Spec


def node(name: str, *conditions: tuple[str, str, str]) -> Object:
    said = [{"type": type_, "status": status, "message": message} for type_, status, message in conditions]
    return {"metadata": {"name": name}, "status": {"conditions": [{"type": "Ready", "status": "True"}, *said]}}


@pytest.mark.parametrize("type_", sorted(BAD))
def test_each_condition_is_bad_at_its_one_value(type_: str) -> None:
    bad = BAD[type_]
    good = "True" if bad == "False" else "False"
    assert sick([node("a", (type_, bad, "XID 79\non GPU 0")), node("b", (type_, good, "")), node("c", (type_, "Unknown", ""))]) == {
        "a": f"{type_} is {bad}: XID 79 on GPU 0"
    }


def test_a_node_that_says_nothing_of_accelerators_is_fine() -> None:
    assert sick([node("a"), node("b", ("DiskPressure", "True", "full")), {"metadata": {"name": "c"}}]) == {}


def test_what_a_level_takes() -> None:
    taken = {(enforced, level): takes(enforced, level) for enforced in ("", *LEVELS, "unheard") for level in LEVELS}
    refused = {pair for pair, good in taken.items() if not good}
    assert refused == {("baseline", "privileged"), ("restricted", "privileged"), ("restricted", "baseline")}


@pytest.mark.parametrize(("provider", "pool", "capacity", "fabric"), [row for row in ROWS if row[3] != "none"])
def test_a_profile_that_the_namespace_does_not_take_is_passed_over_or_said(provider: str, pool: str, capacity: str, fabric: str) -> None:
    there = {
        "fast": {"metadata": {"name": "fast"}, "spec": written(provider, pool, capacity, fabric)},
        "slow": {"metadata": {"name": "slow"}, "spec": written(provider, pool, capacity, "none")},
    }
    both = Spec.model_validate(job(compute={"gpusPerWorker": 8, "profiles": ["fast", "slow"]})["spec"])
    one = Spec.model_validate(job(compute={"gpusPerWorker": 8, "profiles": ["fast"]})["spec"])
    mild = fabric in ("none", "efa", "efa-dra")
    assert profiles.demanding({"spec": {"compute": {"profiles": ["fast"]}}}, there) == (not mild)
    for enforced in ("baseline", "restricted"):
        chosen = profiles.chosen(both, there, {}, NOW, enforced)
        assert not isinstance(chosen, Condition)
        assert chosen[0] == ("fast" if mild else "slow")
        alone = profiles.chosen(one, there, {}, NOW, enforced)
        if mild:
            assert not isinstance(alone, Condition)
            continue
        assert isinstance(alone, Condition)
        assert (alone.type, alone.status, alone.reason) == ("Accepted", False, "PodsForbidden")
        assert alone.message.startswith(
            f"GTJ0303 the pods of ComputeProfile fast need the Pod Security level privileged (fabric: {fabric})"
        )
        assert f"{ENFORCE}={enforced}" in alone.message
    assert not isinstance(profiles.chosen(one, there, {}, NOW, "privileged"), Condition)


class Server:
    def __init__(self, *nodes: Object, labels: dict[str, str] | None = None, error: int = 0) -> None:
        self.nodes, self.labels, self.error = nodes, labels, error
        self.asked: list[Any] = []

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        self._say(name)
        return {"metadata": {"name": name, "labels": self.labels}}

    def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object:
        self._say(labels)
        return {"items": list(self.nodes)}

    def _say(self, what: str) -> None:
        self.asked.append(what)
        if self.error:
            raise ApiError(self.error, "No", "no")


def test_a_minute_long_nobody_is_asked_again() -> None:
    server, now = Server(node("a", ("XIDErrors", "True", "x")), labels={ENFORCE: "baseline"}), [0.0]
    around = Surroundings(server, lambda: now[0])
    for moment in (0.0, 30.0, 59.0):
        now[0] = moment
        assert around.enforced("team") == "baseline"
        assert around.sick({"b": "2", "a": "1"}) == {"a": "XIDErrors is True: x"}
    assert server.asked == ["team", "a=1,b=2"]
    now[0] = 61.0
    around.enforced("team")
    assert server.asked == ["team", "a=1,b=2", "team"]


@pytest.mark.parametrize("status", [403, 404, 500, 0])
def test_a_server_that_does_not_say_keeps_nobody_from_running(status: int) -> None:
    around = Surroundings(Server(error=status or 0) if status else Server(labels=None))
    assert around.enforced("team") == ""
    assert around.sick({}) == {}


def test_a_thousand_jobs_at_once_ask_for_the_nodes_of_a_pool_once_a_minute_and_for_a_bounded_answer() -> None:
    """What a pass over all jobs costs the API server follows from the pools that they name, neither from jobs nor from nodes."""

    class Slow(Server):
        def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object:
            asking.wait(0.05)  # the others come meanwhile: never set
            limits.append(limit)
            return super().list(resource, namespace, labels=labels, limit=limit)

    limits, asking, now = list[int](), threading.Event(), [0.0]
    server = Slow(node("a", ("XIDErrors", "True", "x")), labels={ENFORCE: "baseline"})
    around = Surroundings(server, lambda: now[0])
    for number in (1, 2):
        with ThreadPoolExecutor(16) as pool:
            found = list(pool.map(lambda job: (around.sick({"pool": str(job % 3)}), around.enforced("team")), range(1000)))
        assert found == [({"a": "XIDErrors is True: x"}, "baseline")] * 1000
        assert sorted(server.asked) == sorted(["pool=0", "pool=1", "pool=2", "team"] * number)
        now[0] += 121
    assert limits == [PAGE] * 6
    now[0] -= 60  # what is known is a minute old: whoever asks for one thing, the others take theirs as it was
    server.asked.clear()
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda job: (around.sick({"pool": str(job % 3)}), around.enforced("team")), range(1000)))
    assert 1 <= len(server.asked) == len(set(server.asked))


def test_while_one_job_asks_anew_for_the_nodes_of_a_pool_the_others_go_on_with_what_was_known() -> None:
    """Of ten thousand nodes the answer takes a while, and all workers of the operator would stand still for it, once a minute and pool."""

    class Held(Server):
        def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object:
            if self.asked:
                arrived.set()
                assert answer.wait(60)
            return super().list(resource, namespace, labels=labels, limit=limit)

    arrived, answer, now = threading.Event(), threading.Event(), [0.0]
    server = Held(node("a", ("XIDErrors", "True", "x")))
    around = Surroundings(server, lambda: now[0])
    assert around.sick({"pool": "big"}) == {"a": "XIDErrors is True: x"}
    now[0], server.nodes = 61.0, ()
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(around.sick, {"pool": "big"})
        assert arrived.wait(60)
        assert around.sick({"pool": "big"}) == {"a": "XIDErrors is True: x"}
        answer.set()
        assert asking.result() == {}
    assert around.sick({"pool": "big"}) == {}
    assert server.asked == ["pool=big"] * 2


def test_nothing_that_is_older_than_two_minutes_is_taken_for_known() -> None:
    server, now = Server(node("a", ("XIDErrors", "True", "x"))), [0.0]
    around = Surroundings(server, lambda: now[0])
    around.sick({})
    now[0], server.nodes = 121.0, ()
    with around._asking, ThreadPoolExecutor(1) as pool:
        asking = pool.submit(around.sick, {})
        with pytest.raises(TimeoutError):
            asking.result(0.05)  # it waits for its turn
        around._asking.release()
        assert asking.result(60) == {}
        around._asking.acquire()


@pytest.mark.parametrize("count", [0, 1, PAGE, PAGE + 1, MOST, MOST + 1])
def test_nodes_are_looked_at_page_by_page_and_those_that_are_not_are_told_of(count: int, caplog: pytest.LogCaptureFixture) -> None:
    """As the API server pages: a token where there is more, and none behind the last."""

    class Paged(Server):
        def list(self, resource: Resource, namespace: str | None = None, *, labels: str = "", limit: int = 0, page: str = "") -> Object:
            end = int(page or 0) + limit
            pages.append(page)
            return {"items": self.nodes[int(page or 0) : end], "metadata": {"continue": str(end) if end < len(self.nodes) else ""}}

    pages = list[str]()
    with caplog.at_level(logging.WARNING):
        found = Surroundings(Paged(*(node(str(one), ("XIDErrors", "True", "x")) for one in range(count)))).sick({"pool": "big"})
    assert [*found] == [str(one) for one in range(min(count, MOST))]
    assert pages == ["", "100", "200", "300", "400"][: max(1, -(-count // PAGE))]
    assert ("pool=big has more nodes than the 500 that are looked at" in caplog.text) == (count > MOST)
