"""The samples of fine-tuning and of preferences, as they stand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from shell import Shell

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "samples"


@pytest.mark.parametrize("sample", ["language-sft", "language-dpo"])
def test_a_sample_learns_and_shows_what_it_learns_from(sample: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = Shell(tmp_path).gtj("run", "-f", SAMPLES / f"{sample}.yaml", "--no-ray", "--steps", 30, "--run-dir", run, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0]
    told = {name for row in rows for name in row}
    assert {
        "heldout/loss",
        *({"rewards/margin", "rewards/accuracy", "heldout/rewards/accuracy"} if sample == "language-dpo" else ()),
    } <= told
    assert "⟦" in (run / "samples" / "data.txt").read_text()
    assert "→" in (run / "samples" / "step-000030.txt").read_text()


@pytest.mark.parametrize("sample", ["language-grpo", "language-ppo"])
def test_a_sample_raises_its_reward(sample: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shell = Shell(tmp_path)
    shell.environment["PYTHONPATH"] += f":{SAMPLES}"
    result = shell.gtj("run", "-f", SAMPLES / f"{sample}.yaml", "--no-ray", "--steps", 20, "--run-dir", run, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    rewards = [row["reward"] for row in rows if "reward" in row]
    assert rewards[-1] > rewards[0] + 0.05, rewards
    told = {name for row in rows for name in row}
    mine = {"language-grpo": {"groups/flat", "groups/tries"}, "language-ppo": {"kl/k1", "kl/k3", "loss/policy", "loss/value"}}[sample]
    assert {"entropy", "clipped", "completion/length", "completion/ended", *mine} <= told


def test_a_model_of_rewards_is_trained_and_its_scores_rise(tmp_path: Path) -> None:
    """The one sample, and the other that learns from what it says."""
    shell, taught, run = Shell(tmp_path), tmp_path / "reward", tmp_path / "run"
    few = ("--no-ray", "--steps", 12)
    result = shell.gtj("run", "-f", SAMPLES / "language-reward.yaml", *few, "--run-dir", taught, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    right = [row["rewards/accuracy"] for row in told_of(taught) if "rewards/accuracy" in row]
    assert right[-1] > 0.9
    named = f"language.grpo.rewards=[{{source: 'file://{taught}/checkpoints'}}]"
    result = shell.gtj("run", "-f", SAMPLES / "language-judged.yaml", *few, "--run-dir", run, "--set", named, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    rewards = [row["reward"] for row in told_of(run) if "reward" in row]
    assert rewards[-1] > rewards[0], rewards


def test_a_t5_learns_spans(tmp_path: Path) -> None:
    """The sample, from a T5 that knows nothing."""
    from tests.models.task_bases import base

    base(tmp_path / "t5", "t5", width=32, layers=1, sentinels=32)
    run, named = tmp_path / "run", ("--set", f"language.base.source=file://{tmp_path / 't5'}")
    result = Shell(tmp_path).gtj(
        "run", "-f", SAMPLES / "language-spans.yaml", "--no-ray", "--steps", 12, *named, "--run-dir", run, timeout=600
    )
    assert result.returncode == 0, result.stdout + result.stderr
    losses = [row["loss"] for row in told_of(run) if "loss" in row]
    assert losses[-1] < losses[0] - 0.2, losses
    assert "<extra_id_0>" in (run / "samples" / "step-000012.txt").read_text()


def told_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
