"""A process of a run: how it holds the run folder, hears signals, joins its group and ends."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from trainjobs.run import outcome, preemption, progress
from trainjobs.workers import fabric, retries

COLLECTIVE_TIMEOUT = timedelta(minutes=30)
STOPPED = 130  # the driver's exit status when it was asked to end


def connected(settings: dict[str, Any], rank: int, size: int, local_rank: int, ledger: retries.Ledger | None = None) -> None:
    """Join the group, and work."""
    import torch
    import torch.distributed as dist

    from trainjobs.workers.worker import Settings, work
    from trainjobs.world import backend

    fabric.adopt(os.environ, partial(print, flush=True))
    dist.init_process_group(backend(settings["gpus"] and torch.cuda.is_available()), rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
    work(Settings(**settings), rank, size, local_rank, ledger)


def threads(processes: int) -> str:
    """Of each process. All threads for all would only get in each other's way: 69 to 123 s against 19 to 42 s for the same steps."""
    return str(max(1, len(os.sched_getaffinity(0)) // processes))


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the run folder: one driver at a time. The kernel lets go when the process ends, however it ends."""
    with path.open("w") as file:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 2.0)  # readers probe the lock for a moment, and a killed driver may be a moment in dying
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except KeyboardInterrupt:
            raise SystemExit(f"{path.parent} is in use by another driver") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send SIGTERM, or another signal, to this process when the one that started it dies: nothing trains on unseen."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(1, number)
        if os.getppid() != parent:  # it has died this very moment
            os.kill(os.getpid(), number)


def stoppable(run: Path) -> None:
    """From now on SIGTERM, and Ctrl-C where the driver was started by hand, end the run after a checkpoint, without a traceback."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: terminated(run))


def terminated(run: Path) -> None:
    """The machine is taken back, or somebody wants it. A pod knows how long it has."""
    if progress.read(run / "progress.json").get("phase") == "Starting":  # data is read, perhaps for hours, and nobody looks for notices
        outcome.leave(run, outcome.Outcome("stopped", "before the first step"))
        progress.update(run, phase="Stopped", message="stopped before the first step")
        raise SystemExit(STOPPED)
    grace = os.environ.get(preemption.GRACE)
    preemption.give(run, preemption.Notice("stopped", "SIGTERM" if grace else "", time.time() + float(grace) if grace else None))


def leave(status: int) -> None:
    """End this process, at once when it has trained itself.

    gloo's threads outlive their group as long as DeepSpeed knows it, and one that wants the interpreter while that is being taken down
    aborts the process ("terminate called without an active exception"), one time in twenty. Ray's workers are ended by Ray.
    """
    if "ray" not in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)
