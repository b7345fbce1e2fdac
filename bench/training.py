"""Samples per second of the trainer's loop against a plain torch loop of the same model, data and optimizer; stage 0, one process.

`python -m bench.training <family> <pairs>` runs the pairs of one family in this process, one thread, and prints them as JSON. The two
loops take turns (ours first in every other pair), because the speed of a shared machine drifts by more than the difference sought.
Each turn trains afresh. Its first ten steps are not counted, nor are the evaluation and the checkpoint after the last.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

SEED = 0
# Sizes at which a step of one thread takes 100 to 250 ms; steps so that a turn takes about eight seconds.
FAMILIES: dict[str, dict[str, Any]] = {
    "gan": {
        "model": {"gan": {"generator": {"latentDim": 64, "channels": 32}, "discriminator": {"channels": 32}, "loss": {"type": "bce"}}},
        "data": {"source": "builtin:shapes", "images": {"size": 32, "channels": 3}},
        "batch": 128,
        "steps": 70,
    },
    "vae": {
        "model": {"vae": {"network": {"latentDim": 16, "channels": 32}}},
        "data": {"source": "builtin:shapes", "images": {"size": 32, "channels": 3}},
        "batch": 64,
        "steps": 70,
    },
    "diffusion": {
        "model": {"diffusion": {"network": {"channels": 32, "multipliers": [1, 2]}, "process": {"schedule": "cosine"}}},
        "data": {"source": "builtin:shapes", "images": {"size": 32, "channels": 3}},
        "batch": 16,
        "steps": 50,
    },
    "language": {
        "model": {"language": {"network": {"layers": 4, "hidden": 128, "heads": 4, "contextLength": 128}}},
        "data": {"source": "builtin:stdlib-text"},
        "batch": 16,
        "steps": 60,
    },
}
RATE = 1e-3


def manifest(family: str, case: dict[str, Any]) -> dict[str, Any]:
    """The job as a user would write it, but for checkpoint and evaluation, which come once, at the end."""
    return {
        "apiVersion": "gentrain.dev/v1alpha1",
        "kind": "GenerativeTrainingJob",
        "metadata": {"name": f"bench-{family}"},
        "spec": {
            **case["model"],
            "data": case["data"],
            "training": {
                "steps": case["steps"],
                "batch": {"global": case["batch"]},
                "seed": SEED,
                "precision": case.get("precision", "fp32"),
                "optimizers": {"default": case.get("optimizer", {"name": "adamw", "learningRate": RATE})},
            },
            "deepspeed": {"stage": case.get("stage", 0)},
            "compute": {"workers": 1, "gpusPerWorker": 0},
            "checkpoints": {"every": {"steps": case["steps"]}},
            "evaluation": {"everySteps": case["steps"], "samples": 1},
        },
    }


def trained(job: Any, run: Path, device: str = "cpu", ended: Callable[[int], None] = lambda step: None) -> Any:
    """Elapsed of the trainer's loop in that run folder, without its first WARM steps and what comes after the last, within a process
    group that is there. `ended` is told how many steps have ended, after each."""
    import torch

    from bench.plain_loops import WARM
    from trainjobs import loop
    from trainjobs.evaluate.evaluation import evaluation
    from trainjobs.optim.schedule import rate
    from trainjobs.world import World

    marks: list[tuple[float, float]] = []

    def mark() -> None:
        if device == "cuda":
            torch.cuda.synchronize()
        marks.append((time.perf_counter(), time.process_time()))

    def begun(schedule: Any, step: int, total: int) -> float:
        ended(step)
        if step == WARM:
            mark()
        return rate(schedule, step, total)

    def over(*arguments: Any) -> Any:
        ended(job.spec.training.steps)
        mark()
        return evaluation(*arguments)

    # The loop asks for the rate when a step begins, and looks at the model when the last one has ended.
    with mock.patch.object(loop, "rate", begun), mock.patch.object(loop, "evaluation", over):
        loop.train(job, run, World(0, 1, torch.device(device)))
    first, last = marks
    return last[0] - first[0], last[1] - first[1]


def turns(ours: Any, plain: Any, samples: int, pairs: int) -> list[dict[str, float]]:
    """Samples per second of each pair; `ours` and `plain` make Elapsed of a turn's number, in which they train on so many."""
    results = []
    for turn in range(-1 if pairs > 1 else 0, pairs):  # turn -1 warms up
        if turn % 2:
            other, mine = plain(turn), ours(turn)
        else:
            mine, other = ours(turn), plain(turn)
        if turn >= 0:
            wall = {"ours": samples / mine[0], "plain": samples / other[0]}
            results.append(wall | {"ours_processor": samples / mine[1], "plain_processor": samples / other[1]})
    return results


def measure(family: str, case: dict[str, Any], pairs: int, device: str = "cpu") -> list[dict[str, float]]:
    """Samples per second of each pair: {"ours", "plain"} by the clock on the wall, {"ours_processor", ...} by seconds of processor time,
    which other processes on the machine disturb less. In bf16 the plain loop has torch's autocast."""
    import torch
    import torch.distributed as dist

    from bench.plain_loops import LOOPS, WARM, Elapsed
    from trainjobs.api.job import Job
    from trainjobs.data import open_source
    from trainjobs.engine.memory import keep_freed_memory
    from trainjobs.noise import Noise
    from trainjobs.objectives.build import build
    from trainjobs.world import backend

    keep_freed_memory()  # as every worker does; both loops gain by it, and neither is at the mercy of where the other left the heap
    job = Job.model_validate(manifest(family, case))
    size, steps, peak = case["batch"], case["steps"], job.spec.training.optimizers["default"].learning_rate
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dist.init_process_group(backend(device == "cuda"), init_method=f"file://{folder}/store", rank=0, world_size=1)
        source = open_source(job.spec, folder / "cache")
        everything = torch.arange(min(source.info.length, 4096))
        data = source.batch(everything, SEED, Noise.of(SEED, 0, "bench", everything))
        whole = next(iter(data.values())).contiguous().to(device)

        def ours(turn: int) -> Elapsed:
            run = folder / f"run-{turn}"
            run.mkdir()
            (run / "cache").symlink_to(folder / "cache")
            elapsed: Elapsed = trained(job, run, device)
            return elapsed

        def plain(turn: int) -> Elapsed:
            torch.manual_seed(SEED + turn)
            networks = {name: network.to(device) for name, network in build(job.spec, source.info).modules.items()}
            return LOOPS[family](networks, whole, size, peak, steps, job.spec.training.precision == "bf16")

        results = turns(ours, plain, (steps - WARM) * size, pairs)
        dist.destroy_process_group()
    return results


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    print(json.dumps(measure(sys.argv[1], FAMILIES[sys.argv[1]], int(sys.argv[2]))))
