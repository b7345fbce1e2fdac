"""Ray Train on one machine, made lighter: what it does without.

The time from `gtj run` to the first step is what a user of a laptop feels. Ray Train starts a process for each of its services, each of
which imports Ray again; on two cores that is most of the wait. None of this changes how training runs or recovers.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import ray
from ray._private.node import Node
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.execution.controller.controller import TrainController
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2._internal.execution.worker_group import WorkerGroup, state, worker_group
from ray.train.v2.api import data_parallel_trainer

from trainjobs.api.errors import JobError
from trainjobs.workers.ray_train.trainer import Trainer


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


SLOW = "timed out during startup"  # what Ray says of a raylet that was not up within its 30 s


def begin(cpus: int, init: Callable[..., Any] = ray.init, shutdown: Callable[[], None] = ray.shutdown) -> None:
    """A Ray cluster of this machine alone. A machine that is too busy for Ray's patience is asked twice; then JobError GTJ0213."""
    for last in (False, True):
        try:
            init(address="local", num_cpus=cpus, include_dashboard=False, object_store_memory=100 * 2**20)
            return
        except Exception as error:
            if SLOW not in str(error):
                raise
            shutdown()
            print(f"Ray has not started: {error}", flush=True)
            if last:
                how = "run it again when the machine has less to do; `gtj run --no-ray` does without Ray"
                raise JobError("GTJ0213", "Ray did not start on this machine, twice", why=str(error), how=how) from error


def warm() -> None:
    """Called in a worker's process before anything else: import what training needs while Ray still puts the group together."""
    threading.Thread(target=importlib.import_module, args=("trainjobs.loop",), daemon=True).start()


class OneMachine(FixedScalingPolicy):  # type: ignore[misc]
    """Asks no autoscaler for nodes: there is none. The coordinator that would be asked is a process that imports Ray Data."""

    def _send_resource_request(self) -> None:
        pass

    def _maybe_send_resource_request(self) -> None:
        pass

    def _cancel_resource_request(self) -> None:
        pass


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

    @staticmethod
    def _get_worker_runtime_env(custom_runtime_env: dict[str, Any]) -> dict[str, Any]:
        """None where the job asks for none: a fork has the environment of the raylet, and nobody makes runtime environments."""
        return WorkerGroup._get_worker_runtime_env(custom_runtime_env) if custom_runtime_env else {}

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


class NoDatasets(DatasetsCallback):  # type: ignore[misc]
    """In place of what hands Ray's datasets to workers, and asks Ray Data for that. Trainer leaves it out."""

    def __init__(self, **parts: Any) -> None:
        pass


class LocalTrainer(Trainer):
    """On a cluster that lives and dies with this process: no nodes to ask for, and the controller runs here. Ray Train would start a
    process for it and another for its collectives, each of which imports Ray again."""

    pods = False

    def _create_default_callbacks(self) -> list[Any]:
        real = data_parallel_trainer.DatasetsCallback
        data_parallel_trainer.DatasetsCallback = NoDatasets
        try:
            return list(super()._create_default_callbacks())
        finally:
            data_parallel_trainer.DatasetsCallback = real

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
