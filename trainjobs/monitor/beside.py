"""What a run keeps beside its weights: what it measures, what it watches for, and what of all that is saved with every commit."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from trainjobs.api.job import Spec
from trainjobs.engine.engine import Engine
from trainjobs.monitor.adaptation import Window
from trainjobs.monitor.completions import CompletionWatches
from trainjobs.monitor.divergence import Lookout
from trainjobs.monitor.followed import Followed
from trainjobs.monitor.meter import Measured, Meter
from trainjobs.monitor.troubles import Watches
from trainjobs.monitor.watches import GanWatches
from trainjobs.objectives.phase import Adaptive, Objective
from trainjobs.state import Stateful
from trainjobs.world import World


@dataclass(frozen=True)
class Beside:
    """`windows` gather what an objective or a watch adapts by; `watches` are a GAN's, or those of completions."""

    lookout: Lookout
    followed: Followed
    watches: Watches | None
    windows: Mapping[str, Window]
    meter: Meter = field(default_factory=Meter)

    @classmethod
    def of(cls, spec: Spec, objective: Objective) -> Beside:
        watches = GanWatches.of(spec) or CompletionWatches.of(spec)
        windows = {"window": Window(objective)} if isinstance(objective, Adaptive) else {}
        windows |= {"watches_window": Window(watches)} if watches else {}
        return cls(Lookout(spec.recovery), Followed(spec.training), watches, windows)

    def keeps(self, objective: Objective, engines: Mapping[str, Engine]) -> dict[str, Stateful]:
        """By the name under which a commit has it."""
        return dict(self._kept(objective, engines))

    def stepped(self, measured: Measured, world: World) -> None:
        for window in self.windows.values():
            window.stepped(measured, world)

    def gather(self, world: World) -> None:
        """Before a commit."""
        for window in self.windows.values():
            window.gather(world)

    def _kept(self, objective: Objective, engines: Mapping[str, Engine]) -> Iterator[tuple[str, Stateful]]:
        yield from self.followed.keeps.items()
        if self.lookout.looks:
            yield "losses", self.lookout
        if isinstance(objective, Stateful):
            yield "objective", objective
        if self.watches:
            yield "watches", self.watches
        yield from self.windows.items()
        yield from ((f"scale/{name}", engine.scale) for name, engine in engines.items() if engine.scale)
