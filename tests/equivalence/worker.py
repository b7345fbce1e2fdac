"""One process of a group that runs jobs through the training loop, one after another: `python worker.py RANK SIZE STORE RUN...`

Each RUN is a run folder with a job.json. `RUN=N` stops the run after N steps, as a request to stop does, for tests of resuming.
DS_ACCELERATOR says where they train: cpu, or cuda, with every kernel one that gives the same bits again.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist

from tests.checkpointer import at_once
from trainjobs.api.job import Job
from trainjobs.loop import train
from trainjobs.workers.process import leave
from trainjobs.world import World, backend


def main() -> None:
    rank, size = int(sys.argv[1]), int(sys.argv[2])
    torch.set_num_threads(1)
    device = torch.device(os.environ["DS_ACCELERATOR"], 0 if os.environ["DS_ACCELERATOR"] == "cuda" else None)
    torch.use_deterministic_algorithms(True, warn_only=True)  # and memory that nobody has written holds NaN: whoever reads it is found
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(backend(device.type == "cuda"), store=dist.FileStore(sys.argv[3], size), rank=rank, world_size=size)
    world = World(rank, size, device)
    for argument in sys.argv[4:]:
        name, _, stop_after = argument.partition("=")
        run = Path(name)
        job = Job.model_validate_json((run / "job.json").read_text())
        if stop_after and rank == 0:
            # Rank 0 looks for the request at every sync; this one appears when the row of that step is written.
            watch(run, int(stop_after))
        at_once.choose(run)
        train(job, run, world, sync_every=1)
        if rank == 0:
            (run / "stop").unlink(missing_ok=True)
            unwatch()
    dist.destroy_process_group()
    leave(0)  # as a worker does


def watch(run: Path, step: int) -> None:
    from trainjobs.monitor.reporter import Reporter

    original = Reporter.orders

    def orders(self: Reporter, now: int) -> tuple[int, bool, bool]:
        if now == step:
            (run / "stop").touch()
        return original(self, now)

    Reporter.orders = orders  # type: ignore[method-assign]
    Reporter._original = original  # type: ignore[attr-defined]


def unwatch() -> None:
    from trainjobs.monitor.reporter import Reporter

    original = getattr(Reporter, "_original", None)
    if original is not None:
        Reporter.orders = original


if __name__ == "__main__":
    main()
