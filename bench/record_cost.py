"""Samples per second of a run whose record is kept, over those of the same run without: what the process that keeps it costs the training.

`python -m bench.record_cost PAIRS [STEPS]` prints the pairs as JSON. Both run on one core, which the record then has to take from the
training; STEPS are to be enough for several looks of the record, one in 30 seconds. By processor time, the record's own is counted with
the training's: by the training's alone a record that kept the core busy would be free.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import psutil

from bench.ratios import ratio
from bench.training import FAMILIES, manifest, trained, turns

STEPS = 600


def measure(pairs: int, steps: int = STEPS) -> list[dict[str, float]]:
    """Samples per second of each pair: "ours" with its record, "plain" without; "..._processor" by seconds of processor time."""
    import torch.distributed as dist

    from bench.plain_loops import WARM
    from trainjobs.api.job import Job
    from trainjobs.engine.memory import keep_freed_memory
    from trainjobs.head.recording import recorded
    from trainjobs.world import backend

    keep_freed_memory()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    case = {**FAMILIES["vae"], "steps": steps}
    told: dict[str, Any] = manifest("vae", case)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dist.init_process_group(backend(False), init_method=f"file://{folder}/store", rank=0, world_size=1)

        def once(name: str) -> tuple[float, float]:
            run = folder / name
            run.mkdir()
            told["spec"]["checkpoints"] = {"every": {"steps": steps // 5}, "uri": f"file://{folder}/kept-{name}"}
            job = Job.model_validate(told)
            (run / "job.json").write_text(job.model_dump_json(by_alias=True, exclude_none=True))
            if name.startswith("without"):
                return elapsed(job, run)
            with recorded(job, run, lambda words: print(words, file=sys.stderr), apart=True):
                return elapsed(job, run)

        def elapsed(job: Job, run: Path) -> tuple[float, float]:
            marks: dict[int, float] = {}

            def ended(step: int) -> None:
                if step in (WARM, steps):
                    marks[step] = processor()

            wall, _ = trained(job, run, ended=ended)
            return wall, marks[steps] - marks[WARM]

        results = turns(lambda turn: once(f"with-{turn}"), lambda turn: once(f"without-{turn}"), (steps - WARM) * case["batch"], pairs)
        dist.destroy_process_group()
    return results


def processor() -> float:
    """Seconds of processor time that this process and those that it has started have used."""
    used = time.process_time()
    for child in psutil.Process().children(recursive=True):
        times = child.cpu_times()
        used += times.user + times.system
    return used


def section(result: dict[str, Any] | None) -> list[str]:
    """Of docs/benchmarks.md."""
    lines = [
        "## What the record of a run costs",
        "",
        "A run whose record goes into the checkpoint store, a folder here, against the same run without (`bench/record_cost.py`): the",
        "VAE of the first table, one thread, checkpoints in both. All is on one core, so whatever the record does, it takes from the",
        "training, which on a machine with a core to spare it does not: an upper bound. Samples per second by the clock, and by processor",
        "time, in which the record's own is counted with the training's; the start of the record's process is in both. Where other",
        "processes share the machine the second is to be read, the clock only as far as its quartiles are close. Goal: at least 0.99.",
        "",
    ]
    if result is None:
        return [*lines, "Not measured.", ""]
    pairs = result["pairs"]
    wall, used = ([pair[f"ours{of}"] / pair[f"plain{of}"] for pair in pairs] for of in ("", "_processor"))
    ours, plain = (median(pair[side] for pair in pairs) for side in ("ours", "plain"))
    lines += ["| with / without | by processor time | with | without | pairs |", "| --- | --- | --- | --- | --- |"]
    return [*lines, f"| {ratio(wall)} | {ratio(used)} | {ours:.1f} | {plain:.1f} | {len(pairs)} |", ""]


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    print(json.dumps(measure(int(sys.argv[1]), *map(int, sys.argv[2:3]))))
