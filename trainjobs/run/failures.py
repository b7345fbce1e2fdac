"""How a run fails: the workers' accounts, which of them names the culprit, and what is tried again.

Who retries what. A worker that dies is replaced by Ray Train, which starts the whole group again; the group goes on from the last
commit, for free, as long as steps are gained in between. An exception of the training code counts against `recovery.maxRetries`. What
a user must mend (a JobError) ends the run at once.

Every worker leaves its account in <run>/failures. The others then fail too, because the culprit is gone from their collectives:
those accounts are marked as victims'. Where workers do not share the driver's folder, the accounts reach it through relay.py.
"""

from __future__ import annotations

import contextlib
import errno
import json
import re
import shutil
import sys
import time
import traceback
from pathlib import Path
from typing import Any, Protocol

from trainjobs.api.errors import JobError
from trainjobs.run import preemption, progress

# Restarts of the group in a row, without a step gained, after which the machine is blamed.
FRUITLESS_RESTARTS = 10
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


def orphaned(run: Path, driver: float) -> bool:
    """True for a worker whose driver was killed and followed by another: its account is nobody's any more."""
    return bool(progress.read(run / "failures" / "driver").get("since") != driver)


class Stalled(Exception):
    """A worker finished no step in time, as `failure` says. `waiting`: for another worker, in a collective."""

    def __init__(self, failure: JobError, waiting: bool) -> None:
        super().__init__(failure.line())
        self.failure, self.waiting = failure, waiting


class Ledger(Protocol):
    """Where workers hear whether to train, and leave word of their end."""

    def verdict(self, retries: int) -> JobError | None:
        """As `verdict` below. Rank 0 of a new group asks, once."""

    def record(self, rank: int, error: Exception) -> None:
        """Keep a worker's account. When it returns, `explained` takes it into account, whoever asks."""

    def explained(self) -> bool:
        """Whether some worker has said what somebody must mend: the others need not speak."""


class Folder:
    """The ledger of workers that share the run folder with their driver, which started at `driver`, seconds since the epoch."""

    def __init__(self, run: Path, driver: float) -> None:
        self._run, self._driver = run, driver

    def verdict(self, retries: int) -> JobError | None:
        return verdict(self._run, retries)

    def record(self, rank: int, error: Exception) -> None:
        if not orphaned(self._run, self._driver):
            record(self._run, rank, error)

    def explained(self) -> bool:
        return not orphaned(self._run, self._driver) and explained(self._run)


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
    """Keep an account. Their order is that of arrival: clocks of several machines do not say who was first."""
    with contextlib.suppress(OSError):
        progress.replace(run / "failures" / f"{time.time_ns()}-{account['rank']}.json", json.dumps(account))


def logs(run: Path) -> str:
    """Where to read what the workers said: on a cluster their output is part of the job's."""
    return str(run / "logs") if any(run.glob("logs/*.log")) else "the job's log"


def refused(error: Exception, run: Path) -> JobError | None:
    """A disk that takes no more, as what a user can mend; None for every other exception."""
    if not isinstance(error, OSError) or error.errno not in DISK:
        return None
    where, why = str(error.filename or run), error.strerror or str(error)
    how = "free disk space there, and run again: the last checkpoint is intact"
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
        how=f"the traceback is in {log}; the last checkpoint is kept",
    )


# What Ray's memory monitor says of a worker that it ended, after the rank whose error it is.
STARVED = re.compile(
    r"\[Rank (?P<rank>\d+) Error Snippet\](?:(?!\[Rank ).)*?killed due to the node running low on memory"
    r".*?was (?P<used>[\d.]+)GB used / (?P<limit>[\d.]+)GB limit",
    re.DOTALL,
)


def starved(said: str) -> tuple[int, JobError] | None:
    """The rank that a pod's, or the machine's, memory was too small for, and what to do; from what Ray says of a group that failed."""
    if not (found := STARVED.search(said)):
        return None
    used, limit = float(found["used"]), float(found["limit"])
    why = f"{used:.2f} of the {limit:.2f} GB that it may use were taken when Ray ended it"
    how = (
        f"give each worker more, {2 * limit:.1f} GB for a start (node.memory of the ComputeProfile); or lower training.batch.micro, "
        "or split the states over more workers (deepspeed.stage)"
    )
    return int(found["rank"]), JobError("GTJ0205", "a worker ran out of host memory", why=why, how=how)


