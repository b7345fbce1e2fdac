"""What rank 0 tells while something else is done than steps, and after a run went back."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from trainjobs.api.job import Job
from trainjobs.checkpoints import Commit
from trainjobs.data.source import DataInfo
from trainjobs.monitor.reporter import ACTIVITY, Reporter
from trainjobs.objectives.phase import Samples
from trainjobs.plan.beside import Beside
from trainjobs.run import progress
from trainjobs.state import State
from trainjobs.world import World

STEPS = 20
JOB = Job.model_validate(
    {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": "job"},
        "spec": {"vae": {}, "data": {"source": "builtin:digits"}, "training": {"steps": STEPS}},
    }
)
PLAN = Beside(every=2, samples=64, each=True, save=5, score=1.0, draw=3.0, told="")
PICTURE = Samples(images=torch.zeros(1, 1, 4, 4))


def commit(step: int) -> Commit:
    return Commit(1, 1, step, 64 * step, f"steps/{step}-a1", "sha256:0", 0.0, {"stage": 0}, {}, 100, 1)


class Saves:
    attempt, pace, size = 1, 0.1, 50

    def __init__(self, commit: Commit | None) -> None:
        self.commit = commit

    def again(self) -> bool:
        return False


class Training:
    """A run whose clock the test holds: a step takes a second."""

    def __init__(self, run: Path, saved: Commit | None = None, plan: Beside = PLAN, time: float = 1000.0, job: Job = JOB) -> None:
        self.run, self.time = run, time
        self.state = State(saved.step, saved.samples) if saved else State()
        info, world = DataInfo("image", (1, 8, 8), 100, 5), World(0, 1, torch.device("cpu"))
        clock = lambda: self.time  # noqa: E731
        self.reporter = Reporter(run, job, info, world, 0, cast(Any, Saves(saved)), now=clock, plan=plan, clock=clock)

    @property
    def told(self) -> dict[str, Any]:
        return progress.read(self.run / "progress.json")

    def step(self, loss: float = 0.5) -> None:
        self.state.step += 1
        self.state.samples += 64
        self.time += 1.0
        self.reporter.orders(self.state.step)
        self.reporter.stepped(self.state, {"loss": loss, "lr/autoencoder": 0.1})

    def draw(self, seconds: float) -> None:
        with self.reporter.aside("drawings", self.state.step):
            self.reporter.doing("drawing 64 samples, 0/64")
            self.time += seconds
            self.reporter.evaluated(self.state, {"heldout/loss": 0.25}, PICTURE)

    def events(self, *kinds: str) -> list[dict[str, Any]]:
        rows = map(json.loads, (self.run / "attempts.jsonl").read_text().splitlines())
        return [row for row in rows if row["event"] in kinds]


def test_what_is_done_is_told_while_it_goes_on_and_not_after(tmp_path: Path) -> None:
    ours = Training(tmp_path)
    ours.step()
    assert ours.told["activity"] is None
    with ours.reporter.aside("drawings", 1):
        ours.reporter.doing("drawing 64 samples, 0/64")
        assert ours.told["activity"] == "drawing 64 samples, 0/64"
        at = ours.told["updatedAt"]
        ours.time += 0.25
        ours.reporter.doing("drawing 64 samples, 1/64")
        assert ours.told["activity"] == "drawing 64 samples, 0/64", "twice a second"
        ours.time += 0.25
        ours.reporter.doing("drawing 64 samples, 23/64")
        assert ours.told["activity"] == "drawing 64 samples, 23/64"
        assert ours.told["updatedAt"] > at, "the operator, too, hears that the run is alive"
    assert ours.told["activity"] is None


def test_the_first_word_of_another_thing_is_told_at_once(tmp_path: Path) -> None:
    ours = Training(tmp_path)
    ours.step()
    ours.draw(0.0)
    with ours.reporter.aside("saves", 1):
        ours.reporter.doing("saving step 1")
        assert ours.told["activity"] == "saving step 1"


def test_an_activity_is_never_long(tmp_path: Path) -> None:
    ours = Training(tmp_path)
    with ours.reporter.aside("scores", 0):
        ours.reporter.doing("x" * 10_000)
        assert ours.told["activity"] == "x" * ACTIVITY


def test_halfway_through_a_run_that_mostly_draws_the_eta_is_right(tmp_path: Path) -> None:
    ours = Training(tmp_path)
    for _ in range(STEPS // 2):
        ours.step()
        if ours.state.step % 2 == 0:
            ours.draw(38.0)
    told, now = ours.told["etaSeconds"], ours.time
    while ours.state.step < STEPS:
        ours.step()
        if ours.state.step % 2 == 0:
            ours.draw(38.0)
    assert 1 / 1.3 < told / (ours.time - now) < 1.3
    assert ours.told["spent"] == {"steps": 20.0, "evaluations": 380.0, "saves": 0.0}
    assert ours.told["etaSeconds"] == 0


def test_the_eta_goes_down_while_samples_are_drawn(tmp_path: Path) -> None:
    ours = Training(tmp_path)
    for _ in range(4):
        ours.step()
        if ours.state.step % 2 == 0:
            ours.draw(38.0)
    ours.step()
    ours.step()
    before = ours.told["etaSeconds"]
    with ours.reporter.aside("drawings", ours.state.step):
        ours.time += 20.0
        ours.reporter.doing("drawing 64 samples, 33/64")
        assert ours.told["etaSeconds"] == before - 20


def test_a_choice_is_told_once_however_often_the_run_is_started(tmp_path: Path) -> None:
    chosen = replace(PLAN, told="samples: 64 -> 16, only at the end")
    for saved in (None, commit(2), commit(4)):
        ours = Training(tmp_path, saved, chosen)
    assert [(row["message"], row["step"]) for row in ours.events("note")] == [("samples: 64 -> 16, only at the end", 0)]
    Training(tmp_path, None, replace(PLAN, told="samples: 64 -> 36"))
    assert len(ours.events("note")) == 2, "a longer run decides otherwise"


def test_nothing_is_told_where_nothing_was_chosen(tmp_path: Path) -> None:
    assert Training(tmp_path).events("note") == []


def test_a_run_that_is_resumed_shows_what_there_was_at_its_commit(tmp_path: Path) -> None:
    ours = Training(tmp_path)
    for step in range(1, 8):
        ours.step(loss=1 / step)
        ours.draw(3.0)
    again = Training(tmp_path, commit(5), time=90_000.0)
    assert (again.told["step"], again.told["samples"], again.told["percent"], again.told["etaSeconds"]) == (5, 320, 25.0, None)
    assert again.told["metrics"] == {"loss": 0.2}
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [f"step-{step:06d}.png" for step in range(1, 6)]
    assert [row["step"] for row in again.events("evaluated")] == [1, 2, 3, 4, 5]
    assert again.told["wentBack"] == {"step": 5, "time": 90_000.0}


def test_a_rollback_leaves_nothing_of_what_it_undid(tmp_path: Path) -> None:
    ours = Training(tmp_path)
    for step in range(1, 8):
        ours.step(loss=1 / step)
        ours.draw(3.0)
    ours.reporter.saved(commit(4))
    ours.reporter.rolled_back(State(4, 300), "loss not finite", 8)
    assert (ours.told["step"], ours.told["percent"], ours.told["metrics"]) == (4, 20.0, {"loss": 0.25})
    assert len(list((tmp_path / "samples").iterdir())) == 4
    assert [row["step"] for row in ours.events("evaluated")] == [1, 2, 3, 4]
    assert [row["step"] for row in ours.events("checkpoint", "rolled back")] == [4, 4]


def test_time_between_attempts_is_not_time_of_training(tmp_path: Path) -> None:
    ours = Training(tmp_path)
    for _ in range(4):
        ours.step()
    ours.draw(3.0)
    again = Training(tmp_path, commit(2), time=ours.time + 86_400.0)
    again.step()
    again.reporter.ended(again.state, "stopped")
    assert again.told["spent"] == {"steps": 5.0, "evaluations": 3.0, "saves": 0.0}
    assert [row["spent"]["steps"] for row in again.events("started", "resumed")] == [0.0, 4.0]


@pytest.mark.parametrize("samples", [Samples(), PICTURE])
def test_an_evaluation_without_samples_leaves_no_picture(samples: Samples, tmp_path: Path) -> None:
    ours = Training(tmp_path)
    ours.reporter.evaluated(State(2, 128), {"heldout/loss": 0.5}, samples)
    assert (tmp_path / "samples" / "step-000002.png").exists() is (samples is PICTURE)
    assert ours.events("evaluated")[0]["metrics"] == {"heldout/loss": 0.5}


@pytest.mark.parametrize(
    ("resume_from", "uri", "why"),
    [
        ("none", None, "checkpoints.resumeFrom is none"),
        ("latest", "file:///elsewhere/runs", "there is none at checkpoints.uri file:///elsewhere/runs"),
        ("latest", None, "there is none in the run folder"),
    ],
)
def test_a_run_that_does_not_go_on_from_its_checkpoint_says_why(resume_from: str, uri: str | None, why: str, tmp_path: Path) -> None:
    Training(tmp_path, commit(7))
    places = JOB.spec.checkpoints.model_copy(update={"resume_from": resume_from, "uri": uri})
    job = JOB.model_copy(update={"spec": JOB.spec.model_copy(update={"checkpoints": places})})
    Training(tmp_path, job=job)
    (started,) = [event for event in told_in(tmp_path) if event["event"] == "started"]
    assert started["message"].endswith(f"; not from the checkpoint of step 7: {why}")


def test_a_run_that_begins_says_nothing_of_a_checkpoint(tmp_path: Path) -> None:
    Training(tmp_path)
    (started,) = told_in(tmp_path)
    assert "checkpoint" not in started["message"]


def told_in(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "attempts.jsonl").read_text().splitlines()]
