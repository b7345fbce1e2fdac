"""Who retries what: whether a group of workers that starts shall train, or goes home.

A worker that is lost is replaced by Ray Train, which starts the whole group again; the group goes on from the last commit, for free, as
long as steps are gained in between. An exception of the training code counts against `recovery.maxRetries`, and so does a process that
dies by itself on a machine that stays (ray_train/deaths.py). What a user must mend (a JobError) ends the run at once.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Protocol

from trainjobs.api.errors import JobError
from trainjobs.run import progress
from trainjobs.run.failures import accounts, culprit, explained, forget, logs, orphaned, record
from trainjobs.run.outcome import FILE, Outcome, leave

# Restarts of the group in a row, without a step gained, after which the machine is blamed.
FRUITLESS_RESTARTS = 10


class Ledger(Protocol):
    """Where workers hear whether to train, and leave word of their end."""

    def verdict(self, retries: int) -> JobError | None:
        """As `verdict` below. Rank 0 of a new group asks, once."""

    def record(self, rank: int, error: Exception) -> None:
        """Keep a worker's account. When it returns, `explained` takes it into account, whoever asks."""

    def explained(self) -> bool:
        """Whether some worker has said what somebody must mend: the others need not speak."""

    def ended(self, outcome: Outcome) -> None:
        """Rank 0 says how training ended; the driver's exit status follows from it."""


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

    def ended(self, outcome: Outcome) -> None:
        if not orphaned(self._run, self._driver):
            leave(self._run, outcome)


def final(run: Path, retries: int) -> bool:
    """Whether the accounts that a group of workers left are the end: another group would only be sent home by `verdict`."""
    cause = culprit(run)
    if cause is None or (cause["victim"] and not cause["known"]):
        return False
    failed = progress.read(run / "failures" / "counts").get("failed", 0)
    return bool(cause["known"]) or failed >= retries


def back(run: Path) -> str:
    """Where the next group begins, in words."""
    step = (progress.read(run / "progress.json").get("checkpoint") or {}).get("step")
    return f"back to the checkpoint of step {step}" if step else "back to the beginning, no checkpoint was saved yet"


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
        progress.update(run, phase="Recovering", message=f"{message}: {back(run)}", restarts=counts["restarts"] + 1)
    forget(run)
    (run / "failures" / FILE).unlink(missing_ok=True)
    # The furthest step, not the last: a group that falls back to its commit and dies a little earlier, then a little later, gains nothing.
    counts = {"failed": failed, "fruitless": fruitless, "step": max(step, counts["step"]), "restarts": counts["restarts"] + 1}
    progress.replace(run / "failures" / "counts", json.dumps(counts))
    return None
