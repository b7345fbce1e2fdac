"""A sync: what the ranks tell each other while they train, about twice a second, in one collective."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from trainjobs.api.metrics import WAIT
from trainjobs.checkpointer.saver import Happened, Saver
from trainjobs.monitor.meter import Meter
from trainjobs.world import World


class Orders(NamedTuple):
    """What rank 0 decides for all."""

    next: int  # the step of the next sync
    stop: bool
    save: bool  # a checkpoint is due, by the clock or before a stop


class Synced(NamedTuple):
    means: dict[str, float]  # of the metrics since the last sync, over all ranks; of WAIT the largest
    orders: Orders
    saved: Happened  # what became of the checkpoint on its way


class Commander(Protocol):
    def orders(self, step: int) -> Orders: ...


def sync(
    meter: Meter, world: World, commander: Commander | None, saver: Saver, step: int, wait: Callable[[], float] | None = None
) -> Synced:
    """Metrics averaged over the ranks, rank 0's orders, and how far the ranks are with the last checkpoint. Every rank must call it;
    rank 0 has the `commander`. `wait` is Batches.wait: one that waits lets all wait, so what is told is what the slowest waits."""
    means = meter.take()  # which waits for the device, so `wait` is asked when all of the time has passed
    waits = [0.0] * world.size if wait else []
    if wait:
        waits[world.rank] = wait()
    ours = commander.orders(step) if commander else Orders(0, False, False)
    values = (list(means.values()), waits, list(map(float, ours)), list(saver.report()))
    total = world.sum([value for part in values for value in part])
    sums, waits, total = total[: len(means)], total[len(means) : len(means) + len(waits)], total[len(means) + len(waits) :]
    orders = Orders(int(total[0]), total[1] > 0, total[2] > 0)
    averages = {name: value / world.size for name, value in zip(means, sums, strict=True)}
    averages |= {WAIT: max(waits)} if waits else {}
    return Synced(averages, orders, saver.hear(*total[3:]))
