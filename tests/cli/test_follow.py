"""Following a driver to its end: in virtual time, with drivers that are a script of what happens when."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.cli.follow import MAX_FRUITLESS, Outcome, follow
from trainjobs.cli.screen import Plain
from trainjobs.run import progress
from trainjobs.run.failures import begin
from trainjobs.run.folder import Run

Action = Callable[[], None]


class Clock:
    """Time passes only in sleep, and what was planned happens on the way."""

    def __init__(self) -> None:
        self.time = 1_000.0
        self.planned: list[tuple[float, Action]] = []

    def now(self) -> float:
        return self.time

    def sleep(self, seconds: float) -> None:
        self.time += seconds
        due = [action for at, action in self.planned if at <= self.time]
        self.planned = [(at, action) for at, action in self.planned if at > self.time]
        for action in due:
            action()

    def later(self, seconds: float, action: Action) -> None:
        self.planned.append((self.time + seconds, action))


class Driver:
    """Ends with `status` after `seconds`, unless it is killed before, or `obeys` the stop file with 130."""

    def __init__(self, clock: Clock, run: Run, seconds: float, status: int, obeys: bool = False) -> None:
        self.clock, self.run, self.end, self.status, self.obeys = clock, run, clock.time + seconds, status, obeys
        self.killed = False

    def poll(self) -> int | None:
        if self.killed:
            return -signal.SIGKILL
        if self.obeys and self.run.stop_file.exists():
            return 130
        return self.status if self.clock.time >= self.end else None

    def kill(self) -> None:
        self.killed = True


class Screen:
    def __init__(self) -> None:
        self.said: list[str] = []
        self.shown: list[Mapping[str, Any]] = []

    def show(self, progress: Mapping[str, Any], now: float) -> None:
        self.shown.append(progress)

    def say(self, text: str) -> None:
        self.said.append(text)

    def close(self) -> None:
        return


class Presses:
    count = 0

    def press(self) -> None:
        self.count += 1


class World:
    """One run folder with its clock, screen and keyboard. `drivers` are the drivers to come, in order."""

    def __init__(self, path: Path) -> None:
        self.run = Run(path)
        self.clock, self.screen, self.presses = Clock(), Screen(), Presses()
        self.drivers: list[Callable[[], Driver]] = []
        self.started: list[float] = []
        (path / "logs").mkdir()
        (path / "job.json").write_text(json.dumps({"metadata": {"name": "demo"}, "spec": {"checkpoints": {"resumeFrom": "none"}}}))
        self.progress(phase="Preparing")

    def progress(self, **fields: Any) -> None:
        (self.run.path / "progress.json").write_text(json.dumps({**self.run.progress(), **fields}))

    def driver(self, seconds: float, status: int, obeys: bool = False, then: Action = lambda: None) -> None:
        """A driver that does `then` right after its start."""

        def start() -> Driver:
            then()
            return Driver(self.clock, self.run, seconds, status, obeys)

        self.drivers.append(start)

    def start(self) -> Driver:
        self.started.append(self.clock.time)
        return self.drivers.pop(0)()

    def follow(self) -> Outcome:
        return follow(self.run, self.start, self.screen, self.clock, self.presses)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_success_is_zero_and_progress_was_shown(world: World) -> None:
    world.driver(5, 0, then=lambda: world.progress(step=7))
    assert world.follow() == Outcome("Succeeded", 0)
    assert world.screen.shown[-1]["step"] == 7
    assert world.screen.said == []


def test_what_the_data_is_is_said_once_and_when_it_changes(world: World) -> None:
    world.progress(data="12 images")
    world.driver(5, 0, then=lambda: world.progress(data="12 images"))
    world.follow()
    assert world.screen.said == []
    world.driver(5, 0, then=lambda: world.progress(data="12 images; 1 .avif left out"))
    world.follow()
    assert world.screen.said == ["data: 12 images; 1 .avif left out"]


def test_a_failure_is_the_one_the_driver_left(world: World) -> None:
    error = JobError("GTJ0206", "out of memory", where="rank 3", how="lower the micro-batch")
    world.driver(5, 5, then=lambda: (world.run.path / "failure.json").write_text(json.dumps({**error.to_dict(), "rank": 3})) and None)
    outcome = world.follow()
    assert (outcome.phase, outcome.exit_code) == ("Failed", 5)
    assert outcome.error is not None
    assert outcome.error.line() == error.line()


def test_the_failures_own_code_decides_the_exit_status(world: World) -> None:
    missing = JobError("GTJ0113", "no images")
    world.driver(1, 5, then=lambda: (world.run.path / "failure.json").write_text(json.dumps(missing.to_dict())) and None)
    assert world.follow().exit_code == 7


def test_an_end_without_explanation_quotes_the_log_and_is_kept(world: World) -> None:
    world.driver(1, 1, then=lambda: world.run.driver_log.write_text("importing\nImportError: no module named torch\n\n") and None)
    world.progress(phase="Starting")
    outcome = world.follow()
    assert outcome.exit_code == 5
    assert outcome.error is not None
    assert outcome.error.why == "ImportError: no module named torch"
    failure = world.run.failure()
    assert failure is not None
    assert failure["code"] == "GTJ0214"
    assert "importing" in failure["logTail"]
    assert world.run.progress()["phase"] == "Failed"


def test_ctrl_c_asks_for_a_checkpoint_and_waits(world: World) -> None:
    world.driver(1000, 0, obeys=True)
    world.clock.later(3, world.presses.press)
    outcome = world.follow()
    assert outcome == Outcome("Stopped", 130)
    assert world.screen.said == ["stopping: saving a checkpoint (Ctrl-C again to stop at once)"]
    assert world.clock.time < 1010


def test_a_request_to_stop_outlives_a_driver_that_clears_it(world: World) -> None:
    world.driver(1000, 0)
    world.clock.later(1, world.presses.press)
    world.clock.later(2, world.run.stop_file.unlink)
    seen: list[bool] = []
    world.clock.later(3, lambda: seen.append(world.run.stop_file.exists()))
    world.clock.later(4, world.presses.press)
    world.follow()
    assert seen == [True]


def test_before_the_first_step_one_ctrl_c_ends_it(world: World) -> None:
    """Data may be read for hours, and there is nothing to save."""
    world.driver(1000, 0, then=lambda: world.progress(phase="Starting"))
    world.clock.later(3, world.presses.press)
    assert world.follow() == Outcome("Interrupted", 130)
    assert world.screen.said == ["stopping at once: no step has been made that could be saved"]
    assert world.clock.time < 1010


def test_a_ctrl_c_that_came_too_early_ends_it_when_it_starts(world: World) -> None:
    world.driver(1000, 0)
    world.clock.later(1, world.presses.press)
    world.clock.later(3, lambda: world.progress(phase="Starting"))
    assert world.follow() == Outcome("Interrupted", 130)
    assert world.screen.said[-1] == "stopping at once: no step has been made that could be saved"


def test_a_second_ctrl_c_kills(world: World) -> None:
    world.driver(1000, 0)
    world.clock.later(3, world.presses.press)
    world.clock.later(6, world.presses.press)
    assert world.follow() == Outcome("Interrupted", 130)
    assert world.screen.said[-1] == "stopping at once"
    assert world.clock.time < 1010


def test_training_that_ends_before_it_could_stop_has_succeeded(world: World) -> None:
    world.driver(5, 0)
    world.clock.later(4.9, world.presses.press)
    assert world.follow() == Outcome("Succeeded", 0)


def test_a_killed_driver_is_started_again_from_its_checkpoint(world: World) -> None:
    world.driver(10, -signal.SIGKILL, then=lambda: world.progress(step=120, checkpoint={"step": 100}))
    world.driver(10, 0)
    outcome = world.follow()
    assert outcome == Outcome("Succeeded", 0, restarts=1)
    assert world.screen.said == ["the trainer was killed by SIGKILL; starting it again from step 100 in 1s (restart 1)"]
    (event,) = world.run.attempts()
    assert (event["event"], event["step"], event["message"]) == ("worker-lost", 120, "the trainer was killed by SIGKILL")


def test_a_restart_goes_on_even_when_the_manifest_began_from_nothing(world: World) -> None:
    world.driver(10, -signal.SIGKILL, then=lambda: world.progress(checkpoint={"step": 100}))
    world.driver(1, 0)
    world.follow()
    assert world.run.spec()["checkpoints"]["resumeFrom"] == "latest"


def test_restarts_without_a_newer_checkpoint_back_off_and_end(world: World) -> None:
    for step in range(MAX_FRUITLESS + 5):
        world.driver(0, -signal.SIGKILL, then=lambda step=step: world.progress(step=step))  # type: ignore[misc]
    outcome = world.follow()
    assert outcome.error is not None
    assert (outcome.error.code, outcome.exit_code, outcome.restarts) == ("GTJ0213", 5, MAX_FRUITLESS)
    gaps = [later - earlier for earlier, later in zip(world.started, world.started[1:], strict=False)]
    assert gaps[0] < gaps[1] < gaps[2]
    assert max(gaps) == pytest.approx(60, abs=1)
    failure = world.run.failure()
    assert failure is not None
    assert failure["code"] == "GTJ0213"


@pytest.mark.parametrize(("allowed", "started"), [({}, 4), ({"maxRetries": 1}, 2), ({"maxRetries": 0}, 1)])
def test_a_trainer_that_crashes_is_started_again_as_often_as_the_job_allows(allowed: dict[str, int], started: int, world: World) -> None:
    """Whatever it saves in between: what crashes by itself is no machine's doing."""
    job = world.run.job()
    (world.run.path / "job.json").write_text(json.dumps({**job, "spec": {**job.get("spec", {}), "recovery": allowed}}))
    for step in range(6):
        world.driver(0, -signal.SIGSEGV, then=lambda step=step: world.progress(checkpoint={"step": step + 1}))  # type: ignore[misc]
    outcome = world.follow()
    assert outcome.error is not None
    assert (outcome.error.code, outcome.exit_code, len(world.started)) == ("GTJ0214", 5, started)
    assert "SIGSEGV" in outcome.error.what
    assert f"the last checkpoint, of step {started}, is kept" in (outcome.error.how or "")


