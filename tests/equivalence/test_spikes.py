"""A run whose loss spikes goes back to its last commit, leaves out the batches up to the spike, and ends where a plain torch loop does that
reads the same samples; one that was stopped on the way there ends the same, to the last bit.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))

import group
import plain

pytestmark = pytest.mark.slow

BATCH, STEPS, WINDOW = 8, 14, 8
SPIKE = {"spike": 8 * BATCH + 13}  # a sample of step 10; commits are after steps 4, 8 and 12
ONWARD = 10 * BATCH
ROLLBACK = {"onLossSpike": "rollback", "lossSpike": {"zScore": 6, "window": WINDOW}}
SGD = {"name": "sgd", "learningRate": 2e-3}
WARN = {**ROLLBACK, "onLossSpike": "warn"}


def spec(stage: int, recovery: dict[str, Any], optimizer: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "vae": {"network": {"channels": 4}},
        "data": {"source": "builtin:digits", "images": {"size": 8, "channels": 1}},
        "training": {
            "steps": STEPS,
            "batch": {"global": BATCH, "micro": 2},
            "optimizers": {"default": optimizer or {"name": "adamw", "learningRate": 1e-2}},
            "ema": {"decay": 0.9},
        },
        "deepspeed": {"stage": stage},
        "compute": {"workers": 2, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": 4}},
        "evaluation": {"samples": 1, "everySteps": STEPS},
        "recovery": recovery,
    }


RUNS: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    **{f"stage {stage}": (spec(stage, ROLLBACK), {**SPIKE, "talk": 1}) for stage in (0, 1, 2, 3)},
    "heard later": (spec(1, ROLLBACK), {**SPIKE, "talk": 100}),
    # After step 9 a commit is taken, because it stops there. What is usual for the loss takes 8 steps to know: the commit must tell.
    "stopped": (spec(1, ROLLBACK), {**SPIKE, "talk": 1, "stop": 9}),
    "warned": (spec(1, WARN), {**SPIKE, "talk": 1}),
    "ignored": (spec(1, {}), {**SPIKE, "talk": 1}),
    "too early": (spec(1, {**ROLLBACK, "lossSpike": {"zScore": 6, "window": 2}}), {"spike": 2 * BATCH + 1, "talk": 1}),
    "hopeless": (spec(1, {**ROLLBACK, "lossSpike": {"zScore": 6, "window": 4}, "maxRollbacks": 2}), {"every spike": 8 * BATCH, "talk": 1}),
    # The last batch before the commit of step 8 spoils the weights, and the loss of step 9 is the first to show it.
    **{
        f"saved too late {stage}": (
            spec(stage, {**ROLLBACK, "lossSpike": {"zScore": 6, "window": 4}}, SGD),
            {"kick": 8 * BATCH - 1, "talk": 1},
        )
        for stage in (0, 2)
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("spikes")
    runs = []
    for name, (manifest, poison) in RUNS.items():
        run = group.prepare(root / name, manifest)
        (run / "poison.json").write_text(json.dumps(poison))
        runs += [str(run)] * (2 if "stop" in poison else 1)
    group.run_group(2, runs, root, script="poisoned.py")
    return root


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    return [event for event in map(json.loads, (run / "attempts.jsonl").read_text().splitlines()) if event["event"] == kind]


def distance(run: Path, jump: tuple[int, int] | None, scratch: Path, optimizer: dict[str, Any] | None = None) -> float:
    """The largest difference of a weight to the plain loop's."""
    expected = plain.train(group.job(spec(0, {}, optimizer)), scratch / "cache", jump)
    ours = group.weights(run, "autoencoder")
    return max(float((ours[key].detach() - p.detach()).abs().max()) for key, p in expected.networks["autoencoder"].named_parameters())


@pytest.mark.parametrize("name", [name for name in RUNS if name.startswith("stage") or name == "heard later"])
def test_ends_where_a_plain_loop_does_that_leaves_out_the_same_samples(name: str, root: Path, tmp_path: Path) -> None:
    assert json.loads((root / name / "result.json").read_text()) == "finished"
    assert distance(root / name, (8, ONWARD), tmp_path) < 1e-5
    (event,) = events(root / name, "rolled back")
    assert event["step"] == 8
    assert event["message"].startswith("loss ")
    assert "standard deviations above its mean of" in event["message"]
    assert event["message"].endswith("at step 10: back to step 8, the batches in between are left out")


def test_a_run_that_was_stopped_before_goes_the_same_way(root: Path, tmp_path: Path) -> None:
    """Its last commit is another one (after step 9), so the samples of step 9 are not left out."""
    run = root / "stopped"
    assert [event["step"] for event in events(run, "resumed")] == [9]
    (event,) = events(run, "rolled back")
    assert event["step"] == 9
    assert distance(run, (9, ONWARD), tmp_path) < 1e-5


def test_canary_the_spike_matters(root: Path, tmp_path: Path) -> None:
    assert distance(root / "ignored", None, tmp_path) > 1e-3
    assert distance(root / "stage 1", None, tmp_path) > 1e-3


def test_a_warning_changes_nothing(root: Path) -> None:
    warned, ignored = (group.weights(root / name, "autoencoder") for name in ("warned", "ignored"))
    assert all(torch.equal(warned[key], ignored[key]) for key in ignored)
    (event,) = events(root / "warned", "warning")
    assert event["message"].startswith("GTJ0207 loss ")
    assert "(step 10)" in event["message"]
    assert events(root / "ignored", "warning") == []


def test_before_the_first_checkpoint_it_warns_and_goes_on(root: Path) -> None:
    run = root / "too early"
    assert json.loads((run / "result.json").read_text()) == "finished"
    assert events(run, "rolled back") == []
    assert "no checkpoint was taken before" in events(run, "warning")[0]["message"]


def test_a_run_that_spikes_again_and_again_ends(root: Path) -> None:
    result = json.loads((root / "hopeless" / "result.json").read_text())
    assert result["code"] == "GTJ0207"
    assert "went back to a checkpoint 2 times" in str(result)
    assert [event["step"] for event in events(root / "hopeless", "rolled back")] == [8, 4]


@pytest.mark.parametrize("stage", [0, 2])
def test_a_checkpoint_of_weights_that_were_spoilt_already_is_passed_over(stage: int, root: Path, tmp_path: Path) -> None:
    """It goes back to step 8, reads on behind step 9, sees the loss as high as before, and goes back to the checkpoint before that one."""
    run = root / f"saved too late {stage}"
    assert json.loads((run / "result.json").read_text()) == "finished"
    assert [event["step"] for event in events(run, "rolled back")] == [8, 4]
    assert distance(run, (4, 10 * BATCH), tmp_path, SGD) < 1e-5
