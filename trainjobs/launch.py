"""Starting the workers of a run. With crew.py, the only module that imports Ray.

`python -m trainjobs.launch RUN` is the driver of a run folder that `gtj run` (or, on a cluster, the operator) has prepared: job.json
says what to train. The same work is started in one of three ways, and nothing else knows which: through Ray Train; in this process
alone (`--no-ray`); or as one of the processes that torchrun started, when its variables are set. A cluster that RAY_ADDRESS names is
taken for many machines: its workers do not see this folder (relay.py).

A driver that dies is started again by `gtj run`, on a cluster by the operator; failures.py says what happens to workers.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from trainjobs.api.errors import JobError
from trainjobs.api.job import Job, Spec
from trainjobs.plan.group import group
from trainjobs.preflight import preflight
from trainjobs.run import failures, preemption, progress

STOPPED = 130
COLLECTIVE_TIMEOUT = timedelta(minutes=30)


def main() -> int:
    since = time.time()
    parser = argparse.ArgumentParser(prog="python -m trainjobs.launch")
    parser.add_argument("run", type=Path)
    parser.add_argument("--no-ray", action="store_true")
    parser.add_argument("--talk-every", type=int, help="exchange metrics every so many steps, instead of twice a second")
    arguments = parser.parse_args()
    run: Path = arguments.run.resolve()
    settings: dict[str, Any] = {"run": str(run), "since": since, "cwd": os.getcwd(), "talk_every": arguments.talk_every}
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return under_torchrun(run, settings)
    die_with_parent()
    with held(run / "lock"):
        begin(run, since)
        try:
            job = Job.model_validate_json((run / "job.json").read_text())
            preflight(job, run)
            signal.signal(signal.SIGTERM, lambda number, frame: terminated(run))
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
    for leftover in [*run.glob("save-*"), *run.glob("restore-*")]:
        shutil.rmtree(leftover, ignore_errors=True)
    failures.begin(run, since)
    (run / "logs").mkdir(exist_ok=True)
    progress.update(run, phase="Starting", message="looking at the data")


def outcome(run: Path) -> int:
    """The driver's exit status, from what the workers left."""
    cause = failures.culprit(run)
    if cause is not None:
        failure = JobError.from_dict(cause)
        failures.publish(run, failure, {key: cause[key] for key in ("rank", "logTail")})
        return failure.exit_code
    phase = progress.read(run / "progress.json").get("phase")
    if phase in ("Succeeded", "Stopped"):
        return 0 if phase == "Succeeded" else STOPPED
    failure = JobError("GTJ0213", "the workers ended without a result", where=str(run), how=f"read {failures.logs(run)}")
    failures.publish(run, failure, {})
    return failure.exit_code


# --- one process, or torchrun's ----------------------------------------------------------------------------------------------------


def here(settings: dict[str, Any]) -> None:
    """One worker, in this process."""
    import torch
    import torch.distributed as dist

    from trainjobs.work import Settings, work
    from trainjobs.world import backend

    store = dist.HashStore()  # type: ignore[attr-defined]  # torch exports it without saying so
    dist.init_process_group(backend(torch.cuda.is_available()), store=store, rank=0, world_size=1)
    work(Settings(**settings), rank=0, size=1, local_rank=0)


def under_torchrun(run: Path, settings: dict[str, Any]) -> int:
    """One of torchrun's processes; rank 0 plays the driver too."""
    import torch
    import torch.distributed as dist

    from trainjobs.work import Settings, work
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


# --- Ray -----------------------------------------------------------------------------------------------------------------------------


