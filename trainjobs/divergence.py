"""Metrics since the last talk, and what to do when one of them is no longer a number.

A run that diverges goes back to its last commit and leaves out the batches up to the first bad one, so that what follows is another
future: the same weights, later samples, other noise. The bad step is looked up in what every step measured, not taken from the moment
at which somebody noticed; a run that is repeated diverges, goes back and goes on alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from trainjobs.api.errors import JobError
from trainjobs.checkpoints import Commit
from trainjobs.engine import Engine
from trainjobs.state import State
from trainjobs.world import World

ROLLBACKS = 3  # of one attempt; a run that needs more is not unlucky


@dataclass(frozen=True)
class Divergence:
    """`what` is not finite since `step`, by whose end `samples` were drawn."""

    what: str
    step: int
    samples: int


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

    def clear(self) -> None:
        self._step, self._steps = [], []


def find(
    means: Mapping[str, float], meter: Meter, engines: Mapping[str, Engine], state: State, world: World, *, save: bool
) -> Divergence | None:
    """What has diverged, the same on every rank. Before a `save` the weights are looked at, too: at ZeRO stage 0 an infinite gradient
    shows in nothing else of its own step. Every rank must call it."""
    bad = sorted(name for name, value in means.items() if not math.isfinite(value))
    if not bad:
        bad = [f"gradient of the {name}" for name in meter.skipped()]
    if save and not bad:
        broken = world.sum([float(not engine.finite()) for engine in engines.values()])
        bad = [f"weights of the {name}" for name, count in zip(engines, broken, strict=True) if count]
    if not bad:
        return None
    firsts = [first for first in world.gather(meter.first_bad()) if first is not None]
    first = min(firsts, key=lambda first: first.step, default=state)
    return Divergence(", ".join(bad), first.step, first.samples)


def refuse(divergence: Divergence, good: Commit | None, rollbacks: int, mode: str) -> None:
    """Raise JobError GTJ0207 when the run must end: there is nothing to go back to, it went back often enough, or is told to `halt`."""
    if mode == "rollback" and good is not None and rollbacks < ROLLBACKS:
        return
    lower = "lower training.optimizers.*.learningRate or set training.gradientClipping"
    why = "the training diverged: a learning rate too high, or a precision too low, is the usual cause"
    if rollbacks:
        why = f"it went back to a checkpoint {rollbacks} times, left out the batches, and diverged again"
    raise JobError(
        "GTJ0207",
        f"{divergence.what} not finite",
        where=f"step {divergence.step}",
        why=why,
        how=f"the last good checkpoint is at step {good.step}; {lower}" if good else f"no checkpoint was taken before; {lower}",
    )
