"""Does the range that `gtj plan --probe` gives hold what 500 steps take?

Each row is a probe and the run after it, of a job with a seed of its own; a run's rate is that of its steps alone, evaluations and saves
aside, as it tells it itself."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

STEPS = 500
GTJ = [sys.executable, "-m", "trainjobs.cli.main"]
# One process of small networks: where the share of a step that other processes disturb is greatest.
FAMILIES = {
    "vae": {"vae": {"network": {"architecture": "conv", "latentDim": 16, "channels": 32}}},
    "gan": {"gan": {}},
}


def measure(runs: int) -> list[dict[str, Any]]:
    return [pair(list(FAMILIES)[number % len(FAMILIES)], number) for number in range(runs)]


def pair(family: str, seed: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="gentrain-probe-") as name:
        folder = Path(name)
        (folder / "job.yaml").write_text(json.dumps(manifest(family, seed)))
        planned = json.loads(gtj(folder, "plan", "-f", "job.yaml", "--probe", "-o", "json"))
        # Of the ways that were planned, the one that is run: its ranks were probed.
        hours = next(one["hours"] for one in planned["options"] if one["hours"] and one["basis"].startswith("probe"))
        gtj(folder, "run", "-f", "job.yaml", "--no-ray")
        told = json.loads((folder / "gentrain-runs" / "probed" / "progress.json").read_text())
    low, high = (3600 * value / STEPS for value in hours)
    seconds = told["spent"]["steps"] / told["step"]
    return {"family": family, "low": low, "high": high, "seconds": seconds, "held": low <= seconds <= high}


def manifest(family: str, seed: int) -> dict[str, Any]:
    spec = {
        **FAMILIES[family],
        "data": {"source": "builtin:digits", "images": {"size": 16, "channels": 1}},
        "training": {"steps": STEPS, "seed": seed, "batch": {"global": 64}},
        "compute": {"workers": 1, "gpusPerWorker": 0},
        "checkpoints": {"every": {"steps": STEPS}},
        "evaluation": {"everySteps": STEPS, "samples": 1},
    }
    return {"apiVersion": "gentrain.dev/v1alpha1", "kind": "GenerativeTrainingJob", "metadata": {"name": "probed"}, "spec": spec}


def gtj(folder: Path, *arguments: str) -> str:
    return subprocess.run([*GTJ, *arguments], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
