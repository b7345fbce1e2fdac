"""What was measured since the last sync, as numbers: each is asked of the device once."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch

from trainjobs.monitor import meter as metered
from trainjobs.monitor.meter import Meter, averaged
from trainjobs.objectives.deferred import Deferred, Metric, mean, numbers
from trainjobs.state import State


def filled(*values: float) -> Meter:
    meter = Meter()
    for step, value in enumerate(values, 1):
        meter.add({"loss": torch.tensor(value), "score/real": Deferred(mean, (torch.tensor([value, 1.0]),))})
        meter.stepped(State(step, 8 * step), {})
    return meter


def test_what_a_sync_asks_comes_by_one_transfer(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []

    def counted(metrics: Sequence[Metric]) -> list[float]:
        asked.append(len(metrics))
        return numbers(metrics)

    monkeypatch.setattr(metered, "numbers", counted)
    meter = filled(1.0, 3.0)
    assert meter.take() == {"loss": 2.0, "score/real": 1.5}
    assert meter.first_bad() is None
    assert [mean for _, mean in meter.losses()] == [{"loss": 1.0}, {"loss": 3.0}]
    assert asked[0] == 4
    assert sum(asked) == 4, "nothing is asked for twice"
    meter.add({"loss": torch.tensor(8.0)})
    meter.stepped(State(3, 24), {})
    assert meter.take()["loss"] == 4.0
    assert sum(asked) == 5
    meter.clear()
    assert meter.take() == {}


def test_infinities_of_both_signs_are_found_and_not_raised() -> None:
    meter = filled(1.0, math.inf, -math.inf)
    assert math.isnan(meter.take()["loss"])
    assert meter.first_bad() == State(2, 16)


def test_a_weight_multiplies_as_the_device_would() -> None:
    value, weight = torch.tensor(0.1), 1 / 3
    meter = Meter()
    meter.add({"loss": value}, weight)
    measured = meter.stepped(State(1, 8), {})
    assert meter.take() == {"loss": (value * weight).item()} == averaged([measured])[0]
