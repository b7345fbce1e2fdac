"""/progress and /metrics: bounded, valid whatever the run folder holds, for GET only, for many at once; asked as the operator asks."""

from __future__ import annotations

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from gentrain_operator import report
from trainjobs.head.metrics_server import CLIENTS, LIMIT, MetricsServer, Report, bounded, exposition
from trainjobs.run import progress

LABELS = {"namespace": "team-a", "job": "faces"}
TOLD: dict[str, Any] = {
    "phase": "Running",
    "step": 12,
    "totalSteps": 100,
    "samples": 96,
    "etaSeconds": 30,
    "metrics": {"loss/G": 1.5, "loss/D": "nan"},
    "throughput": {"value": 812.4, "unit": "samples/s"},
    "checkpoint": {"uri": "steps/10-a1", "step": 10, "committedAt": 1.7e9},
    "workers": 2,
    "restarts": 1,
}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    progress.replace(tmp_path / "progress.json", json.dumps({**TOLD, "updatedAt": 1.7e9}))
    return tmp_path


@pytest.fixture
def pages(run: Path) -> Iterator[MetricsServer]:
    with MetricsServer(Report(run).read, LABELS, 0) as pages:
        yield pages


def ask(pages: MetricsServer, method: str, path: str) -> tuple[int, dict[str, str], str]:
    connection = http.client.HTTPConnection("127.0.0.1", pages.port, timeout=10)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read().decode()
    finally:
        connection.close()


def samples(text: str) -> dict[tuple[str, str], float]:
    """Values by name of the metric and its one label beside job and namespace."""
    found = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    assert all({**sample.labels, **LABELS} == sample.labels for sample in found)
    return {(one.name, "".join(value for key, value in one.labels.items() if key not in LABELS)): one.value for one in found}


def test_the_operator_reads_the_report(pages: MetricsServer) -> None:
    told = report.fetch("127.0.0.1", pages.port)
    assert report.failure(told) is None
    read = report.progress(told, 100)
    assert (read["step"], read["samples"], read["etaSeconds"], read["display"]) == (12, 96, 30, "12% 12/100")
    assert read["metrics"] == [{"name": "loss/G", "value": "1.5"}]
    assert report.checkpoint(told) == {"uri": "steps/10-a1", "step": 10, "committedAt": "2023-11-14T22:13:20Z"}


def test_what_is_done_beside_steps_is_told_and_harms_no_reader(pages: MetricsServer, run: Path) -> None:
    before = report.progress(report.fetch("127.0.0.1", pages.port), 100)
    spent = {"steps": 12.5, "evaluations": 300.0, "saves": 0.5}
    progress.update(run, lambda: 1.7e9, activity="drawing 64 samples, 23/64", spent=spent, wentBack={"step": 10, "time": 1.7e9})
    told = report.fetch("127.0.0.1", pages.port)
    assert (told["activity"], told["spent"]) == ("drawing 64 samples, 23/64", spent)
    assert report.progress(told, 100) == before, "an operator that does not know the word says what it said"


def test_a_failure_is_part_of_it(pages: MetricsServer, run: Path) -> None:
    progress.replace(run / "failure.json", json.dumps({"code": "GTJ0207", "what": "loss not finite", "rank": 1}))
    assert report.failure(report.fetch("127.0.0.1", pages.port)) == {"code": "GTJ0207", "what": "loss not finite", "rank": 1}
    assert samples(ask(pages, "GET", "/metrics")[2])["gentrain_training_failed", "GTJ0207"] == 1


