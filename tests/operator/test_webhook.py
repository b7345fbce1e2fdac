"""The webhook: told at least once, over restarts, and never in anybody's way."""

from __future__ import annotations

import datetime
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from gentrain_operator import main, webhook
from gentrain_operator.controller import Controller, Stores, light_rayjob
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import JOBS, Object, Resource
from gentrain_operator.kube.store import Key, Store
from gentrain_operator.polls import Polls
from gentrain_operator.webhook import AGAIN, HELD, Untold, Webhook, post, usable
from tests.operator.test_decide import IMAGE, NOW, job, running

KEY = Key("team", "job")


class Receiver:
    """Takes what is posted, answers as told, and hangs while `hold` is not set."""

    def __init__(self) -> None:
        self.answer, self.bodies, self.hold = 200, list[Object](), threading.Event()
        self.hold.set()
        self.headers: dict[str, str] = {}
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.hold.wait(10)
                receiver.bodies.append({"path": self.path, "type": self.headers["Content-Type"], **json.loads(body)})
                self.send_response(receiver.answer)
                for name, value in receiver.headers.items():
                    self.send_header(name, value)
                self.end_headers()

            do_GET = do_POST

            def log_message(self, *arguments: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    thread = threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield found
    finally:
        found.hold.set()
        found.server.shutdown()
        found.server.server_close()
        thread.join()


class Cluster:
    """An API server with one job and its RayJob, and operators that come and go."""

    def __init__(self, rayjob: Object, status: Object, **spec: Any) -> None:
        self.stores = Stores(Store(), Store(), Store(light_rayjob))
        self.job = job(status, **spec)
        self.stores.jobs.put(self.job)
        rayjob = {**rayjob, "metadata": {**rayjob["metadata"], "ownerReferences": [{"controller": True, "uid": "u1", "name": "job"}]}}
        self.stores.rayjobs.put(rayjob)
        self.writes, self.deleted, self.down = 0, False, False

    def apply(self, resource: Resource, namespace: str | None, body: Object, *, manager: str, subresource: str = "") -> Object:
        assert resource is JOBS
        if self.down:
            raise ApiError(503, "Unavailable", "down")
        self.writes += 1
        self.job = {**self.job, "status": body["status"]}
        self.job["metadata"] = {**self.job["metadata"], "resourceVersion": str(9 + self.writes)}
        self.stores.jobs.put(self.job)
        return self.job

    def delete(self, resource: Resource, namespace: str, name: str, *, uid: str) -> None:
        self.deleted = self.deleted or resource is JOBS

    def list(self, resource: Resource, namespace: str | None = None, **query: Any) -> Object:
        return {"items": []}

    def get(self, resource: Resource, namespace: str | None, name: str) -> Object:
        raise ApiError(404, "NotFound", name)

    def merge(self, *arguments: Any) -> Object:
        return {}

    def record(self, obj: Object, event: Any) -> None:
        pass

    def operator(self, hook: Webhook | None, now: datetime.datetime = NOW) -> Controller:
        polls = Polls(lambda key: None, read=lambda address, port: {})
        served: Any = type(
            "Served", (), {"look": lambda self, soon=False: None, "fitting": lambda self, status: status, "keeps": lambda self, name: True}
        )()
        return Controller(self, self.stores, polls, self, image=IMAGE, now=lambda: now, served=served, webhook=hook)  # type: ignore[arg-type]

    @property
    def notices(self) -> list[Object]:
        return list(self.job["status"].get("notices") or ())


UNDER_WAY = {"attempts": 1, "ended": 0, "startedAt": "2026-01-01T11:00:00Z", "phase": "Running"}


def done(**spec: Any) -> Cluster:
    """A job whose last step is made, and nobody has seen it yet."""
    return Cluster(running(jobDeploymentStatus="Complete", jobStatus="SUCCEEDED"), UNDER_WAY, **spec)


def nobody(key: Key) -> None:
    pass


def test_the_end_of_a_job_is_posted_once(receiver: Receiver) -> None:
    cluster, told = done(), list[Key]()
    hook = Webhook(receiver.url, told.append)
    operator = cluster.operator(hook)
    operator.reconcile(KEY)
    assert hook.step() == AGAIN, "what is not written yet is not told"
    operator.reconcile(KEY)
    assert hook.step() == 0.0
    assert told == [KEY]
    operator.reconcile(KEY)
    assert [one["toldAt"] for one in cluster.notices] == ["2026-01-01T12:00:00Z"]
    for _ in range(3):
        operator.reconcile(KEY)
        assert hook.step() == AGAIN
    (body,) = receiver.bodies
    assert (body["path"], body["type"], body["job"]["event"]) == ("/hook", "application/json", "Finished")
    assert body["text"].startswith("team/job finished (step 100 of 100")


def test_a_receiver_that_refuses_is_asked_again_by_every_operator_until_it_takes_it(receiver: Receiver) -> None:
    cluster, receiver.answer = done(), 500
    for _ in range(3):  # each knows what the status says, and no more
        hook = Webhook(receiver.url, nobody)
        operator = cluster.operator(hook)
        operator.reconcile(KEY)
        operator.reconcile(KEY)
        assert hook.step() == webhook.RETRY[0]
        assert [sorted(one) for one in cluster.notices] == [["kind", "since"]]
    receiver.answer = 200
    hook = Webhook(receiver.url, nobody)
    cluster.operator(hook).reconcile(KEY)
    assert hook.step() == 0.0
    assert len({body["job"]["id"] for body in receiver.bodies}) == 1
    assert len(receiver.bodies) == 4


def test_one_that_dies_before_it_is_written_down_tells_it_again_under_the_same_id(receiver: Receiver) -> None:
    cluster = done()
    hook = Webhook(receiver.url, nobody)
    operator = cluster.operator(hook)
    operator.reconcile(KEY)
    operator.reconcile(KEY)
    hook.step()
    cluster.down = True
    with pytest.raises(ApiError):
        operator.reconcile(KEY)
    cluster.down = False
    again = Webhook(receiver.url, nobody)
    cluster.operator(again).reconcile(KEY)
    again.step()
    first, second = receiver.bodies
    assert first["job"]["id"] == second["job"]["id"]


class Died(BaseException):
    """Of an operator, in the middle of something."""


def lives(cluster: Cluster, url: str, dies_at: int, *, after: bool) -> int:
    """Operators, one after the other, until the end of the job is told and that is written down. The one that does act number `dies_at`, a
    write to the server or a POST, dies before it has effect, or after. How many acts there were."""
    acts, apply = 0, cluster.apply

    def act(does: Callable[[], Any]) -> Any:
        nonlocal acts
        acts += 1
        now = acts
        if now == dies_at and not after:
            raise Died
        found = does()
        if now == dies_at:
            raise Died
        return found

    cluster.apply = lambda *given, **named: act(lambda: apply(*given, **named))  # type: ignore[method-assign]
    hook, operator = None, None
    for _ in range(20):
        try:
            if hook is None or operator is None:
                hook = Webhook(url, nobody, send=lambda url, body: act(lambda: post(url, body)))
                operator = cluster.operator(hook)
            for _ in range(3):  # whoever posts is no faster than that
                operator.reconcile(KEY)
            hook.step()
        except Died:
            hook = None
        if cluster.notices and all("toldAt" in one for one in cluster.notices):
            return acts
    pytest.fail(f"not told: {cluster.notices}")


def test_an_operator_may_die_before_or_after_any_write_and_any_post(receiver: Receiver) -> None:
    acts = lives(done(), receiver.url, 0, after=False)
    assert (acts, len(receiver.bodies)) == (3, 1)
    for dies_at in range(1, acts + 1):
        for after in (False, True):
            receiver.bodies.clear()
            lives(done(), receiver.url, dies_at, after=after)
            told = [body["job"]["id"] for body in receiver.bodies]
            # Twice where the receiver has it and nobody has written that down.
            assert len(told) == (2 if (dies_at, after) in ((2, True), (3, False)) else 1), (dies_at, after)
            assert len(set(told)) == 1


def test_a_write_that_fails_leaves_nothing_to_tell(receiver: Receiver) -> None:
    cluster, hook = done(), Webhook(receiver.url, nobody)
    cluster.down = True
    with pytest.raises(ApiError):
        cluster.operator(hook).reconcile(KEY)
    assert (hook.waiting(), cluster.notices) == (0.0, [])


def test_while_it_hangs_jobs_are_looked_at(receiver: Receiver) -> None:
    receiver.hold.clear()
    cluster, told = done(), threading.Event()
    hook = Webhook(receiver.url, lambda key: told.set())
    operator = cluster.operator(hook)
    hook.start()
    try:
        for _ in range(50):
            operator.reconcile(KEY)
        assert (receiver.bodies, cluster.notices[0].get("toldAt")) == ([], None)
        receiver.hold.set()
        assert told.wait(10)
    finally:
        hook.stop()


def test_a_post_is_over_in_time(receiver: Receiver) -> None:
    receiver.hold.clear()
    with pytest.raises(Untold, match="TimeoutError"):
        post(receiver.url, {}, timeout=0.05)


@pytest.mark.parametrize("answer", [301, 302, 307, 308])
def test_nobody_is_sent_elsewhere(receiver: Receiver, answer: int) -> None:
    receiver.answer, receiver.headers = answer, {"Location": "/other"}
    with pytest.raises(Untold, match=f"it answered {answer}"):
        post(receiver.url, {})
    assert [body["path"] for body in receiver.bodies] == ["/hook"]


def test_pauses_double_to_five_minutes_and_one_notice_holds_up_no_other() -> None:
    now, sent = 0.0, list[str]()

    def send(url: str, body: Object) -> None:
        sent.append(body["job"]["name"])
        if body["job"]["name"] == "bad":
            raise Untold("it answered 400")

    hook = Webhook("http://x", nobody, send=send, clock=lambda: now)
    for name in ("bad", "good"):
        hook._offer({"metadata": {"name": name, "namespace": "team", "uid": name}}, {"kind": "Failed", "since": "x"})
    pauses = [hook.step()]
    assert hook.step() == 1.0, "nothing is sent in a pause"
    now += 1.0
    assert hook.step() == 0.0
    assert sent == ["bad", "good"]
    pauses = []
    for _ in range(12):
        pauses.append(hook.step())
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300, 300]


