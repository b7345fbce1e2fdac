"""What was measured since the last sync, kept on the device so that no step waits for the host."""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from trainjobs.engine.engine import Engine
from trainjobs.objectives.deferred import Metrics, numbers
from trainjobs.state import State

Measured = Sequence[tuple[Metrics, float]]  # of one step, by micro-batch, with its weight
Told = list[dict[str, float]]  # the same as numbers


@dataclass
class Meter:
    """Means over micro-batches, steps and ranks. A micro-batch of a phase that weighs its units counts as much as its loss does."""

    _step: list[tuple[Metrics, float]] = field(default_factory=list)
    _steps: list[tuple[State, list[str], Measured]] = field(default_factory=list)
    _told: list[Told] = field(default_factory=list)  # of the first of `_steps`: those that were asked for

    def add(self, metrics: Metrics, weight: float = 1.0) -> None:
        """The metrics of one micro-batch; `weight` is 1 where micro-batches are equal, and 1 in the mean over those of all ranks where they
        are not."""
        self._step.append((metrics, weight))

    def stepped(self, state: State, engines: Mapping[str, Engine]) -> Measured:
        """A step is over, and this is where the run stands. Returns what it measured."""
        skipped = [name for name, engine in engines.items() if engine.diverged]
        measured = self._step
        self._steps.append((State(state.step, state.samples), skipped, measured))
        self._step = []
        return measured

    def take(self) -> dict[str, float]:
        """The means, by name in order."""
        means = means_of([metrics for step in self._numbers() for metrics in step])
        return {name: means[name] for name in sorted(means)}

    def skipped(self) -> list[str]:
        """The networks that were not updated in one of the steps, their gradients not being finite."""
        return sorted({name for _, names, _ in self._steps for name in names})

    def first_bad(self) -> State | None:
        """Where the run stood after the first step with a metric or a gradient that is not finite."""
        for (state, skipped, _), told in zip(self._steps, self._numbers(), strict=True):
            if skipped or any(not math.isfinite(value) for metrics in told for value in metrics.values()):
                return state
        return None

    def losses(self) -> list[tuple[State, dict[str, float]]]:
        """After each step, where the run stood and this worker's mean of each loss, in fp64. What is a loss is called so: loss, loss/G."""
        means = [
            {name: value for name, value in step.items() if name == "loss" or name.startswith("loss/")}
            for step in map(means_of, self._numbers())
        ]
        return [(state, mean) for (state, *_), mean in zip(self._steps, means, strict=True)]

    def clear(self) -> None:
        self._step, self._steps, self._told = [], [], []

    def _numbers(self) -> list[Told]:
        """Of every step that is over. What is new since this was last asked comes from the device at once."""
        self._told += told([measured for *_, measured in self._steps[len(self._told) :]])
        return self._told


def told(steps: Sequence[Measured]) -> list[Told]:
    """The metrics of each step's micro-batches, times their weights, by one transfer for all of them."""
    values = iter(numbers([value for step in steps for metrics, _ in step for value in metrics.values()]))
    return [[{name: _weighed(next(values), weight) for name in metrics} for metrics, weight in step] for step in steps]


def _weighed(value: float, weight: float) -> float:
    """As the device multiplies, in single precision."""
    return value if weight == 1.0 else float(np.float32(value) * np.float32(weight))


def means_of(told: Told) -> dict[str, float]:
    """A step's metrics over its micro-batches, in fp64."""
    values: dict[str, list[float]] = {}
    for metrics in told:
        for name, value in metrics.items():
            values.setdefault(name, []).append(value)
    return {name: mean(group) for name, group in values.items()}


def averaged(steps: Sequence[Measured]) -> list[dict[str, float]]:
    """The means of each step's metrics, in fp64, by one transfer for all of them."""
    return [means_of(step) for step in told(steps)]


def mean(values: Sequence[float]) -> float:
    """Not finite where one of them is not: `math.fsum` raises for infinities of both signs."""
    return (math.fsum(values) if all(map(math.isfinite, values)) else sum(values)) / len(values)


def memory(device: torch.device) -> int:
    """Bytes: the GPU's peak allocation, or this process's largest resident set."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
