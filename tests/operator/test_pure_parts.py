"""Names, quantities, RayJobs, diagnoses, conditions, reports and polls."""

from __future__ import annotations

import json
import math
import shlex
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gentrain_operator import polls, report
from gentrain_operator.conditions import Condition, events, is_true, settled
from gentrain_operator.diagnose import diagnosed, record_in, waiting
from gentrain_operator.kube.resource import Object
from gentrain_operator.kube.store import Key
from gentrain_operator.names import attempt_of, label_value, rayjob_name
from gentrain_operator.polls import Endpoint, Polls
from gentrain_operator.present import duration
from gentrain_operator.quantity import amount, cpu, memory
from gentrain_operator.rayjob import ENTRYPOINT, configmap, rayjob
from trainjobs.api.job import Job, Spec
from trainjobs.api.profile import ProfileSpec

JOB: Object = {
    "apiVersion": "gentrain.dev/v1alpha1",
    "kind": "GenerativeTrainingJob",
    "metadata": {"name": "job", "namespace": "team", "uid": "u1"},
}


def spec(**more: Any) -> Spec:
    return Spec.model_validate({"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 10}, **more})


# -- names and quantities


@given(st.from_regex(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", fullmatch=True), st.integers(1, 999_999))
def test_any_job_name_gives_a_name_that_kuberay_takes(name: str, attempt: int) -> None:
    made = rayjob_name(name[:253].rstrip("-."), attempt)
    assert len(made) <= 47
    assert made[0].isalpha()
    assert all(character.isalnum() or character == "-" for character in made)
    assert attempt_of({"metadata": {"name": made}}) == attempt


def test_names_stay_readable_and_apart() -> None:
    assert rayjob_name("faces-wgan", 12) == "faces-wgan-a12"
    assert rayjob_name("n" * 60, 1) != rayjob_name("n" * 61, 1)
    assert rayjob_name("a.b", 1) != rayjob_name("a-b", 1)
    assert len(label_value("n" * 253)) <= 63


@pytest.mark.parametrize(("text", "value"), [("2", 2), ("500m", 0.5), ("1.5Gi", 1.5 * 2**30), ("3k", 3000)])
def test_quantities(text: str, value: float) -> None:
    assert float(amount(text)) == value


def test_quantities_that_are_none() -> None:
    with pytest.raises(ValueError, match="not a quantity"):
        amount("3kM")


def test_shares_round_down() -> None:
    assert (cpu(amount("1") / 3), cpu(amount("4")), memory(amount("1Gi") / 3)) == ("333m", "4", "341Mi")


# -- the RayJob


def test_the_entrypoint_survives_a_shell() -> None:
    """KubeRay hands it to `bash -ce`."""
    said = subprocess.run(
        ["bash", "-ce", f"printf '%s\\n' {rayjob(JOB, spec(), ProfileSpec(), 1, 'i')['spec']['entrypoint']}"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split("\n")[:-1] == list(ENTRYPOINT)


def test_no_text_of_a_user_reaches_a_shell() -> None:
    nasty = "$(reboot)`x`"
    env = [{"name": "A", "value": nasty}, {"name": "HOME", "value": nasty}, {"name": "S", "secretKeyRef": {"name": "s", "key": "k"}}]
    made = rayjob(JOB, spec(pod={"env": env}, custom=None, data={"source": "file:///" + "x"}), ProfileSpec(), 1, "i")
    assert "runtimeEnvYAML" not in made["spec"]
    assert made["spec"]["entrypoint"] == shlex.join(ENTRYPOINT)
    container = made["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    by_name = {one["name"]: one for one in container["env"]}
    # Kubernetes expands $(X) in values; $$ is a dollar.
    assert by_name["A"]["value"] == "$$(reboot)`x`"
    assert by_name["HOME"]["value"] == "/tmp"
    assert by_name["S"]["valueFrom"] == {"secretKeyRef": {"name": "s", "key": "k"}}
    assert len(by_name) == len(container["env"])


def test_every_pod_is_restricted_and_marked() -> None:
    cluster = rayjob(JOB, spec(), ProfileSpec(), 3, "i")["spec"]["rayClusterSpec"]
    templates = [cluster["headGroupSpec"]["template"], *(group["template"] for group in cluster["workerGroupSpecs"])]
    for template in templates:
        body = template["spec"]
        assert body["automountServiceAccountToken"] is False
        assert body["securityContext"]["runAsNonRoot"] is True
        for container in body["containers"]:
            assert container["securityContext"]["readOnlyRootFilesystem"] is True
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert container["resources"]["limits"] == container["resources"]["requests"]
        assert template["metadata"]["labels"]["gentrain.dev/attempt"] == "3"
        assert body["restartPolicy"] == "Never"
    assert cluster["authOptions"] == {"mode": "token"}
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


def test_the_drain_ends_before_the_kubelets_patience() -> None:
    made = rayjob(JOB, spec(), ProfileSpec(grace_period_seconds=30), 1, "i")["spec"]["rayClusterSpec"]
    worker = made["workerGroupSpecs"][0]["template"]["spec"]
    drain = next(one["value"] for one in worker["containers"][0]["env"] if one["name"] == "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S")
    grace = next(one["value"] for one in worker["containers"][0]["env"] if one["name"] == "GENTRAIN_GRACE_SECONDS")
    assert (worker["terminationGracePeriodSeconds"], drain, grace) == (30, "20", "20")


def test_an_elastic_group_is_autoscaled() -> None:
    made = rayjob(JOB, spec(compute={"workers": "2-8", "gpusPerWorker": 0}), ProfileSpec(), 1, "i")["spec"]["rayClusterSpec"]
    group = made["workerGroupSpecs"][0]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (2, 2, 8)
    assert made["enableInTreeAutoscaling"] is True
    ours, autoscaler = made["headGroupSpec"]["template"]["spec"]["containers"][0], made["autoscalerOptions"]
    assert autoscaler["securityContext"] == ours["securityContext"]
    assert autoscaler["volumeMounts"] == [mount for mount in ours["volumeMounts"] if mount["mountPath"] == "/tmp"]
    assert made["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is True
    assert group["template"]["spec"]["automountServiceAccountToken"] is False


def test_an_elastic_group_in_a_queue_gets_quota_for_its_largest_size() -> None:
    made = rayjob(JOB, spec(compute={"workers": "2-8", "gpusPerWorker": 0, "queue": "team"}), ProfileSpec(), 1, "i")["spec"][
        "rayClusterSpec"
    ]
    group = made["workerGroupSpecs"][0]
    assert (group["replicas"], group["minReplicas"], group["maxReplicas"]) == (8, 2, 8)
    assert "enableInTreeAutoscaling" not in made
    assert made["headGroupSpec"]["template"]["spec"]["automountServiceAccountToken"] is False


@pytest.mark.parametrize(
    ("job_image", "profile_image", "used"), [("a", "b", "a"), (None, "b", "b"), (None, None, "default")], ids=["job", "profile", "chart"]
)
def test_whose_image_is_used(job_image: str | None, profile_image: str | None, used: str) -> None:
    made = rayjob(JOB, spec(pod={"image": job_image}), ProfileSpec(image=profile_image), 1, "default")
    assert made["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]["spec"]["containers"][0]["image"] == used


def test_the_frozen_job_is_whole_and_its_name_says_its_content() -> None:
    first, again, other = (configmap(JOB, spec(training={"steps": steps}), 1) for steps in (10, 10, 11))
    assert first == again
    assert first["metadata"]["name"] != other["metadata"]["name"]
    frozen = Job.model_validate_json(first["data"]["job.json"])
    assert frozen.spec == spec()
    volumes = rayjob(JOB, spec(), ProfileSpec(), 1, "i")["spec"]["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
    assert {"name": "job", "configMap": {"name": first["metadata"]["name"]}} in volumes


# -- diagnosis


def ended(message: str = "", **status: Any) -> Object:
    return {"metadata": {"name": "j"}, "status": {"jobDeploymentStatus": "Failed", "message": message, **status}}


def pod_with(**status: Any) -> Object:
    return {"metadata": {"name": "p"}, "spec": {"nodeName": "n1"}, "status": status}


OOM = pod_with(containerStatuses=[{"name": "ray-worker", "state": {"terminated": {"reason": "OOMKilled"}}}])
DISRUPTED = pod_with(conditions=[{"type": "DisruptionTarget", "status": "True", "reason": "DeletionByTaintManager", "message": "spot"}])


@pytest.mark.parametrize(
    ("rayjob_", "pods", "record", "code", "class_"),
    [
        (None, [], None, "GTJ0213", "Infrastructure"),
        (ended("Ray head pod not found.", reason="AppFailed"), [], None, "GTJ0213", "Infrastructure"),
        (ended("x", reason="JobStatusCheckTimeoutExceeded"), [], None, "GTJ0213", "Infrastructure"),
        (ended("x", jobStatus="STOPPED"), [], None, "GTJ0213", "Preemption"),
        (ended("x", jobDeploymentStatus="ValidationFailed"), [], None, "GTJ0301", "Configuration"),
        (ended("ValueError: x", reason="AppFailed"), [], None, "GTJ0214", "Application"),
        (ended("x"), [OOM], None, "GTJ0205", "Application"),
        (ended("Ray head pod not found."), [DISRUPTED], None, "GTJ0213", "Preemption"),
        (ended("x"), [OOM], {"code": "GTJ0113", "what": "no data"}, "GTJ0113", "Configuration"),
        (ended("x"), [], {"code": "GTJ0211"}, "GTJ0211", "Infrastructure"),
        (ended("a\nGTJ0207 loss/G is not finite\nb"), [], None, "GTJ0207", "Application"),
        (ended("x"), [], {"code": "GTJ9999", "what": "forged"}, "GTJ0214", "Application"),
    ],
)
def test_diagnoses(rayjob_: Object | None, pods: list[Object], record: Object | None, code: str, class_: str) -> None:
    failure = diagnosed(rayjob_, pods, record)
    assert (failure.code, failure.class_) == (code, class_)
    assert failure.summary
    assert failure.line().startswith(code)


def test_a_record_is_bounded_and_cleaned() -> None:
    record = {
        "code": "GTJ0206",
        "what": "a\x1b[2J" + "x" * 5000,
        "why": ["not", "text"],
        "rank": True,
        "step": -1,
        "logTail": "line\nline\x00" + "y" * 9000,
    }
    status = diagnosed(ended(), [], record).status()
    assert len(status["summary"]) == 512
    assert "\x1b" not in status["summary"]
    assert len(status["logTail"]) == 4096
    assert not {"rank", "step", "detail"} & set(status)


def test_the_last_record_in_a_log_counts() -> None:
    log = 'x\ngentrain-failure: {"code": "GTJ0206"}\ngentrain-failure: {"code": "GTJ0207"}\ngentrain-failure: {broken'
    assert record_in(log) == {"code": "GTJ0207"}
    assert record_in("nothing") is None
    assert record_in("GTJ0206 out of memory") == {"code": "GTJ0206", "what": "out of memory"}


def replica_failure(message: str) -> Object:
    """How KubeRay 1.7 says that it could not create a pod."""
    return {"rayClusterStatus": {"conditions": [{"type": "ReplicaFailure", "status": "True", "message": message}]}}


@pytest.mark.parametrize(
    ("pod", "status", "reason"),
    [
        (pod_with(), {}, None),
        (pod_with(containerStatuses=[{"name": "c", "state": {"waiting": {"reason": "ImagePullBackOff"}}}]), {}, "ImagePullFailed"),
        (pod_with(conditions=[{"type": "PodScheduled", "reason": "Unschedulable"}]), {}, "Unschedulable"),
        (pod_with(), {"rayClusterStatus": {"reason": "pods are forbidden: exceeded quota: gpu"}}, "QuotaExceeded"),
        (pod_with(), replica_failure('pods "a" is forbidden: exceeded quota: cpu'), "QuotaExceeded"),
        (pod_with(), replica_failure('pods "a" is forbidden: violates PodSecurity "restricted:latest"'), "PodsForbidden"),
        (pod_with(), replica_failure("the server is busy"), None),
    ],
)
def test_waiting_for_what(pod: Object, status: Object, reason: str | None) -> None:
    found = waiting([pod], {"status": status})
    assert (found.reason if found else None) == reason


# -- conditions


def test_conditions_are_in_order_and_keep_their_time() -> None:
    before = settled([], [Condition("Running", False, "Starting"), Condition("Accepted", True, "Accepted")], 1, "t1")
    assert [one["type"] for one in before] == ["Accepted", "Running"]
    after = settled(before, [Condition("Accepted", True, "Accepted"), Condition("Running", True, "Stepping")], 2, "t2")
    assert [(one["lastTransitionTime"], one["observedGeneration"]) for one in after] == [("t1", 2), ("t2", 2)]
    assert is_true(after, "Running")
    assert not is_true(before, "Running")


def test_events_follow_from_changes() -> None:
    none: list[Object] = []
    first = settled(none, [Condition("Accepted", True, "Accepted"), Condition("ResourcesReady", False, "ScalingUp")], 1, "t")
    assert [event.reason for event in events(none, first)] == ["Accepted"]
    second = settled(
        first, [Condition("Accepted", True, "Accepted"), Condition("ResourcesReady", False, "Unschedulable", "no node")], 1, "t"
    )
    assert [(event.type, event.reason, event.note) for event in events(first, second)] == [("Warning", "Unschedulable", "no node")]
    assert list(events(second, second)) == []


# -- reports


numbers = st.integers() | st.integers(400, 410).map(lambda digits: 10**digits) | st.floats()
anything = st.recursive(
    st.none() | st.booleans() | numbers | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8
)


@given(anything)
def test_any_report_gives_a_status_that_the_schema_takes(value: Any) -> None:
    lie = dict.fromkeys(
        ("step", "samples", "etaSeconds", "updatedAt", "metrics", "throughput", "checkpoint", "failure", "stage", "checkpointFailure"),
        value,
    )
    lie |= dict.fromkeys(("phase", "message", "workers"), value)
    lie["metrics"] = {"m": value, "k" * 99: 1.0}
    made = report.progress(lie, 100)
    assert 0 <= made["step"] <= 100
    assert 0 <= made["percent"] <= 100
    for metric in made["metrics"]:
        assert len(metric["name"]) <= 64
        assert len(metric["value"]) <= 64
    json.dumps(made, allow_nan=False)
    report.checkpoint(lie)
    report.unsaved(lie)
    report.failure(lie)
    report.stage(lie)
    assert report.workers(lie, 2, 8) in (None, *range(2, 9))


def test_numbers_that_are_none_are_shown() -> None:
    made = report.progress({"step": 5, "metrics": {"loss": math.nan, "other": math.inf, "text": "x", "flag": True}}, 10)
    assert made["metrics"] == [{"name": "loss", "value": "nan"}, {"name": "other", "value": "inf"}]


class Liar:
    """A server that answers one connection with given pieces, a pause after each, and then closes or stays silent."""

    def __init__(self, pieces: list[bytes], pause: float = 0.0, close: bool = True) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.ended = threading.Event()

        def serve() -> None:
            connection, _ = self.listener.accept()
            try:
                connection.recv(1000)
                for piece in pieces:
                    connection.sendall(piece)
                    if self.ended.wait(pause):
                        return
                if not close:
                    self.ended.wait(30)
            except OSError:
                pass
            finally:
                connection.close()

        threading.Thread(target=serve, daemon=True).start()


@pytest.fixture
def liar() -> Iterator[Any]:
    made: list[Liar] = []

    def make(*arguments: Any, **more: Any) -> Liar:
        made.append(Liar(*arguments, **more))
        return made[-1]

    yield make
    for one in made:
        one.ended.set()
        one.listener.close()


OK = b"HTTP/1.0 200 OK\r\n\r\n"


def test_an_honest_report_is_read(liar: Any) -> None:
    assert report.fetch("127.0.0.1", liar([OK, b'{"step"', b": 3}"]).port) == {"step": 3}


@pytest.mark.parametrize(
    ("pieces", "pause", "close", "why"),
    [
        ([OK + b"{"], 0, False, "within"),
        ([b"H"] * 100, 0.02, False, "within"),
        ([OK] + [b"x" * 10_000] * 10, 0, True, "more than"),
        ([OK + b"not json"], 0, True, "not JSON"),
        ([OK + b"[" * 10_000], 0, True, "not JSON"),
        ([OK + b"[1]"], 0, True, "not an object"),
        ([b"HTTP/1.0 500 Oops\r\n\r\n{}"], 0, True, "500 Oops"),
        ([b""], 0, True, "the answer was"),
    ],
    ids=["hangs", "drips", "floods", "no json", "deep json", "list", "500", "closes"],
)
def test_a_lying_endpoint_costs_no_more_than_the_deadline(liar: Any, pieces: list[bytes], pause: float, close: bool, why: str) -> None:
    began = time.monotonic()
    with pytest.raises(report.Unreadable, match=why):
        report.fetch("127.0.0.1", liar(pieces, pause, close).port, timeout=0.2)
    assert time.monotonic() - began < 5


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(report.Unreadable):
        report.fetch("127.0.0.1", port, timeout=0.2)


# -- polls

KEY = Key("team", "job")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_report_that_changed_wakes_its_job() -> None:
    woken: list[Key] = []
    answers: list[Any] = [{"step": 1}, {"step": 1}, report.Unreadable("down"), {"step": 2}]

    def read(address: str, port: int) -> Object:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    polls = Polls(woken.append, read=read, clock=Clock())
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    for _ in range(4):
        polls.poll(KEY)
    assert woken == [KEY, KEY]
    assert polls.report(KEY) == {"step": 2}


def test_the_report_of_an_older_attempt_is_forgotten() -> None:
    polls = Polls(lambda key: None, read=lambda address, port: {"step": 1}, clock=Clock())
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    polls.poll(KEY)
    polls.follow(KEY, None)
    assert polls.report(KEY) == {"step": 1}  # the attempt's last words
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 2))
    assert polls.report(KEY) is None
    polls.forget(KEY)
    polls.poll(KEY)


def test_an_attempt_that_ends_is_asked_for_its_last_words_until_it_answers_no_more() -> None:
    clock, asked = Clock(), []
    answers: list[Any] = [{"step": 7}, {"step": 9}, {"step": 9, "checkpoint": {"step": 9}}, report.Unreadable("gone"), {"step": 99}]

    def read(address: str, port: int) -> Object:
        asked.append(clock.now)
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer  # type: ignore[no-any-return]

    polls = Polls(lambda key: None, read=read, clock=clock)
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    for second in range(60):
        clock.now = float(second)
        if second >= 5:
            polls.follow(KEY, None)  # at every look from now on
        key = polls._queue.take()
        if key is not None:
            polls.poll(key)
            polls._queue.done(key)
    assert asked == [0, 5, 6, 7]
    assert polls.report(KEY) == {"step": 9, "checkpoint": {"step": 9}}


def test_last_words_are_not_taken_from_another_driver() -> None:
    answers = [{"startedAt": 1.0, "step": 7}, {"startedAt": 2.0, "step": 3}]
    polls = Polls(lambda key: None, read=lambda address, port: answers.pop(0), clock=Clock())
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    polls.poll(KEY)
    polls.follow(KEY, None)
    polls.poll(KEY)
    polls.poll(KEY)  # asks nobody: there is no answer left
    assert polls.report(KEY) == {"startedAt": 1.0, "step": 7}


def test_dead_endpoints_are_asked_less_and_less() -> None:
    clock, asked = Clock(), []

    def read(address: str, port: int) -> Object:
        asked.append(clock.now)
        raise report.Unreadable("down")

    polls = Polls(lambda key: None, read=read, clock=clock)
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    for second in range(400):
        clock.now = float(second)
        key = polls._queue.take()
        if key is not None:
            polls.poll(key)
            polls._queue.done(key)
    assert asked == [0, 10, 30, 70, 150, 270, 390]


def test_a_driver_that_is_on_its_way_is_asked_as_often_as_one_that_runs() -> None:
    """A refused connection costs nothing; and a failure is served for 20 s only."""
    clock, asked = Clock(), []

    def read(address: str, port: int) -> Object:
        asked.append(clock.now)
        raise report.Unreadable("refused", refused=True)

    polls = Polls(lambda key: None, read=read, clock=clock)
    polls.follow(KEY, Endpoint("10.0.0.1", 1, 1))
    for second in range(35):
        clock.now = float(second)
        key = polls._queue.take()
        if key is not None:
            polls.poll(key)
            polls._queue.done(key)
    assert asked == [0, 10, 20, 30]


@pytest.mark.parametrize(
    ("told", "seconds"),
    [
        ({}, 3),
        ({"step": 5, "etaSeconds": 400.0}, 10),
        ({"step": 5, "etaSeconds": 400.0, "phase": "Stopping"}, 1),
        ({"step": 5, "etaSeconds": 4.5}, 4.5),
        ({"step": 5, "etaSeconds": 0}, 1),
        ({"step": 5, "etaSeconds": math.nan}, 10),
        ({"step": 5, "etaSeconds": "x"}, 10),
        ({"step": 0, "etaSeconds": 2}, 3),
    ],
)
def test_the_end_is_asked_for_in_time(told: Object, seconds: float) -> None:
    assert polls.after(told) == seconds


def test_nobody_at_a_port_is_a_refusal() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        with pytest.raises(report.Unreadable) as found:
            report.fetch("127.0.0.1", held.getsockname()[1])
    assert found.value.refused


@pytest.mark.parametrize(("length", "text"), [(0, "0s"), (45.9, "45s"), (60, "1m"), (200, "3m20s"), (4320, "1h12m"), (3600, "1h")])
def test_durations(length: float, text: str) -> None:
    assert duration(length) == text
