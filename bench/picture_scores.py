"""Scores of the pictures that the digits samples learn to draw, and what an evaluation with them costs.

    .venv/bin/python -m bench.picture_scores FILE [SAMPLE ...]        # as bench/results/picture-scores.json

One process, one thread. Each sample of `SAMPLES`, or those that are named, whose figures then replace what FILE has of them, is trained as
its manifest says, but by one worker and with all scores every so many steps; the first evaluation is after one step, when the networks are
as good as untrained. The cost of an evaluation is what it took by the clock beside what a step took, both in the same run.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
METRICS = ["fid", "kid", "is", "precision", "recall"]
SAMPLES = {"gan-digits": 200, "gan-wgan": 500, "gan-stylegan2": 500, "vae-digits": 200}  # steps between evaluations


def manifest(name: str, *, steps: int | None = None, every: int, count: int | None = None) -> dict[str, Any]:
    """The sample, with the scores."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "samples" / f"{name}.yaml").read_text())
    spec = found["spec"]
    spec["training"]["steps"] = steps or spec["training"]["steps"]
    spec["compute"] = {"workers": 1, "gpusPerWorker": 0}
    spec["checkpoints"] = {"every": {"steps": spec["training"]["steps"]}}
    spec["evaluation"] = {"everySteps": every, "samples": 16, "metrics": METRICS, **({"fidSamples": count} if count else {})}
    return found


def trained(found: dict[str, Any], folder: Path) -> tuple[dict[int, dict[str, float]], dict[str, Any]]:
    """(scores by step, what the run says of itself at its end)."""
    import torch

    from trainjobs.api.job import Job
    from trainjobs.loop import train
    from trainjobs.world import World

    folder.mkdir()
    train(Job.model_validate(found), folder, World(0, 1, torch.device("cpu")))
    scores: dict[int, dict[str, float]] = {}
    for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()):
        some = {name: value for name, value in row.items() if name.partition("/")[0] in METRICS}
        scores.setdefault(row["step"], {}).update(some)
    return {step: row for step, row in scores.items() if row}, json.loads((folder / "progress.json").read_text())


def main() -> None:
    import torch.distributed as dist

    from bench.record import header

    file, head = Path(sys.argv[1]), header("picture scores")
    named, kept = sys.argv[2:], {}
    if named and file.exists():
        head = json.loads(file.read_text())
        kept = head["samples"]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        for sample in named or SAMPLES:
            first, _ = trained(manifest(sample, steps=1, every=1), folder / f"{sample}-untrained")
            scores, end = trained(manifest(sample, every=SAMPLES[sample]), folder / sample)
            steps, looks = max(scores), len(scores)
            took = {"step": end["spent"]["steps"] / steps, "evaluation": end["spent"]["evaluations"] / looks}
            kept[sample] = {"untrained": first[1], "scores": scores, "seconds": took}
            print(sample, first, scores, took, file=sys.stderr)
    file.write_text(json.dumps({**head, "samples": {sample: kept[sample] for sample in SAMPLES if sample in kept}}, indent=1) + "\n")


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    main()
