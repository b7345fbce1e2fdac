"""builtin:ring: points in the plane from eight Gaussians on a circle, the usual test for mode collapse.

Radius 2 and standard deviation 0.02 as in Metz et al., "Unrolled generative adversarial networks", 2017.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from trainjobs.api.data import Data
from trainjobs.data.source import DataInfo, divide, moved

if TYPE_CHECKING:  # `preflight` reads COUNT
    from torch import Tensor

    from trainjobs.noise import Noise

COUNT = 65536
RADIUS = 2.0
SIGMA = 0.02
MODES = tuple((RADIUS * math.cos(math.tau * k / 8), RADIUS * math.sin(math.tau * k / 8)) for k in range(8))


def draw(indices: Tensor) -> Tensor:
    """float [B, 2] for int64 [B]: point i belongs to mode i % 8."""
    import torch

    from trainjobs.noise import Noise, mix

    return torch.tensor(MODES)[indices % 8] + SIGMA * Noise(mix("builtin:ring"), indices).normal("point", 2)


@dataclass(frozen=True)
class PointSource:
    info: DataInfo
    train: Tensor  # float [info.length, 2]
    held: Tensor  # float [info.heldout, 2]

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        from trainjobs.data.sampler import order

        indices = order(positions, seed, self.info.length)
        return {"point": moved(self.train[indices], noise.samples.device)}

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return {"point": self.held[indices]}


def open_ring(data: Data) -> PointSource:
    from trainjobs.data.sampler import split

    length, heldout = divide(COUNT, data.holdout, data.uri, "point")
    train, held = split(COUNT, heldout)
    return PointSource(DataInfo("point", (2,), length, heldout, modes=MODES), draw(train), draw(held))
