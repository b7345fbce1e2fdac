"""Starting the workers of a run: `python -m trainjobs.workers.launch RUN`, the driver.

`gtj run` (or, on a cluster, the operator) has prepared the run folder: job.json says what to train. The same work is started in one of
three ways, and nothing else knows which: through Ray Train (ray_train/start.py); in this process alone (`--no-ray`); or as one of the
processes that torchrun started, when its variables are set. A cluster that RAY_ADDRESS names is taken for many machines: its workers do
not see this folder (relay.py).

A driver that dies is started again by `gtj run`, on a cluster by the operator; retries.py says what happens to workers.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import time
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job
from trainjobs.run import failures, preemption, progress
from trainjobs.run.outcome import left
from trainjobs.workers.preflight import preflight
from trainjobs.workers.process import COLLECTIVE_TIMEOUT, STOPPED, die_with_parent, held, leave, stoppable, threads
from trainjobs.workers.ray_train.start import on_ray


def main() -> int:
    since = time.time()
    parser = argparse.ArgumentParser(prog="python -m trainjobs.workers.launch")
    parser.add_argument("run", type=Path)
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--sync-every", type=int, help="exchange metrics every so many steps, instead of twice a second")
    arguments = parser.parse_args()
    run: Path = arguments.run.resolve()
    settings: dict[str, Any] = {"run": str(run), "since": since, "cwd": os.getcwd(), "sync_every": arguments.sync_every}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return under_torchrun(run, settings)
    die_with_parent()
    with held(run / "lock"):
        begin(run, since)
        try:
            job = Job.model_validate_json((run / "job.json").read_text())
            preflight(job, run)
            stoppable(run)
            if arguments.no_ray:
                os.environ.setdefault("OMP_NUM_THREADS", threads(1))
                here(settings)
            else:
                on_ray(run, settings, job.spec)
        except Exception as error:
            if not failures.accounts(run):
                failures.record(run, 0, failures.refused(error, run) or error)
        return outcome(run)


def begin(run: Path, since: float) -> None:
    """Clear what a former driver left: its failures, notices to its workers, its scratch."""
    for name in ("failure.json", preemption.STOP, preemption.REPLACE):
        (run / name).unlink(missing_ok=True)
    for leftover in [*run.glob("restore-*"), *run.glob("initial-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    failures.begin(run, since)
    (run / "logs").mkdir(exist_ok=True)
    progress.update(run, phase="Starting", message="looking at the data", activity=None)


def outcome(run: Path) -> int:
    """The driver's exit status, from what the workers left."""
    cause = failures.culprit(run)
    if cause is not None:
        failure = JobError.from_dict(cause)
        failures.publish(run, failure, {key: cause[key] for key in ("rank", "logTail")})
        return failure.exit_code
    ended = left(run)
    if ended is not None and ended.how != "replaced":
        return 0 if ended.how == "finished" else STOPPED
    failure = JobError("GTJ0213", "the workers ended without a result", where=str(run), how=f"read {failures.logs(run)}")
    failures.publish(run, failure, {})
    return failure.exit_code


def here(settings: dict[str, Any]) -> None:
    """One worker, in this process."""
    import torch
    import torch.distributed as dist

    from trainjobs.workers.worker import Settings, work
    from trainjobs.world import backend

    store = dist.HashStore()  # type: ignore[attr-defined]  # torch exports it without saying so
    dist.init_process_group(backend(torch.cuda.is_available()), store=store, rank=0, world_size=1)
    work(Settings(**settings), rank=0, size=1, local_rank=0)


def under_torchrun(run: Path, settings: dict[str, Any]) -> int:
    """One of torchrun's processes; rank 0 plays the driver too."""
    import torch
    import torch.distributed as dist

    from trainjobs.workers.worker import Settings, work
    from trainjobs.world import backend

    dist.init_process_group(backend(torch.cuda.is_available()), timeout=COLLECTIVE_TIMEOUT)
    rank, size = dist.get_rank(), dist.get_world_size()
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
    if rank == 0:
        begin(run, settings["since"])
    started = [settings["since"]]  # rank 0's is the run's
    dist.broadcast_object_list(started)
    settings["since"] = started[0]
    with contextlib.suppress(Exception):  # its account is what counts
        work(Settings(**settings), rank, size, int(os.environ["LOCAL_RANK"]))
    return outcome(run) if rank == 0 else 0


if __name__ == "__main__":
    leave(main())