def on_ray(run: Path, settings: dict[str, Any], spec: Spec) -> None:
    """Train on workers of a Ray cluster: the one that RAY_ADDRESS names, else one of its own on this machine."""
    elastic = spec.compute.elastic
    progress.update(run, message="starting Ray")
    note = progress.timeline(run, settings["since"])
    note("checks")
    local = "RAY_ADDRESS" not in os.environ
    os.environ["RAY_CHDIR_TO_TRIAL_DIR"] = "0"  # a manifest's relative paths are relative to where the user stands
    # 60 s are exceeded on a busy machine. An elastic group is put where there is room, and elsewhere if that room was a node that has died.
    os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "30" if elastic else "300")
    os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5" if local else "2")
    os.environ["RAY_TRAIN_ENABLE_PREEMPTION_WATCHER"] = "0"  # crew.Watch does
    if local:
        os.environ.setdefault("RAY_worker_niceness", "0")  # Ray would let everything else on the machine go first
        os.environ.setdefault("RAY_enable_worker_prestart", "0")  # the prestarted ones are never used: theirs is another environment
        os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    from trainjobs import crew

    note("import ray")
    if local:
        with crew.without_idle_services():
            most = spec.compute.worker_range[1] * spec.compute.each
            ray.init(address="local", num_cpus=most, include_dashboard=False, object_store_memory=100 * 2**20)
    else:
        ray.init()
        settings = {**settings, "job": (run / "job.json").read_text(), "collector": crew.collector(run, settings["since"])}
    note("ray")
    signal.signal(signal.SIGTERM, lambda number, frame: terminated(run))  # Ray has set its own
    progress.update(run, message="starting workers")
    ranks = group(spec, int(ray.cluster_resources().get("GPU", 0)) if local else None)
    environment = {"DS_ACCELERATOR": "cuda" if ranks.on_gpu else "cpu"}
    if local:
        environment["OMP_NUM_THREADS"] = os.environ.get("OMP_NUM_THREADS", threads(ranks.sizes[-1]))
    trainer = (crew.LocalTrainer if local else crew.Trainer)(
        on_worker if local else elsewhere,
        run=run,
        retries=spec.recovery.max_retries,
        group=ranks,
        train_loop_config={**settings, "gpus": ranks.on_gpu},
        backend_config=crew.Rendezvous(),
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
            worker_runtime_env={
                "worker_process_setup_hook": "trainjobs.crew.warm",
                "env_vars": environment,
            },
        ),
    )
    trainer.fit()
    ray.shutdown()


def on_worker(settings: dict[str, Any]) -> None:
    """Ray Train calls this in every worker beside the driver, and again after every restart of the group."""
    from ray.train import get_context

    context = get_context()
    rank = context.get_world_rank()
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

    from trainjobs import crew

    context = get_context()
    job, collector = settings.pop("job"), settings.pop("collector")
    rank = context.get_world_rank()
    folder = crew.own_folder(Path(settings["run"]), job, rank)
    torch.set_num_threads(max(1, crew.threads() // context.get_local_world_size()))  # Ray allows one
    with crew.Away(collector, settings["since"], folder) as ledger:
        settings["run"] = str(folder)
        connected(settings, rank, context.get_world_size(), context.get_local_rank(), ledger)


def connected(settings: dict[str, Any], rank: int, size: int, local_rank: int, ledger: failures.Ledger | None = None) -> None:
    """Join the group, and work."""
    import torch
    import torch.distributed as dist

    from trainjobs.work import Settings, work
    from trainjobs.world import backend

    dist.init_process_group(backend(settings["gpus"] and torch.cuda.is_available()), rank=rank, world_size=size, timeout=COLLECTIVE_TIMEOUT)
    work(Settings(**settings), rank, size, local_rank, ledger)


# --- small things --------------------------------------------------------------------------------------------------------------------


def threads(processes: int) -> str:
    """Of each process. All threads for all would only get in each other's way: 69 to 123 s against 19 to 42 s for the same steps."""
    return str(max(1, len(os.sched_getaffinity(0)) // processes))


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the run folder: one driver at a time. The kernel lets go when the process ends, however it ends."""
    with path.open("w") as file:
        signal.signal(signal.SIGALRM, signal.default_int_handler)
        signal.setitimer(signal.ITIMER_REAL, 2.0)  # readers probe the lock for a moment, and a killed driver may be a moment in dying
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except KeyboardInterrupt:
            raise SystemExit(f"{path.parent} is in use by another driver") from None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def die_with_parent() -> None:
    """Have the kernel send SIGTERM to this process when the one that started it dies: nothing trains on unseen."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def terminated(run: Path) -> None:
    """SIGTERM: the machine is taken back, or somebody wants it. A pod knows how long it has."""
    grace = os.environ.get(preemption.GRACE)
    preemption.give(run, preemption.Notice("stopped", "SIGTERM" if grace else "", time.time() + float(grace) if grace else None))


def leave(status: int) -> None:
    """End this process, at once when it has trained itself.

    gloo's threads outlive their group as long as DeepSpeed knows it, and one that wants the interpreter while that is being taken down
    aborts the process ("terminate called without an active exception"), one time in twenty. Ray's workers are ended by Ray.
    """
    if "ray" not in sys.modules:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


if __name__ == "__main__":
    leave(main())
