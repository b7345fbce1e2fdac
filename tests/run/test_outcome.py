"""How training ended is a value; no wording decides about an exit status."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainjobs.run import failures, outcome, progress
from trainjobs.run.outcome import Outcome
from trainjobs.workers import launch


@pytest.fixture
def run(tmp_path: Path) -> Path:
    failures.begin(tmp_path, 1.0)
    return tmp_path


@pytest.mark.parametrize("how", ["finished", "stopped", "replaced"])
def test_what_is_left_is_found(how: str, run: Path) -> None:
    assert outcome.left(run) is None
    outcome.leave(run, Outcome(how, "why"))  # type: ignore[arg-type]
    assert outcome.left(run) == Outcome(how, "why")  # type: ignore[arg-type]
    failures.begin(run, 2.0)
    assert outcome.left(run) is None


@pytest.mark.parametrize(("how", "status"), [("finished", 0), ("stopped", launch.STOPPED)])
@pytest.mark.parametrize("phase", ["Succeeded", "Stopped", "Done", "anything", None])
def test_no_wording_in_progress_changes_an_exit_status(how: str, status: int, phase: str | None, run: Path) -> None:
    progress.update(run, phase=phase, message="whatever it says")
    outcome.leave(run, Outcome(how))  # type: ignore[arg-type]
    assert launch.outcome(run) == status


@pytest.mark.parametrize("phase", ["Succeeded", "Stopped", "Running"])
def test_workers_that_said_nothing_are_a_failure_whatever_progress_says(phase: str, run: Path) -> None:
    progress.update(run, phase=phase)
    assert launch.outcome(run) not in (0, launch.STOPPED)
    assert json.loads((run / "failure.json").read_text())["code"] == "GTJ0213"


def test_a_group_that_was_replaced_and_not_followed_is_a_failure(run: Path) -> None:
    outcome.leave(run, Outcome("replaced", "more workers have room"))
    assert launch.outcome(run) not in (0, launch.STOPPED)
