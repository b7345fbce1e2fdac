"""TensorBoard shows each step once, whatever became of the run in between."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import as_tensorboard as tensorboard

from trainjobs.run import progress
from trainjobs.run.events import Events


def train(run: Path, after: int, until: int, value: float) -> progress.Metrics:
    """Rows of the steps behind `after`, of a run that goes on from there."""
    metrics = progress.Metrics(run, after, now=lambda: 5.0)
    for step in range(after + 1, until + 1):
        metrics.write(step, {"loss": value, "samples": 4 * step})
    return metrics


def test_what_is_written_is_in_the_file_at_once(tmp_path: Path) -> None:
    """A run that is killed behind a commit lacks no point in front of it."""
    metrics = train(tmp_path, 0, 5, 0.5)  # held: the interpreter closes what nobody holds
    assert tensorboard.steps(tmp_path / "events")["loss"] == [1, 2, 3, 4, 5]
    metrics.close()


def test_twenty_steps_are_twenty_points_after_a_kill_and_a_resume(tmp_path: Path) -> None:
    killed = train(tmp_path, 0, 16, 0.5)  # nothing is closed; the last commit is of step 10
    train(tmp_path, 10, 20, 0.25).close()
    found = tensorboard.shown(tmp_path / "events")
    assert found["loss"] == [(step, 0.5 if step <= 10 else 0.25) for step in range(1, 21)]
    assert [step for step, _ in found["samples"]] == list(range(1, 21))
    killed.close()


def test_going_back_several_times_within_a_second_keeps_what_was_before(tmp_path: Path) -> None:
    train(tmp_path, 0, 10, 0.5).close()
    for back, value in ((8, 0.25), (8, 0.125), (4, 2.0)):
        train(tmp_path, back, 12, value).close()
    train(tmp_path, 12, 20, 1.0).close()
    assert len(list((tmp_path / "events").iterdir())) == 5
    assert tensorboard.shown(tmp_path / "events")["loss"] == [(s, 0.5 if s <= 4 else 2.0 if s <= 12 else 1.0) for s in range(1, 21)]


def test_a_run_that_begins_again_shows_nothing_of_before(tmp_path: Path) -> None:
    train(tmp_path, 0, 5, 0.5)
    train(tmp_path, 0, 2, 0.25)
    assert tensorboard.shown(tmp_path / "events")["loss"] == [(1, 0.25), (2, 0.25)]


def test_a_future_is_gone_before_the_first_new_row(tmp_path: Path) -> None:
    train(tmp_path, 0, 9, 0.5).close()
    progress.Metrics(tmp_path, 6).close()
    assert tensorboard.steps(tmp_path / "events")["loss"] == [1, 2, 3, 4, 5, 6]


def test_a_torn_record_costs_itself(tmp_path: Path) -> None:
    train(tmp_path, 0, 5, 0.5).close()
    (file,) = (tmp_path / "events").iterdir()
    file.write_bytes(file.read_bytes()[:-3])
    train(tmp_path, 4, 6, 0.25).close()
    assert tensorboard.steps(tmp_path / "events")["loss"] == [1, 2, 3, 4, 5, 6]


def test_canary_without_a_purge_points_are_doubled(tmp_path: Path) -> None:
    events = Events(tmp_path / "events")
    events.scalars(1, {"loss": 0.5})
    events.close()
    (file,) = (tmp_path / "events").iterdir()
    file.with_name(f"{file.name}.001").write_bytes(file.read_bytes())
    assert tensorboard.steps(tmp_path / "events")["loss"] == [1, 1]
