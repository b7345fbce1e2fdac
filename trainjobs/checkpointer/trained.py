"""Everything that a checkpoint holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainjobs.engine.ema import Ema
from trainjobs.engine.engine import Engine
from trainjobs.engine.parts import Part
from trainjobs.objectives.phase import Objective, Stateful
from trainjobs.state import State


@dataclass(frozen=True)
class Trained:
    """Everything that a checkpoint holds."""

    engines: Mapping[str, Engine]
    state: State
    ema: Ema | None
    objective: Objective
    beside: Mapping[str, bytes] = field(default_factory=dict)  # small files that rank 0 adds, by name

    def parts(self, network: str, *, own: bool) -> list[Part]:
        """A rank's part of a network, live."""
        averages = self.ema.parts(network) if self.ema else ()
        return [*self.engines[network].parts(own=own), *averages]

    def contents(self) -> dict[str, Any]:
        """What a reader should know before it reads: which tensors of the optimizer there are is in the files themselves."""
        optimizers = {name: engine.settings.name for name, engine in self.engines.items()}
        counts = {name: len(engine.trained) for name, engine in self.engines.items()}
        keeps = {"objective": self.objective.state()} if isinstance(self.objective, Stateful) else {}
        return {"optimizers": optimizers, "parameters": counts, "ema": self.ema is not None, **keeps}
