"""The process that keeps a run's record, as gtj run has it beside the training."""

from __future__ import annotations

import errno
import json
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.cluster.at_work import until
from trainjobs.api.job import Job
from trainjobs.head import recorder
from trainjobs.head.recording import recorded
from trainjobs.run.folder import Run
from trainjobs.run.record import Record
from trainjobs.run.recorded import fetch
from trainjobs.stores.file import FileStore
from trainjobs.stores.store import StoreError


def job(uri: str | None) -> Job:
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 4}, "checkpoints": {"uri": uri} if uri else {}}
    manifest = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "faces"}, "spec": spec}
    return Job.model_validate(manifest)


def folder(path: Path, found: Job) -> Path:
    (path / "logs").mkdir(parents=True)
    (path / "job.json").write_text(found.model_dump_json(by_alias=True))
    (path / "progress.json").write_text(json.dumps({"phase": "Succeeded", "step": 4, "totalSteps": 4}))
    (path / "logs" / "worker-0.log").write_text("hello\n")
    return path


def test_the_folder_of_the_record_is_the_next_that_is_free_and_stays_so(tmp_path: Path) -> None:
    store, run = FileStore(tmp_path / "store"), tmp_path / "run"
    run.mkdir()
    assert recorder.attempt(run, store, {}) == "a1"
    store.put_if_absent("run/a1/job.json", b"{}")
    assert recorder.attempt(run, store, {}) == "a1", "this folder's own"
    other = tmp_path / "other"
    other.mkdir()
    assert recorder.attempt(other, store, {}) == "a2"
    assert recorder.attempt(run, store, {"GENTRAIN_ATTEMPT": "7"}) == "a7", "a cluster's"


def test_without_a_store_there_is_no_record_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/nowhere")
    with recorded(job(None), tmp_path, pytest.fail, apart=True):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_and_a_store_that_refuses_are_said_once_and_made_up_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, store, said = folder(tmp_path / "run", job(None)), FileStore(tmp_path / "store"), list[str]()
    looks = recorder.Recorder(run, Record(run, store), lambda path: None, said.append)
    for error in (OSError(errno.ENOSPC, "No space left on device"), StoreError("run/a1/job.json", "403 Forbidden")):
        with monkeypatch.context() as patch:
            patch.setattr(FileStore, "upload", raising(error))
            assert [looks.look() for _ in range(3)] == [False] * 3
    assert [recorder.UNKEPT in line for line in said] == [True, True]
    assert "No space left on device" in said[0]
    assert "403 Forbidden" in said[1]
    assert looks.look()
    assert (fetch(store, tmp_path / "got") / "logs" / "worker-0.log").read_text() == "hello\n"


def raising(error: Exception) -> Callable[..., None]:
    def upload(*arguments: object) -> None:
        raise error

    return upload


@pytest.mark.slow
def test_a_million_lines_of_a_log_are_kept_in_pieces_and_each_once(tmp_path: Path) -> None:
    run, store, said = folder(tmp_path / "run", job(None)), FileStore(tmp_path / "store"), list[str]()
    looks, log = recorder.Recorder(run, Record(run, store), lambda path: None, said.append), run / "logs" / "worker-0.log"
    for part in range(4):
        with log.open("a") as file:
            file.writelines(f"{number} a line\n" for number in range(250_000 * part, 250_000 * (part + 1)))
        assert looks.look()
    assert said == []
    got = (fetch(store, tmp_path / "got") / "logs" / "worker-0.log").read_text()
    assert got == log.read_text()
    assert got.count("\n") == 1_000_001
    assert len([one for one in store.entries("run/a1/logs") if "@" in one.key]) == 4


@pytest.mark.slow
def test_a_look_at_an_hours_run_reads_and_sends_what_is_new(tmp_path: Path) -> None:
    """Five minutes' looks, at one of which there is a new checkpoint and so a report: what they cost is counted in bytes and objects."""
    run, store, reports = folder(tmp_path / "run", job(None)), FileStore(tmp_path / "store"), list[Path]()
    rows = [{"step": step, "time": step / 2, "samples": 64 * step, "loss": 1 / step, "throughput": 128.0} for step in range(1, 7201)]
    curve = run / "metrics.jsonl"
    curve.write_text("".join(json.dumps(row) + "\n" for row in rows))
    looks = recorder.Recorder(run, Record(run, store), reports.append, pytest.fail)
    assert looks.look()
    before, known, process = curve.stat().st_size, {one.key for one in store.entries("run/a1")}, psutil.Process()
    reports.clear()
    for number in range(10):
        size = curve.stat().st_size
        with curve.open("a") as file:
            file.writelines(
                json.dumps({**rows[-1], "step": 7201 + 60 * number + row, "time": 3600 + 30 * number + row / 2}) + "\n" for row in range(60)
            )
        if number == 5:
            told = {"phase": "Running", "step": 7500, "totalSteps": 9000, "checkpoint": {"step": 7500}}
            (run / "progress.json").write_text(json.dumps(told))
        new, read = curve.stat().st_size - size, process.io_counters().read_chars
        assert looks.look()
        read = process.io_counters().read_chars - read
        assert new <= read < 3 * new, "once from the folder, and once on its way to the store"
    assert read < before / 10
    assert reports == [run], "where there was something new to see"
    assert len({one.key for one in store.entries("run/a1")} - known) == 10, "a piece of the curve each look, and nothing else that is new"


@pytest.mark.slow
def test_at_its_end_the_store_has_what_the_folder_has(tmp_path: Path) -> None:
    made = job(f"file://{tmp_path}/store")
    run = folder(tmp_path / "run", made)
    with recorded(made, run, pytest.fail, apart=True):
        pass
    got = Run(fetch(FileStore(tmp_path / "store" / "faces"), tmp_path / "got"))
    assert (got.phase(), got.name) == ("Succeeded", "faces")
    assert (got.path / "logs" / "worker-0.log").read_text() == "hello\n"
    assert "<html" in (got.path / "report.html").read_text()


@pytest.mark.slow
def test_a_store_that_refuses_is_said_and_ends_nothing(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("a file")
    made = job(f"file://{tmp_path}/store")
    run, said = folder(tmp_path / "run", made), list[str]()
    with recorded(made, run, said.append, apart=True):
        pass
    assert [recorder.UNKEPT in line for line in (*said, *warnings(run))] == [True, True]


def warnings(run: Path) -> list[str]:
    return [event["message"] for event in Run(run).attempts() if event["event"] == "warning"]


@pytest.mark.slow
def test_what_was_a_warning_while_the_run_went_on_is_not_said_again_at_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The folder of the run says which store, and it says none that there is."""
    made = job("s3://nowhere/runs")
    run, said = folder(tmp_path / "run", made), list[str]()
    monkeypatch.setenv("AWS_DEFAULT_REGION", "Frankfurt 1")  # no request is made
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with recorded(made, run, said.append, apart=True):
        until(lambda: bool(warnings(run)))
    (line,) = warnings(run)
    assert line.startswith(recorder.UNKEPT)
    assert said == []
