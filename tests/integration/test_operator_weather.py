"""The whole operator behind an API server that misbehaves as a script says: the job's truth stays right, nothing is made twice, no thread
dies, and the log says it once."""

from __future__ import annotations

import copy
import json
import logging
import os
import time
from collections.abc import Callable, Iterator

import pytest

from gentrain_operator.kube import client as client_module
from gentrain_operator.kube import reflector
from gentrain_operator.kube.client import Client
from gentrain_operator.kube.errors import ApiError
from gentrain_operator.kube.resource import CONFIGMAPS, JOBS, RAYJOBS
from tests.cluster.at_work import Bench, Driver, manifest, report, until, whole
from tests.cluster.control_plane import ControlPlane
from tests.cluster.faulty import GONE, Fault, Faulty, First, Hang, Lose, Refuse, Request, Reset, faulty, on, weather
from trainjobs.api import crd

pytestmark = pytest.mark.slow

RAYJOB, STATUS = r"/rayjobs$", r"/generativetrainingjobs/[^/]+/status$"
BAD = (Refuse(409), Refuse(429, "1"), Refuse(429), Refuse(500), Refuse(503, body=b"<html>a load balancer</html>"), Lose(), Reset())


@pytest.fixture
def proxy(installed: ControlPlane) -> Iterator[Faulty]:
    with faulty(installed) as running:
        yield running


@pytest.fixture
def stormy(
    installed: ControlPlane, proxy: Faulty, namespace: str, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Bench]]:
    """Starts an operator whose way to the server is the proxy; the test's own hands go directly."""
    monkeypatch.setattr(reflector, "BACKOFF", (0.02, 0.2))
    begun: list[Bench] = []

    def start() -> Bench:
        begun.append(Bench(installed, namespace, driver, proxy.kubeconfig(f"faulty-{namespace}")))
        return begun[-1]

    yield start
    for one in begun:
        one.stop()


@pytest.mark.parametrize("seed", range(20 if os.environ.get("GENTRAIN_SWEEP") == "all" else 2))
def test_a_life_in_bad_weather(stormy: Callable[..., Bench], proxy: Faulty, seed: int) -> None:
    """Two in five of all requests fail, one way or another, lists and watches included: the life is the same as in good weather."""
    proxy.script = weather(seed, 0.4, *BAD)
    bench = stormy()
    bench.apply()
    bench.kuberay.fail(bench.running(), "Traceback")
    name = bench.running(attempt=2)
    bench.driver.report = report(40)
    bench.until(lambda: bench.status().get("progress", {}).get("step") == 40)
    bench.kuberay.succeed(name)
    status = bench.phase("Succeeded")
    assert (status["attempts"], status["restarts"]) == (2, {"application": 1})
    assert sorted(bench.kuberay.rayjobs()) == ["job-a1", "job-a2"]
    assert len(bench.client.list(CONFIGMAPS, bench.namespace, labels="gentrain.dev/job=job")["items"]) == 2
    assert whole(bench.operator)
    assert sum(proxy.met.values()) >= 4, proxy.met


@pytest.mark.parametrize("fault", [Refuse(409), Refuse(429, "1"), Refuse(500)], ids=["409", "429", "500"])
@pytest.mark.parametrize(("method", "path"), [("POST", RAYJOB), ("PATCH", STATUS)], ids=["create", "status"])
def test_a_refused_write_is_repeated_and_said_once(
    stormy: Callable[..., Bench], proxy: Faulty, caplog: pytest.LogCaptureFixture, fault: Refuse, method: str, path: str
) -> None:
    bench, times = stormy(), []
    several = on(method, path, *[fault] * (2 if fault.retry_after else 6))

    def script(request: Request) -> Fault | None:
        met = several(request)
        times.extend([time.monotonic()] * (met is not None))
        return met

    proxy.script = script
    with caplog.at_level(logging.WARNING):
        bench.apply()
        bench.until(lambda: bench.status().get("attempts") == 1)
    assert sorted(bench.kuberay.rayjobs()) == ["job-a1"]
    said = [record for record in caplog.records if "cannot reconcile" in record.getMessage()]
    # A conflict is how one learns that one's own view trails behind: no news.
    assert len(said) == (0 if fault.status == 409 else 1)
    if fault.retry_after and method == "POST":  # the new RayJob's own event is a reason to try the status at once
        assert times[1] - times[0] >= float(fault.retry_after)


@pytest.mark.parametrize(("method", "path"), [("POST", r"/configmaps$"), ("POST", RAYJOB), ("PATCH", STATUS), ("DELETE", "/rayjobs/")])
def test_an_answer_that_got_lost(stormy: Callable[..., Bench], proxy: Faulty, method: str, path: str) -> None:
    """The server did as it was told and nobody heard: it is not done twice."""
    proxy.script = on(method, path, Lose())
    bench = stormy()
    bench.apply(activeDeadlineSeconds=60)
    bench.running()  # since long ago
    assert bench.phase("Failed")["attempts"] == 1
    bench.until(lambda: bench.kuberay.rayjobs() == {})
    assert proxy.met["Lose"] == 1
    assert len(bench.client.list(CONFIGMAPS, bench.namespace, labels="gentrain.dev/job=job")["items"]) == 1