def test_what_does_not_fit_is_offered_by_a_later_look() -> None:
    sent = list[str]()
    hook = Webhook("http://x", nobody, send=lambda url, body: sent.append(body["job"]["name"]), limit=1)
    jobs = [{"metadata": {"name": name, "namespace": "team", "uid": name}} for name in ("one", "two")]
    for one in jobs:
        hook._offer(one, {"kind": "Failed", "since": "x"})
    hook.step()
    for one in jobs:
        hook._offer(one, {"kind": "Failed", "since": "x"})
    hook.step()
    assert sent == ["one", "two"]


def test_a_job_whose_time_is_over_waits_for_its_last_notice_an_hour_at_most() -> None:
    cluster = done(ttlSecondsAfterFinished=60)

    def send(url: str, body: Object) -> None:
        raise Untold("it answered 500")

    cluster.operator(Webhook("http://x", nobody, send=send)).reconcile(KEY)
    for late, gone in ((datetime.timedelta(minutes=2), False), (HELD + datetime.timedelta(minutes=2), True)):
        cluster.operator(Webhook("http://x", nobody, send=send), NOW + late).reconcile(KEY)
        assert cluster.deleted is gone


def test_without_a_webhook_nothing_is_noted() -> None:
    cluster = done()
    cluster.operator(None).reconcile(KEY)
    assert cluster.job["status"]["phase"] == "Succeeded"
    assert cluster.notices == []


