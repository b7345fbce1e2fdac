"""Starts the driver of a run, follows it to its end, and starts it again when something outside killed it.

The ladder, from the driver's exit:

    0                    succeeded
    130                  stopped on request, after a checkpoint
    any other status     failed; failure.json says why, else the end of its log does
    killed by a signal   infrastructure (out of memory, a node going down): started again, free of charge, unless a stop was
                         asked for. Ten restarts in a row without a newer checkpoint end it with GTJ0213: a run that dies
                         before each checkpoint repeats itself for ever, however many steps it makes.
    crashed (SIGSEGV..)  the code's own doing: the same, but counted against recovery.maxRetries, then GTJ0214
    left no word         the same: a driver that has begun writes down why it fails, but Ray ends the process of one whose raylet is gone

Ctrl-C asks the driver, through the file `stop`, to save a checkpoint and end; a second Ctrl-C ends it at once, and so does the first where
no step has been made since it started.
Time, the driver and the screen are passed in.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from trainjobs.api.errors import CODES, JobError
from trainjobs.api.recovery import Recovery
from trainjobs.cli.news import Found, Warnings
from trainjobs.cli.screen import Screen
from trainjobs.run.failures import driver_of, kept
from trainjobs.run.folder import LIVE, Run
from trainjobs.run.progress import mark, replace

POLL = 0.2
MAX_FRUITLESS = 10
MAX_BACKOFF = 60.0
# The signals of a process that has itself to blame.
CRASHES = (signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGSEGV)
FULL = 64 * 2**10  # bytes left on a disk: no room for a failure.json and a few lines of log


class Driver(Protocol):
    def poll(self) -> int | None:
        """None while it runs, else its exit status: negative for the signal that killed it."""

    def kill(self) -> None:
        """Ends it, and the processes it started."""


class Clock(Protocol):
    def now(self) -> float: ...

    def sleep(self, seconds: float) -> None: ...


class Interrupts(Protocol):
    @property
    def count(self) -> int:
        """How often the user asked to stop."""


@dataclass(frozen=True)
class Outcome:
    """How it ended: Succeeded, Stopped (resumable, after a checkpoint), Interrupted (killed by the user) or Failed."""

    phase: str
    exit_code: int
    error: JobError | None = None
    restarts: int = 0


def follow(run: Run, start: Callable[[], Driver], screen: Screen, clock: Clock, interrupts: Interrupts) -> Outcome:
    """Blocks until the run has ended for good. The folder is prepared; nobody else uses it."""
    restarts = fruitless = crashes = 0
    saved, warnings = checkpoint_step(run), Warnings(run)
    found = Found(run)
    while True:
        before = driver_of(run.path)
        status = watch(run, start(), screen, warnings, found, clock, interrupts)
        if interrupts.count > 1:
            return Outcome("Interrupted", 130, restarts=restarts)
        silent = status > 0 and status != 130 and run.failure() is None and not full(run) and driver_of(run.path) != before
        if (status >= 0 and not silent) or interrupts.count or run.stop_file.exists():
            return outcome(run, status, restarts, clock.now())
        newer = checkpoint_step(run)
        fruitless = 0 if newer > saved else fruitless + 1
        saved = max(saved, newer)
        end = f"status {status}" if silent else signal_name(-status)
        cause = f"the trainer ended with {end} and left no explanation" if silent else f"the trainer was killed by {end}"
        record(run, cause, clock)
        crashed = silent or -status in CRASHES
        crashes += crashed
        if crashed and crashes > retries(run):
            if silent:
                return outcome(run, status, restarts, clock.now())
            error = JobError(
                "GTJ0214",
                f"the trainer crashed: {end}",
                why="native code did something wrong: an extension, a library, or a GPU's driver",
                how=f"its last words, if any, are in {run.driver_log}; {kept(run.path)}",
            )
            fail(run, error, clock.now())
            return Outcome("Failed", error.exit_code, error, restarts)
        if fruitless > MAX_FRUITLESS:
            lost = JobError(
                "GTJ0213",
                f"the trainer ended {fruitless} times in a row without a newer checkpoint",
                where=end,
                why="SIGKILL usually means that the machine ran out of memory" if status == -signal.SIGKILL else cause,
                how="lower training.batch.micro or compute.workers, or save checkpoints more often (checkpoints.every)",
            )
            fail(run, lost, clock.now())
            return Outcome("Failed", lost.exit_code, lost, restarts)
        restarts += 1
        delay = min(MAX_BACKOFF, 2.0**fruitless)
        point = f"step {saved}" if saved else "the beginning"
        screen.say(f"{cause}; starting it again from {point} in {delay:.0f}s (restart {restarts})")
        if not pause(delay, clock, interrupts):
            return Outcome("Stopped", 130, restarts=restarts)
        continue_from_latest(run)


def watch(run: Run, driver: Driver, screen: Screen, warnings: Warnings, found: Found, clock: Clock, interrupts: Interrupts) -> int:
    """Shows progress until the driver has ended; hands on the user's wish to stop. Returns the driver's exit status."""
    told = 0
    while (status := driver.poll()) is None:
        if interrupts.count and not run.stop_file.exists():
            # Not only once: a driver that is just starting clears the request of an earlier one.
            run.stop_file.touch()
        if interrupts.count == 1 and told < 2 and run.progress().get("phase") == "Starting":
            # Data is read, workers start: it may take hours, and nobody there looks for a wish to stop.
            told = 2
            screen.say("stopping at once: no step has been made that could be saved")
            driver.kill()
        elif interrupts.count == 1 and told == 0:
            told = 1
            screen.say("stopping: saving a checkpoint (Ctrl-C again to stop at once)")
        elif interrupts.count > 1 and told < 2:
            told = 2
            screen.say("stopping at once")
            driver.kill()
        found.say(screen)
        screen.show(run.progress(), clock.now())
        warnings.say(screen)
        clock.sleep(POLL)
    found.say(screen)
    screen.show(run.progress(), clock.now())
    warnings.say(screen)
    return status


def pause(seconds: float, clock: Clock, interrupts: Interrupts) -> bool:
    """Waits; False as soon as the user asks to stop."""
    end = clock.now() + seconds
    while clock.now() < end:
        if interrupts.count:
            return False
        clock.sleep(POLL)
    return not interrupts.count


def outcome(run: Run, status: int, restarts: int, now: float) -> Outcome:
    """What an exit status means, together with what the driver wrote before it ended."""
    if status == 0:
        return Outcome("Succeeded", 0, restarts=restarts)
    if status == 130 or status < 0:
        return Outcome("Stopped" if status == 130 else "Interrupted", 130, restarts=restarts)
    failure = run.failure()
    if failure is not None and failure["code"] in CODES:
        error = JobError.from_dict({"what": "", **failure})
    elif full(run):
        error = JobError(
            "GTJ0211",
            "the run folder cannot be written",
            where=str(run.path),
            why=f"its disk is full ({shutil.disk_usage(run.path).free} bytes are free), and the trainer could not even say why it ended",
            how=f"free disk space there, and run again: {kept(run.path)}",
        )
        fail(run, error, now)
    else:
        error = JobError(
            "GTJ0214",
            f"the trainer ended with status {status} and left no explanation",
            where=str(run.driver_log),
            why=last_line(run.driver_log),
            how="read the log; if it does not point at your data or your code, please report it",
        )
        fail(run, error, now)
    return Outcome("Failed", error.exit_code, error, restarts)


def full(run: Run) -> bool:
    """Whether its disk has no room for an explanation."""
    return shutil.disk_usage(run.path).free < FULL


def retries(run: Run) -> int:
    """recovery.maxRetries of the job; its default where the job does not say."""
    told = run.spec().get("recovery", {}).get("maxRetries")
    return told if isinstance(told, int) else Recovery().max_retries


def checkpoint_step(run: Run) -> int:
    """The step of the newest committed checkpoint, 0 without one."""
    checkpoint = run.progress().get("checkpoint")
    step = checkpoint.get("step") if isinstance(checkpoint, dict) else None
    return step if isinstance(step, int) else 0


def continue_from_latest(run: Run) -> None:
    """A restart goes on with what this run has saved, whatever checkpoints.resumeFrom said of the beginning."""
    job = run.job()
    checkpoints = job.get("spec", {}).get("checkpoints", {})
    if checkpoint_step(run) and checkpoints.get("resumeFrom", "latest") != "latest":
        checkpoints["resumeFrom"] = "latest"
        replace(run.path / "job.json", json.dumps(job, indent=2) + "\n")


def record(run: Run, message: str, clock: Clock) -> None:
    """The driver could not write this row of the timeline itself."""
    state = run.progress()
    mark(run.path, "worker-lost", clock.now, attempt=state.get("attempt", 0), step=state.get("step", 0), message=message)


def fail(run: Run, error: JobError, now: float) -> None:
    """Leaves the failure where the report and `gtj status` look for it, for a driver that could not."""
    progress = run.progress()
    failure = {**error.to_dict(), "time": now, "step": progress.get("step", 0), "rank": None, "logTail": tail(run.driver_log)}
    with contextlib.suppress(OSError):  # a full disk is one of the failures
        replace(run.path / "failure.json", json.dumps(failure, indent=2) + "\n")
        if progress.get("phase", "Preparing") in LIVE:
            replace(run.path / "progress.json", json.dumps({**progress, "phase": "Failed", "message": error.what, "updatedAt": now}) + "\n")


def tail(path: Path, limit: int = 4000) -> str:
    """The end of a text file; "" when it cannot be read."""
    try:
        with path.open("rb") as file:
            file.seek(0, 2)
            file.seek(max(0, file.tell() - limit))
            return file.read().decode("utf-8", errors="replace")
    except OSError:
        return ""


def last_line(path: Path) -> str:
    return next((line.strip() for line in reversed(tail(path).splitlines()) if line.strip()), "its log is empty")


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
