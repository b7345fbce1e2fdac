"""A worker from its start to its end, with a training and a ledger of the test's: what is said of each end, and who hears it."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.checkpoints import Fenced
from trainjobs.run import preemption, progress
from trainjobs.run.outcome import Outcome
from trainjobs.workers import worker
from trainjobs.workers.worker import Settings, work
from trainjobs.world import World

FINISHED = Outcome("finished")
KNOWN = JobError("GTJ0207", "loss not finite", where="step 7", how="lower the rate")


@dataclass
class Ledger:
    over: JobError | None = None
    others: bool = False  # whether another worker has said what happened
    asked: list[int] = field(default_factory=list)
    said: list[tuple[int, Exception]] = field(default_factory=list)
    ends: list[Outcome] = field(default_factory=list)

    def verdict(self, retries: int) -> JobError | None:
        self.asked.append(retries)
        return self.over

    def record(self, rank: int, error: Exception) -> None:
        self.said.append((rank, error))

    def explained(self) -> bool:
        return self.others

    def ended(self, outcome: Outcome) -> None:
        self.ends.append(outcome)


@dataclass
class Worker:
    """One that trains as `train` says, on a machine as the test has it."""

    run: Path
    train: Callable[..., Any] = lambda *arguments, **options: FINISHED
    ledger: Ledger = field(default_factory=Ledger)
    left: list[bool] = field(default_factory=list)  # how often the group was left
    worlds: list[World] = field(default_factory=list)

    def works(self, *, rank: int = 0, size: int = 1, gpus: bool = False) -> None:
        settings = Settings(str(self.run), 1.5, str(self.run), sync_every=3, gpus=gpus)
        work(settings, rank, size, rank, self.ledger)


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    (tmp_path / "logs").mkdir()
    (tmp_path / "failures").mkdir()
    job(tmp_path)
    ours = Worker(tmp_path)

    def train(job: Job, run: Path, world: World, **options: Any) -> Any:
        ours.worlds.append(world)
        return ours.train(job, run, world, **options)

    # The loop imports DeepSpeed, which is not needed here.
    monkeypatch.setitem(sys.modules, "trainjobs.loop", SimpleNamespace(train=train))
    monkeypatch.setattr(worker, "keep_freed_memory", lambda: True)
    monkeypatch.setattr(worker, "disconnect", lambda: ours.left.append(True))
    monkeypatch.setattr(World, "share", lambda self, value: value)
    monkeypatch.setattr(World, "barrier", lambda self: None)
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    return ours


def job(run: Path, **compute: Any) -> None:
    spec = {
        "vae": {},
        "data": {"source": "builtin:digits"},
        "training": {"steps": 2},
        "recovery": {"maxRetries": 4},
        "compute": {"gpusPerWorker": 0, **compute},
    }
    value = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "job"}, "spec": spec}
    (run / "job.json").write_text(json.dumps(value))


def raising(error: Exception) -> Callable[..., Any]:
    def train(*arguments: Any, **options: Any) -> Any:
        raise error

    return train


def test_a_training_that_succeeds_leaves_no_account(made: Worker) -> None:
    def train(job: Job, run: Path, world: World, **options: Any) -> Outcome:
        assert (job.metadata.name, run, options["since"], options["sync_every"]) == ("job", made.run, 1.5, 3)
        assert (made.run / "logs" / "stacks-0.txt").exists(), "somebody watches it"
        return FINISHED

    made.train = train
    made.works()
    assert made.ledger.asked == [4], "recovery.maxRetries"
    assert made.ledger.said == []
    assert made.ledger.ends == [FINISHED], "the driver's exit status follows from it"
    assert made.left == []
    assert "imports" in progress.read(made.run / "timeline.json")
    assert not (made.run / "logs" / "stacks-0.txt").exists()


def test_rank_0_alone_asks_and_notes(made: Worker) -> None:
    made.works(rank=1, size=2)
    assert made.ledger.asked == []
    assert not (made.run / "timeline.json").exists()
    assert (made.worlds[0].rank, made.worlds[0].size, made.worlds[0].device.type) == (1, 2, "cpu")


def test_a_group_that_is_not_to_train_goes_home(made: Worker) -> None:
    made.ledger.over = KNOWN
    made.train = lambda *arguments, **options: pytest.fail("it trained")
    made.works()
    assert made.ledger.said == []


def test_what_somebody_must_mend_is_said_and_ends_the_run_quietly(made: Worker) -> None:
    made.train = raising(KNOWN)
    made.works(rank=1, size=2)
    assert made.ledger.said == [(1, KNOWN)]
    assert made.left == [True], "the others' collectives fail now"


def test_an_error_of_the_code_is_said_and_raised_for_another_group_to_follow(made: Worker) -> None:
    error = ValueError("bad shape")
    made.train = raising(error)
    with pytest.raises(ValueError, match="bad shape"):
        made.works()
    assert made.ledger.said == [(0, error)]


def test_a_full_disk_is_said_in_words(made: Worker) -> None:
    made.train = raising(OSError(28, "No space left on device", "/mnt/x"))
    made.works()
    ((rank, error),) = made.ledger.said
    assert isinstance(error, JobError)
    assert (rank, error.code, error.where) == (0, "GTJ0211", "/mnt/x")
    assert made.left == [True]


def test_a_victim_of_what_is_explained_already_says_nothing(made: Worker) -> None:
    made.train, made.ledger.others = raising(RuntimeError("Connection closed by peer")), True
    made.works()
    assert made.ledger.said == []


def test_an_attempt_that_a_newer_one_has_taken_over_has_not_failed(made: Worker, capsys: pytest.CaptureFixture[str]) -> None:
    made.train = raising(Fenced(3, "attempt 4 has begun"))
    made.works()
    assert made.ledger.said == []
    assert made.left == [True]
    assert "a newer attempt has taken over" in capsys.readouterr().out


@pytest.mark.parametrize("phase", ["Recovering", "Stopped", "anything"])
def test_a_group_that_stops_for_another_one_says_so_whatever_progress_says(phase: str, made: Worker) -> None:
    replaced = Outcome("replaced", "there is room for 4 workers")

    def train(*arguments: Any, **options: Any) -> Outcome:
        progress.update(made.run, phase=phase)
        return replaced

    made.train = train
    with pytest.raises(preemption.Replaced, match="room for 4 workers"):
        made.works()
    ((rank, error),) = made.ledger.said
    assert (rank, type(error)) == (0, preemption.Replaced)
    assert (made.left, made.ledger.ends) == ([True], [replaced])


@pytest.mark.parametrize("phase", ["Recovering", "Stopped"])
def test_one_that_was_asked_to_stop_ends_quietly_whatever_progress_says(phase: str, made: Worker) -> None:
    def train(*arguments: Any, **options: Any) -> Outcome:
        progress.update(made.run, phase=phase)
        return Outcome("stopped")

    made.train = train
    made.works()
    assert (made.ledger.said, made.left, made.ledger.ends) == ([], [], [Outcome("stopped")])


def test_the_other_ranks_leave_too_and_leave_the_word_to_rank_0(made: Worker) -> None:
    made.train = lambda *arguments, **options: Outcome("replaced", "there is room for 4 workers")
    with pytest.raises(preemption.Replaced):
        made.works(rank=1, size=2)
    assert (made.ledger.said, made.ledger.ends) == ([], [])


def test_a_process_that_was_given_a_gpu_and_sees_none_is_refused(made: Worker) -> None:
    job(made.run, gpusPerWorker=2)
    made.works(rank=1, size=2, gpus=True)
    ((_, error),) = made.ledger.said
    assert isinstance(error, JobError)
    assert error.code == "GTJ0121"
    assert f"torch {torch.__version__} is a build " in str(error.why)
    assert "(local rank 1)" in str(error.why)


@pytest.mark.parametrize(("size", "workers"), [(4, 2), (2, 1), (3, 3)])
def test_processes_of_a_worker_follow_from_its_gpus(size: int, workers: int, made: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchrun starts as many processes as it is told, also three where a worker has two GPUs."""
    job(made.run, gpusPerWorker=2)
    monkeypatch.setattr(worker, "on_gpu", lambda job: True)
    monkeypatch.setattr(worker.torch.cuda, "set_device", lambda device: None)
    made.works(rank=1, size=size)
    (world,) = made.worlds
    assert (world.workers, world.device) == (workers, torch.device("cuda", 1))


def test_deepspeed_is_told_what_to_train_on_unless_somebody_has(made: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def train(*arguments: Any, **options: Any) -> Outcome:
        seen.append(worker.os.environ["DS_ACCELERATOR"])
        return FINISHED

    made.train = train
    made.works()
    monkeypatch.setenv("DS_ACCELERATOR", "somebody's")
    made.works()
    monkeypatch.delenv("DS_ACCELERATOR")
    made.works()
    assert seen == ["cpu", "somebody's", "cpu"]
