"""Whether a checkpoint is taken before the end, as a table; the notices that ask for it; what rank 0 makes of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from trainjobs.api.job import Job
from trainjobs.checkpoints import Commit
from trainjobs.data.source import DataInfo
from trainjobs.monitor.reporter import Reporter
from trainjobs.run import failures, preemption, progress
from trainjobs.run.preemption import LastSave, Notice, Replaced, announced, decide
from trainjobs.state import State
from trainjobs.workers import retries
from trainjobs.world import World

GB = 10**9
JOB = Job.model_validate(
    {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "job"},
        "spec": {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": 100}},
    }
)


@pytest.mark.parametrize(
    ("size", "pace", "step", "left", "expected"),
    [
        (12 * GB, 1 / GB, 1.0, 25.0, LastSave(True, "a checkpoint of 11.2 GiB takes 13 s, 25 s are left: taken")),
        (12 * GB, 1 / GB, 1.0, 16.25, LastSave(True, "a checkpoint of 11.2 GiB takes 13 s, 16 s are left: taken")),
        (
            12 * GB,
            1 / GB,
            1.0,
            16.0,
            LastSave(False, "a checkpoint of 11.2 GiB takes 13 s, 16 s are left: not taken, the one before is kept"),
        ),
        (
            12 * GB,
            1 / GB,
            9.0,
            25.0,
            LastSave(False, "a checkpoint of 11.2 GiB takes 21 s, 25 s are left: not taken, the one before is kept"),
        ),
        (1024, 1e-4, 0.0, -3.0, LastSave(False, "a checkpoint of 1 KiB takes 0.1 s, 0 s are left: not taken, the one before is kept")),
        (12 * GB, None, 1.0, 0.0, LastSave(False, "no time is left: the one before is kept")),
        (12 * GB, 1 / GB, 1.0, None, LastSave(True, "a checkpoint is taken")),
        (0, None, 1.0, None, LastSave(True, "a checkpoint is taken")),
        (0, None, 1.0, 5.0, LastSave(True, "a checkpoint is tried: how long one takes is not known yet")),
        (0, None, 1.0, 0.0, LastSave(False, "no time is left: there is none before it")),
    ],
)
def test_what_fits(size: int, pace: float | None, step: float, left: float | None, expected: LastSave) -> None:
    assert decide(size, pace, step, left) == expected


def test_notices(tmp_path: Path) -> None:
    assert preemption.pending(tmp_path) is None
    replaced = Notice("reclaimed", "the node of rank 1 is taken away", 1000.0)
    preemption.give(tmp_path, replaced)
    assert preemption.pending(tmp_path) == replaced
    assert replaced.replaces
    ended = Notice("stopped", "SIGTERM", 2000.0)
    preemption.give(tmp_path, ended)
    assert preemption.pending(tmp_path) == ended, "the end of the driver is the end of the group"
    preemption.withdraw(tmp_path)
    assert preemption.pending(tmp_path) == ended, "a new group is to stop, too"
    (tmp_path / "stop").write_text("")
    assert preemption.pending(tmp_path) == Notice("stopped"), "as `gtj run` asks"


@pytest.mark.parametrize(
    ("going", "expected"),
    [
        ({}, None),
        ({"other": 5000}, None),
        ({"b": 5000, "other": 1}, Notice("reclaimed", "the node of rank 1 is taken away", 5.0)),
        ({"b": 0}, Notice("reclaimed", "the node of rank 1 is taken away", None)),
        ({"a": 7000, "b": 5000}, Notice("reclaimed", "nodes of ranks 0, 1 and 2 are taken away", 5.0)),
        ({"head": 9000, "a": 7000}, Notice("stopped", "the driver's node is taken away", 7.0)),
    ],
)
def test_what_follows_from_nodes_that_go(going: dict[str, int], expected: Notice | None) -> None:
    assert announced(going, {"a": [0, 2], "b": [1]}, "head") == expected


def commit(step: int, size: int) -> Commit:
    return Commit(1, 1, step, 64 * step, f"steps/{step}-a1", "sha256:0", 0.0, {"stage": 0}, {}, size, 2)


class Saves:
    """A saver whose last checkpoint took 40 seconds for the 50 bytes of rank 0."""

    attempt, pace, size = 1, 0.8, 50

    def __init__(self, commit: Commit | None) -> None:
        self.commit = commit

    def again(self) -> bool:
        return False


def reporter(run: Path, saved: Commit | None = None) -> Reporter:
    info, world = DataInfo("image", (1, 8, 8), 100, 5), World(0, 1, torch.device("cpu"))
    return Reporter(run, JOB, info, world, 0, cast(Any, Saves(saved)), now=lambda: 1000.0)


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "attempts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize(("deadline", "save"), [(None, True), (1000.0 + 51, True), (1000.0 + 49, False), (999.0, False)])
def test_rank_0_has_everybody_leave_and_save_if_it_fits(deadline: float | None, save: bool, tmp_path: Path) -> None:
    ours = reporter(tmp_path)
    assert ours.orders(11)[1:] == (False, False)
    ours.saved(commit(11, 100))
    preemption.give(tmp_path, Notice("reclaimed", "the node of rank 1 is taken away", deadline))
    assert ours.orders(12)[1:] == (True, save)
    told = progress.read(tmp_path / "progress.json")
    assert told["phase"] == "Stopping"
    assert told["message"].startswith("the node of rank 1 is taken away: a checkpoint ")
    ours.ended(State(12, 0), "stopped")
    assert events(tmp_path)[-1]["event"] == "reclaimed"
    assert events(tmp_path)[-1]["message"] == told["message"]
    assert progress.read(tmp_path / "progress.json")["phase"] == "Recovering"


def test_the_next_group_knows_how_long_a_checkpoint_took(tmp_path: Path) -> None:
    reporter(tmp_path).saved(commit(11, 100))
    again = reporter(tmp_path, commit(11, 100))
    preemption.give(tmp_path, Notice("stopped", "SIGTERM", 1049.0))
    assert again.orders(12)[1:] == (True, False)
    again.ended(State(12, 0), "stopped")
    told = progress.read(tmp_path / "progress.json")
    assert told["phase"] == "Stopped"
    assert told["message"] == "SIGTERM: a checkpoint of 100 B takes 40 s, 49 s are left: not taken, the one before is kept"


def test_a_wish_of_the_user_presses_nobody(tmp_path: Path) -> None:
    ours = reporter(tmp_path)
    ours.saved(commit(11, 100))
    (tmp_path / "stop").touch()
    assert ours.orders(12)[1:] == (True, True)
    ours.ended(State(12, 0), "stopped")
    assert progress.read(tmp_path / "progress.json")["message"] == ""
    assert events(tmp_path)[-1]["event"] == "stopped"


@pytest.mark.parametrize(("grace", "fits"), [("110", True), ("49", False)])
def test_whether_one_would_fit_is_told_beforehand(grace: str, fits: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(preemption.GRACE, grace)
    reporter(tmp_path).saved(commit(11, 100))
    assert progress.read(tmp_path / "progress.json")["checkpoint"]["fitsGrace"] is fits


def test_a_group_that_was_replaced_has_not_failed(tmp_path: Path) -> None:
    failures.begin(tmp_path, 1.0)
    assert retries.verdict(tmp_path, 0) is None
    progress.update(tmp_path, step=12, phase="Recovering", message="the node of rank 1 is taken away: a checkpoint is taken")
    failures.record(tmp_path, 0, Replaced("the node of rank 1 is taken away"))
    assert not retries.final(tmp_path, 0)
    assert retries.verdict(tmp_path, 0) is None, "no retry is used up"
    told = progress.read(tmp_path / "progress.json")
    assert (told["restarts"], told["message"]) == (1, "the node of rank 1 is taken away: a checkpoint is taken")
    assert not (tmp_path / "attempts.jsonl").exists(), "nobody says that a worker was lost"
