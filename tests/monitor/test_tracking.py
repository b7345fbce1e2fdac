"""A tracker beside the training: it is told every row, and costs no step whatever it does."""

from __future__ import annotations

import importlib
import importlib.util
import json
import sqlite3
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.monitor.standin_tracker import Standin, in_place_of
from tests.monitor.test_reporter import JOB, Training, commit
from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.monitor import trackers, tracking
from trainjobs.monitor.trackers import Tracked
from trainjobs.monitor.tracking import Tracking, begin, identity
from trainjobs.objectives.phase import Samples
from trainjobs.run.folder import Run

RUN = Tracked("faces", "job", "id-1", {"training": {"steps": 20}}, Path("/tmp"))


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Iterator[Standin]:
    found = in_place_of(monkeypatch)
    yield found
    found.hold.set()


def tracked(**more: Any) -> Job:
    manifest = JOB.model_dump(mode="json", by_alias=True, exclude_none=True)
    manifest["spec"]["training"]["tracking"] = {"tracker": "wandb", "project": "faces"}
    manifest["spec"]["pod"] = {"env": [{"name": "WANDB_API_KEY", "value": "secret"}]}
    manifest["metadata"] |= more
    return Job.model_validate(manifest)


def test_it_is_told_every_row_and_the_end(theirs: Standin) -> None:
    told = list[JobError]()
    found = Tracking(theirs, RUN, told.append)
    for step in (1, 2, 3):
        found.log(step, {"loss": 1 / step})
    found.finish(True)
    assert (theirs.started, theirs.ended, told) == ([RUN], [True], [])
    assert theirs.rows == [(1, {"loss": 1.0}), (2, {"loss": 0.5}), (3, {"loss": 1 / 3})]


@pytest.mark.parametrize("where", ["start", "log"])
def test_one_that_hangs_costs_no_step(theirs: Standin, where: str) -> None:
    told = list[JobError]()
    found = Tracking(theirs, RUN, told.append, limit=10, patience=0.0)
    if where == "log":
        assert theirs.called["start"].wait(10)
    theirs.hold.clear()
    found.log(0, {"loss": 1.0})
    for step in range(1000):
        found.log(step, {"loss": 1.0})
    found.finish(True)
    assert not theirs.hold.is_set(), "it hangs to this moment"
    assert threading.get_ident() not in theirs.by, "whoever trains calls it nowhere"
    assert [error.code for error in told] == ["GTJ0222", "GTJ0222"]
    assert "rows find no room any more" in told[0].line()
    lost = int(told[1].why.split(" of ")[0])
    assert told[1].why.endswith("of 1001 rows did not reach it")
    assert 980 <= lost <= 1001


def test_rows_that_it_refuses_are_counted_and_told_once(theirs: Standin) -> None:
    told, theirs.broken = list[JobError](), {"log"}
    found = Tracking(theirs, RUN, told.append)
    for step in range(5):
        found.log(step, {"loss": 1.0})
    found.finish(False)
    assert [error.why for error in told] == ["ConnectionError: log is refused", "5 of 5 rows did not reach it"]
    assert theirs.ended == [False]


class Wordless(Exception):
    def __str__(self) -> str:
        raise ValueError("not even that")


@pytest.mark.parametrize("where", ["start", "log", "finish"])
@pytest.mark.parametrize(
    ("refusal", "said"),
    [
        (lambda name: ConnectionError("\x1b[31m<html>\r\n\0" + "x" * 10**7), "ConnectionError: [31m<html> x"),
        (lambda name: Wordless(), "Wordless: (no words)"),
        (lambda name: SystemExit(3), "SystemExit: 3"),
        (lambda name: KeyboardInterrupt(), "KeyboardInterrupt:"),
    ],
)
def test_an_answer_of_any_kind_and_length_is_a_line_of_the_warning(
    theirs: Standin, where: str, refusal: Callable[[str], BaseException], said: str
) -> None:
    told, theirs.broken, theirs.refusal = list[JobError](), {where}, refusal
    found = Tracking(theirs, RUN, told.append)
    for step in (1, 2):
        found.log(step, {"loss": 1.0})
    found.finish(True)
    first, *rest = [error.why for error in told]
    assert said in first
    assert first.isprintable()
    assert len(first) < 400
    assert rest == ([] if where == "finish" else ["2 of 2 rows did not reach it"])


def test_one_that_does_not_start_is_told_and_asked_again(theirs: Standin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "RETRY", (0.01, 0.01))
    told, theirs.broken = list[JobError](), {"start"}
    found = Tracking(theirs, RUN, told.append)
    assert theirs.called["start"].wait(10)
    found.log(1, {"loss": 1.0})
    theirs.broken = set()
    assert theirs.called["log"].wait(10), "what waited is handed over"
    found.finish(True)
    assert theirs.rows == [(1, {"loss": 1.0})]
    assert [error.why for error in told] in ([], ["it does not start: ConnectionError: start is refused"])


