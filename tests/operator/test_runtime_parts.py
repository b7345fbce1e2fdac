"""Workers, events, probes, metrics and writing, each alone."""

from __future__ import annotations

import logging
import threading
import urllib.error
import urllib.request
from typing import Any

import pytest

from gentrain_operator.kube.apply import Taken, create_child, owner_reference, write_status
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.events import Event, Recorder, clean
from gentrain_operator.kube.metrics import Metrics
from gentrain_operator.kube.probes import Probes, not_synced, silent_reflector, stuck_worker
from gentrain_operator.kube.resource import CONFIGMAPS, JOBS, PODS, PROFILES, RAYJOBS, Object, Resource
from gentrain_operator.kube.store import Key
from gentrain_operator.kube.workers import Workers
from gentrain_operator.kube.workqueue import WorkQueue

KEY = Key("team", "job")
OWNER: Object = {
    "apiVersion": "gentrain.dev/v1alpha1",
    "kind": "GenerativeTrainingJob",
    "metadata": {"name": "job", "namespace": "team", "uid": "u1", "resourceVersion": "5"},
}


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def worked(outcome: Any, clock: Clock) -> WorkQueue[Key]:
    """A queue after one reconcile that returned or raised `outcome`."""
    queue: WorkQueue[Key] = WorkQueue(clock=clock)

    def reconcile(key: Key) -> float | None:
        if isinstance(outcome, Exception):
            raise outcome
        return outcome  # type: ignore[no-any-return]

    queue.add(KEY)
    taken = queue.take()
    assert taken is not None
    Workers(queue, reconcile, clock=clock).work(taken)
    return queue


@pytest.mark.parametrize(
    ("outcome", "after"),
    [
        (None, None),
        (30.0, 30),
        (ApiError(500, "", ""), 0.005),
        (ApiError(429, "", "", retry_after=7), 7),
        (ZeroDivisionError(), 0.005),
    ],
    ids=["nothing", "look again", "server error", "too many requests", "defect"],
)
def test_the_outcome_of_a_reconcile_decides_when_to_look_again(outcome: Any, after: float | None) -> None:
    clock = Clock()
    queue = worked(outcome, clock)
    assert queue.take() is None
    clock.now = 1e6 if after is None else after
    assert queue.take() == (None if after is None else KEY)


def test_the_same_failure_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    queue: WorkQueue[Key] = WorkQueue(clock=Clock())
    failure: list[Exception] = [ApiError(500, "", "down")] * 3 + [ApiError(409, "", "")] + [ApiError(500, "", "other")]

    def reconcile(key: Key) -> float | None:
        raise failure.pop(0)

    workers = Workers(queue, reconcile)
    with caplog.at_level(logging.ERROR):
        for _ in range(5):
            workers.work(KEY)
    assert ["down" in record.getMessage() for record in caplog.records] == [True, False]


def test_without_the_lease_nothing_is_worked_on_and_nothing_is_lost() -> None:
    """A renewal may come late: what was taken meanwhile is worked on then."""
    clock = Clock()
    queue: WorkQueue[Key] = WorkQueue(clock=clock)
    held = False
    queue.add(KEY)
    calls: list[Key] = []

    def reconcile(key: Key) -> None:
        calls.append(key)

    workers = Workers(queue, reconcile, allowed=lambda: held, clock=clock)
    for _ in range(5):
        key = queue.take()
        assert key == KEY
        workers.work(key)
        assert (queue.take(), calls) == (None, [])
        clock.now += 1
    held = True
    key = queue.take()
    assert key == KEY
    workers.work(key)
    clock.now += 1e6
    assert (queue.take(), calls) == (None, [KEY])


def test_workers_finish_what_they_do_when_stopped() -> None:
    queue: WorkQueue[Key] = WorkQueue()
    entered, leave, finished = threading.Event(), threading.Event(), threading.Event()

    def reconcile(key: Key) -> None:
        entered.set()
        leave.wait(5)
        finished.set()

    workers = Workers(queue, reconcile, count=2)
    workers.start()
    queue.add(KEY)
    assert entered.wait(5)
    assert not workers.stop(timeout=0.01)
    leave.set()
    assert workers.stop(timeout=5)
    assert finished.is_set()
    assert not workers.alive()


