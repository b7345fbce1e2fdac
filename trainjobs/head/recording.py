"""The run's record is kept while the block runs: by a process of its own (recorder.py), that nobody waits for but at the end."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from trainjobs.api.job import Job

LAST_LOOK = 20.0  # seconds for the end of the record
WAITING = {signal.SIGTERM, signal.SIGINT}
LOG = "record.log"  # in the run folder, where the output is not shared with anybody


@contextmanager
def recorded(job: Job, run: Path, say: Callable[[str], None], *, apart: bool = False) -> Iterator[None]:
    """Keep the record in the checkpoint store, of a job that names one. `say` takes what went wrong with its end. `apart`: what the process
    says goes to a file of the run folder, of which `say` gets the last line if that is of its end, for what came before is among the run's
    warnings; and a Ctrl-C in the terminal is not for it."""
    if job.spec.checkpoints.uri is None:
        yield
        return
    log = (run / "logs" / LOG) if apart else None
    if log is not None:
        log.parent.mkdir(exist_ok=True)
    with log.open("wb") if log is not None else nullcontext() as output:
        # A run may be over before that process listens: what asks it to end waits until it does.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, WAITING)
        try:
            recorder = subprocess.Popen(
                [sys.executable, "-m", "trainjobs.head.recorder", str(run)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT if apart else None,
                start_new_session=apart,
            )
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)
    try:
        yield
    finally:
        before_end = said(log)
        recorder.terminate()
        try:
            code = recorder.wait(LAST_LOOK)
        except subprocess.TimeoutExpired:
            recorder.kill()
            code = recorder.wait()
            say("the end of the run's record did not reach the checkpoint store in time")
        lines = said(log)
        if log is not None and code > 0 and (not lines or len(lines) > len(before_end)):
            say(lines[-1] if lines else f"the run's record is not kept in the checkpoint store: its process ended with status {code}")


def said(log: Path | None) -> list[str]:
    return log.read_text(errors="replace").strip().splitlines() if log is not None else []
