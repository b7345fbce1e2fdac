"""The workers of one run, as each of them sees the others: its rank, the world's size, its device, and a few collectives.

Every collective here is small and rare (once or twice a second). Gradients travel inside DeepSpeed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

from trainjobs.api.errors import JobError


@dataclass(frozen=True)
class World:
    rank: int
    size: int
    device: torch.device
    each: int = 1  # processes of a worker: a rank is a process

    @property
    def workers(self) -> int:
        return self.size // self.each

    @property
    def leads(self) -> bool:
        """True on rank 0, the one that writes what the run shows."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Elementwise sum over the ranks, in fp64; every rank must give as many values."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        dist.all_reduce(total)
        return [float(value) for value in total.tolist()]

    def gather(self, value: Any) -> list[Any]:
        """Every rank's `value`, in the order of ranks, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def collect(self, value: Any) -> list[Any]:
        """Every rank's `value`, in the order of ranks, on rank 0; elsewhere nothing."""
        if self.size == 1:
            return [value]
        values: list[Any] | None = [None] * self.size if self.leads else None
        dist.gather_object(value, values)
        return values or []

    def share(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, device=self.device)
        return box[0]

    def lead(self, act: Callable[..., Any], *arguments: Any) -> Any:
        """Do something on rank 0 and give every rank its result or its error."""
        return settled(self.share(outcome(act, *arguments) if self.leads else None))

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def backend(on_gpu: bool) -> str:
    """torch.distributed's: on GPUs NCCL for what lies there, beside gloo for what the host has."""
    return "cpu:gloo,cuda:nccl" if on_gpu else "gloo"


def outcome(act: Callable[..., Any], *arguments: Any) -> Any:
    """The result of a rank's own part, or its error as a value, so that no rank leaves the others waiting."""
    try:
        return act(*arguments)
    except (JobError, OSError) as error:
        return error


def settled(found: Any) -> Any:
    """A result; raises an error that was given as one."""
    if isinstance(found, Exception):
        raise found
    return found
