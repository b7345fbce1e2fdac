"""Ends a worker that makes no steps, so that its group can start again, and leaves word of where it stood.

Every worker watches itself. In a collective all but one wait for the one that is missing; which is which is seen by where their threads
are, so those that wait leave the first word to the one that does not.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType, TracebackType

from trainjobs.api.errors import JobError
from trainjobs.run.failures import Stalled
from trainjobs.workers.retries import Ledger

STARTUP = 600.0  # seconds more than the timeout until the first step: models are built, kernels compiled, connections made
POLLS = 20  # looks at the clock per timeout
COURTESY = 5.0  # seconds that a waiting worker leaves to the one it waits for
WAITING = ("torch/distributed/", "deepspeed/comm/")


class Watchdog:
    """While the block runs, `heartbeat` must be heard every `timeout` seconds; else the process ends, with status 1."""

    def __init__(
        self,
        ledger: Ledger,
        rank: int,
        timeout: float,
        stacks: Path,
        *,
        now: Callable[[], float] = time.monotonic,
        end: Callable[[int], None] = os._exit,
    ) -> None:
        """`stacks` is the file that takes the stacks of all threads."""
        self._ledger, self._rank, self._timeout, self._stacks, self._now, self._end = ledger, rank, timeout, stacks, now, end
        self._step: int | None = None
        self._last = now() + STARTUP
        self._worker = threading.get_ident()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="watchdog", daemon=True)

    def heartbeat(self, step: int) -> None:
        """A step was finished, or what is done beside steps goes on after it."""
        self._step, self._last = step, self._now()

    def __enter__(self) -> Watchdog:
        self._stacks.parent.mkdir(exist_ok=True)
        self._file = self._stacks.open("w")
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        faulthandler.cancel_dump_traceback_later()
        self._file.close()
        self._stacks.unlink(missing_ok=True)

    def _run(self) -> None:
        pause = self._timeout / POLLS
        while not self._over.wait(pause):
            # The interpreter's own watch needs no interpreter: it ends a process whose threads cannot run at all.
            faulthandler.dump_traceback_later(self._timeout + STARTUP, file=self._file, exit=True)
            if self.look():
                return

    def look(self) -> bool:
        """Whether the time is over; then everything is said and done."""
        silent = self._now() - self._last
        if silent < self._timeout:
            return False
        faulthandler.dump_traceback(self._file, all_threads=True)
        self._file.flush()
        stalled = describe(sys._current_frames(), self._worker, self._step, silent + (STARTUP if self._step is None else 0.0), self._stacks)
        if stalled.waiting:
            self._over.wait(COURTESY)
        self._ledger.record(self._rank, stalled)
        self._end(1)
        return True


def describe(frames: Mapping[int, FrameType], worker: int, step: int | None, silent: float, stacks: Path) -> Stalled:
    """What a worker says of itself, from where its training thread is."""
    frame: FrameType | None = frames.get(worker)
    innermost, waiting = "", False
    while frame is not None:
        path = frame.f_code.co_filename.replace(os.sep, "/")
        innermost = innermost or f"{path}:{frame.f_lineno} in {frame.f_code.co_name}"
        waiting = waiting or any(part in path for part in WAITING)
        frame = frame.f_back
    place = "it waits for another worker in a collective" if waiting else f"it is at {innermost}"
    what = f"no step for {silent:.0f} s"
    where = "before the first step" if step is None else f"after step {step}"
    how = f"the stacks of all its threads are in {stacks}; if steps are honestly that slow, raise recovery.stallTimeout"
    return Stalled(JobError("GTJ0210", what, where=where, why=place, how=how), waiting)
