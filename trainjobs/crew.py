"""Ray Train, made lighter: how workers find each other, when they are given up, and what one machine does without.

The time from `gtj run` to the first step is what a user of a laptop feels. Ray Train starts a process for each of its services, each of
which imports Ray again; on two cores that is most of the wait. None of this changes how training runs or recovers.

On a cluster it is instead how workers, each with a folder of its own, reach that of the driver.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray._private.node import Node
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.failure_handling import DefaultFailurePolicy, FailureDecision
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, state, worker_group
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

from trainjobs.api.errors import JobError
from trainjobs.nodes import Elastic, Watch
from trainjobs.plan.group import Group
from trainjobs.relay import Collector, Notices, Piece, Relay, Verdict
from trainjobs.run import failures, progress

CALL_SECONDS = 60.0  # within which the driver's side answers a worker


@dataclass
class Rendezvous(BackendConfig):  # type: ignore[misc]
    """Rank 0's address and a free port of its, in the variables that torch.distributed reads.

    Ray's own torch backend does the same, and imports torch into the driver and the controller to do it: processes that compute nothing.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        return _Rendezvous


class _Rendezvous(Backend):  # type: ignore[misc]
    share_cuda_visible_devices = True  # a worker takes the GPU of its local rank, and NCCL reaches those of its neighbours

    def on_start(self, worker_group: Any, backend_config: Rendezvous) -> None:
        address, port = worker_group.execute_single(0, free_address)
        worker_group.execute(announce, address, port)


def free_address() -> tuple[str, int]:
    """This node's address as Ray knows it, and a port that was free a moment ago."""
    address: str = ray.util.get_node_ip_address()
    with socket.socket() as probe:
        probe.bind(("", 0))
        return address, probe.getsockname()[1]


def announce(address: str, port: int) -> None:
    os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"] = address, str(port)


@contextmanager
def without_idle_services() -> Iterator[None]:
    """Within the block, `ray.init` starts no autoscaler, no log forwarder and no dashboard.

    Each is a Python process that imports Ray: together a second of two cores. Workers write their own logs, nothing scales, and
    `gtj` shows what happens. Ray has no switch for it in `ray.init`; the names are those of the pinned version.
    """
    idle = {name: getattr(Node, name) for name in ("start_monitor", "start_log_monitor", "start_api_server")}
    for name in idle:
        setattr(Node, name, lambda self, **options: None)
    try:
        yield
    finally:
        for name, start in idle.items():
            setattr(Node, name, start)


def warm() -> None:
    """Called in a worker's process before anything else: import what training needs while Ray still puts the group together."""
    threading.Thread(target=importlib.import_module, args=("trainjobs.loop",), daemon=True).start()


class OneMachine(FixedScalingPolicy):  # type: ignore[misc]
    """Asks no autoscaler for nodes: there is none. The coordinator that would be asked is a process that imports Ray Data."""

    def _send_resource_request(self) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass


class Patience(DefaultFailurePolicy):  # type: ignore[misc]
    """No further group for a run whose accounts say that it would be sent home. The controller lives on the driver's machine."""

    def __init__(self, failure_config: Any, run: Path, retries: int) -> None:
        super().__init__(failure_config)
        self._run, self._retries = run, retries
        self._groups, self._unheard = 0, 0

    def make_decision(self, training_failed_error: Any) -> FailureDecision:
        if starved := failures.starved(str(training_failed_error)):
            rank, error = starved
            failures.enter(self._run, failures.account(rank, error, failures.logs(self._run)))
        elif self._never_began():
            why, how = "no group came as far as to look for a checkpoint", f"read {failures.logs(self._run)}"
            lost = JobError("GTJ0213", f"workers were lost {self._unheard} times in a row while they started", why=why, how=how)
            failures.enter(self._run, failures.account(0, lost, failures.logs(self._run)))
        return FailureDecision.RAISE if failures.final(self._run, self._retries) else super().make_decision(training_failed_error)

    def _never_began(self) -> bool:
        """Whether so many groups in a row have ended without having asked for a verdict, which counts those that did."""
        groups = 1 + progress.read(self._run / "failures" / "counts").get("restarts", -1)
        self._unheard = self._unheard + 1 if groups == self._groups else 1
        self._groups = groups
        return self._unheard > failures.FRUITLESS_RESTARTS


class Trainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray Train that gives up when the run has: `run` is the run folder, `retries` recovery.maxRetries. What Ray Train calls a worker is
    one of the processes of `group`.

    The Ray cluster is this job's alone, so no placement groups need cleaning up after it, and Ray's datasets are not used.
    """

    pods = True  # every worker is a node of its own

    def __init__(self, *arguments: Any, run: Path, retries: int, group: Group, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._run, self._retries, self._group = run, retries, group

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        return super()._initialize_and_run_controller(**self._lighter(parts))

    def _lighter(self, parts: dict[str, Any]) -> dict[str, Any]:
        idle = (PlacementGroupCleanerCallback, DatasetsCallback)
        callbacks = [callback for callback in parts["callbacks"] if not isinstance(callback, idle)]
        policy = Patience(self.run_config.failure_config, self._run, self._retries)
        scaling = self._fixed(parts)
        if self.scaling_config.elasticity_enabled:
            scaling = Elastic(self.scaling_config, self._run, self._group, pods=self.pods)
        return {**parts, "callbacks": [*callbacks, Watch(self._run)], "failure_policy": policy, "scaling_policy": scaling}

    def _fixed(self, parts: dict[str, Any]) -> Any:
        return parts["scaling_policy"]


class NoCollectives:
    """In place of Ray Train's synchronisation actor, a process for collectives through `ray.train`: training talks by torch.distributed."""

    @classmethod
    def options(cls, **options: Any) -> type[NoCollectives]:
        return cls

    @classmethod
    def remote(cls, **options: Any) -> NoCollectives:
        return cls()


