"""One worker, from its start to its end. How it was started is launch.py's business."""

from __future__ import annotations

import os
import socket
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist

from trainjobs.api.errors import JobError
from trainjobs.api.fields import seconds
from trainjobs.api.job import Job
from trainjobs.checkpoints import Fenced
from trainjobs.engine.memory import keep_freed_memory
from trainjobs.monitor.diary import stamp
from trainjobs.run import failures, preemption, progress
from trainjobs.workers import retries
from trainjobs.workers.watchdog import Watchdog
from trainjobs.world import World


@dataclass(frozen=True)
class Settings:
    """What the driver tells its workers."""

    run: str
    since: float  # when the driver started, seconds since the epoch
    cwd: str
    sync_every: int | None = None
    gpus: bool = False  # Ray has given each process a GPU


def work(settings: Settings, rank: int, size: int, local_rank: int, ledger: retries.Ledger | None = None) -> None:
    """Train, its process group being connected, and leave an account of a failure in `ledger`, by default the run folder.

    Raises when another group may help, or is to follow. Returns when the run is over, for better or worse: the accounts say which.
    """
    keep_freed_memory()
    run = Path(settings.run)
    ledger = ledger or retries.Folder(run, settings.since)
    job = Job.model_validate_json((run / "job.json").read_text())
    device = torch.device("cuda", local_rank) if on_gpu(job) else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(device)
    each = job.spec.compute.each if device.type == "cuda" or settings.gpus else 1
    world = World(rank, size, device, each if size % each == 0 else 1)  # torchrun starts as many as it is told
    note = progress.timeline(run, settings.since) if world.leads else (lambda part: None)
    if world.share(ledger.verdict(job.spec.recovery.max_retries) if world.leads else None) is not None:
        return
    os.environ.setdefault("DS_ACCELERATOR", device.type)  # read when DeepSpeed is imported; else it takes any GPU it sees
    print(f"{stamp(time.time())} rank {rank} of {size} on {socket.gethostname()}, {device}, process {os.getpid()}", flush=True)
    try:
        if settings.gpus and device.type == "cpu":
            raise no_gpu(local_rank)
        from trainjobs.loop import train

        note("imports")
        patience = seconds(job.spec.recovery.stall_timeout)
        with Watchdog(ledger, rank, patience, run / "logs" / f"stacks-{rank}.txt") as watchdog:
            outcome = train(job, run, world, since=settings.since, sync_every=settings.sync_every, note=note, heartbeat=watchdog.heartbeat)
        if world.leads:
            ledger.ended(outcome)
        if outcome.how == "replaced":
            replaced = preemption.Replaced(outcome.why)
            if world.leads:
                ledger.record(rank, replaced)
            world.barrier()  # it is in the ledger before any worker ends
            raise replaced
    except preemption.Replaced:
        disconnect()
        raise
    except Fenced as error:
        print(f"a newer attempt has taken over, this one ends: {error}", flush=True)
        disconnect()
    except JobError as error:
        ledger.record(rank, error)
        disconnect()
    except Exception as error:
        if ledger.explained():
            return  # a victim: another worker has said what happened, and left
        refused = failures.refused(error, run)
        ledger.record(rank, refused or error)
        if refused is None:
            raise
        disconnect()


def disconnect() -> None:
    """Leave the process group, so that the others' collectives fail now, and not in half an hour."""
    if dist.is_initialized():
        dist.destroy_process_group()


def no_gpu(local_rank: int) -> JobError:
    """GTJ0121 for a process that was given a GPU which torch does not see."""
    build = f"torch {torch.__version__} is a build {'for CUDA ' + torch.version.cuda if torch.version.cuda else 'without CUDA'}"
    how = "take an image, or install a torch, whose CUDA the node's driver supports; or set compute.gpusPerWorker to 0 to train on CPU"
    why = f"{build} and sees none on {socket.gethostname()} (local rank {local_rank})"
    return JobError("GTJ0121", "a process has no GPU", where="spec.compute.gpusPerWorker", why=why, how=how)


def on_gpu(job: Job) -> bool:
    return job.spec.compute.gpus_per_worker > 0 and torch.cuda.is_available()
