"""What an adaptive objective is told: means over ranks, whenever a fixed number of steps is over.

The cadence is counted in steps, so neither a clock nor a restart moves it. A commit amid a window keeps what was measured in it, step by
step and already averaged over the ranks, so a run that goes on from there tells its objective, to the last bit, what the undisturbed one
is told, on any number of ranks that it was not changed by.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

from trainjobs.monitor.meter import Measured, averaged
from trainjobs.objectives.phase import Adaptive
from trainjobs.world import World


@dataclass
class Window:
    """The steps since `objective` last adapted."""

    objective: Adaptive
    _known: list[dict[str, float]] = field(default_factory=list)  # means over the ranks, one step after another
    _here: list[Measured] = field(default_factory=list)  # later steps, this rank's, on the device

    def stepped(self, measured: Measured, world: World) -> None:
        """A step is over. Every rank must call it."""
        self._here.append(measured)
        if len(self._known) + len(self._here) >= self.objective.adapts_every:
            self.gather(world)
            names = sorted({name for means in self._known for name in means})
            told = {name: [means[name] for means in self._known if name in means] for name in names}
            self._known = []
            self.objective.adapt({name: math.fsum(values) / len(values) for name, values in told.items()})

    def gather(self, world: World) -> None:
        """Average over the ranks what only this one knows: before a commit, and before the objective adapts. Every rank must call it."""
        for means in zip(*world.gather(averaged(self._here)), strict=True):
            self._known.append({name: math.fsum(one[name] for one in means) / len(means) for name in means[0]})
        self._here = []

    def state(self) -> dict[str, Any]:
        return {"steps": [dict(means) for means in self._known]}

    def load_state(self, state: dict[str, Any]) -> None:
        self._known, self._here = [dict(means) for means in state["steps"]], []