class LocalGroup(WorkerGroup):  # type: ignore[misc]
    """Workers whose controller is this process, and no actor that they could call."""

    def _init_train_context_on_workers(self, workers: list[Any], sync_actor: Any, train_context_args: dict[str, list[Any]]) -> None:
        common = {
            "train_run_context": self._train_run_context,
            "storage_context": self._storage_context,
            "worker_callbacks": self._worker_callbacks_to_propagate,
            "synchronization_actor": None,
            "controller_actor": None,
        }
        own = [{name: values[i] for name, values in train_context_args.items()} for i in range(len(workers))]
        ray.get(
            [
                worker.actor.init_train_context.remote(**common, distributed_context=worker.distributed_context, **arguments)
                for worker, arguments in zip(workers, own, strict=True)
            ]
        )
        self._decorate_worker_log_file_paths(workers)


class LocalController(TrainController):  # type: ignore[misc]
    worker_group_cls = LocalGroup


class LocalTrainer(Trainer):
    """On a cluster that lives and dies with this process: no nodes to ask for, and the controller runs here. Ray Train would start a
    process for it and another for its collectives, each of which imports Ray again."""

    pods = False

    def _fixed(self, parts: dict[str, Any]) -> Any:
        return OneMachine(self.scaling_config)

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        controller = LocalController(**self._lighter(parts))
        actor, shutdown = worker_group.SynchronizationActor, state._shutdown_sync_actor
        worker_group.SynchronizationActor, state._shutdown_sync_actor = NoCollectives, lambda sync_actor: None
        try:
            asyncio.run(controller.run())
        finally:
            worker_group.SynchronizationActor, state._shutdown_sync_actor = actor, shutdown
        return controller.get_result()


def collector(run: Path, driver: float) -> Any:
    """An actor beside this process that keeps the run folder for workers elsewhere. It holds no state, so it may die and come back."""
    here = {ray._raylet.RAY_NODE_ID_KEY: ray.get_runtime_context().get_node_id()}
    return ray.remote(Collector).options(num_cpus=0, label_selector=here, max_restarts=-1, max_task_retries=-1).remote(str(run), driver)


class Away:
    """The ledger, and the folder, of a worker that is elsewhere than its driver."""

    def __init__(self, collector: Any, since: float, folder: Path) -> None:
        """`collector` is an actor. `since` is when the driver started, `folder` this worker's own."""
        self._collector, self._since, self._folder = collector, since, folder
        self._open = ExitStack()
        self._relay: Relay | None = None  # of rank 0

    def __enter__(self) -> Away:
        return self

    def __exit__(self, *error: Any) -> None:
        self._open.__exit__(*error)

    def verdict(self, retries: int) -> JobError | None:
        verdict: Verdict = self._ask("verdict", retries)
        if verdict.over is None:
            for name, data in verdict.records.items():
                (self._folder / name).write_bytes(data)
            progress.timeline(self._folder, self._since)("workers")
            self._relay = self._open.enter_context(Relay(self._folder, lambda pieces: self._exchange(verdict.group, pieces)))
        return verdict.over

    def record(self, rank: int, error: Exception) -> None:
        if self._relay is not None:
            self._relay.carry()  # when the account is known, this worker may be ended
        self._ask("enter", failures.account(rank, error, "the job's log"))

    def explained(self) -> bool:
        return bool(self._ask("explained"))

    def _exchange(self, group: int, pieces: list[Piece]) -> Notices:
        return dict(self._ask("exchange", group, pieces))

    def _ask(self, method: str, *arguments: Any) -> Any:
        return ray.get(getattr(self._collector, method).remote(*arguments), timeout=CALL_SECONDS)


def own_folder(run: Path, job: str, rank: int) -> Path:
    """A worker's run folder on its own machine, emptied of what another one left, with `job` as its job.json.

    A manifest that names no place for checkpoints means the run folder: that is the driver's path, on whatever is mounted there.
    """
    folder = Path(tempfile.gettempdir()) / f"gentrain-{run.name}-{rank}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(mode=0o700)
    (folder / "logs").mkdir()
    (folder / "job.json").write_text(job)
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (folder / "checkpoints").symlink_to(run / "checkpoints")
    return folder


def threads() -> int:
    """Cores of this worker's pod, which is a node of Ray's that it has to itself."""
    mine = ray.get_runtime_context().get_node_id()
    return max(1, int(next((node["Resources"].get("CPU", 1) for node in ray.nodes() if node["NodeID"] == mine), 1)))