@contextmanager
def said(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    lines = list[str]()
    with caplog.at_level(logging.INFO):
        yield lines
    lines += [record.getMessage() for record in caplog.records]


def test_the_address_is_in_no_log_and_in_no_status(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    """It is a secret: whoever has it can post."""
    receiver.answer = 404
    cluster = done()
    hook = Webhook(receiver.url + "/T0/secret", nobody)
    with said(caplog) as lines:
        operator = cluster.operator(hook)
        operator.reconcile(KEY)
        operator.reconcile(KEY)
        hook.step()
        assert main.webhook_of({webhook.VARIABLE: "ftp://T0/secret"}) == ""
        assert "secret" not in repr(main.Settings("i", "home", webhook="https://x/secret"))
    assert len(lines) == 2
    assert "T0" not in " ".join(lines) + json.dumps(cluster.job)
    assert "it answered 404" in lines[0]


@pytest.mark.parametrize("url", ["hooks.slack.com/x", "file:///etc/passwd", "http://", "https://a:99999999/", "https://a b/", "http://[/"])
def test_what_is_no_address_is_said(url: str) -> None:
    assert usable(url)
    assert main.webhook_of({webhook.VARIABLE: url}) == ""


def test_an_address_is_taken_as_the_secret_has_it() -> None:
    assert main.webhook_of({webhook.VARIABLE: " https://hooks.example/T0/x\n"}) == "https://hooks.example/T0/x"
    assert main.webhook_of({}) == ""


def test_a_secret_that_is_not_there_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with said(caplog) as lines:
        assert main.webhook_of({webhook.SECRET: "hooks"}) == ""
    (line,) = lines
    assert "there is no Secret hooks" in line
