"""Everything that a checkpoint holds."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from trainjobs.engine.ema import Ema
from trainjobs.engine.engine import Engine
from trainjobs.engine.parts import Part
from trainjobs.state import State, Stateful


@dataclass(frozen=True)
class Trained:
    """Networks, counters, averages; and the one registry of everything small that is saved, by the name under which a commit has it: the
    objective, what is usual of its losses, what it measured since it last adapted."""

    engines: Mapping[str, Engine]
    state: State
    ema: Ema | None
    keeps: Mapping[str, Stateful] = field(default_factory=dict)
    beside: Mapping[str, bytes] = field(default_factory=dict)  # small files that rank 0 adds, by name

    def __post_init__(self) -> None:
        object.__setattr__(self, "_new", {name: copy.deepcopy(kept.state()) for name, kept in self.keeps.items()})

    def parts(self, network: str, *, own: bool) -> list[Part]:
        """A rank's part of a network, live."""
        averages = self.ema.parts(network) if self.ema else ()
        return [*self.engines[network].parts(own=own), *averages]

    def contents(self) -> dict[str, Any]:
        """What a reader should know before it reads: which tensors of the optimizer there are is in the files themselves."""
        optimizers = {name: engine.settings.name for name, engine in self.engines.items()}
        counts = {name: len(engine.trained) for name, engine in self.engines.items()}
        averaged = sorted(self.ema.engines) if self.ema is not None else []
        return {"optimizers": optimizers, "parameters": counts, "ema": self.ema is not None, "averaged": averaged}

    def states(self) -> dict[str, Any]:
        """What of the registry a commit keeps, as JSON."""
        return {name: kept.state() for name, kept in self.keeps.items()}

    def load_states(self, metadata: Mapping[str, Any]) -> None:
        """Go on from those of a commit. What it does not know is as it was at the beginning."""
        new: dict[str, Any] = self._new  # type: ignore[attr-defined]
        for name, kept in self.keeps.items():
            kept.load_state(copy.deepcopy(metadata.get(name, new[name])))
