"""How a run fails: the workers' accounts, and which of them names the culprit. What is tried again, workers/retries.py decides.

Every worker leaves its account in <run>/failures. The others then fail too, because the culprit is gone from their collectives:
those accounts are marked as victims'. Where workers do not share the driver's folder, the accounts reach it through relay.py.
"""

from __future__ import annotations

import contextlib
import errno
import json
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.run import preemption, progress

# Disk full, quota used up, limit on the size of files reached, mounted read-only.
DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)
# What gloo, NCCL and TCPStore say when another worker is gone.
SIGNS_OF_A_VICTIM = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Connection refused",
    "Broken pipe",
    "connection was closed",
    "remote process has terminated",
    "ncclRemoteError",
    "DistNetworkError",
)


def begin(run: Path, driver: float) -> None:
    """A driver begins, named by when it started: what former ones left here is cleared."""
    shutil.rmtree(run / "failures", ignore_errors=True)
    (run / "failures").mkdir()
    progress.replace(run / "failures" / "driver", json.dumps({"since": driver}))


def driver_of(run: Path) -> object:
    """When the last driver that has begun here started; None before the first. From then on it writes down why it ends."""
    return progress.read(run / "failures" / "driver").get("since")


def orphaned(run: Path, driver: float) -> bool:
    """True for a worker whose driver was killed and followed by another: its account is nobody's any more."""
    return driver_of(run) != driver


class Stalled(Exception):
    """A worker finished no step in time, as `failure` says. `waiting`: for another worker, in a collective."""

    def __init__(self, failure: JobError, waiting: bool) -> None:
        super().__init__(failure.line())
        self.failure, self.waiting = failure, waiting


def record(run: Path, rank: int, error: Exception) -> None:
    """Write the account of a worker's end."""
    enter(run, account(rank, error, logs(run)))


def account(rank: int, error: Exception, log: str) -> dict[str, Any]:
    """A worker's end in words; its traceback goes to stderr. `known`: somebody must mend it. `victim`: it only lost sight of another."""
    with contextlib.suppress(OSError):  # the log may be on the full disk that it tells of
        traceback.print_exception(error)
    known = isinstance(error, JobError)
    if isinstance(error, Stalled):
        failure, victim = error.failure, error.waiting
    elif isinstance(error, preemption.Replaced):
        failure, victim = JobError("GTJ0213", "the group of workers was replaced", why=str(error)), True
    else:
        failure = error if isinstance(error, JobError) else unexpected(error, log)
        victim = any(sign in f"{type(error).__name__} {error}" for sign in SIGNS_OF_A_VICTIM)
    return {
        **failure.to_dict(),
        "rank": rank,
        "known": known,
        "victim": victim,
        "replaced": isinstance(error, preemption.Replaced),
        # Where in our code an error was raised that is told in words is nobody's business; stderr has it.
        "logTail": "".join(traceback.format_exception_only(error) if known else traceback.format_exception(error))[-4000:],
    }


def enter(run: Path, account: dict[str, Any]) -> None:
    """Keep an account. Their order is that of arrival: clocks of several machines do not say who was first.

    What there is to go on from is added here: the driver's side knows, a worker on another machine does not.
    """
    if not account["known"] or account["code"] == "GTJ0211":
        account = {**account, "how": "; ".join(filter(None, (account.get("how"), kept(run))))}
    with contextlib.suppress(OSError):
        progress.replace(run / "failures" / f"{time.time_ns()}-{account['rank']}.json", json.dumps(account))


def logs(run: Path) -> str:
    """Where to read what the workers said: on a cluster their output is part of the job's."""
    return str(run / "logs") if any(run.glob("logs/*.log")) else "the job's log"


def kept(run: Path) -> str:
    """What a run that fails leaves to go on from, in words."""
    checkpoint = progress.read(run / "progress.json").get("checkpoint")
    step = checkpoint.get("step") if isinstance(checkpoint, dict) else None
    return "no checkpoint was saved before" if step is None else f"the last checkpoint, of step {step}, is kept"


def refused(error: Exception, run: Path) -> JobError | None:
    """A disk that takes no more, as what a user can mend; None for every other exception."""
    if not isinstance(error, OSError) or error.errno not in DISK:
        return None
    where, why = str(error.filename or run), error.strerror or str(error)
    how = "free disk space there, and run again"
    return JobError("GTJ0211", "the run folder cannot be written", where=where, why=why, how=how)


def unexpected(error: BaseException, log: str) -> JobError:
    """An exception that is not a JobError, as one. `log` says where its traceback is."""
    text = str(error).strip().splitlines()[0] if str(error).strip() else ""
    if "out of memory" in text:
        return JobError("GTJ0206", text, how="lower training.batch.micro, or raise deepspeed.stage")
    return JobError(
        "GTJ0214",
        f"{type(error).__name__}: {text}" if text else type(error).__name__,
        why="the training code raised it",
        how=f"the traceback is in {log}",
    )


def accounts(run: Path) -> list[dict[str, Any]]:
    """The accounts of this attempt, the earliest first."""
    return [account for path in sorted((run / "failures").glob("*.json")) if (account := progress.read(path))]


def forget(run: Path) -> None:
    """Another group begins: what the one before said is not for it."""
    for path in (run / "failures").glob("*.json"):
        path.unlink(missing_ok=True)


def culprit(run: Path) -> dict[str, Any] | None:
    """The account that explains the others: one that somebody must mend, else the first that is not a victim's, else the first."""
    found = accounts(run)
    known = [account for account in found if account["known"]]
    acting = [account for account in found if not account["victim"]]
    return next(iter([*known, *acting, *found]), None)


def explained(run: Path) -> bool:
    """Whether there is an account of what somebody must mend."""
    return any(account["known"] for account in accounts(run))


def publish(run: Path, error: JobError, details: dict[str, Any]) -> None:
    """Leave the run's failure where `gtj` and the operator look for it."""
    step = progress.read(run / "progress.json").get("step")
    with contextlib.suppress(OSError):  # a full disk is one of the failures
        progress.replace(run / "failure.json", json.dumps({**error.to_dict(), "time": time.time(), "step": step, **details}))
        progress.mark(run, "failed", message=error.line(), **({} if step is None else {"step": step}))
        progress.update(run, phase="Failed", message=error.line())
    with contextlib.suppress(OSError):
        print(error.line(), file=sys.stderr, flush=True)
