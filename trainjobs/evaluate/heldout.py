"""The objective's own scores over held-out samples: sums and counts, so the means are exact however the samples are cut."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

# Enough for a score that moves smoothly, few enough not to be noticed; the same samples whatever the number of workers.
LOOKED_AT = 256


@dataclass
class Heldout:
    """`measure` is Objective.heldout."""

    measure: Callable[[Batch], Mapping[str, tuple[Tensor, Tensor]]]
    heldout: int = LOOKED_AT
    generated: int = 0
    _sums: dict[str, tuple[float, float]] = field(default_factory=dict)

    def add(self, real: Batch | None, made: Samples | None) -> None:
        if real is None:
            return
        for name, (total, count) in self.measure(real).items():
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = (before[0] + float(total), before[1] + float(count))

    def result(self, world: World) -> Mapping[str, float]:
        everywhere = world.gather(self._sums)
        names = sorted({name for sums in everywhere for name in sums})
        found = {}
        for name in names:
            parts = [sums[name] for sums in everywhere if name in sums]
            if count := sum(part[1] for part in parts):
                found[f"heldout/{name}"] = sum(part[0] for part in parts) / count
        return found
