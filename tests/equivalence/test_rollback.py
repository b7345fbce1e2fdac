"""A run that diverges goes back to its last commit, leaves out the batches up to the bad one, and ends where a plain torch loop does
that reads the same samples. What counts is the step that went bad, not when the workers next spoke to each other.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "run"))

import as_tensorboard
import group
import plain

from tests.checkpointer import at_once

pytestmark = pytest.mark.slow

BATCH, STEPS = 8, 9
# name: (poison, sample it goes on from at stage 0, and from stage 1 on). Commits are after steps 4 and 8; step 6 reads samples 40 to 47.
# At stage 0 weights are spoilt by the gradient, and the next loss or the commit shows it; from stage 1 on DeepSpeed says so at once.
CASES: dict[str, tuple[dict[str, int], int, int]] = {
    "loss": ({"loss": 45, "talk": 1}, 48, 48),
    "heard later": ({"loss": 45, "talk": 3}, 48, 48),
    "gradient": ({"gradient": 35, "talk": 1}, 48, 40),
    "gradient before a commit": ({"gradient": 60, "talk": 1}, 64, 64),
}


def spec(stage: int) -> dict[str, Any]:
    return {
        "vae": {"network": {"channels": 4}},
        "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": 2},
            "optimizers": {"default": {"name": "adamw", "learningRate": 1e-2}},
            "ema": {"decay": 0.9},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": 2, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": 4}},
        "evaluation": {"samples": 1, "everySteps": STEPS},
    }


def prepare(run: Path, manifest: dict[str, Any], poison: dict[str, int]) -> Path:
    group.prepare(run, manifest)
    (run / "poison.json").write_text(json.dumps(poison))
    return run


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("rollback")
    runs = [prepare(root / f"{name}-{stage}", spec(stage), poison) for name, (poison, *_) in CASES.items() for stage in (0, 1, 2, 3)]
    for run in runs[1::2]:  # these save while they train
        (run / at_once.PROCESS).touch()
    runs.append(prepare(root / "hopeless", spec(1), {"every": 45, "talk": 1}))
    runs.append(prepare(root / "halted", {**spec(1), "recovery": {"onNonFiniteLoss": "halt"}}, {"loss": 45, "talk": 1}))
    runs.append(prepare(root / "too early", spec(1), {"loss": 5, "talk": 1}))
    group.run_group(2, [str(run) for run in runs], root, script="poisoned.py")
    return root


def events(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "attempts.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
@pytest.mark.parametrize("name", CASES)
def test_ends_where_a_plain_loop_does_that_leaves_out_the_same_samples(name: str, stage: int, root: Path, tmp_path: Path) -> None:
    run, onward = root / f"{name}-{stage}", CASES[name][1 if stage == 0 else 2]
    assert json.loads((run / "result.json").read_text()) == "finished"
    expected = plain.train(group.job(spec(stage)), tmp_path / "cache", (4, onward))
    ours = group.weights(run, "autoencoder")
    for key, parameter in expected.networks["autoencoder"].named_parameters():
        torch.testing.assert_close(ours[key], parameter.detach(), rtol=0, atol=1e-5)


def test_canary_the_samples_matter(root: Path, tmp_path: Path) -> None:
    """Without the jump the plain loop ends elsewhere, by far more than the tolerance."""
    expected = plain.train(group.job(spec(0)), tmp_path / "cache")
    ours = group.weights(root / "loss-0", "autoencoder")
    assert max(float((ours[key] - p.detach()).abs().max()) for key, p in expected.networks["autoencoder"].named_parameters()) > 1e-3


def test_the_user_is_told_and_the_curve_has_no_future_that_did_not_happen(root: Path) -> None:
    run = root / "loss-1"
    (event,) = [event for event in events(run) if event["event"] == "rolled back"]
    assert event["step"] == 4
    assert event["message"] == "loss not finite at step 6: back to step 4, the batches in between are left out"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    steps = [row["step"] for row in rows if "loss" in row]
    assert steps == sorted(set(steps)) == list(range(1, STEPS + 1))
    assert "nan" not in (run / "metrics.jsonl").read_text()


@pytest.mark.parametrize("name", CASES)
def test_tensorboard_shows_every_step_once_and_the_curve_of_metrics(name: str, root: Path) -> None:
    run = root / f"{name}-1"
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    expected = [(row["step"], pytest.approx(row["loss"], rel=1e-6)) for row in rows if "loss" in row]
    assert as_tensorboard.shown(run / "events")["loss"] == expected
    if CASES[name][0]["talk"] == 1:
        assert [step for step, _ in expected] == list(range(1, STEPS + 1))


def test_a_run_that_diverges_again_and_again_ends(root: Path) -> None:
    result = json.loads((root / "hopeless" / "result.json").read_text())
    assert result["code"] == "GTJ0207"
    assert "went back to a checkpoint 3 times" in str(result)
    assert len([event for event in events(root / "hopeless") if event["event"] == "rolled back"]) == 3


def test_a_run_that_shall_halt_halts(root: Path) -> None:
    result = json.loads((root / "halted" / "result.json").read_text())
    assert result["code"] == "GTJ0207"
    assert "the last good checkpoint is at step 4" in str(result)
    assert not [event for event in events(root / "halted") if event["event"] == "rolled back"]


def test_before_the_first_checkpoint_there_is_nothing_to_go_back_to(root: Path) -> None:
    result = json.loads((root / "too early" / "result.json").read_text())
    assert result["code"] == "GTJ0207"
    assert "no checkpoint was taken before" in str(result)


def test_nothing_that_is_not_finite_was_ever_committed(root: Path, tmp_path: Path) -> None:
    for name in ("gradient before a commit-0", "hopeless", "halted"):
        assert all(bool(value.isfinite().all()) for value in group.weights(root / name, "autoencoder").values())
