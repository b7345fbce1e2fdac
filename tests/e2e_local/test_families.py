"""Every family's sample through the command, on two workers: it learns, and shows what it learned.

One ZeRO stage for each family by default; GENTRAIN_ALL_STAGES=1 for 0, 1, 2 and, where the family allows it, 3.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from shell import Shell

pytestmark = pytest.mark.slow

SAMPLES = Path(__file__).resolve().parents[2] / "manifests" / "samples"
# Steps enough to see it learn; the ring takes all of its own to cover every mode.
STEPS = {
    "vae-digits": 60,
    "gan-digits": 300,
    "gan-ring": 3000,
    "gan-wgan": 40,
    "gan-stylegan2": 40,
    "diffusion-digits": 60,
    "language-stdlib": 40,
}
FEW = [("vae-digits", 3), ("gan-ring", 1), ("gan-wgan", 2), ("gan-stylegan2", 1), ("diffusion-digits", 2), ("language-stdlib", 0)]
ALL = [(sample, stage) for sample in STEPS for stage in ((0, 1, 2) if sample.startswith("gan") else (0, 1, 2, 3))]


@pytest.mark.parametrize(("sample", "stage"), ALL if os.environ.get("GENTRAIN_ALL_STAGES") else FEW)
def test_learns_on_two_workers(sample: str, stage: int, tmp_path: Path) -> None:
    run = tmp_path / "run"
    changes = ["--set", f"deepspeed.stage={stage}", "--set", f"evaluation.everySteps={STEPS[sample] // 4}"]
    result = Shell(tmp_path).gtj("run", "-f", SAMPLES / f"{sample}.yaml", "--steps", STEPS[sample], *changes, "--run-dir", run, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    progress = json.loads((run / "progress.json").read_text())
    assert (progress["workers"], progress["stage"]) == (2, stage)
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    pictures = sorted((run / "samples").iterdir())
    assert pictures[-1].stat().st_size > 0
    assert int(pictures[-1].stem.removeprefix("step-")) == STEPS[sample]
    shown(run, sample)
    if sample == "gan-ring":
        modes = [row["modes"] for row in rows if "modes" in row]
        print(f"{sample} stage {stage}: modes {modes}")
        assert modes[-1] == 8
    elif sample == "gan-digits":
        real = [row["score/real"] - row["score/fake"] for row in rows if "score/real" in row]
        print(f"{sample} stage {stage}: margin of D {real[0]:.3f} -> {real[-1]:.3f}")
        assert all(abs(value) < 20 for value in real), "a discriminator that runs away"
    elif sample == "gan-wgan":
        distance = [row["score/real"] - row["score/fake"] for row in rows if "score/real" in row]
        print(f"{sample} stage {stage}: distance {distance[0]:.4f} -> {distance[-1]:.4f}")
        assert 0 < distance[-1] < 1, "a clipped critic sees a distance, and a small one"
        assert all("accuracy/D" not in row for row in rows)
    elif sample == "gan-stylegan2":
        told = {name: [row[name] for row in rows if name in row] for name in ("path_length", "augment/p", "r1", "samples/spread")}
        print(f"{sample} stage {stage}: path length {told['path_length'][-1]:.3f}, p {told['augment/p'][-1]:.4f}, R1 {told['r1'][-1]:.3f}")
        assert all(value > 0 for value in told["path_length"])
        assert max(told["augment/p"]) > 0, "a discriminator of forty steps knows real samples"
        assert len(told["samples/spread"]) == 4
    else:
        losses = [row["loss"] for row in rows if "loss" in row]
        heldout = [row["heldout/loss"] for row in rows if "heldout/loss" in row]
        print(f"{sample} stage {stage}: loss {losses[0]:.3f} -> {losses[-1]:.3f}, held out {heldout[0]:.3f} -> {heldout[-1]:.3f}")
        assert losses[-1] < 0.9 * losses[0]
        assert heldout[-1] < heldout[0]
    if sample == "language-stdlib":
        perplexity = [row["heldout/perplexity"] for row in rows if "heldout/perplexity" in row]
        assert perplexity[-1] < perplexity[0]


def shown(run: Path, sample: str) -> None:
    """What there is to look at beside what was drawn, and rank 0's log of a good run."""
    names = {path.name for path in (run / "samples").iterdir()}
    assert ("real.txt" if sample == "language-stdlib" else "real.png") in names
    rebuilt = {name for name in names if name.startswith("reconstructed-")}
    assert len(rebuilt) == (4 if sample == "vae-digits" else 0)
    page = (run / "report.html").read_text()
    assert "training samples" in page
    assert f"--steps {STEPS[sample]}; " in page
    log = (run / "logs" / "worker-0.log").read_text()
    assert f"succeeded at step {STEPS[sample]}" in log
    assert log.count(f" step 1/{STEPS[sample]}, ") == 1
    assert "rank 1 of 2 on " in (run / "logs" / "worker-1.log").read_text()
