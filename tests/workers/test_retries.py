"""What is tried again after a failure, and when a run ends, as tables."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainjobs.api.errors import JobError
from trainjobs.run import failures, progress
from trainjobs.workers import retries

APP = RuntimeError("size mismatch")
VICTIM = RuntimeError("[../third_party/gloo/pair.cc:534] Connection closed by peer [10.0.0.2]:2101")
KNOWN = JobError("GTJ0207", "loss not finite", where="step 7", how="lower the rate")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "failures").mkdir()
    return tmp_path


def at(run: Path, step: int) -> None:
    progress.update(run, step=step)


def codes(run: Path, allowed: int, *attempts: tuple[int, Exception | None]) -> list[str | None]:
    """The verdict before the first attempt and after each of `attempts`: (the step it reached, what it said at its end)."""
    found = [retries.verdict(run, allowed)]
    for step, error in attempts:
        at(run, step)
        if error is not None:
            failures.record(run, 0, error)
        found.append(retries.verdict(run, allowed))
    return [error.code if error else None for error in found]


LOST = None
FRUITLESS = retries.FRUITLESS_RESTARTS


@pytest.mark.parametrize(
    ("allowed", "attempts", "expected"),
    [
        # A worker that dies leaves no account, or only its victims': free, as long as steps are gained.
        (0, [(step, LOST) for step in range(1, 31)], [None] * 31),
        (0, [(step, VICTIM) for step in range(1, 31)], [None] * 31),
        # At one and the same step it is free ten times.
        (0, [(5, LOST)] * FRUITLESS, [None] * (FRUITLESS + 1)),
        (0, [(5, LOST)] * (FRUITLESS + 1), [None] * (FRUITLESS + 1) + ["GTJ0213"]),
        (0, [(0, LOST)] * (FRUITLESS + 1), [None] * (FRUITLESS + 1) + ["GTJ0213"]),
        # Falling back to the commit and coming as far again is no gain.
        (0, [(5, LOST), *[(4, LOST), (5, LOST)] * (FRUITLESS // 2)], [None] * (FRUITLESS + 1) + ["GTJ0213"]),
        # One step gained begins the count again.
        (0, [*[(0, LOST)] * FRUITLESS, *[(1, LOST)] * FRUITLESS], [None] * (2 * FRUITLESS + 1)),
        # Exceptions of the training code are counted, gained steps or not.
        (0, [(1, APP)], [None, "GTJ0214"]),
        (3, [(1, APP), (2, APP), (3, APP), (4, APP)], [None, None, None, None, "GTJ0214"]),
        (1, [(1, LOST), (2, APP), (3, LOST), (4, VICTIM), (5, APP)], [None, None, None, None, None, "GTJ0214"]),
        # What somebody must mend ends the run at once.
        (100, [(1, KNOWN)], [None, "GTJ0207"]),
        (100, [(1, LOST), (2, KNOWN)], [None, None, "GTJ0207"]),
    ],
)
def test_verdict(allowed: int, attempts: list[tuple[int, Exception | None]], expected: list[str | None], run: Path) -> None:
    assert codes(run, allowed, *attempts) == expected


def test_a_known_error_comes_back_whole(run: Path) -> None:
    retries.verdict(run, 3)
    failures.record(run, 1, VICTIM)
    failures.record(run, 0, KNOWN)
    verdict = retries.verdict(run, 3)
    assert verdict is not None
    assert verdict.line() == KNOWN.line()


def test_a_restart_is_told_and_forgets_the_accounts(run: Path) -> None:
    codes(run, 3, (4, APP))
    assert failures.accounts(run) == []
    shown = progress.read(run / "progress.json")
    assert (shown["phase"], shown["restarts"]) == ("Recovering", 1)
    assert "size mismatch" in shown["message"]
    (line,) = (run / "attempts.jsonl").read_text().splitlines()
    assert json.loads(line)["event"] == "worker-lost"
    codes(run, 3, (5, LOST))
    assert progress.read(run / "progress.json")["restarts"] >= 2


def test_a_driver_of_its_own_counts_afresh(run: Path) -> None:
    """launch.begin empties the folder of failures when a user starts the run again."""
    codes(run, 0, (1, APP))
    for path in (run / "failures").iterdir():
        path.unlink()
    assert codes(run, 0, (2, LOST)) == [None, None]


@pytest.mark.parametrize(
    ("allowed", "failed", "errors", "over"),
    [
        (3, 0, [], False),
        (3, 0, [VICTIM], False),
        (3, 0, [APP], False),
        (3, 3, [APP], True),
        (0, 0, [APP, VICTIM], True),
        (3, 0, [VICTIM, KNOWN], True),
    ],
)
def test_no_group_is_started_that_would_be_sent_home(allowed: int, failed: int, errors: list[Exception], over: bool, run: Path) -> None:
    retries.verdict(run, allowed)
    counts = progress.read(run / "failures" / "counts")
    progress.replace(run / "failures" / "counts", json.dumps({**counts, "failed": failed}))
    for rank, error in enumerate(errors):
        failures.record(run, rank, error)
    assert retries.final(run, allowed) is over
    assert (retries.verdict(run, allowed) is not None) is over, "as `verdict` says"


def test_a_worker_whose_driver_was_followed_by_another_has_no_voice(tmp_path: Path) -> None:
    failures.begin(tmp_path, 1.5)
    own, orphan = retries.Folder(tmp_path, 1.5), retries.Folder(tmp_path, 0.5)
    orphan.record(0, KNOWN)
    assert failures.accounts(tmp_path) == []
    own.record(1, APP)
    assert not own.explained()
    own.record(1, KNOWN)
    assert own.explained()
    assert not orphan.explained()
    assert own.verdict(3) is None
    assert own.verdict(3) is not None
