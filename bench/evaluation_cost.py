"""What an evaluation with FID costs the run that it is taken of, in steps.

`python -m bench.evaluation_cost FEATURES` (builtin, or wide: a random network of 2,048 features in a file) trains the digits DCGAN of
manifests/samples/gan-digits.yaml by one process and one thread, has it evaluated with `evaluation.metrics: [fid]` of 2,000 pictures, and
prints JSON. Every step's begin is noted, so one run says it all:

step      seconds of a step, the median of those with nothing beside them
still     seconds in which no step is made, from the end of the step that is evaluated to the begin of the next: drawing, features
beside    seconds from there until the figures are there, computed in a thread beside steps
slower    seconds that the steps in that time took longer than as many with nothing beside them
The second evaluation is told; the first also makes the data's own figures. All is on one core: what the figures take, they take from the
steps beside them, which on a machine with a core to spare they do not.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any
from unittest import mock

import yaml

ROOT = Path(__file__).resolve().parent.parent
FEATURES = {"builtin": (64, 60), "wide": (2048, 480)}  # how many, and the steps between evaluations, in which the figures are long there
PICTURES = 2000


def network(to: Path) -> None:
    """Writes a random network of as many features as Inception's."""
    import torch
    from torch import nn

    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(3, 64, 4, 4), nn.ReLU(), nn.Conv2d(64, 128, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(512, 2048))
    torch.jit.script(layers).save(str(to))  # type: ignore[no-untyped-call]


def manifest(features: str, folder: Path) -> dict[str, Any]:
    """Evaluated three times, the last time at the end."""
    found: dict[str, Any] = yaml.safe_load((ROOT / "manifests" / "samples" / "gan-digits.yaml").read_text())
    _, every = FEATURES[features]
    spec = found["spec"]
    spec["training"]["steps"] = 3 * every
    spec["compute"] = {"workers": 1, "gpusPerWorker": 0}
    spec["checkpoints"] = {"every": {"steps": 3 * every}}
    uri = "builtin" if features == "builtin" else f"file://{folder}/features.pt"
    spec["evaluation"] = {"everySteps": every, "samples": 1, "metrics": ["fid"], "fidSamples": PICTURES, "features": uri}
    return found


def measure(features: str) -> dict[str, Any]:
    import torch
    import torch.distributed as dist

    from trainjobs import loop
    from trainjobs.api.job import Job
    from trainjobs.engine.memory import keep_freed_memory
    from trainjobs.evaluate.compared import Compared
    from trainjobs.optim.schedule import rate
    from trainjobs.world import World

    keep_freed_memory()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    begins: list[float] = []
    ended: list[tuple[float, float]] = []
    figures = Compared.figures

    def begun(*arguments: Any) -> float:
        begins.append(time.perf_counter())
        return rate(*arguments)

    def computed(self: Any, *arguments: Any) -> Any:
        thread = time.thread_time()
        found = figures(self, *arguments)
        ended.append((time.perf_counter(), time.thread_time() - thread))
        return found

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        network(folder / "features.pt")
        (folder / "run").mkdir()
        job = Job.model_validate(manifest(features, folder))
        with mock.patch.object(loop, "rate", begun), mock.patch.object(Compared, "figures", computed):
            loop.train(job, folder / "run", World(0, 1, torch.device("cpu")))
        dist.destroy_process_group()
    return {"features": features, **told(begins, ended)}


def told(begins: list[float], ended: list[tuple[float, float]]) -> dict[str, float]:
    """Of when each step began, and when each evaluation's figures were there and what they took of a processor."""
    (first, _), (over, figures), *_ = ended
    looked = 2 * len(begins) // 3  # the number of the step that begins behind the second evaluation
    lengths = [after - before for before, after in pairwise(begins)]
    step = median(lengths[number] for number in range(10, looked - 1) if begins[number] > first)
    beside = [lengths[number] for number in range(looked, len(lengths)) if begins[number + 1] <= over]
    return {
        "step": step,
        "still": lengths[looked - 1] - step,
        "beside": max(0.0, over - begins[looked]),
        "stepsBeside": float(len(beside)),
        "slower": sum(beside) - len(beside) * step,
        "figures": figures,
    }


def section(result: dict[str, Any] | None) -> list[str]:
    """Of docs/benchmarks.md."""
    lines = [
        "## What an evaluation with FID costs",
        "",
        f"`fid` of {PICTURES:,} pictures beside the training of `manifests/samples/gan-digits.yaml`, one process and one thread",
        "(`bench/evaluation_cost.py`), in steps of the same run: those in whose time no step is made, because pictures are drawn and their",
        "features computed, and those by which steps are later because the figures are computed in a thread beside them. All is on one",
        "core, from which a thread takes what it needs; a core to spare would take the second away.",
        "",
    ]
    if result is None:
        return [*lines, "Not measured.", ""]
    lines += ["| Features | a step | stands still | beside steps | steps are later by | in all |", "| --- | --- | --- | --- | --- | --- |"]
    for name, (width, _) in FEATURES.items():
        rows = [row for row in result["pairs"] if row["features"] == name]
        step, still, beside, slower = (median(row[part] for row in rows) for part in ("step", "still", "beside", "slower"))
        cells = f"{still / step:.1f} steps | {beside:.1f} s | {slower / step:.1f} steps | {(still + slower) / step:.1f} steps"
        lines.append(f"| {name}: {width} | {1000 * step:.0f} ms | {cells} |")
    return [*lines, ""]


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    print(json.dumps(measure(sys.argv[1])))
