"""A run folder as it is read: before there is anything, while it is written, and after a crash."""

from __future__ import annotations

import fcntl
import json
from pathlib import Path
from typing import Any

import pytest

from trainjobs.run import folder
from trainjobs.run.folder import INTERRUPTED, LIVE, Run


def write(path: Path, name: str, value: Any) -> None:
    (path / name).write_text(value if isinstance(value, str) else json.dumps(value))


def everything(run: Run) -> dict[str, Any]:
    return {
        name: getattr(run, name)()
        for name in ("job", "spec", "family", "progress", "failure", "versions", "metrics", "attempts", "in_use", "phase")
    }


EMPTY = {
    **{name: {} for name in ("job", "spec", "progress", "versions")},
    **{"family": "-", "failure": None, "metrics": [], "attempts": [], "in_use": False, "phase": INTERRUPTED},
}
FILES = ("job.json", "progress.json", "failure.json", "versions.json", "metrics.jsonl", "attempts.jsonl")


def test_where_there_is_nothing_everything_is_empty(tmp_path: Path) -> None:
    run = Run(tmp_path / "none")
    assert everything(run) == EMPTY
    assert not run.exists
    assert run.name == "none"


@pytest.mark.parametrize("text", ["", "{", '{"spec": ', "[1]", "null", "3", '"x"', "\0\0\0", "\udcff"])
def test_what_is_torn_or_something_else_reads_as_nothing(text: str, tmp_path: Path) -> None:
    for name in FILES:
        (tmp_path / name).write_bytes(text.encode(errors="surrogateescape"))
    assert everything(Run(tmp_path)) == EMPTY


@pytest.mark.parametrize(
    ("job", "name", "family"),
    [
        ({"metadata": {"name": "faces"}, "spec": {"gan": {}, "data": {}}}, "faces", "gan"),
        ({"metadata": {"name": 3}, "spec": {"language": {}}}, "folder", "language"),
        ({"metadata": [], "spec": []}, "folder", "-"),
        ({"spec": {"data": {}}}, "folder", "-"),
    ],
)
def test_name_and_family(job: dict[str, Any], name: str, family: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    run = Run(tmp_path / "folder")
    write(run.path, "job.json", job)
    assert run.exists
    assert (run.name, run.family()) == (name, family)


@pytest.mark.parametrize(
    ("uri", "uid", "expected"),
    [
        ("s3://bucket/runs", None, "s3://bucket/runs/faces"),
        ("s3://bucket/runs/", "0f3c", "s3://bucket/runs/0f3c"),
        (None, "0f3c", "file://{}/checkpoints"),
    ],
)
def test_where_checkpoints_are(uri: str | None, uid: str | None, expected: str, tmp_path: Path) -> None:
    write(tmp_path, "job.json", {"metadata": {"name": "faces", "uid": uid}, "spec": {"checkpoints": {"uri": uri}}})
    assert Run(tmp_path).checkpoints_uri() == expected.format(tmp_path.resolve())


def test_rows_come_in_the_order_of_steps_without_torn_ones(tmp_path: Path) -> None:
    """A run that went back and was read in between; the last row is half written."""
    write(
        tmp_path,
        "metrics.jsonl",
        '{"step": 3}\n{"step": 1, "loss": "nan"}\n{"loss": 2}\n[1]\n\n{"step": "2"}\n{"step": 2}\n{"step": 4, "lo',
    )
    write(tmp_path, "attempts.jsonl", '{"event": "started"}\n{"event": "worker-lost"}\n{"ev')
    assert Run(tmp_path).metrics() == [{"step": 1, "loss": "nan"}, {"step": 2}, {"step": 3}]
    assert [row["event"] for row in Run(tmp_path).attempts()] == ["started", "worker-lost"]


@pytest.mark.parametrize(("value", "expected"), [({"code": "GTJ0207"}, {"code": "GTJ0207"}), ({"code": 3}, None), ({}, None)])
def test_a_failure_is_one_that_says_something(value: dict[str, Any], expected: Any, tmp_path: Path) -> None:
    write(tmp_path, "failure.json", value)
    assert Run(tmp_path).failure() == expected


@pytest.mark.parametrize("lock", ["lock", "gtj.lock"])
@pytest.mark.parametrize("phase", [*LIVE, "Succeeded", "Stopped", "Failed", None])
def test_a_run_that_nobody_holds_is_interrupted(phase: str | None, lock: str, tmp_path: Path) -> None:
    run = Run(tmp_path)
    if phase is not None:
        write(tmp_path, "progress.json", {"phase": phase})
    (tmp_path / lock).touch()
    assert run.phase() == (phase if phase in ("Succeeded", "Stopped", "Failed") else INTERRUPTED)
    with (tmp_path / lock).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run.in_use()
        assert run.phase() == (phase or "Preparing")
    assert not run.in_use(), "the lock goes with whoever held it"


def test_looking_whether_a_lock_is_held_does_not_hold_it(tmp_path: Path) -> None:
    (tmp_path / "lock").touch()
    assert not folder.held(tmp_path / "lock")
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert folder.held(tmp_path / "lock")
    assert not folder.held(tmp_path / "none")