class EventServer:
    def __init__(self, error: ApiError | None = None) -> None:
        self.error = error
        self.created: list[Object] = []
        self.merged: list[Object] = []

    def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        if self.error:
            raise self.error
        self.created.append(body)
        return body

    def merge(self, resource: Resource, namespace: str | None, name: str, patch: Object) -> Object:
        self.merged.append({"name": name, **patch})
        return {}


def test_repeated_events_become_one_with_a_count() -> None:
    server, clock = EventServer(), Clock()
    recorder = Recorder(server, "me", clock=clock)
    event = Event("Warning", "Unschedulable", "Scheduling", "no node")
    for _ in range(3):
        recorder.write(OWNER, event)
    recorder.write(OWNER, Event("Warning", "Unschedulable", "Scheduling", "another note"))
    assert len(server.created) == 2
    assert [patch["series"]["count"] for patch in server.merged] == [2, 3]
    assert server.merged[0]["name"] == server.created[0]["metadata"]["name"]
    clock.now = 1000
    recorder.write(OWNER, event)
    assert len(server.created) == 3


def test_refused_events_are_logged_once_and_stop_nothing(caplog: pytest.LogCaptureFixture) -> None:
    recorder = Recorder(EventServer(ApiError(403, "Forbidden", "no")), "me")
    with caplog.at_level(logging.WARNING):
        for number in range(3):
            recorder.write(OWNER, Event("Normal", "R", "A", str(number)))
    assert len(caplog.records) == 1


def test_events_are_written_by_a_thread_of_their_own() -> None:
    server = EventServer()
    recorder = Recorder(server, "me")
    recorder.start()
    recorder.record(OWNER, Event("Normal", "R", "A", "note"))
    recorder.stop()
    assert [event["note"] for event in server.created] == ["note"]


