"""One process of a group that runs several jobs, each in a child of its own: `python forked.py RANK SIZE STORE RUN...`

What a child imports is imported once, before the first fork. GENTRAIN_RECORDED of a job is its run folder's `seen`. A run folder with
`killed` in it has a child that ends as by SIGKILL, at the sample whose position stands there, on every rank.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist

import trainjobs.engine.engine
from tests.checkpointer.at_once import AtOnce
from trainjobs.api.job import Job
from trainjobs.checkpointer import saver
from trainjobs.loop import train
from trainjobs.workers.process import leave
from trainjobs.world import World


def main() -> None:
    rank, size, store = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    torch.set_num_threads(1)
    saver.Uploader = AtOnce  # type: ignore[misc, assignment]  # an uploader is a process of its own, which imports all of this again
    for number, name in enumerate(sys.argv[4:]):
        run = Path(name)
        killed = (run / "killed").exists()
        child = os.fork()
        if not child:
            one(rank, size, f"{store}-{number}", run)
        _, status = os.waitpid(child, 0)
        if killed:
            assert os.WIFSIGNALED(status), f"{run.name} was not killed: {status}"
            assert os.WTERMSIG(status) == signal.SIGKILL
        elif status:
            sys.exit(f"{run.name} ended with {status}")


def one(rank: int, size: int, store: str, run: Path) -> None:
    os.environ["GENTRAIN_RECORDED"] = str(run / "seen")
    if (run / "killed").exists():
        os.environ["GENTRAIN_KILLED"] = (run / "killed").read_text()
    dist.init_process_group("gloo", store=dist.FileStore(store, size), rank=rank, world_size=size)
    (run / "seen").mkdir(exist_ok=True)
    train(Job.model_validate_json((run / "job.json").read_text()), run, World(rank, size, torch.device("cpu")), sync_every=1)
    dist.destroy_process_group()
    leave(0)


if __name__ == "__main__":
    assert trainjobs.engine.engine
    main()