def test_watches_whose_version_expired(stormy: Callable[..., Bench], proxy: Faulty, caplog: pytest.LogCaptureFixture) -> None:
    """410, as an event and as an answer: everything is listed again and the job goes on."""
    gone = [on("WATCH", f"/{plural}$", GONE, Refuse(410), GONE) for plural in ("rayjobs", "generativetrainingjobs", "computeprofiles")]
    proxy.script = lambda request: next((fault for one in gone if (fault := one(request))), None)
    bench = stormy()
    bench.apply()
    bench.kuberay.succeed(bench.running())
    bench.phase("Succeeded")
    until(lambda: proxy.met["Tell"] + proxy.met["Refuse 410"] == 9)
    assert whole(bench.operator)


def test_connections_that_went_silent(stormy: Callable[..., Bench], proxy: Faulty, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half-open: a watch and a write that nobody answers. Both end by their timeouts, and the job goes on over new connections."""
    monkeypatch.setattr(client_module, "WATCH_TIMEOUT", (1, 1))
    defaults = Client.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "timeout", (1, 2))
    scripts = [on("WATCH", "/generativetrainingjobs$", Hang()), on("WATCH", "/rayjobs$", Hang()), on("POST", RAYJOB, Hang())]
    proxy.script = lambda request: next((fault for one in scripts if (fault := one(request))), None)
    bench = stormy()
    bench.apply()
    bench.kuberay.succeed(bench.running())
    assert bench.phase("Succeeded")["attempts"] == 1
    assert proxy.met["Hang"] == 3
    assert whole(bench.operator)


def test_a_job_deleted_or_made_again_while_its_rayjob_is_created(
    own_cluster: ControlPlane, kuberay_crds: str, driver: Driver, caplog: pytest.LogCaptureFixture
) -> None:
    """Between the decision and the write. What was made for the deleted job is the garbage collector's; the new job gets its own."""
    own_cluster.define(kuberay_crds)
    own_cluster.start_controller_manager()
    with faulty(own_cluster) as proxy:
        bench = Bench(own_cluster, "default", driver, proxy.kubeconfig("operator"))

        def delete(name: str) -> None:
            bench.client.delete(JOBS, "default", name, uid=bench.job(name)["metadata"]["uid"])

        replaced: list[str] = []

        def replace() -> None:
            delete("again")
            replaced.append(bench.apply("again")["metadata"]["uid"])

        deaths = on("POST", RAYJOB, First(lambda: delete("gone")))
        proxy.script = deaths
        bench.apply("gone")
        bench.until(lambda: proxy.met["First"] == 1 and bench.jobs() == [])
        proxy.script = on("PATCH", STATUS, First(lambda: delete("gone")))
        bench.apply("gone")
        bench.until(lambda: proxy.met["First"] == 2 and bench.jobs() == [])
        proxy.script = on("POST", RAYJOB, First(replace))
        bench.apply("again")
        bench.until(lambda: replaced)
        bench.until(lambda: bench.status("again").get("attempts") == 1, 120)

        def owners() -> list[str]:
            return [one["metadata"]["ownerReferences"][0]["uid"] for one in bench.kuberay.rayjobs().values()]

        until(lambda: owners() == replaced, 120, lambda: list(bench.kuberay.rayjobs().values()))
        bench.until(lambda: len(bench.client.list(CONFIGMAPS, "default", labels="gentrain.dev/job")["items"]) == 1, 120)
        assert whole(bench.operator)
        bench.stop()
    assert not [record for record in caplog.records if "cannot reconcile" in record.getMessage()]


# -- objects that another version of the definition let through


def loosened(definition: dict[str, object]) -> str:
    """The definition as an older operator may have left it: it checks nothing."""
    loose = copy.deepcopy(definition)
    for version in loose["spec"]["versions"]:  # type: ignore[index]
        anything = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        version["schema"] = {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}}
    return json.dumps(loose)


STRANGE = {
    "empty": ({}, "spec.data: Field required"),
    "unreadable": ({"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": "many"}}, "training.steps"),
    "another": ({"vae": [], "training": 7, "suspend": "perhaps"}, "GTJ0102"),
    "deep": ({"vae": {}, "data": {"source": "ftp://x"}, "training": {"steps": 1, "batch": {"global": -1}}}, "GTJ0102"),
}


