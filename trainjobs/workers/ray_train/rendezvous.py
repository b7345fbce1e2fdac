"""How the workers of a group find each other."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig


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
