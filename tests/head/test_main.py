"""The command of a head pod, with a script in the driver's place: whatever becomes of the driver, the last line says why."""

from __future__ import annotations

import json
import signal
import stat
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gentrain_operator.diagnose import Failure, diagnosed
from trainjobs.api.job import Job
from trainjobs.head import __main__ as head
from trainjobs.run import progress

VOLUME = {"volumes": [{"claimName": "runs", "mountPath": "/runs"}]}
SPEC: dict[str, Any] = {
    "vae": {},
    "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
    "training": {"steps": 6, "batch": {"global": 8}},
    "compute": {"workers": 2, "gpusPerWorker": 0},
    "pod": VOLUME,
    "checkpoints": {"uri": "file:///runs/faces"},
}
Ended = tuple[int, list[str], Failure]


def manifest(**parts: Any) -> str:
    metadata = {"name": "faces", "namespace": "team-a", "uid": "5f1c"}
    spec = {name: value for name, value in {**SPEC, **parts}.items() if value is not None}
    return json.dumps({"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": metadata, "spec": spec})


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    former = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in former.items():
        signal.signal(number, handler)


@pytest.fixture
def ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    """Runs the command with `driver`, lines of sh where $run is the run folder. Exit status, output, and what the operator makes of it."""

    def run(driver: str, job: str = manifest(), port: int = 0) -> Ended:
        script = tmp_path / "python"
        script.write_text(f'#!/bin/sh\ncase "$2" in *.recorder) exit 0;; esac\nrun="$3"\n{driver}\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
        (tmp_path / "job.json").write_text(job)
        monkeypatch.setattr(head.sys, "executable", str(script))
        arguments = [str(tmp_path / "job.json"), "--port", str(port), "--run-dir", str(tmp_path / "run")]
        monkeypatch.setattr(sys, "argv", ["cluster", *arguments])
        status = head.main()
        output = capfd.readouterr().out
        return status, output.splitlines(), diagnosed({"status": {"message": output}}, [], None)

    return run


def test_a_driver_that_succeeds_leaves_no_last_word(ends: Callable[..., Ended], tmp_path: Path) -> None:
    status, lines, _ = ends("echo trained")
    assert (status, lines[-1]) == (0, "trained")
    assert Job.model_validate_json((tmp_path / "run" / "job.json").read_text()) == Job.model_validate_json(manifest())
    assert progress.read(tmp_path / "run" / "progress.json")["totalSteps"] == 6


def test_what_the_driver_says_is_the_last_line(ends: Callable[..., Ended]) -> None:
    failure = {"code": "GTJ0207", "what": "loss not finite", "why": "diverged", "how": "lower it", "rank": 1, "step": 7, "logTail": "a\nb"}
    status, lines, told = ends(f"echo '{json.dumps(failure)}' >$run/failure.json; echo last; exit 5".replace("\\n", "\\\\n"))
    assert status == 5
    assert lines[-2] == "last"
    assert lines[-1].startswith("gentrain-failure: {")
    assert told == Failure("GTJ0207", "Application", "loss not finite", "diverged", "lower it", 1, None, 7, "a\nb")


@pytest.mark.parametrize(
    ("driver", "why"),
    [
        ("kill -9 $$", "it was killed by signal 9"),
        ("kill -11 $$", "it was killed by signal 11"),
        ("exit 3", "its exit status was 3"),
        ("echo '{\"code\": ' >$run/failure.json; exit 5", "its exit status was 5"),
    ],
)
def test_a_driver_that_is_lost(driver: str, why: str, ends: Callable[..., Ended], tmp_path: Path) -> None:
    status, _, told = ends(driver)
    assert (status, told.code, told.class_, told.summary, told.detail) == (5, "GTJ0213", "Infrastructure", "the driver was lost", why)
    assert progress.read(tmp_path / "run" / "progress.json")["phase"] == "Failed"


def test_a_request_to_stop_reaches_the_driver_and_is_no_failure_of_the_run(ends: Callable[..., Ended], tmp_path: Path) -> None:
    stopping = """trap 'echo stopping; printf "%s" "{\\"step\\": 40, \\"phase\\": \\"Stopped\\"}" >$run/progress.json; exit 130' TERM
        kill -TERM $PPID; while :; do sleep 0.02; done"""
    status, lines, told = ends(stopping)
    assert (status, lines[-2]) == (130, "stopping")
    assert (told.code, told.class_, told.summary, told.step) == ("GTJ0213", "Infrastructure", "the training was asked to stop", 40)
    assert progress.read(tmp_path / "run" / "progress.json")["phase"] == "Stopped"
    assert not (tmp_path / "run" / "failure.json").exists()


def test_pages_are_served_while_the_driver_works(ends: Callable[..., Ended], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []

    def wait(self: Any, timeout: float | None = None) -> int:
        port = cluster_pages[0].port
        read.append(urllib.request.urlopen(f"http://127.0.0.1:{port}/progress", timeout=10).read())
        return 0

    cluster_pages: list[Any] = []
    enter = head.MetricsServer.__enter__
    monkeypatch.setattr(head.MetricsServer, "__enter__", lambda self: (cluster_pages.append(self), enter(self))[1])
    monkeypatch.setattr(head.subprocess.Popen, "wait", wait)
    assert ends("exit 0")[0] == 0
    assert json.loads(read[0])["phase"] == "Preparing"


@pytest.mark.parametrize(
    ("parts", "code", "phrase"),
    [
        ({"checkpoints": {}}, "GTJ0107", "without it each worker would keep its part in its own pod"),
        ({"checkpoints": {"uri": "file:///elsewhere/faces"}}, "GTJ0107", "file:///elsewhere/faces is below no volume"),
        ({"checkpoints": {"uri": "file:///runs2/faces"}}, "GTJ0107", "is below no volume of spec.pod.volumes"),
        ({"pod": None}, "GTJ0107", "file:///runs/faces is below no volume"),
        ({"pod": {"volumes": [{**VOLUME["volumes"][0], "readOnly": True}]}}, "GTJ0107", "is below no volume"),
        ({"compute": {"workers": "1-2", "gpusPerWorker": 0}, "checkpoints": {}}, "GTJ0107", "without it"),
        ({"teh": {}}, "GTJ0105", "spec.teh: Extra inputs are not permitted"),
        ({"training": None}, "GTJ0105", "spec.training: Field required"),
    ],
)
def test_what_cannot_run_is_refused_at_once(parts: dict[str, Any], code: str, phrase: str, ends: Callable[..., Ended]) -> None:
    status, lines, told = ends("echo started", manifest(**parts))
    assert (status, told.code, told.class_) == (head.JobError(code, "").exit_code, code, "Configuration")
    assert phrase in told.detail
    assert told.resolution
    assert "started" not in lines


@pytest.mark.parametrize(
    "parts", [{}, {"compute": {"workers": 1, "gpusPerWorker": 0}, "checkpoints": {}}, {"checkpoints": {"uri": "s3://runs/faces"}}]
)
def test_what_every_worker_reaches_is_not_refused(parts: dict[str, Any], ends: Callable[..., Ended]) -> None:
    assert ends("echo started", manifest(**parts))[1][-1] == "started"


def test_no_job_and_no_port(ends: Callable[..., Ended], tmp_path: Path) -> None:
    with head.MetricsServer(dict, {}, 0) as taken:
        status, _, told = ends("echo started", port=taken.port)
    assert (status, told.code) == (7, "GTJ0114")
    assert "in use" in told.detail
    assert ends("echo started", "not json")[2].code == "GTJ0105"


@pytest.mark.slow
def test_the_record_repeats_the_nonce_that_the_driver_never_sees(ends: Callable[..., Ended], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GENTRAIN_NONCE", "0123abcd")
    status, lines, _ = ends('echo "seen ${GENTRAIN_NONCE:-nothing}"; exit 3')
    assert status != 0
    assert "seen nothing" in lines
    assert json.loads(lines[-1].removeprefix("gentrain-failure: "))["nonce"] == "0123abcd"
