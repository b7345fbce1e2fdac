"""How many dimensions of a latent the encoder uses: those whose mean moves with the sample.

A dimension j is active where Var_x(E[z_j | x]) > 0.01, over held-out x (Burda, Grosse and Salakhutdinov, "Importance weighted
autoencoders", 2016, arXiv 1509.00519, section 5.2). The others only cost nothing: their posterior is the prior.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from trainjobs.evaluate.heldout import LOOKED_AT
from trainjobs.objectives.phase import Batch, Samples
from trainjobs.world import World

LEAST = 0.01  # variance of a mean that counts as active


def active(means_NZ: Tensor) -> int:
    """Of N samples' means, N at least 1."""
    return int((means_NZ.double().var(dim=0, correction=0) > LEAST).sum())


@dataclass
class ActiveUnits:
    """The score. `encode` is Encoding.latents."""

    encode: Callable[[Batch], Tensor]
    heldout: int = LOOKED_AT
    generated: int = 0
    _means: list[Tensor] = field(default_factory=list)

    def add(self, real: Batch | None, made: Samples | None) -> None:
        if real is not None:
            self._means.append(self.encode(real).float().cpu())

    def result(self, world: World) -> Mapping[str, float]:
        everywhere = [means for share in world.gather(self._means) for means in share]
        return {"heldout/active_units": float(active(torch.cat(everywhere)))} if everywhere else {}