def test_objects_that_another_definition_let_through(bench: Bench, installed: ControlPlane) -> None:
    """They are stored and stay so under the strict definition. Each is told what is wrong with it, and the others go on."""
    (definition,) = [one for one in crd.definitions().values() if one["spec"]["names"]["plural"] == JOBS.plural]

    def accepts(spec: object) -> bool:
        body = {"apiVersion": JOBS.api_version, "kind": JOBS.kind, "metadata": {"name": "probe"}, "spec": spec}
        try:
            bench.client.create(JOBS, bench.namespace, body, dry_run=True)
        except ApiError:
            return False
        return True

    installed.kubectl("apply", "-f", "-", stdin=loosened(definition))
    try:
        until(lambda: accepts({}))
        for name, (spec, _) in STRANGE.items():
            bench.client.create(JOBS, bench.namespace, {**manifest(name), "spec": spec})
        bench.client.create(JOBS, bench.namespace, manifest("newer", teleport={"to": "mars"}))
    finally:
        installed.kubectl("apply", "-f", "-", stdin=json.dumps(definition))
    until(lambda: not accepts({}))
    for name, (_, words) in STRANGE.items():
        bench.until(lambda name=name: bench.reason("Accepted", name) == "InvalidSpec")
        assert words in bench.status(name)["message"], bench.status(name)["message"]
    bench.apply("fine")
    for name in ("newer", "fine"):
        bench.kuberay.succeed(bench.running(name))
        bench.phase("Succeeded", name)
    assert sorted(bench.kuberay.rayjobs()) == ["fine-a1", "newer-a1"]
    assert whole(bench.operator)


# -- /progress and other hands


def endless(send: Callable[[bytes], object]) -> None:
    send(b"HTTP/1.0 200 OK\r\n\r\n")
    for _ in range(1600):
        send(b" " * 65536)


LIES: dict[str, Callable[[Callable[[bytes], object]], object]] = {
    "hangs": lambda send: time.sleep(4),
    "100 MB": endless,
    "not JSON": lambda send: send(b"HTTP/1.0 200 OK\r\n\r\n{step: 1"),
    "no object": lambda send: send(b"HTTP/1.0 200 OK\r\n\r\n[1]"),
    "an error": lambda send: send(b"HTTP/1.0 500 no\r\n\r\n" + json.dumps(report(99)).encode()),
    "no HTTP": lambda send: send(b"\x00" * 1000),
    "deep": lambda send: send(b"HTTP/1.0 200 OK\r\n\r\n" + b"[" * 16000),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_progress_endpoint_that_misbehaves_changes_nothing(bench: Bench, lie: str) -> None:
    bench.apply()
    name = bench.running()
    bench.driver.report = report(10)
    before = bench.until(lambda: bench.status() if bench.status().get("progress", {}).get("step") == 10 else None)
    asked = 0

    def misbehave(send: Callable[[bytes], object]) -> None:
        nonlocal asked
        asked += 1
        LIES[lie](send)

    bench.driver.misbehave = misbehave
    bench.apply("other")
    bench.rayjob("other-a1")
    until(lambda: asked >= 2)
    assert bench.status() == before
    bench.driver.misbehave = None
    bench.driver.report = report(20)
    bench.until(lambda: bench.status()["progress"]["step"] == 20)
    bench.kuberay.succeed(name)
    bench.phase("Succeeded")


def test_a_report_that_lies_is_bounded_by_what_the_job_is(bench: Bench) -> None:
    bench.apply()
    bench.running()
    lies = {"metrics": {"loss": float("nan"), "x\x1b[31m": 1, "text": "no"}, "etaSeconds": -5, "checkpoint": {"uri": 7, "step": 3}}
    bench.driver.report = {**report(10**9), **lies, "stage": 17, "samples": "many", "throughput": [1]}
    # What the driver said before, that it is at step 0, may have been heard first.
    status = bench.until(lambda: (found := bench.status()).get("progress", {}).get("step") and found)
    assert (status["progress"]["step"], status["progress"]["percent"]) == (100, 100)
    assert status["progress"]["metrics"] == [{"name": "loss", "value": "nan"}, {"name": "x [31m", "value": "1"}]
    assert {"etaSeconds", "samples", "throughput"}.isdisjoint(status["progress"])
    assert "checkpoint" not in status
    assert status["phase"] == "Running"  # 100 % is not success: only KubeRay says that


def test_a_rayjob_edited_by_hand(bench: Bench) -> None:
    """Suspending is undone, because the job's own field says otherwise; the templates are not looked at; an orphan is not doubled."""
    bench.apply()
    name = bench.running()
    bench.client.merge(RAYJOBS, bench.namespace, name, {"spec": {"entrypoint": "sleep 1", "suspend": True}})
    bench.until(lambda: bench.rayjob(name)["spec"]["suspend"] is False)
    assert bench.rayjob(name)["spec"]["entrypoint"] == "sleep 1"
    bench.client.merge(RAYJOBS, bench.namespace, name, {"metadata": {"ownerReferences": None}})
    bench.until(lambda: "3 pods" in bench.status()["message"])
    assert sorted(bench.kuberay.rayjobs()) == [name]
    bench.kuberay.delete(name)
    bench.kuberay.succeed(bench.running(attempt=2))
    assert bench.phase("Succeeded")["restarts"] == {"infrastructure": 1}
