"""What a driver clears before it starts workers, and what it makes of what they left."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from trainjobs.api.errors import JobError
from trainjobs.run import failures, preemption, progress
from trainjobs.run.outcome import Outcome, leave, left
from trainjobs.run.preemption import Notice
from trainjobs.workers import launch

KNOWN = JobError("GTJ0207", "loss not finite", where="step 7", how="lower the rate")


def test_what_a_killed_driver_left_is_cleared_and_nothing_else(tmp_path: Path) -> None:
    """A rank that fetched a checkpoint, or training.initialWeights, may leave gigabytes behind."""
    kept = ("job.json", "metrics.jsonl", "checkpoints/log/1.json", "cache/tokens.bin", "samples/step-1.png", "initial.txt")
    gone = ("restore-a1b2/rank-0/net.safetensors", "initial-c3d4/net.safetensors", "failures/1-0.json", "failure.json")
    for name in (*kept, *gone):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("{}")
    for event in ("stopped", "resized"):
        preemption.give(tmp_path, Notice(event))
    progress.update(tmp_path, phase="Failed", step=7)
    launch.begin(tmp_path, 1.5)
    assert [name for name in kept if not (tmp_path / name).exists()] == []
    assert [name for name in gone if (tmp_path / name).parent.exists() and (tmp_path / name).exists()] == []
    assert not [*tmp_path.glob("restore-*"), *tmp_path.glob("initial-*")]
    assert preemption.pending(tmp_path) is None
    assert not failures.orphaned(tmp_path, 1.5)
    assert (tmp_path / "logs").is_dir()
    shown = progress.read(tmp_path / "progress.json")
    assert (shown["phase"], shown["step"]) == ("Starting", 7)


def test_the_exit_status_is_that_of_the_culprit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    launch.begin(tmp_path, 1.5)
    progress.update(tmp_path, phase="Succeeded", step=9)
    failures.record(tmp_path, 1, RuntimeError("Connection closed by peer"))
    failures.record(tmp_path, 0, KNOWN)
    assert launch.outcome(tmp_path) == KNOWN.exit_code != 0
    told = json.loads((tmp_path / "failure.json").read_text())
    assert (told["code"], told["rank"], told["step"]) == ("GTJ0207", 0, 9)
    assert KNOWN.line() in capsys.readouterr().err


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """`main` of a run in tmp_path, with a preflight and workers of the test's."""
    acts: dict[str, Any] = {"preflight": lambda job, run: None, "on_ray": lambda run, settings, spec: None, "here": lambda settings: None}
    spec = {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 2}}
    job = {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "job"}, "spec": spec}
    (tmp_path / "job.json").write_text(json.dumps(job))
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("sys.argv", ["launch", str(tmp_path)])
    monkeypatch.setattr(launch, "die_with_parent", lambda: None)
    for name in acts:
        monkeypatch.setattr(launch, name, lambda *arguments, name=name: acts[name](*arguments))
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGALRM)}
    yield acts
    for number, handler in before.items():
        signal.signal(number, handler)


def test_workers_are_started_after_the_checks(driver: dict[str, Any], tmp_path: Path) -> None:
    seen: list[str] = []
    driver["preflight"] = lambda job, run: seen.append(job.metadata.name)

    def train(run: Path, settings: dict[str, Any], spec: Any) -> None:
        seen.append(spec.family)
        assert (run, settings["run"], settings["sync_every"]) == (tmp_path, str(tmp_path), None)
        leave(run, Outcome("finished"))

    driver["on_ray"] = train
    assert launch.main() == 0
    assert seen == ["job", "vae"]
    assert (tmp_path / "lock").exists()


def test_without_ray_the_worker_is_this_process(driver: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["launch", str(tmp_path), "--no-ray", "--sync-every", "3"])
    driver["here"] = lambda settings: leave(Path(settings["run"]), Outcome("finished", str(settings["sync_every"])))
    driver["on_ray"] = lambda *arguments: pytest.fail("Ray was started")
    assert launch.main() == 0
    assert left(tmp_path) == Outcome("finished", "3")


def test_a_check_that_fails_is_the_failure_and_no_worker_starts(driver: dict[str, Any], tmp_path: Path) -> None:
    def refuse(job: Any, run: Path) -> None:
        raise KNOWN

    driver["preflight"] = refuse
    driver["on_ray"] = lambda *arguments: pytest.fail("workers were started")
    assert launch.main() == KNOWN.exit_code
    assert progress.read(tmp_path / "failure.json")["code"] == "GTJ0207"


def test_what_ray_says_of_a_failed_group_does_not_hide_what_a_worker_said(driver: dict[str, Any], tmp_path: Path) -> None:
    def fail(run: Path, settings: dict[str, Any], spec: Any) -> None:
        failures.record(run, 1, ValueError("the culprit"))
        raise RuntimeError("a worker group failed")

    driver["on_ray"] = fail
    assert launch.main() != 0
    told = progress.read(tmp_path / "failure.json")
    assert (told["what"], told["rank"]) == ("ValueError: the culprit", 1)


def test_a_full_disk_of_the_drivers_own_is_told_in_words(driver: dict[str, Any], tmp_path: Path) -> None:
    def full(job: Any, run: Path) -> None:
        raise OSError(28, "No space left on device", str(run))

    driver["preflight"] = full
    launch.main()
    assert progress.read(tmp_path / "failure.json")["code"] == "GTJ0211"
