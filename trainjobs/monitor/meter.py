"""What was measured since the last sync, kept on the device so that no step waits for the host."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainjobs.engine.engine import Engine
from trainjobs.state import State


@dataclass
class Meter:
    """What was measured since the last talk, kept on the device so that no step waits for the host."""

    _step: list[Mapping[str, Tensor]] = field(default_factory=list)
    _steps: list[tuple[State, list[str], list[Mapping[str, Tensor]]]] = field(default_factory=list)

    def add(self, metrics: Mapping[str, Tensor]) -> None:
        """The metrics of one micro-batch, scalars."""
        self._step.append(metrics)

    def stepped(self, state: State, engines: Mapping[str, Engine]) -> None:
        """A step is over, and this is where the run stands."""
        skipped = [name for name, engine in engines.items() if engine.skipped]
        self._steps.append((State(state.step, state.samples), skipped, self._step))
        self._step = []

    def take(self) -> dict[str, float]:
        """The means, by name in order."""
        values: dict[str, list[Tensor]] = {}
        for metrics in [*(metrics for *_, measured in self._steps for metrics in measured), *self._step]:
            for name, value in metrics.items():
                values.setdefault(name, []).append(value)
        return {name: float(sum(values[name][1:], values[name][0])) / len(values[name]) for name in sorted(values)}

    def skipped(self) -> list[str]:
        """The networks that were not updated in one of the steps, their gradients not being finite."""
        return sorted({name for _, names, _ in self._steps for name in names})

    def first_bad(self) -> State | None:
        """Where the run stood after the first step with a metric or a gradient that is not finite."""
        for state, skipped, measured in self._steps:
            if skipped or any(not math.isfinite(float(value)) for metrics in measured for value in metrics.values()):
                return state
        return None

    def losses(self) -> list[tuple[State, dict[str, float]]]:
        """After each step, where the run stood and this worker's mean of each loss, in fp64. What is a loss is called so: loss, loss/G."""
        found: list[tuple[State, dict[str, list[Tensor]]]] = []
        for state, _, measured in self._steps:
            values: dict[str, list[Tensor]] = {}
            for metrics in measured:
                for name, value in metrics.items():
                    if name == "loss" or name.startswith("loss/"):
                        values.setdefault(name, []).append(value.detach().double().reshape(()))
            found.append((state, values))
        all_of_them = [value for _, values in found for group in values.values() for value in group]
        numbers = iter(torch.stack(all_of_them).tolist() if all_of_them else [])  # one transfer
        return [
            (state, {name: math.fsum(next(numbers) for _ in group) / len(group) for name, group in values.items()})
            for state, values in found
        ]

    def clear(self) -> None:
        self._step, self._steps = [], []
