"""A sync: means over the ranks, and the waiting of the one that waits most."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from trainjobs.monitor.meter import Meter
from trainjobs.monitor.orders import Orders, sync
from trainjobs.state import State
from trainjobs.world import World


@dataclass(frozen=True)
class Pair(World):
    """A rank whose other one gives what `other` was given."""

    other: tuple[float, ...] = ()

    def sum(self, values: Sequence[float]) -> list[float]:
        return [ours + theirs for ours, theirs in zip(values, self.other, strict=True)]


class Saves:
    def report(self) -> tuple[float, ...]:
        return (1.0, 2.0)

    def hear(self, *heard: float) -> Any:
        return heard


class Leader:
    def orders(self, step: int) -> Orders:
        return Orders(step + 7, False, True)


def synced(other: tuple[float, ...], wait: Callable[[], float] | None) -> Any:
    meter = Meter()
    meter.add({"loss": torch.tensor(0.5)})
    meter.stepped(State(1, 8), {})
    return sync(meter, Pair(0, 2, torch.device("cpu"), other=other), Leader(), cast(Any, Saves()), 3, wait)


def test_all_are_told_how_long_the_slowest_waits() -> None:
    for ours, theirs in ((0.1, 0.4), (0.4, 0.1)):
        means, orders, heard = synced((1.5, 0.0, theirs, 0.0, 0.0, 0.0, 3.0, 4.0), lambda ours=ours: ours)  # type: ignore[misc]
        assert means == {"loss": 1.0, "data/wait": 0.4}
        assert orders == Orders(10, False, True)
        assert heard == (4.0, 6.0)


def test_nobody_asks_how_long_it_waits() -> None:
    means, orders, heard = synced((1.5, 0.0, 0.0, 0.0, 3.0, 4.0), None)
    assert means == {"loss": 1.0}
    assert (orders.next, heard) == (10, (4.0, 6.0))


def test_waiting_is_measured_when_the_device_has_caught_up() -> None:
    asked: list[str] = []

    class Slow(Meter):
        def take(self) -> dict[str, float]:
            asked.append("metrics")
            return super().take()

    def wait() -> float:
        asked.append("wait")
        return 0.0

    sync(Slow(), World(0, 1, torch.device("cpu")), None, cast(Any, Saves()), 3, wait)
    assert asked == ["metrics", "wait"]