def accounts(run: Path) -> list[dict[str, Any]]:
    """The accounts of this attempt, the earliest first."""
    return [account for path in sorted((run / "failures").glob("*.json")) if (account := progress.read(path))]


def culprit(run: Path) -> dict[str, Any] | None:
    """The account that explains the others: one that somebody must mend, else the first that is not a victim's, else the first."""
    found = accounts(run)
    known = [account for account in found if account["known"]]
    acting = [account for account in found if not account["victim"]]
    return next(iter([*known, *acting, *found]), None)


def explained(run: Path) -> bool:
    """Whether there is an account of what somebody must mend."""
    return any(account["known"] for account in accounts(run))


def final(run: Path, retries: int) -> bool:
    """Whether the accounts that a group of workers left are the end: another group would only be sent home by `verdict`."""
    cause = culprit(run)
    if cause is None or (cause["victim"] and not cause["known"]):
        return False
    failed = progress.read(run / "failures" / "counts").get("failed", 0)
    return bool(cause["known"]) or failed >= retries


def verdict(run: Path, retries: int) -> JobError | None:
    """Whenever a group of workers starts, on rank 0: why this one should not train, or None.

    The first call of a driver only begins to count; a later one means that the group before it failed.
    """
    counts = progress.read(run / "failures" / "counts")
    step = progress.read(run / "progress.json").get("step", 0)
    if not counts:
        progress.replace(run / "failures" / "counts", json.dumps({"failed": 0, "fruitless": 0, "step": step, "restarts": 0}))
        return None
    cause = culprit(run)
    if cause is not None and cause["known"]:
        return JobError.from_dict(cause)
    lost = cause is None or bool(cause["victim"])
    failed = counts["failed"] + (0 if lost else 1)
    fruitless = counts["fruitless"] + 1 if step <= counts["step"] else 1
    if cause is not None and failed > retries:
        return JobError.from_dict(cause)
    if fruitless > FRUITLESS_RESTARTS:
        why = "no step was gained in between, so it is not chance: memory is the usual cause"
        given_up = JobError(
            "GTJ0213", f"workers were lost {fruitless} times in a row", where=f"step {step}", why=why, how=f"read {logs(run)}"
        )
        record(run, 0, given_up)
        return given_up
    if any(account.get("replaced") for account in accounts(run)):
        # The group itself has said so, in the timeline as well.
        progress.update(run, phase="Recovering", restarts=counts["restarts"] + 1)
    else:
        message = "a worker was lost" if cause is None or lost else str(cause["what"])
        progress.mark(run, "worker-lost", step=step, message=message)
        progress.update(run, phase="Recovering", message=f"{message}: back to the last checkpoint", restarts=counts["restarts"] + 1)
    for path in (run / "failures").glob("*.json"):
        path.unlink()
    # The furthest step, not the last: a group that falls back to its commit and dies a little earlier, then a little later, gains nothing.
    counts = {"failed": failed, "fruitless": fruitless, "step": max(step, counts["step"]), "restarts": counts["restarts"] + 1}
    progress.replace(run / "failures" / "counts", json.dumps(counts))
    return None


def publish(run: Path, error: JobError, details: dict[str, Any]) -> None:
    """Leave the run's failure where `gtj` and the operator look for it."""
    step = progress.read(run / "progress.json").get("step")
    with contextlib.suppress(OSError):  # a full disk is one of the failures
        progress.replace(run / "failure.json", json.dumps({**error.to_dict(), "time": time.time(), "step": step, **details}))
        progress.mark(run, "failed", step=step, message=error.line())
        progress.update(run, phase="Failed", message=error.line())
    with contextlib.suppress(OSError):
        print(error.line(), file=sys.stderr, flush=True)