def test_a_flood_of_events_does_not_block() -> None:
    recorder = Recorder(EventServer(), "me")
    for number in range(1100):
        recorder.record(OWNER, Event("Normal", "R", "A", str(number)))
    recorder.start()
    recorder.stop()


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [("a\x1b[31mb\nc\td", "a [31mb c d"), ("x" * 2000, "x" * 1023 + "…"), ("\u202eevil", "evil"), ("", "")],
    ids=["control", "long", "direction", "empty"],
)
def test_text_from_outside_is_made_fit(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


class Heard:
    def __init__(self, resource: Resource, silence: float, synced: bool) -> None:
        self.resource, self._silence, self.synced = resource, silence, threading.Event()
        if synced:
            self.synced.set()

    def silence(self) -> float:
        return self._silence


def test_checks_say_what_is_wrong() -> None:
    reflectors = [Heard(JOBS, 10, True), Heard(PODS, 181, False)]
    assert silent_reflector(reflectors)() == "nothing heard of pods for 181 s"
    assert silent_reflector(reflectors[:1])() == ""
    assert not_synced(reflectors)() == "waiting for pods"
    assert stuck_worker(lambda: 301, lambda: True)() == "a worker has been busy for 301 s"
    assert stuck_worker(lambda: 299, lambda: True)() == ""
    assert stuck_worker(lambda: 0, lambda: False)() == "a worker has died"


def fetched(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_probes_are_served() -> None:
    def broken() -> str:
        raise KeyError("x")

    metrics = Metrics()
    metrics.request("patch", "rayjobs", 200, 0.1)
    probes = Probes(0, live=[lambda: ""], ready=[lambda: "not yet", broken], metrics=metrics.text, host="127.0.0.1")
    probes.start()
    try:
        assert fetched(probes.port, "/livez") == (200, "ok")
        assert fetched(probes.port, "/readyz") == (503, "not yet\nKeyError('x')")
        assert fetched(probes.port, "/other")[0] == 404
        assert 'gentrain_api_requests_total{code="200",resource="rayjobs",verb="patch"} 1.0' in fetched(probes.port, "/metrics")[1]
    finally:
        probes.stop()


def test_jobs_become_metrics_and_nonsense_does_not() -> None:
    status = {
        "progress": {"step": 7, "metrics": [{"name": "loss/G", "value": "1.5"}, {"name": "odd", "value": "?"}]},
        "cost": {"usd": "unknown", "gpuHours": "2"},
        "conditions": [{"type": "Running", "status": "True"}],
    }
    metrics = Metrics()
    metrics.jobs(lambda: [{**OWNER, "status": status}, OWNER])
    text = metrics.text().decode()
    assert 'gentrain_job_step{job="job",namespace="team"} 7.0' in text
    assert 'gentrain_job_metric{job="job",name="loss/G",namespace="team"} 1.5' in text
    assert 'gentrain_job_gpu_seconds{job="job",namespace="team"} 7200.0' in text
    assert 'gentrain_job_condition{job="job",namespace="team",type="Running"} 1.0' in text
    assert "odd" not in text
    assert "gentrain_job_cost_usd{" not in text


class ChildServer:
    def __init__(self, there: Object | None) -> None:
        self.there = there
        self.applied: list[Object] = []

    def create(self, resource: Resource, namespace: str | None, body: Object, *, manager: str = "") -> Object:
        if self.there is not None:
            raise ApiError(409, "AlreadyExists", "")
        return body

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        assert self.there is not None
        return self.there

    def apply(self, resource: Resource, namespace: str | None, body: Object, *, manager: str, subresource: str = "") -> Object:
        self.applied.append(body)
        return body


def test_a_child_is_created_with_its_owner() -> None:
    child = create_child(ChildServer(None), RAYJOBS, OWNER, {"metadata": {"name": "job-a1"}})
    assert child["metadata"] == {"name": "job-a1", "namespace": "team", "ownerReferences": [owner_reference(OWNER)]}


def test_a_child_that_is_there_already_is_ours() -> None:
    ours = {"metadata": {"name": "job-a1", "ownerReferences": [owner_reference(OWNER)]}}
    assert create_child(ChildServer(ours), RAYJOBS, OWNER, {"metadata": {"name": "job-a1"}}) is ours


@pytest.mark.parametrize("owners", [[], [{"uid": "u1"}], [{"uid": "u2", "controller": True}]], ids=["none", "not controller", "another"])
def test_somebody_elses_object_is_never_adopted(owners: list[Object]) -> None:
    with pytest.raises(Taken, match="RayJob job-a1 exists"):
        create_child(ChildServer({"metadata": {"ownerReferences": owners}}), RAYJOBS, OWNER, {"metadata": {"name": "job-a1"}})


def test_a_status_that_is_so_already_is_not_written() -> None:
    server = ChildServer(None)
    assert not write_status(server, JOBS, {**OWNER, "status": {"phase": "Running"}}, {"phase": "Running"})
    assert write_status(server, JOBS, OWNER, {"phase": "Running"})
    assert [(body["status"], body["metadata"]["resourceVersion"]) for body in server.applied] == [({"phase": "Running"}, "5")]


@pytest.mark.parametrize(
    ("resource", "namespace", "name", "path"),
    [
        (JOBS, None, "", "/apis/gentrain.dev/v1alpha1/generativetrainingjobs"),
        (JOBS, "a", "b", "/apis/gentrain.dev/v1alpha1/namespaces/a/generativetrainingjobs/b"),
        (CONFIGMAPS, "a", "", "/api/v1/namespaces/a/configmaps"),
        (PROFILES, "a", "p", "/apis/gentrain.dev/v1alpha1/computeprofiles/p"),
        (JOBS, "a", "../x", "/apis/gentrain.dev/v1alpha1/namespaces/a/generativetrainingjobs/..%2Fx"),
    ],
)
def test_paths(resource: Resource, namespace: str | None, name: str, path: str) -> None:
    assert resource.path(namespace, name) == path


def test_metrics_can_be_asked_for_by_name() -> None:
    metrics = Metrics()
    metrics.jobs(lambda: [{**OWNER, "status": {"progress": {"step": 7}}}])
    metrics.gauges("gentrain_x", "x", "namespace", {"red": lambda: 1.0, "blue": lambda: 0.0})
    probes = Probes(0, live=[], ready=[], notes=[lambda: "but note", lambda: ""], metrics=metrics.text, host="127.0.0.1")
    probes.start()
    try:
        assert "gentrain_job_step" in fetched(probes.port, "/metrics")[1]
        one = fetched(probes.port, "/metrics?name[]=gentrain_x")[1]
        assert [line for line in one.splitlines() if line[0] != "#"] == [
            'gentrain_x{namespace="red"} 1.0',
            'gentrain_x{namespace="blue"} 0.0',
        ]
        assert fetched(probes.port, "/readyz") == (200, "ok\nbut note")
        assert fetched(probes.port, "/livez") == (200, "ok")
    finally:
        probes.stop()
