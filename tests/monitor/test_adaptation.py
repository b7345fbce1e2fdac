"""What an adaptive objective is told does not depend on when the ranks talk, or on where a run was interrupted."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from trainjobs.monitor.adaptation import Window
from trainjobs.monitor.meter import Measured
from trainjobs.world import World

WORLD = World(0, 1, torch.device("cpu"))


class Told:
    adapts_every = 3

    def __init__(self) -> None:
        self.heard: list[Mapping[str, float]] = []

    def adapt(self, means: Mapping[str, float]) -> None:
        self.heard.append(means)

    def state(self) -> dict[str, Any]:
        return {}

    def load_state(self, state: dict[str, Any]) -> None: ...


def measured(*values: float) -> Measured:
    return [({"sign": torch.tensor(value)}, 1.0) for value in values]


STEPS = [measured(0.1, 0.2), measured(0.7, 0.4), measured(0.3, 0.9), measured(0.1, 0.1), measured(0.25, 0.35), measured(0.6, 0.65)]


def test_means_at_a_fixed_cadence() -> None:
    told = Told()
    window = Window(told)
    for step in STEPS:
        window.stepped(step, WORLD)
    first = [0.15, 0.55, 0.6]
    assert [round(means["sign"], 6) for means in told.heard] == [round(sum(first) / 3, 6), round((0.1 + 0.3 + 0.625) / 3, 6)]


def test_a_commit_amid_a_window_changes_no_bit() -> None:
    whole, halved = Told(), Told()
    window = Window(whole)
    for step in STEPS:
        window.stepped(step, WORLD)
    before = Window(halved)
    for step in STEPS[:4]:
        before.stepped(step, WORLD)
    before.gather(WORLD)
    after = Window(halved)
    after.load_state(json.loads(json.dumps(before.state())))
    for step in STEPS[4:]:
        after.stepped(step, WORLD)
    assert halved.heard == whole.heard


@dataclass(frozen=True)
class Two(World):
    """Rank 0 of two; the other measures twice as much."""

    def gather(self, value: Any) -> list[Any]:
        return [value, [{name: 2 * mean for name, mean in means.items()} for means in value]]


def test_means_are_over_the_ranks() -> None:
    told = Told()
    window = Window(told)
    for step in STEPS[:3]:
        window.stepped(step, Two(0, 2, torch.device("cpu")))
    assert round(told.heard[0]["sign"], 6) == round(1.5 * (0.15 + 0.55 + 0.6) / 3, 6)


def test_going_back_forgets_what_came_after() -> None:
    told = Told()
    window = Window(told)
    window.stepped(STEPS[0], WORLD)
    window.gather(WORLD)
    kept = window.state()
    window.stepped(STEPS[1], WORLD)
    window.load_state(kept)
    for step in STEPS[1:3]:
        window.stepped(step, WORLD)
    assert len(told.heard) == 1
