"""How a run fails, as tables: who is to blame, in what words, and where it is written."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from trainjobs.api.errors import JobError
from trainjobs.run import failures, preemption, progress

APP = RuntimeError("size mismatch")
VICTIM = RuntimeError("[../third_party/gloo/pair.cc:534] Connection closed by peer [10.0.0.2]:2101")
KNOWN = JobError("GTJ0207", "loss not finite", where="step 7", how="lower the rate")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "failures").mkdir()
    return tmp_path


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
    ("error", "known", "victim", "replaced", "code"),
    [
        (failures.Stalled(JobError("GTJ0210", "no step for 1h"), waiting=False), False, False, False, "GTJ0210"),
        (failures.Stalled(JobError("GTJ0210", "no step for 1h"), waiting=True), False, True, False, "GTJ0210"),
        (preemption.Replaced("the node is taken away"), False, True, True, "GTJ0213"),
    ],
)
def test_an_account_of_an_end_that_is_no_failure_of_the_code(
    error: Exception, known: bool, victim: bool, replaced: bool, code: str
) -> None:
    account = failures.account(2, error, "the log")
    assert (account["known"], account["victim"], account["replaced"], account["code"]) == (known, victim, replaced, code)


@pytest.mark.parametrize(("number", "told"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EROFS, True), (errno.EACCES, False)])
def test_a_disk_that_takes_no_more_is_told_in_words(number: int, told: bool, run: Path) -> None:
    refused = failures.refused(OSError(number, "as the kernel says", "/mnt/data/x"), run)
    assert (refused is not None) is told
    if refused is not None:
        assert (refused.code, refused.where, refused.why) == ("GTJ0211", "/mnt/data/x", "as the kernel says")
    assert failures.refused(ValueError("no"), run) is None


def test_the_logs_are_in_the_folder_or_the_jobs_own(run: Path) -> None:
    (run / "logs").mkdir()
    (run / "logs" / "stacks-0.txt").touch()
    assert failures.logs(run) == "the job's log"
    (run / "logs" / "worker-0.log").touch()
    assert failures.logs(run) == str(run / "logs")


def test_only_what_somebody_must_mend_explains_a_failure(run: Path) -> None:
    for error, explained in ((VICTIM, False), (APP, False), (KNOWN, True)):
        failures.record(run, 0, error)
        assert failures.explained(run) is explained


def test_accounts_are_in_the_order_of_their_arrival(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for moment, rank in ((2_000_000_000, 4), (2_000_000_001, 1), (2_000_000_002, 0)):
        monkeypatch.setattr(failures.time, "time_ns", lambda moment=moment: moment)
        failures.record(run, rank, APP)
    assert [account["rank"] for account in failures.accounts(run)] == [4, 1, 0]


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


@pytest.mark.parametrize("error", [APP, OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize(
    ("checkpoint", "said"),
    [
        (None, "no checkpoint was saved before"),
        ({"step": 0}, "of step 0, is kept"),
        ({"step": 40}, "the last checkpoint, of step 40, is kept"),
    ],
)
def test_a_checkpoint_is_said_to_be_kept_where_there_is_one(checkpoint: object, said: str, error: Exception, run: Path) -> None:
    progress.update(run, checkpoint=checkpoint)
    failures.record(run, 0, failures.refused(error, run) or error)
    (account,) = failures.accounts(run)
    assert account["how"].endswith(said)


def test_a_failure_before_the_first_step_names_no_step(run: Path) -> None:
    failures.publish(run, KNOWN, {})
    (event,) = map(json.loads, (run / "attempts.jsonl").read_text().splitlines())
    assert "step" not in event
    progress.update(run, step=7)
    failures.publish(run, KNOWN, {})
    assert json.loads((run / "attempts.jsonl").read_text().splitlines()[1])["step"] == 7


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


def test_publish_leaves_the_failure_where_it_is_looked_for(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    progress.update(run, step=12)
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