def test_one_that_never_starts_keeps_nobody_at_the_end(theirs: Standin) -> None:
    told, theirs.broken = list[JobError](), {"start"}
    found = Tracking(theirs, RUN, told.append)
    found.log(1, {"loss": 1.0})
    found.finish(True)
    assert [error.why for error in told][-1] == "1 of 1 rows did not reach it"


def test_a_run_that_goes_on_is_the_same_to_the_tracker(theirs: Standin, tmp_path: Path) -> None:
    """Of gtj run it is the run folder's, of a cluster the job's, whichever pod goes on with it."""
    first = identity(tracked(), tmp_path)
    assert identity(tracked(), tmp_path) == first
    other = tmp_path / "other"
    other.mkdir()
    assert identity(tracked(), other) != first
    assert identity(tracked(uid="u1"), tmp_path) == identity(tracked(uid="u1"), other) == "u1"


def test_nothing_of_the_environment_is_told(theirs: Standin, tmp_path: Path) -> None:
    begin(tracked(), tmp_path, pytest.fail).finish(True)
    (run,) = theirs.started
    assert (run.project, run.name, run.folder) == ("faces", "job", tmp_path)
    assert run.config["training"]["steps"] == 20
    assert "secret" not in str(run.config)


def test_the_rows_of_a_run_reach_it_and_a_failure_is_in_the_timeline(theirs: Standin, tmp_path: Path) -> None:
    training = Training(tmp_path, job=tracked())
    training.state.step = 3
    training.reporter.stepped(training.state, {"loss": 0.5, "lr/vae": 0.1})
    theirs.broken = {"finish"}
    training.reporter.evaluated(training.state, {"heldout/loss": 0.4}, Samples())
    training.reporter.ended(training.state, "stopped")
    (step, row), *_ = theirs.rows
    assert (step, row["loss"], row["lr/vae"]) == (3, 0.5, 0.1)
    warnings = [event["message"] for event in Run(tmp_path).attempts() if event["event"] == "warning"]
    assert any("GTJ0222" in line for line in warnings)
    again = Training(tmp_path, commit(3), job=tracked())
    again.reporter.ended(again.state, "finished")
    assert len({run.identity for run in theirs.started}) == 1


@pytest.mark.parametrize("name", trackers.TRACKERS)
def test_one_that_is_not_installed_is_said_before_anything_is_trained(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "TRACKERS", trackers.OURS)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(JobError) as error:
        trackers.tracker(name)
    assert error.value.code == "GTJ0134"
    assert f"gentrain[{name}]" in error.value.how


OFFLINE: dict[str, Callable[[Path], dict[str, str]]] = {
    "wandb": lambda path: {"WANDB_MODE": "offline", "WANDB_DIR": str(path)},
    "mlflow": lambda path: {"MLFLOW_TRACKING_URI": (path / "mlruns").as_uri(), "MLFLOW_ALLOW_FILE_STORE": "true"},
    "trackio": lambda path: {"TRACKIO_DIR": str(path / "trackio")},
}


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_the_real_one_offline(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two attempts of one run: nothing is dropped, and the second continues what the first began."""
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed")
    for key, value in OFFLINE[name](tmp_path).items():
        monkeypatch.setenv(key, value)
    monkeypatch.setattr(trackers, "TRACKERS", trackers.OURS)
    run = Tracked("faces", "job", "id1", {"training": {"steps": 20, "seed": 0}}, tmp_path)
    for steps in ((1, 2), (3,)):
        found = Tracking(trackers.tracker(name), run, pytest.fail, patience=120.0)
        for step in steps:
            found.log(step, {"loss/G": 1 / step, "heldout/loss": float("nan")})
        found.finish(True)
    if name == "wandb":
        assert [path.name.rpartition("-")[2] for path in (tmp_path / "wandb").glob("offline-run-*")] == ["id1", "id1"]
        written = b"".join(path.read_bytes() for path in (tmp_path / "wandb").rglob("run-id1.wandb"))
        assert written.count(b"loss/G") >= 3
    if name == "trackio":
        with sqlite3.connect(tmp_path / "trackio" / "faces.db") as database:
            rows = database.execute("SELECT run_name, step, metrics FROM metrics ORDER BY step").fetchall()
        assert [(run_name, step, json.loads(text)["loss/G"]) for run_name, step, text in rows] == [
            ("job-id1", step, 1 / step) for step in (1, 2, 3)
        ]
    if name == "mlflow":
        client = importlib.import_module("mlflow").MlflowClient()
        (one,) = client.search_runs([client.get_experiment_by_name("faces").experiment_id])
        assert [metric.step for metric in client.get_metric_history(one.info.run_id, "loss/G")] == [1, 2, 3]
        assert one.data.params["training.steps"] == "20"
        assert one.info.status == "FINISHED"
