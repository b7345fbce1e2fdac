"""Samples per second of a run whose record is kept, over those of the same run without: what the process that keeps it costs the training.

`python -m bench.record_cost PAIRS [STEPS]` prints the pairs as JSON. Both run on one core, which the record then has to take from the
training; STEPS are to be enough for several looks of the record, one in 30 seconds. Goal: a median of at least 0.99, by the wall's clock.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.ratios import ratio
from bench.training import FAMILIES, manifest, trained, turns

STEPS = 600


def measure(pairs: int, steps: int = STEPS) -> list[dict[str, float]]:
    """Samples per second of each pair: "ours" with its record, "plain" without; "..._processor" by the training's own processor time."""
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

        def once(name: str) -> Any:
            run = folder / name
            run.mkdir()
            told["spec"]["checkpoints"] = {"every": {"steps": steps // 5}, "uri": f"file://{folder}/kept-{name}"}
            job = Job.model_validate(told)
            (run / "job.json").write_text(job.model_dump_json(by_alias=True, exclude_none=True))
            if name.startswith("without"):
                return trained(job, run)
            with recorded(job, run, lambda words: print(words, file=sys.stderr), apart=True):
                return trained(job, run)

        results = turns(lambda turn: once(f"with-{turn}"), lambda turn: once(f"without-{turn}"), (steps - WARM) * case["batch"], pairs)
        dist.destroy_process_group()
    return results


if __name__ == "__main__":
    assert os.environ.get("OMP_NUM_THREADS") == "1", "one thread, from the start"
    found = measure(int(sys.argv[1]), *map(int, sys.argv[2:3]))
    print("with / without", ratio([pair["ours"] / pair["plain"] for pair in found]) if len(found) > 1 else "", file=sys.stderr)
    print(json.dumps(found))