def test_metrics(pages: MetricsServer) -> None:
    status, headers, text = ask(pages, "GET", "/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    values = samples(text)
    expected = {"step": 12, "steps": 100, "samples": 96, "eta_seconds": 30, "checkpoint_step": 10, "workers": 2, "restarts_total": 1}
    assert {name: values[f"gentrain_training_{name}", ""] for name in expected} == expected
    assert values["gentrain_training_metric", "loss/G"] == 1.5
    assert values["gentrain_training_metric", "loss/D"] != values["gentrain_training_metric", "loss/D"], "not a number"
    assert values["gentrain_training_throughput", "samples/s"] == 812.4


REFUSED = [
    ("GET", "/", 404),
    ("GET", "/progress/", 404),
    ("GET", "/../job.json", 404),
    ("GET", "/progress?x=1", 200),
    *((method, "/progress", 405) for method in ("HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS")),
    ("TRACE", "/progress", 501),
]


def test_what_is_refused(pages: MetricsServer) -> None:
    for method, path, status in REFUSED:
        answered, headers, text = ask(pages, method, path)
        assert (method, path, answered) == (method, path, status)
        assert status != 405 or headers["Allow"] == "GET"
        assert method != "HEAD" or text == ""
        assert report.fetch("127.0.0.1", pages.port)["step"] == 12


TORN = [b"", b'{"step": 1', b"[1]", b"null", b"\0\0", b'{"step": ' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"step": 13, "message": "\xff"}']


def test_what_is_torn_is_answered_with_what_was_whole(pages: MetricsServer, run: Path) -> None:
    before = report.fetch("127.0.0.1", pages.port)
    for torn in TORN:
        (run / "progress.json").write_bytes(torn)
        (run / "failure.json").write_bytes(torn)
        assert report.fetch("127.0.0.1", pages.port) == before
    progress.replace(run / "progress.json", '{"step": 13}')
    assert report.fetch("127.0.0.1", pages.port) == {"step": 13}


def test_before_the_first_word(tmp_path: Path) -> None:
    with MetricsServer(Report(tmp_path).read, LABELS, 0) as pages:
        assert report.fetch("127.0.0.1", pages.port) == {}
        assert samples(ask(pages, "GET", "/metrics")[2]) == {("gentrain_training_restarts_total", ""): 0}


LARGE = [
    {"metrics": {f"a metric of a long name {number}": float(number) for number in range(10_000)}},
    {"failure": {"code": "GTJ0214", "logTail": "é\n" * 50_000, "what": "x" * 10**6}},
    {f"field {number}": ["text" * 50] * 50 for number in range(200)},
    {"metrics": {"n" * 10**5: 1.0}, "message": "\ud800" * 10**5},
    {"metrics": json.loads("[" * 500 + "]" * 500)},
    {"metrics": {"loss": float("inf")}, "message": '"' * 10**5},
]


@pytest.mark.parametrize("more", LARGE, ids=["metrics", "failure", "fields", "names", "depth", "quotes"])
def test_whatever_is_told_fits_and_is_json(more: dict[str, Any]) -> None:
    text = bounded({**TOLD, **more})
    assert len(text.encode()) <= LIMIT
    assert "\n" not in text
    read = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert read["step"] == 12, "what comes first is kept"
    list(text_string_to_metric_families(exposition({**TOLD, **more}, LABELS).encode(errors="replace").decode()))


def test_a_log_keeps_its_last_lines_and_a_message_its_first() -> None:
    read = json.loads(bounded({"failure": {"logTail": "é" * 50_000 + "\nValueError: my own mistake", "what": "first" + "é" * 50_000}}))
    assert read["failure"]["logTail"].endswith("\nValueError: my own mistake")
    assert read["failure"]["what"].startswith("first")


def test_readers_while_it_is_written(pages: MetricsServer, run: Path) -> None:
    over = threading.Event()

    def write() -> None:
        step = 0
        while not over.is_set():
            step += 1
            progress.update(run, step=step, metrics={"loss": "x" * (step % 5000)})

    writer = threading.Thread(target=write)
    writer.start()
    try:
        with ThreadPoolExecutor(8) as readers:
            told = list(readers.map(lambda _: report.fetch("127.0.0.1", pages.port, timeout=30.0)["step"], range(100)))
    finally:
        over.set()
        writer.join()
    assert len(told) == 100
    assert max(told) > 12


def test_clients_that_say_nothing_keep_nobody_out_for_long(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("trainjobs.head.metrics_server._Handler.timeout", 0.2)
    with MetricsServer(Report(run).read, LABELS, 0) as pages:
        silent = [socket.create_connection(("127.0.0.1", pages.port), timeout=30) for _ in range(CLIENTS + 4)]
        assert [one.recv(1) for one in silent[CLIENTS:]] == [b""] * 4, "too many are sent away at once"
        assert [one.recv(1) for one in silent[:CLIENTS]] == [b""] * CLIENTS, "and silent ones after a while"
        for one in silent:
            one.close()
        for _ in range(100):  # the last of their threads may be a moment in ending
            try:
                assert report.fetch("127.0.0.1", pages.port, timeout=30.0)["step"] == 12
                break
            except report.Unreadable:
                continue
        else:
            pytest.fail("nobody is served any more")


def test_a_port_that_is_taken(pages: MetricsServer, run: Path) -> None:
    with pytest.raises(OSError, match="in use"):
        MetricsServer(Report(run).read, LABELS, pages.port)
