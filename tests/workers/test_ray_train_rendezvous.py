"""How the ranks of a group find each other: rank 0's address, in the variables that torch.distributed reads."""

from __future__ import annotations

import os
import socket
from typing import Any

import pytest

from trainjobs.workers.ray_train import rendezvous
from trainjobs.workers.ray_train.rendezvous import Rendezvous


class Group:
    """Workers that are called here; the first has an address."""

    def __init__(self) -> None:
        self.called: list[Any] = []

    def execute_single(self, rank: int, act: Any) -> Any:
        self.called.append((rank, act))
        return "10.0.0.2", 2101

    def execute(self, act: Any, *arguments: Any) -> None:
        self.called.append(("all", act))
        act(*arguments)


def test_every_rank_is_told_where_rank_0_is(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "of another group")
    group, settings = Group(), Rendezvous()
    backend = settings.backend_cls()
    backend.on_start(group, settings)
    assert group.called == [(0, rendezvous.free_address), ("all", rendezvous.announce)]
    assert (os.environ["MASTER_ADDR"], os.environ["MASTER_PORT"]) == ("10.0.0.2", "2101")
    assert backend.share_cuda_visible_devices, "NCCL reaches the GPUs of its neighbours"


def test_the_port_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rendezvous.ray.util, "get_node_ip_address", lambda: "10.0.0.2")
    address, port = rendezvous.free_address()
    assert address == "10.0.0.2"
    with socket.socket() as listener:
        listener.bind(("", port))
        with socket.socket() as second, pytest.raises(OSError, match="in use"):
            second.bind(("", port))
