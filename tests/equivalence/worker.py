"""One process of a group that runs jobs through the training loop, one after another: `python worker.py RANK SIZE STORE RUN...`

Each RUN is a run folder with a job.json. `RUN=N` stops the run after N steps, as a request to stop does, for tests of resuming.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist

from trainjobs.api.job import Job
from trainjobs.launch import leave
from trainjobs.loop import train
from trainjobs.world import World


def main() -> None:
    rank, size = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(sys.argv[3], size), rank=rank, world_size=size)
    world = World(rank, size, torch.device("cpu"))
    for argument in sys.argv[4:]:
        name, _, stop_after = argument.partition("=")
        run = Path(name)
        job = Job.model_validate_json((run / "job.json").read_text())
        if stop_after and rank == 0:
            # Rank 0 looks for the request at every talk; this one appears when the row of that step is written.
            watch(run, int(stop_after))
        train(job, run, world, talk_every=1)
        if rank == 0:
            (run / "stop").unlink(missing_ok=True)
            unwatch()
    dist.destroy_process_group()
    leave(0)  # as a worker does


def watch(run: Path, step: int) -> None:
    from trainjobs.reporter import Reporter

    original = Reporter.orders

    def orders(self: Reporter, now: int) -> tuple[int, bool, bool]:
        if now == step:
            (run / "stop").touch()
        return original(self, now)

    Reporter.orders = orders  # type: ignore[method-assign]
    Reporter._original = original  # type: ignore[attr-defined]


def unwatch() -> None:
    from trainjobs.reporter import Reporter

    original = getattr(Reporter, "_original", None)
    if original is not None:
        Reporter.orders = original


if __name__ == "__main__":
    main()
