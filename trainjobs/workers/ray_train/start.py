"""Starting the workers of a run through Ray Train, beside their driver or in pods of their own. Ray is imported when a run needs it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from trainjobs.api.job import Spec
from trainjobs.plan.group import group
from trainjobs.run import progress
from trainjobs.workers.process import connected, stoppable, threads
from trainjobs.workers.ray_train.lighter import Forks, forking, forks
from trainjobs.workers.ray_train.unneeded import without_types

WARM = "trainjobs.workers.ray_train.local.warm"
ONCE = {"RAY_TRAIN_ENABLE_PRINT_PATCH": "0"}  # Ray Train's own print would write every line of a worker twice


def on_ray(run: Path, settings: dict[str, Any], spec: Spec) -> None:
    """Train on workers of a Ray cluster: the one that RAY_ADDRESS names, else one of its own on this machine."""
    progress.update(run, message="starting Ray")
    progress.timeline(run, settings["since"])("checks")
    local = "RAY_ADDRESS" not in os.environ
    with forks(gpus=spec.compute.gpus_per_worker > 0) if local else nullcontext() as source:
        train_on_ray(run, settings, spec, source, local=local)


def train_on_ray(run: Path, settings: dict[str, Any], spec: Spec, source: Forks | None, *, local: bool) -> None:
    """`source`: where workers are forked from, None where they start in Ray's own way."""
    elastic = spec.compute.elastic
    note = progress.timeline(run, settings["since"])
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # a manifest's relative paths are relative to where the user stands
    # 60 s are exceeded on a busy machine. An elastic group is put where there is room, and elsewhere if that room was a node that has died.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30" if elastic else "300")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5" if local else "2")
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # nodes.PreemptionWatch does
    if local:
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would let everything else on the machine go first
        os.environ.setdefault("RAY_enable_worker_prestart", "0")  # the prestarted ones are never used: theirs is another environment
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    with without_types() if source else nullcontext():
        import ray
        from ray.train import FailureConfig, RunConfig, ScalingConfig

        from trainjobs.workers.ray_train.local import LocalTrainer, begin, without_idle_services
    from trainjobs.workers.ray_train.remote import collector
    from trainjobs.workers.ray_train.rendezvous import Rendezvous
    from trainjobs.workers.ray_train.trainer import Trainer

    note("import ray")
    if local:
        with without_idle_services(), forking(source, ONCE, partial(print, flush=True)) if source else nullcontext():
            begin(spec.compute.worker_range[1] * spec.compute.each)
    else:
        ray.init()
        settings = {**settings, "job": (run / "job.json").read_text(), "collector": collector(run, settings["since"])}
    note("ray")
    stoppable(run)  # Ray has set its own handlers
    progress.update(run, message="starting workers")
    ranks = group(spec, int(ray.cluster_resources().get("GPU", 0)) if local else None)
    environment = {**ONCE, "DS_ACCELERATOR": "cuda" if ranks.on_gpu else "cpu"}
    if local:
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", threads(ranks.sizes[-1]))
        settings = {**settings, "threads": int(environment["OMP_NUM_THREADS"])}
    trainer = (LocalTrainer if local else Trainer)(
        on_worker if local else elsewhere,
        run=run,
        retries=spec.recovery.max_retries,
        group=ranks,
        train_loop_config={**settings, "gpus": ranks.on_gpu},
        backend_config=Rendezvous(),
        scaling_config=ScalingConfig(
            num_workers=(ranks.sizes[0], ranks.sizes[-1]) if elastic else ranks.sizes[-1],
            elastic_resize_monitor_interval_s=float(os.environ.get("GENTRAIN_RESIZE_SECONDS", "60")),
            use_gpu=ranks.on_gpu,
            resources_per_worker=ranks.needs,
            # Every worker has a pod of its own; the processes of one fill it.
            placement_strategy="PACK" if local or ranks.each > 1 else "STRICT_SPREAD",
        ),
        run_config=RunConfig(
            name="ray",
            storage_path=str(run),
            failure_config=FailureConfig(max_failures=-1),
            worker_runtime_env={} if source else {"worker_process_setup_hook": WARM, "env_vars": environment},
        ),
    )
    trainer.fit()
    ray.shutdown()


def on_worker(settings: dict[str, Any]) -> None:
    """Ray Train calls this in every worker beside the driver, and again after every restart of the group."""
    import torch
    from ray.train import get_context

    context = get_context()
    rank = context.get_world_rank()
    torch.set_num_threads(settings.pop("threads"))  # Ray allows one
    log = (Path(settings["run"]) / "logs" / f"worker-{rank}.log").open("a")
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    if Path(settings["cwd"]).is_dir():
        os.chdir(settings["cwd"])
    if rank == 0:
        progress.timeline(Path(settings["run"]), settings["since"])("workers")
    connected(settings, rank, context.get_world_size(), context.get_local_rank())


def elsewhere(settings: dict[str, Any]) -> None:
    """The same in a worker on another machine. What it prints goes Ray's way: to the log of its pod, and to the driver's output."""
    import torch
    from ray.train import get_context

    from trainjobs.workers.ray_train import remote

    context = get_context()
    job, collector = settings.pop("job"), settings.pop("collector")
    rank = context.get_world_rank()
    folder = remote.own_folder(Path(settings["run"]), job, rank)
    torch.set_num_threads(max(1, remote.threads() // context.get_local_world_size()))  # Ray allows one
    with remote.Away(collector, settings["since"], folder) as ledger:
        settings["run"] = str(folder)
        connected(settings, rank, context.get_world_size(), context.get_local_rank(), ledger)
