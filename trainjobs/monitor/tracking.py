"""A tracker beside the training: a thread of its own takes rows from a bounded queue, so that one that hangs, or is gone, costs no step.

Rows that find no room are dropped and counted, and so are those that the tracker does not take; that is told once when it begins, and
with the number at the end.
"""

from __future__ import annotations

import queue
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.monitor.trackers import Tracked, Tracker, tracker
from trainjobs.run import progress

FILE = "tracking.json"  # in the run folder: as which run the tracker knows it
ROWS = 1000  # that wait, about eight minutes of them
PATIENCE = 20.0  # seconds for the rows that wait, once the training is over
LONGEST = 300  # characters of what a tracker says that are told
RETRY = (5.0, 300.0)  # seconds until a tracker that did not start is asked again: doubled from the first to the second
ASIDE = {"pod"}  # parts of the spec that a tracker is not told: an environment may hold what is nobody's business


Tell = Callable[[JobError], None]


class Untracked:
    """A run that names no tracker."""

    def log(self, step: int, row: Mapping[str, float]) -> None:
        pass

    def finish(self, succeeded: bool) -> None:
        pass


class Tracking:
    """Of one run, on rank 0. No method but `finish` ever waits, and that for `patience` seconds at most. `tell` is called in the thread of
    whoever logs."""

    def __init__(
        self,
        made: Tracker,
        run: Tracked,
        tell: Tell,
        *,
        limit: int = ROWS,
        patience: float = PATIENCE,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tracker, self._tracked, self._say, self._patience, self._now = made, run, tell, patience, now
        self._rows: queue.Queue[tuple[int, Mapping[str, float], float]] = queue.Queue(maxsize=limit)
        self._news: queue.Queue[str] = queue.Queue(maxsize=16)
        self._lock = threading.Lock()
        self._ending, self._wake, self._succeeded = threading.Event(), threading.Event(), True
        self._written = self._lost = 0
        self._told = set[str]()
        self._thread = threading.Thread(target=self._run, name="tracking", daemon=True)
        self._thread.start()

    def log(self, step: int, row: Mapping[str, float]) -> None:
        with self._lock:
            self._written += 1
        try:
            self._rows.put_nowait((step, dict(row), self._now()))
        except queue.Full:
            self._dropped("it does not keep up: rows find no room any more")
        self._told_so_far()

    def finish(self, succeeded: bool) -> None:
        """Hand over what waits, and tell how much did not reach the tracker."""
        self._succeeded = succeeded
        self._ending.set()
        self._wake.set()
        self._thread.join(self._patience)
        with self._lock:
            late = self._rows.qsize() if self._thread.is_alive() else 0
            lost, written = self._lost + late, self._written
        self._told_so_far()
        if lost:
            self._say(_error(f"{lost} of {written} rows did not reach it"))
        elif self._thread.is_alive():
            self._say(_error(f"it did not end within {self._patience:g} seconds, so its last rows may be missing"))

    def _told_so_far(self) -> None:
        while True:
            try:
                self._say(_error(self._news.get_nowait()))
            except queue.Empty:
                return

    def _run(self) -> None:
        if not self._started():
            return
        while True:
            try:
                row = self._rows.get(timeout=0.1)
            except queue.Empty:
                if self._ending.is_set():
                    break
                continue
            try:
                self._tracker.log(row[0], row[1], row[2])
            except BaseException as error:  # of theirs, which may even want to end the process
                self._dropped(_said(error))
        try:
            self._tracker.finish(self._succeeded)
        except BaseException as error:
            self._tell(_said(error))

    def _started(self) -> bool:
        pause = RETRY[0]
        while True:
            try:
                self._tracker.start(self._tracked)
                return True
            except BaseException as error:
                self._tell(f"it does not start: {_said(error)}")
            if self._wake.wait(pause):
                with self._lock:
                    self._lost += self._rows.qsize()
                return False
            pause = min(RETRY[1], 2 * pause)

    def _dropped(self, why: str) -> None:
        with self._lock:
            self._lost += 1
        self._tell(why)

    def _tell(self, why: str) -> None:
        with self._lock:
            fresh = why not in self._told and len(self._told) < 16
            self._told |= {why} if fresh else set()
        if fresh:
            self._news.put_nowait(why)


def _said(error: BaseException) -> str:
    """An answer of theirs as a line that a terminal can show: of whatever length it is, and whatever is in it."""
    try:
        words = str(error)[: 10 * LONGEST]
    except Exception:
        words = "(no words)"
    return " ".join("".join(one if one.isprintable() else " " for one in f"{type(error).__name__}: {words}").split())[:LONGEST]


def _error(why: str) -> JobError:
    how = "the curves are whole in metrics.jsonl, report.html and events/; see that the tracker's address and key are right"
    return JobError("GTJ0222", "the tracker does not have all of the run, which goes on", where="spec.training.tracking", why=why, how=how)


def begin(job: Job, run: Path, tell: Tell) -> Tracking | Untracked:
    """JobError GTJ0134 where the job names a tracker that is not installed."""
    wanted = job.spec.training.tracking
    if wanted is None:
        return Untracked()
    made = tracker(wanted.tracker)
    config = job.spec.model_dump(mode="json", by_alias=True, exclude_none=True, exclude=ASIDE)
    return Tracking(made, Tracked(wanted.project, job.metadata.name, identity(job, run), config, run), tell)


def identity(job: Job, run: Path) -> str:
    """As which run the tracker knows it: on a cluster the job's uid, whatever pod goes on with it; else the run folder's own."""
    if job.metadata.uid:
        return job.metadata.uid
    known = progress.read(run / FILE).get("run")
    if isinstance(known, str) and known:
        return known
    made = uuid.uuid4().hex
    progress.replace(run / FILE, f'{{"run": "{made}"}}')
    return made
