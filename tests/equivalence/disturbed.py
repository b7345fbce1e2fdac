"""One process that trains and is killed, or is listened to: `python disturbed.py RANK SIZE STORE RUN`

With `killed` in the run folder it ends as by SIGKILL behind the commit of the step that stands there, before the next step is over. Else
what it says beside its steps is written to heard.json: {"words": [...], "beats": [steps, once for each sign of life]}.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist

from trainjobs.api.job import Job
from trainjobs.checkpoints import Commit
from trainjobs.loop import train
from trainjobs.monitor.reporter import Reporter
from trainjobs.workers.process import leave
from trainjobs.world import World


def main() -> None:
    rank, size, run = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[4])
    torch.set_num_threads(1)
    dist.init_process_group("gloo", store=dist.FileStore(sys.argv[3], size), rank=rank, world_size=size)
    kill_at = int((run / "killed").read_text()) if (run / "killed").exists() else None
    words: list[str] = []
    beats: list[int] = []
    saved, doing = Reporter.saved, Reporter.doing

    def then_killed(self: Reporter, commit: Commit) -> None:
        saved(self, commit)
        if commit.step == kill_at:
            (run / "killed").unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    def listened(self: Any, said: str) -> None:
        words.append(said)
        doing(self, said)

    Reporter.saved, Reporter.doing = then_killed, listened  # type: ignore[method-assign]
    job = Job.model_validate_json((run / "job.json").read_text())
    train(job, run, World(rank, size, torch.device("cpu")), sync_every=1, heartbeat=beats.append)
    if rank == 0:  # the one that speaks
        (run / "heard.json").write_text(json.dumps({"words": words, "beats": beats}))
    dist.destroy_process_group()
    leave(0)


if __name__ == "__main__":
    main()