@pytest.mark.parametrize(("allowed", "started"), [({}, 4), ({"maxRetries": 0}, 1)])
def test_a_trainer_that_has_begun_and_ends_without_a_word_is_started_again(allowed: dict[str, int], started: int, world: World) -> None:
    """As Ray ends the process of a driver whose raylet was killed: with status 1, whatever that was about to do."""
    job = world.run.job()
    (world.run.path / "job.json").write_text(json.dumps({**job, "spec": {**job.get("spec", {}), "recovery": allowed}}))
    for number in range(6):
        world.driver(0, 1, then=lambda number=number: begin(world.run.path, 1_000.0 + number))  # type: ignore[misc]
    outcome = world.follow()
    assert outcome.error is not None
    assert (outcome.error.code, outcome.exit_code, len(world.started)) == ("GTJ0214", 5, started)
    assert "ended with status 1 and left no explanation" in outcome.error.what


def test_a_trainer_that_never_begins_is_not_started_again(world: World) -> None:
    begin(world.run.path, 999.0)  # an earlier one
    for _ in range(2):
        world.driver(0, 1)
    assert world.follow().phase == "Failed"
    assert len(world.started) == 1


def test_a_newer_checkpoint_forgives_all_restarts_before(world: World) -> None:
    for step in range(3 * MAX_FRUITLESS):
        world.driver(0, -signal.SIGKILL, then=lambda step=step: world.progress(checkpoint={"step": step // 5 + 1}))  # type: ignore[misc]
    world.driver(0, 0)
    assert world.follow() == Outcome("Succeeded", 0, restarts=3 * MAX_FRUITLESS)


def test_no_restart_after_a_wish_to_stop(world: World) -> None:
    world.driver(5, -signal.SIGTERM)
    world.clock.later(4, world.presses.press)
    assert world.follow() == Outcome("Interrupted", 130)
    assert len(world.started) == 1


def test_ctrl_c_while_waiting_to_restart_does_not_start(world: World) -> None:
    world.driver(0, -signal.SIGKILL)
    world.clock.later(0.5, world.presses.press)
    assert world.follow() == Outcome("Stopped", 130, restarts=1)
    assert len(world.started) == 1


def test_a_log_gets_a_line_in_ten_seconds_and_none_when_nothing_changed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    plain = Plain("demo", sys.stdout)
    running = {"phase": "Running", "totalSteps": 100, "metrics": {"loss": 0.5}, "etaSeconds": 60}
    for tick in range(0, 600):
        plain.show({**running, "step": min(50, tick // 10)}, 1000 + tick / 10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo: 10% 10/100, loss 0.5, ETA 1m"
    assert [line.split()[2] for line in lines] == ["10/100,", "20/100,", "30/100,", "40/100,", "50/100,"]


def test_a_log_is_never_silent_for_minutes(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    plain = Plain("demo", sys.stdout)
    drawing = {"phase": "Running", "step": 5, "totalSteps": 10, "metrics": {"loss": 0.5}}
    for tick in range(0, 3000):
        activity = f"drawing 64 samples, {tick // 50}/64" if tick < 1000 else "drawing 64 samples, 20/64"
        plain.show({**drawing, "activity": activity}, 1000 + tick / 10)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "demo: 50% 5/10, drawing 64 samples, 2/64, loss 0.5"
    assert len(lines) == 10 + 3, "every ten seconds while it goes on, every minute while nothing is heard"


def test_a_reader_that_has_gone_does_not_end_the_training(tmp_path: Path) -> None:
    closed = (tmp_path / "log").open("w")
    closed.close()
    Plain("demo", closed).say("still here")


def test_warnings_of_the_timeline_are_said_once_and_those_of_earlier_runs_not_again(world: World) -> None:
    timeline = world.run.path / "attempts.jsonl"
    timeline.write_text('{"event": "warning", "message": "long ago"}\n')

    def add(text: str) -> Action:
        return lambda: timeline.write_text(timeline.read_text() + text) and None

    world.clock.later(1, add('{"event": "resumed"}\n{"event": "warning", "message": "step 6 is cor'))
    world.clock.later(2, add('rupt"}\ntorn {\n'))
    world.driver(3, 0, then=lambda: None)
    world.follow()
    assert world.screen.said == ["warning: step 6 is corrupt"]


def test_notes_of_the_timeline_are_said_as_such(world: World) -> None:
    timeline = world.run.path / "attempts.jsonl"
    world.driver(3, 0)
    world.clock.later(1, lambda: timeline.write_text('{"event": "note", "message": "samples: 64 -> 16"}\n'))
    world.follow()
    assert [line for line in world.screen.said if "samples" in line] == ["note: samples: 64 -> 16"]


def test_a_timeline_that_becomes_shorter_loses_no_warning_and_repeats_none(world: World) -> None:
    timeline = world.run.path / "attempts.jsonl"
    first, second = '{"event": "warning", "message": "first"}\n', '{"event": "rolled back", "message": "second"}\n'
    evaluated = '{"event": "evaluated", "step": 15}\n' * 20
    world.driver(9, 0)
    world.clock.later(1, lambda: timeline.write_text(first + evaluated))
    world.clock.later(3, lambda: progress.replace(timeline, first))
    world.clock.later(5, lambda: timeline.write_text(first + second))
    world.follow()
    assert [line for line in world.screen.said if line.startswith("warning")] == ["warning: first", "warning: second"]
