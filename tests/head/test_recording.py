"""The process that keeps a run's record, as gtj run has it beside the training."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from trainjobs.api.job import Job
from trainjobs.head import recorder
from trainjobs.head.recording import recorded
from trainjobs.run.folder import Run
from trainjobs.run.recorded import fetch
from trainjobs.stores.file import FileStore


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
    (line,) = said
    assert "the record of the run cannot be kept in the checkpoint store; the training goes on" in line
