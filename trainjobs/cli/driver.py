"""The trainer as a process: `python -m trainjobs.workers.launch RUN`, in a session of its own, its output in logs/driver.log.

A session of its own keeps the terminal's Ctrl-C from reaching it, and Ray's processes, before this side has asked for a checkpoint.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from trainjobs.run.folder import Run

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def command(run: Path, ray: bool) -> list[str]:
    return [sys.executable, "-m", "trainjobs.workers.launch", str(run), *([] if ray else ["--no-ray"])]


class Process:
    """A started driver."""

    def __init__(self, run: Run, arguments: Sequence[str]) -> None:
        run.driver_log.parent.mkdir(exist_ok=True)
        with run.driver_log.open("ab") as log:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={**os.environ, "PYTHONUNBUFFERED": "1"},
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def kill(self) -> None:
        """Ends the driver and everything it started. Ray's workers have sessions of their own, and would train on for some seconds."""
        started = descendants(self._process.pid)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def descendants(pid: int) -> list[int]:
    """The processes that a process has started, and those that they have."""
    children: dict[int, list[int]] = {}
    for child, parent in parents():
        children.setdefault(parent, []).append(child)
    found, seen = list(children.get(pid, [])), 0
    while seen < len(found):
        found += children.get(found[seen], [])
        seen += 1
    return found


def parents() -> Iterator[tuple[int, int]]:
    """(process, its parent), of every process here."""
    if not Path("/proc/self/stat").exists():
        listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], stdout=subprocess.PIPE, text=True, check=True)
        yield from ((int(pid), int(parent)) for pid, parent in map(str.split, listed.stdout.splitlines()))
        return
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # gone meanwhile
            yield int(path.parent.name), int(path.read_text().rpartition(")")[2].split()[1])  # behind "(name)", which may hold anything


class Signals:
    """Counts the requests to stop while the block runs: Ctrl-C, a polite kill, the terminal being closed."""

    def __init__(self) -> None:
        self.count = 0

    def __enter__(self) -> Signals:
        # What is ignored already stays so: nohup means that closing the terminal is not a wish to stop.
        wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        self._former = {number: signal.signal(number, self._asked) for number in wanted}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        # A terminal that closes sends SIGHUP and sometimes more; that is one request, never the second one that kills.
        self.count = max(self.count, 1) if number == signal.SIGHUP else self.count + 1


class Wall:
    """The real clock."""

    def now(self) -> float:
        return time.time()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)
