"""What every look at a model in training shares, whether it measures, draws or reconstructs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor, nn

from trainjobs.api.errors import JobError
from trainjobs.api.job import Spec
from trainjobs.data.source import Source
from trainjobs.evaluate.compared import Compared
from trainjobs.evaluate.later import Later
from trainjobs.evaluate.spread import Memory
from trainjobs.noise import Noise
from trainjobs.objectives.batches import inference
from trainjobs.objectives.phase import At, Batch, Objective
from trainjobs.objectives.precision import autocast
from trainjobs.world import World


@dataclass(frozen=True)
class Setting:
    """`micro` is how many rows pass a network at a time; `tell` hears on every rank what is done, at each pass of a network.
    `before` keeps what the evaluation before drew, for a score that looks at how it moves; `compared` is what pictures are compared with,
    where they are."""

    spec: Spec
    source: Source
    objective: Objective
    networks: Mapping[str, nn.Module]
    world: World
    micro: int
    tell: Callable[[str], None] = lambda words: None
    before: Memory = field(default_factory=Memory)
    compared: Compared | None = None

    @classmethod
    def of(
        cls,
        spec: Spec,
        source: Source,
        objective: Objective,
        networks: Mapping[str, nn.Module],
        world: World,
        micro: int,
        tell: Callable[[str], None],
        cache: Path,
        data: str,
        warn: Callable[[JobError], None],
    ) -> Setting:
        """With what pictures are compared with, whose features go into the folder `cache`; `data` is the digest of what the job is trained
        on, and rank 0 hears what is not well with them. Every rank must call it. JobErrors as of Compared.open."""
        return cls(spec, source, objective, networks, world, micro, tell, compared=Compared.open(spec, source, world, cache, data, warn))

    @property
    def later(self) -> Later | None:
        """What is computed beside training."""
        return self.compared.later if self.compared else None

    @property
    def late(self) -> Mapping[str, float]:
        """Figures of a GAN that the evaluation before was still without, the same on every rank."""
        return self.compared.before if self.compared else {}

    @contextmanager
    def inference(self) -> Iterator[None]:
        """The networks as they are used, not trained, in the run's precision, while the block runs."""
        with inference(self.networks, autocast(self.spec.training.precision, self.world.device)):
            yield

    def heldout(self, rows: Tensor, at: At) -> Batch:
        """Held-out samples number `rows`, with the same noise at every look."""
        data = {name: value.to(self.world.device) for name, value in self.source.heldout_batch(rows).items()}
        return Batch(data, Noise.of(self.spec.training.seed, 0, "heldout", rows.to(self.world.device)), len(rows), at)
