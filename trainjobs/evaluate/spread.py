"""How much generated samples differ: from each other, from what they were at the evaluation before, and from the data.

    spread    mean |f(x) - f(y)| over pairs of generated samples, over that of held-out ones
    moved     mean |f(x) - f(x')| between a sample and that of the same latent before, over that of pairs of generated samples
    distance  2 E|f(x) - f(d)| - E|f(x) - f(y)| - E|f(d) - f(e)|, of samples x, y and data d, e, over the last term: the energy distance
              (Szekely and Rizzo, "Energy statistics", 2013), 0 where both are distributed alike

f of an image is itself at most 8 pixels wide, of a point the point: what a watch asks is whether all samples are one, not whether they are
beautiful.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.nn import functional as F

from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

COUNT = 64  # samples of each kind
WIDE = 8  # pixels
SPREAD, MOVED, DISTANCE = "samples/spread", "samples/moved", "samples/distance"


def features(x: Tensor) -> Tensor:
    """float64 [B, features], on the CPU."""
    x = x.detach().double().cpu()
    if x.dim() == 4 and x.shape[-1] > WIDE:
        x = F.adaptive_avg_pool2d(x, WIDE)
    return x.flatten(1)


def apart(x_NF: Tensor) -> float:
    """The mean distance of two different rows."""
    return float(torch.nn.functional.pdist(x_NF).mean())


@dataclass
class Memory:
    """The samples of the evaluation before, which a restart forgets."""

    samples: Tensor | None = None


@dataclass
class Spread:
    """The score; samples are those of the same latents at every evaluation."""

    before: Memory
    heldout: int = COUNT
    generated: int = COUNT
    _real: list[Tensor] = field(default_factory=list)
    _made: list[Tensor] = field(default_factory=list)

    def add(self, real: Batch | None, made: Samples | None) -> None:
        if real is not None:
            self._real += [features(real.data[name]) for name in ("image", "point") if name in real.data]
        if made is not None:
            self._made += [features(value) for value in (made.images, made.points) if value is not None]

    def result(self, world: World) -> Mapping[str, float]:
        real, made = (whole(world.gather(kind)) for kind in (self._real, self._made))
        if made is None or len(made) < 2:
            return {}
        own, found = apart(made), {}
        if real is not None and len(real) > 1:
            data = apart(real)
            found[SPREAD] = own / max(data, 1e-12)
            found[DISTANCE] = (2.0 * float(torch.cdist(made, real).mean()) - own - data) / max(data, 1e-12)
        if self.before.samples is not None and self.before.samples.shape == made.shape:
            found[MOVED] = float((made - self.before.samples).norm(dim=1).mean()) / max(own, 1e-12)
        self.before.samples = made
        return found


def whole(shares: list[list[Tensor]]) -> Tensor | None:
    """Of every rank's turns, all rows in the order in which they were dealt: turn by turn, rank by rank."""
    turns = [share[turn] for turn in range(max(map(len, shares), default=0)) for share in shares if turn < len(share)]
    return torch.cat(turns) if turns else None
