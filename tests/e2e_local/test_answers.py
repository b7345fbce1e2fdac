"""The samples of fine-tuning and of preferences, as they stand."""

from __future__ import annotations

import json
from pathlib import Path

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
