"""A source whose samples are encoded before they are trained on: latents of a frozen autoencoder, a teacher's logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from trainjobs.data.source import Conditional, DataInfo, Source
from trainjobs.noise import Noise


@dataclass(frozen=True)
class Encoded:
    """`encode` gets a batch on `device` and returns what stands in its place. It computes anew each time; nothing is stored."""

    source: Source
    encode: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]
    device: torch.device

    @property
    def info(self) -> DataInfo:
        return self.source.info

    def batch(self, positions: Tensor, seed: int, noise: Noise) -> dict[str, Tensor]:
        return self.encoded(self.source.batch(positions, seed, noise))

    def heldout_batch(self, indices: Tensor) -> dict[str, Tensor]:
        return self.encoded({name: value.to(self.device) for name, value in self.source.heldout_batch(indices).items()})

    def conditions(self, rows: Tensor) -> Mapping[str, Tensor]:
        return self.source.conditions(rows) if isinstance(self.source, Conditional) else {}

    def encoded(self, rows: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A batch of the source, encoded."""
        with torch.no_grad():
            return dict(self.encode(rows))
