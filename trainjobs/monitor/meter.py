"""What was measured since the last sync, kept on the device so that no step waits for the host."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainjobs.engine.engine import Engine
from trainjobs.state import State

Measured = Sequence[Mapping[str, Tensor]]  # of one step, by micro-batch


@dataclass
class Meter:
    """Means over micro-batches, steps and ranks. A micro-batch of a phase that weighs its units counts as much as its loss does."""

    _step: list[Mapping[str, Tensor]] = field(default_factory=list)
    _steps: list[tuple[State, list[str], Measured]] = field(default_factory=list)

    def add(self, metrics: Mapping[str, Tensor], weight: float = 1.0) -> None:
        """The metrics of one micro-batch, scalars; `weight` is 1 where micro-batches are equal, and 1 in the mean over those of all
        ranks where they are not."""
        self._step.append(metrics if weight == 1.0 else {name: value * weight for name, value in metrics.items()})

    def stepped(self, state: State, engines: Mapping[str, Engine]) -> Measured:
        """A step is over, and this is where the run stands. Returns what it measured."""
        skipped = [name for name, engine in engines.items() if engine.diverged]
        measured = self._step
        self._steps.append((State(state.step, state.samples), skipped, measured))
        self._step = []
        return measured

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
        means = averaged([measured for *_, measured in self._steps], lambda name: name == "loss" or name.startswith("loss/"))
        return [(state, mean) for (state, *_), mean in zip(self._steps, means, strict=True)]

    def clear(self) -> None:
        self._step, self._steps = [], []


def averaged(steps: Sequence[Measured], wanted: Callable[[str], bool] = lambda name: True) -> list[dict[str, float]]:
    """The means of each step's metrics, in fp64, by one transfer for all of them."""
    found: list[dict[str, list[Tensor]]] = []
    for measured in steps:
        values: dict[str, list[Tensor]] = {}
        for metrics in measured:
            for name, value in metrics.items():
                if wanted(name):
                    values.setdefault(name, []).append(value.detach().double().reshape(()))
        found.append(values)
    everything = [value for values in found for group in values.values() for value in group]
    numbers = iter(torch.stack(everything).tolist() if everything else [])
    return [{name: math.fsum(next(numbers) for _ in group) / len(group) for name, group in values.items()} for values in found]


def memory(device: torch.device) -> int:
    """Bytes: the GPU's peak allocation, or this process's largest resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
