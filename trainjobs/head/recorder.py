"""The process that keeps a run's record in its checkpoint store: `python -m trainjobs.head.recorder RUN`. Off the training's path: it reads
the run folder, at a low priority, and whatever becomes of it, the training goes on.

It ends with the process that started it, or on SIGTERM after a last look. Trouble is said once: in its output, which is the head's log,
and as a warning in the run's timeline, which `gtj run`, `gtj status` and the report show.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.run.folder import Run
from trainjobs.run.progress import mark, read, replace
from trainjobs.run.record import FOLDER, Record, shown
from trainjobs.stores.open import open_store
from trainjobs.stores.store import BlobStore, StoreError

EVERY = 30.0  # seconds between looks
NICE = 10
MINE = "recording.json"  # in the run folder: where its record is
UNKEPT = "the record of the run cannot be kept in the checkpoint store; the training goes on"
_PR_SET_PDEATHSIG = 1


class Recorder:
    """Looks at a run folder, and says what goes wrong once for each kind of trouble."""

    def __init__(self, run: Path, record: Record, write: Callable[[Path], object], say: Callable[[str], None]) -> None:
        self._run, self._record, self._write, self._say = run, record, write, say
        self._told, self._shown = "", list[Any]()

    def look(self, *, last: bool = False) -> bool:
        """Send what is new; before that the report is written anew when there is something new to see, and at the end. Whether all went
        well."""
        try:
            now = shown(self._run)
            if (self._run / "progress.json").is_file() and (last or now != self._shown):
                self._shown = now
                self._write(self._run)
        except Exception as error:  # a report that cannot be drawn costs nobody anything else
            self._once(f"the report cannot be written: {type(error).__name__}: {error}")
        try:
            self._record.look()
        except (JobError, StoreError, OSError) as error:
            self._once(f"{UNKEPT}: {error}")
            return False
        if self._record.full:
            self._once("the record of the run has reached its limit of 1 GiB: logs and curves from here on are in the pod alone")
        return True

    def _once(self, words: str) -> None:
        if words != self._told:
            self._told = words
            self._say(words)


def told(run: Path, words: str) -> None:
    print(words, flush=True)
    with suppress(OSError):  # a full disk may be the trouble
        mark(run, "warning", message=words)


def attempt(run: Path, store: BlobStore, environment: Mapping[str, str]) -> str:
    """The folder of the record: a cluster's attempt; else that of this run folder, which goes on in it, or the next one that is free."""
    number = environment.get("GENTRAIN_ATTEMPT", "")
    if number.isdigit():
        return f"a{number}"
    known = read(run / MINE).get("folder")
    if not isinstance(known, str):
        taken = [int(name[1:]) for folder in store.folders(FOLDER) if (name := folder.rpartition("/")[2])[1:].isdigit()]
        known = f"a{max(taken, default=0) + 1}"
        replace(run / MINE, json.dumps({"folder": known}))
    return known


def main() -> int:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    os.nice(NICE)
    over = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: over.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))  # recording.py
    run = Path(sys.argv[1])

    def written(folder: Path) -> object:
        from trainjobs.report.page import write_report  # what it needs may be missing

        return write_report(folder)

    try:
        store = open_store(Run(run).checkpoints_uri())
        record = Record(run, store, attempt(run, store, os.environ))
    except (JobError, StoreError, OSError) as error:
        told(run, f"{UNKEPT}: {error}")
        return 1
    recorder = Recorder(run, record, written, partial(told, run))
    while not over.wait(EVERY):
        recorder.look()
    return 0 if recorder.look(last=True) else 1


if __name__ == "__main__":
    sys.exit(main())
