"""Ray Train, made lighter: how workers find each other, and what one machine does without.

The time from `gtj run` to the first step is what a user of a laptop feels. Ray Train starts a process for each of its services, each of
which imports Ray again; on two cores that is most of the wait. None of this changes how training runs or recovers.
"""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray._private.node import Node
from ray.train.backend import Backend, BackendConfig
from ray.train.v2._internal.callbacks import DatasetsCallback
from ray.train.v2._internal.callbacks.placement_group_callback import PlacementGroupCleanerCallback
from ray.train.v2._internal.execution.scaling_policy.fixed import FixedScalingPolicy
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer


@dataclass
class Rendezvous(BackendConfig):  # type: ignore[misc]
    """Rank 0's address and a free port of its, in the variables that torch.distributed reads.

    Ray's own torch backend does the same, and imports torch into the driver and the controller to do it: processes that compute nothing.
    """

    @property
    def backend_cls(self) -> type[Backend]:
        return _Rendezvous


class _Rendezvous(Backend):  # type: ignore[misc]
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


class LocalTrainer(DataParallelTrainer):  # type: ignore[misc]
    """Ray Train on a cluster that lives and dies with this process: nothing to scale, no placement groups to clean up, no Ray datasets."""

    def _initialize_and_run_controller(self, **parts: Any) -> Any:
        idle = (PlacementGroupCleanerCallback, DatasetsCallback)
        parts["callbacks"] = [callback for callback in parts["callbacks"] if not isinstance(callback, idle)]
        parts["scaling_policy"] = OneMachine(self.scaling_config)
        return super()._initialize_and_run_controller(**parts)
