"""Whether each loss of a GAN covers the eight modes of `builtin:ring`, and whether a healthy run is told of any trouble.

    .venv/bin/python -m bench.run gan-losses        # bench/results/gan-losses.json

One process, one thread. manifests/samples/gan-ring.yaml is trained as it is, but by one worker and with what `SETTINGS` and `OPTIMIZERS`
say in place of its own; every seed of `SEEDS` by itself. Modes and quality are those of evaluate/coverage.py, at six evaluations, of the
moving average.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
SEEDS = (0, 1, 2)
# What each loss has in place of the sample's own loss; all else is the sample's, but for the optimizer.
SETTINGS: dict[str, dict[str, Any]] = {
    "bce": {},
    "minimax": {},
    "lsgan": {},
    "hinge": {},
    "wgan": {"weightClip": 0.1, "criticSteps": 5},
    "wgan-gp": {"gradientPenalty": 1.0, "criticSteps": 2},
}
# Of clipped weights the paper's, twenty times as fast for a clip ten times as wide. With the paper's own, 0.01 and 0.00005, and twice as
# many steps a seed has covered seven modes, with a tenth of the samples near to one.
OPTIMIZERS: dict[str, dict[str, Any]] = {"wgan": {"name": "rmsprop", "learningRate": 0.001}}


def manifest(loss: str, seed: int, steps: int | None = None) -> dict[str, Any]:
    """The sample with the loss."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "samples" / "gan-ring.yaml").read_text())
    spec = found["spec"]
    spec["gan"]["loss"] = {"type": loss, **SETTINGS[loss]}
    spec["training"] |= {"seed": seed, "steps": steps or spec["training"]["steps"]}
    if loss in OPTIMIZERS:
        spec["training"]["optimizers"] = {"default": OPTIMIZERS[loss]}
    spec["compute"] = {"workers": 1, "gpusPerWorker": 0}
    spec["checkpoints"] = {"every": {"steps": spec["training"]["steps"]}}
    spec["evaluation"] = {"everySteps": max(1, spec["training"]["steps"] // 6), "metrics": ["modes"], "samples": 16}
    return found


def trained(found: dict[str, Any], folder: Path) -> dict[str, Any]:
    """What the run measured and was told: its modes by step, the warnings, and its seconds of processor time."""
    import torch

    from trainjobs.api.job import Job
    from trainjobs.loop import train
    from trainjobs.world import World

    folder.mkdir()
    began = time.process_time()
    train(Job.model_validate(found), folder, World(0, 1, torch.device("cpu")))
    took = time.process_time() - began
    rows = [row for row in map(json.loads, (folder / "metrics.jsonl").read_text().splitlines()) if "modes" in row]
    events = map(json.loads, (folder / "attempts.jsonl").read_text().splitlines())
    return {
        "modes": {row["step"]: [row["modes"], round(row["modes/quality"], 3)] for row in rows},
        "warnings": [event["message"] for event in events if event["event"] == "warning"],
        "processorSeconds": round(took, 1),
    }


def section(result: dict[str, Any] | None) -> list[str]:
    """Of docs/benchmarks.md."""
    if result is None:
        return []
    lines = [
        "## Losses of a GAN on eight modes",
        "",
        "`manifests/samples/gan-ring.yaml` with each loss (`bench/gan_losses.py`): modes of eight that are covered at the end, the share",
        "of samples within three deviations of one, and warnings of the watches in the whole run, by seed.",
        "",
        "| Loss | settings | modes | quality | warnings |",
        "| --- | --- | --- | --- | --- |",
    ]
    for loss, settings in SETTINGS.items():
        runs = [row for row in result["pairs"] if row["loss"] == loss]
        ends = [list(row["modes"].values())[-1] for row in runs]
        modes, quality = (", ".join(f"{end[place]:g}" for end in ends) for place in (0, 1))
        told = ", ".join(str(len(row["warnings"])) for row in runs)
        others = {**settings, **({OPTIMIZERS[loss]["name"]: OPTIMIZERS[loss]["learningRate"]} if loss in OPTIMIZERS else {})}
        own = ", ".join(f"{name}: {value:g}" for name, value in others.items()) or "the sample's"
        lines.append(f"| {loss} | {own} | {modes} | {quality} | {told} |")
    return [*lines, ""]


def measure(seeds: tuple[int, ...], steps: int | None = None) -> list[dict[str, Any]]:
    import torch.distributed as dist

    found = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        for loss in SETTINGS:
            for seed in seeds:
                found.append({"loss": loss, "seed": seed, **trained(manifest(loss, seed, steps), folder / f"{loss}-{seed}")})
        dist.destroy_process_group()
    return found


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    given = [int(word) for word in sys.argv[1:]]  # seeds, steps
    print(json.dumps(measure(SEEDS[: given[0]] if given else SEEDS, given[1] if len(given) > 1 else None)))
