"""Workers elsewhere: what rank 0 writes arrives at the driver's as it stood, whatever is replaced, grown or torn in between."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from trainjobs.api.errors import JobError
from trainjobs.run import failures, preemption, progress
from trainjobs.run.rewind import rewind
from trainjobs.workers import retries
from trainjobs.workers.relay import BLOCK, Collector, Notices, Piece, Relay

MINE = ValueError("my own mistake")
VICTIM = RuntimeError("Connection closed by peer")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    run.mkdir()
    failures.begin(run, 1.0)
    return run


@pytest.fixture
def collector(run: Path) -> Collector:
    return Collector(str(run), 1.0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "worker").mkdir()
    return tmp_path / "worker"


def relay(folder: Path, collector: Collector) -> Relay:
    """Started by no thread: the test carries."""
    verdict = collector.verdict(3)
    assert verdict.over is None
    for name, data in verdict.records.items():
        (folder / name).write_bytes(data)
    return Relay(folder, lambda pieces: collector.exchange(verdict.group, pieces))


def files(folder: Path) -> dict[str, bytes]:
    found = {path.relative_to(folder): path for path in folder.rglob("*") if path.is_file()}
    return {str(name): path.read_bytes() for name, path in found.items() if name.parts[0] not in ("failures", "stop")}


def test_everything_arrives(folder: Path, run: Path, collector: Collector) -> None:
    progress.update(run, step=0, data="digits", restarts=0)
    progress.mark(run, "checks")
    ours = relay(folder, collector)
    assert ours.carry() == 0, "what came from the driver is not sent back"
    metrics = progress.Metrics(folder, 0)
    (folder / "samples").mkdir()
    for step in range(1, 6):
        metrics.write(step, {"loss": 1 / step})
        progress.update(folder, step=step)
        (folder / "samples" / f"step-{step}.txt").write_text("text" * step)
        if step % 2:
            ours.carry()
    progress.mark(folder, "succeeded", step=5)
    metrics.close()
    while ours.carry():
        pass
    assert files(run) == files(folder)
    assert progress.read(run / "progress.json")["data"] == "digits"
    assert [json.loads(line)["event"] for line in (run / "attempts.jsonl").read_text().splitlines()] == ["checks", "succeeded"]


def test_a_new_group_goes_on_with_the_records_and_drops_a_future_that_did_not_happen(folder: Path, run: Path, collector: Collector) -> None:
    first = relay(folder, collector)
    metrics = progress.Metrics(folder, 0)
    for step in range(1, 6):
        metrics.write(step, {"loss": 0.5})
    metrics.close()
    progress.update(folder, step=5)
    first.carry()
    other = folder.with_name("other")
    other.mkdir()
    second = relay(other, collector)
    assert progress.read(other / "progress.json")["phase"] == "Recovering"
    metrics = progress.Metrics(other, 3)
    metrics.write(4, {"loss": 0.25})
    metrics.close()
    second.carry()
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in rows] == [(1, 0.5), (2, 0.5), (3, 0.5), (4, 0.25)]
    progress.update(folder, step=99)
    first.carry()
    assert progress.read(run / "progress.json")["step"] == 5, "a group that was replaced speaks no more"


def test_samples_of_a_future_that_did_not_happen_go_from_the_drivers_folder_too(folder: Path, run: Path, collector: Collector) -> None:
    """The new group's folder is another pod's: it never saw them."""

    def draw(into: Path, *steps: int) -> None:
        (into / "samples").mkdir(exist_ok=True)
        for step in steps:
            (into / "samples" / f"step-{step:06d}.png").write_bytes(bytes([step]))

    first = relay(folder, collector)
    rewind(folder, 0, lambda: 1.0)
    draw(folder, 2, 4, 6, 8)
    first.carry()
    other = folder.with_name("other")
    other.mkdir()
    second = relay(other, collector)
    rewind(other, 4, lambda: 2.0)
    draw(other, 7)
    second.carry()
    assert sorted(path.name for path in (run / "samples").iterdir()) == ["step-000002.png", "step-000004.png", "step-000007.png"]
    draw(other, 9)
    progress.update(other, step=9)
    second.carry()
    assert (run / "samples" / "step-000007.png").exists(), "once"
    assert (run / "samples" / "step-000009.png").exists()


def test_random_edits_carried_at_random_moments(folder: Path, run: Path, collector: Collector) -> None:
    dice = random.Random(7)
    ours = relay(folder, collector)
    (folder / "events").mkdir()
    for _ in range(400):
        kind = dice.randrange(4)
        if kind == 0:
            progress.replace(folder / "progress.json", json.dumps({"step": dice.randrange(10)}))
        elif kind == 1:
            with (folder / "metrics.jsonl").open("a") as file:
                file.write("x" * dice.randrange(50))
        elif kind == 2:
            with (folder / "events" / f"e{dice.randrange(3)}").open("ab") as file:
                file.write(dice.randbytes(dice.randrange(50)))
        else:
            ours.carry()
            assert files(run) == files(folder)


def test_a_large_file_is_carried_in_parts(folder: Path, run: Path, collector: Collector) -> None:
    ours = relay(folder, collector)
    data = random.Random(7).randbytes(2 * BLOCK + 17)
    (folder / "metrics.jsonl").write_bytes(data)
    rounds = 0
    while ours.carry():
        rounds += 1
    assert rounds == 3
    assert (run / "metrics.jsonl").read_bytes() == data


def test_what_is_not_a_worker_s_to_write(run: Path, collector: Collector) -> None:
    collector.verdict(0)
    for name in ("job.json", "failure.json", "failures/1-0.json", "../x", "samples/../job.json", "stop", "/tmp/x"):
        with pytest.raises(ValueError, match="not a file of a run"):
            collector.exchange(0, [Piece(name, 0, b"x")])
    assert {path.name for path in run.iterdir()} == {"failures"}


def test_a_request_to_stop_comes_back(folder: Path, run: Path, collector: Collector) -> None:
    ours = relay(folder, collector)
    ours.carry()
    assert not (folder / "stop").exists()
    (run / "stop").touch()
    ours.carry()
    assert (folder / "stop").exists()


def test_a_notice_comes_with_its_deadline(folder: Path, run: Path, collector: Collector) -> None:
    ours = relay(folder, collector)
    notice = preemption.Notice("reclaimed", "the node of rank 1 is taken away", 1000.5)
    preemption.give(run, notice)
    ours.carry()
    assert preemption.pending(folder) == notice
    preemption.give(run, preemption.Notice("stopped", "SIGTERM", 1001.0))
    ours.carry()
    assert preemption.pending(folder) == preemption.Notice("stopped", "SIGTERM", 1001.0)


def test_a_driver_that_does_not_answer_is_told_once_and_later_everything(
    folder: Path, run: Path, collector: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = False

    def exchange(pieces: list[Piece]) -> Notices:
        if not answers:
            raise TimeoutError("no answer")
        return collector.exchange(0, pieces)

    collector.verdict(0)
    ours = Relay(folder, exchange)
    for step in range(3):
        progress.update(folder, step=step)
        ours.carry()
    assert capsys.readouterr().out.count("TimeoutError: no answer") == 1
    answers = True
    ours.carry()
    assert progress.read(run / "progress.json")["step"] == 2


def test_last_words_that_do_not_arrive_are_an_error(folder: Path) -> None:
    def exchange(pieces: list[Piece]) -> Notices:
        raise TimeoutError("no answer")

    with pytest.raises(RuntimeError, match="no answer"), Relay(folder, exchange, every=0.01):
        progress.update(folder, step=1)
    with pytest.raises(ValueError, match="my own"), Relay(folder, exchange, every=0.01):
        raise MINE


def test_the_thread_carries_and_the_end_waits_for_the_last_words(folder: Path, run: Path, collector: Collector) -> None:
    collector.verdict(0)
    with Relay(folder, lambda pieces: collector.exchange(0, pieces), every=3600):
        progress.update(folder, phase="Succeeded")
    assert progress.read(run / "progress.json")["phase"] == "Succeeded"


def test_the_first_to_arrive_is_the_culprit_whatever_the_clocks_say(run: Path, collector: Collector) -> None:
    collector.verdict(0)
    for rank, error in ((1, MINE), (0, VICTIM), (2, ValueError("because of it"))):
        collector.enter(failures.account(rank, error, "the job's log"))
    cause = failures.culprit(run)
    assert cause is not None
    assert (cause["rank"], cause["how"]) == (1, "the traceback is in the job's log; no checkpoint was saved before")
    assert not collector.explained()
    collector.enter(failures.account(3, JobError("GTJ0211", "disk full"), "the job's log"))
    assert collector.explained()


@pytest.mark.parametrize(
    ("allowed", "failed", "errors", "final"),
    [
        (3, 0, [], False),
        (0, 0, [VICTIM], False),
        (0, 0, [VICTIM, MINE], True),
        (1, 0, [MINE], False),
        (1, 1, [MINE, VICTIM], True),
        (3, 0, [VICTIM, JobError("GTJ0207", "loss not finite")], True),
    ],
)
def test_when_no_further_group_is_started(allowed: int, failed: int, errors: list[Exception], final: bool, run: Path) -> None:
    retries.verdict(run, allowed)
    for _ in range(failed):
        failures.record(run, 0, MINE)
        assert retries.verdict(run, allowed) is None
    for rank, error in enumerate(errors):
        failures.record(run, rank, error)
    assert retries.final(run, allowed) == final
    over = retries.verdict(run, allowed)
    assert (over is not None) == final, "as the next group would hear"


def test_what_an_orphan_says_is_not_kept(run: Path) -> None:
    orphan = retries.Folder(run, 0.5)
    orphan.record(0, MINE)
    assert failures.accounts(run) == []
    failures.record(run, 1, JobError("GTJ0207", "loss not finite"))
    assert not orphan.explained()
    assert retries.Folder(run, 1.0).explained()
