"""How a run fails, as tables: who is to blame, what is tried again, when it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from trainjobs.api.errors import JobError
from trainjobs.run import failures, progress
from trainjobs.workers import retries
from trainjobs.workers.ray_train import trainer

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


@pytest.mark.parametrize(
    ("error", "known", "victim"),
    [
        (KNOWN, True, False),
        (APP, False, False),
        (VICTIM, False, True),
        (RuntimeError("Connection reset by peer"), False, True),
        (RuntimeError("NCCL error: ncclRemoteError: A call failed possibly due to a network error"), False, True),
        (ConnectionRefusedError(111, "Connection refused"), False, True),
        (BrokenPipeError(32, "Broken pipe"), False, True),
        (type("DistNetworkError", (RuntimeError,), {})("the client socket has failed"), False, True),
        (JobError("GTJ0211", "No space left on device"), True, False),
    ],
)
def test_an_account_says_who_speaks(error: Exception, known: bool, victim: bool, run: Path) -> None:
    failures.record(run, 3, error)
    (account,) = failures.accounts(run)
    assert (account["known"], account["victim"], account["rank"]) == (known, victim, 3)
    assert type(error).__name__ in account["logTail"]


def test_a_traceback_is_kept_of_what_nobody_foresaw(run: Path) -> None:
    for number, error in enumerate((KNOWN, APP)):
        try:
            raise error
        except Exception as raised:
            failures.record(run, number, raised)
    known, unknown = (account["logTail"] for account in failures.accounts(run))
    assert "Traceback" not in known
    assert "Traceback" in unknown


@pytest.mark.parametrize(
    ("error", "code", "what"),
    [
        (RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"), "GTJ0206", "CUDA out of memory. Tried to allocate 2 GiB"),
        (ValueError("bad shape\nsecond line"), "GTJ0214", "ValueError: bad shape"),
        (KeyError(), "GTJ0214", "KeyError"),
        (RuntimeError("\n  \n"), "GTJ0214", "RuntimeError"),
    ],
)
def test_an_unexpected_error_gets_a_code(error: Exception, code: str, what: str) -> None:
    failure = failures.unexpected(error, "the log")
    assert (failure.code, failure.what) == (code, what)


@pytest.mark.parametrize(
    ("errors", "blamed"),
    [
        ([], None),
        ([VICTIM], 0),
        ([VICTIM, APP], 1),
        ([APP, VICTIM], 0),
        ([VICTIM, APP, KNOWN], 2),
        ([VICTIM, VICTIM], 0),
        ([APP, ValueError("later")], 0),
        ([KNOWN, JobError("GTJ0209", "later")], 0),
    ],
)
def test_culprit(errors: list[Exception], blamed: int | None, run: Path) -> None:
    for rank, error in enumerate(errors):
        failures.record(run, rank, error)
    cause = failures.culprit(run)
    assert (cause["rank"] if cause else None) == blamed


def test_a_torn_account_is_not_one(run: Path) -> None:
    (run / "failures" / "1-0.json").write_text('{"code": "GTJ02')
    assert failures.culprit(run) is None


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


def test_publish_leaves_the_failure_where_it_is_looked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at(run, 12)
    failures.publish(run, KNOWN, {"rank": 1, "logTail": "trace"})
    written = json.loads((run / "failure.json").read_text())
    assert (written["code"], written["step"], written["rank"], written["logTail"]) == ("GTJ0207", 12, 1, "trace")
    assert JobError.from_dict(written).line() == KNOWN.line()
    assert progress.read(run / "progress.json")["phase"] == "Failed"
    assert KNOWN.line() in capsys.readouterr().err


def test_a_full_disk_does_not_hide_the_failure(run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(self: Path, text: str, encoding: str) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    failures.record(run, 0, KNOWN)
    failures.publish(run, KNOWN, {})
    assert KNOWN.line() in capsys.readouterr().err


def test_a_new_driver_clears_the_accounts_and_leaves_orphans_without_a_voice(run: Path) -> None:
    failures.begin(run, 1.5)
    failures.record(run, 0, VICTIM)
    assert not failures.orphaned(run, 1.5)
    failures.begin(run, 2.25)
    assert failures.accounts(run) == []
    assert failures.orphaned(run, 1.5)
    assert not failures.orphaned(run, 2.25)


# As Ray 2.60 says it, without what stands in between.
KILLED = """Training failed due to worker errors:
[Rank 0 Error Snippet]:
ray.exceptions.ActorDiedError: The actor died because its owner has died.
[Rank 1 Error Snippet]:
1 worker(s) were killed due to the node running low on memory. Memory on the node (IP: 10.0.0.2) was 0.66GB used / 0.68GB limit (0.96)
OOM kill reason: Memory usage 704151552B exceeded threshold of 697303040B (95.0% of 734003200B limit)
"""


def test_a_worker_that_ray_ended_for_its_memory_is_explained() -> None:
    found = trainer.starved(KILLED)
    assert found is not None
    rank, error = found
    assert (rank, error.code) == (1, "GTJ0205")
    assert "0.66 of the 0.68 GB" in (error.why or "")
    assert "1.4 GB for a start" in (error.how or "")
    assert trainer.starved("Training failed due to worker errors:\n[Rank 0 Error Snippet]:\nValueError: no") is None
