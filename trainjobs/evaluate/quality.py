"""The score of generated pictures by features of a network: fid, kid, is, precision and recall."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from torch import Tensor

from trainjobs.evaluate.compared import Compared
from trainjobs.evaluate.spread import whole
from trainjobs.objectives.phase import At, Batch, Samples
from trainjobs.world import World


@dataclass
class Quality:
    """Each rank computes the features of the pictures that it draws; rank 0 has all of them, in the order of their numbers, and computes
    the figures. It does so beside training, and then `compared.later` has them; where something is decided by them, and after the last
    step, they are waited for and are the result."""

    compared: Compared
    at: At
    tell: Callable[[str], None] = lambda words: None
    heldout: int = 0
    generated: int = field(init=False)
    _features: list[Tensor] = field(default_factory=list)
    _logits: list[Tensor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.generated = self.compared.count

    def add(self, real: Batch | None, made: Samples | None) -> None:
        if made is None or made.images is None:
            return
        features, logits = self.compared.features.of(made.images)
        self._features.append(features)
        if logits is not None and "is" in self.compared.wanted:
            self._logits.append(logits)

    def result(self, world: World) -> Mapping[str, float]:
        features, logits = (whole(world.collect(part)) for part in (self._features, self._logits))
        if features is not None:
            self.compared.later.begin(self.at.step, partial(self.compared.figures, features, logits))
        if self.compared.spec.gan is not None and not self.compared.awaited:  # for its watches; rank 0 has waited for them already
            self.compared.before = world.share(self.compared.later.last if world.leads else None)
        if not self.compared.awaited and self.at.step < self.at.steps:
            return {}
        figures: Mapping[str, float] = world.share(self._waited() if world.leads else None)
        return figures

    def _waited(self) -> Mapping[str, float]:
        """Those of this step; of steps before they are told late, as ever."""
        found = self.compared.later.all(lambda: self.tell(f"computing {', '.join(sorted(self.compared.wanted))}"))
        late = [(step, figures) for step, figures in found if step != self.at.step]
        self.compared.later.again(late)
        return {name: value for step, figures in found if step == self.at.step for name, value in figures.items()}
