"""Conditions in training and in sampling: classifier-free guidance.

In training a sample's condition is replaced by none with the probability `dropout`, by its own noise, so that one network learns both
f(x, t, c) and f(x, t, none). Samples follow f(x, t, none) + w (f(x, t, c) - f(x, t, none)): Ho and Salimans, "Classifier-free diffusion
guidance", 2022 (arXiv 2207.12598, equation 6, where w is 1 less). It is linear in what is predicted, so it is the same for the noise, v,
the image or a velocity. The output for a learned variance is the condition's alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from trainjobs.data.captions import NOTHING
from trainjobs.objectives.phase import Batch

Guided = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Guidance:
    """`role` is "label" or "caption", "" for a model without conditions; `none` what stands for no condition: a number of its own, or
    NOTHING at every place; `channels` those of an image."""

    role: str = ""
    none: int = NOTHING
    dropout: float = 0.0
    weight: float = 1.0
    channels: int = 0

    def trained(self, batch: Batch) -> tuple[Tensor, ...]:
        """What the network is told in training, beside x and t."""
        if not self.role:
            return ()
        given = batch.data[self.role]
        dropped = batch.noise.uniform("condition") < self.dropout
        return (torch.where(dropped.view(-1, *[1] * (given.dim() - 1)), self.none, given),)

    def given(self, batch: Batch) -> tuple[Tensor, ...]:
        """What it is told of held-out samples."""
        return (batch.data[self.role],) if self.role else ()

    def guided(self, denoiser: nn.Module, batch: Batch) -> Guided:
        """f(x, t) of samples that are drawn. Where a batch has no condition, they are drawn for none."""
        if not self.role:
            return denoiser
        wanted = batch.data.get(self.role)
        if wanted is None:
            rows = batch.noise.samples
            wanted = torch.full_like(rows, self.none) if self.role == "label" else rows.new_zeros(len(rows), 0)
        if self.weight == 1.0:
            return lambda x, t: denoiser(x, t, wanted)
        both = torch.cat([wanted, torch.full_like(wanted, self.none)])

        def look(x: Tensor, t: Tensor) -> Tensor:
            output: Tensor = denoiser(torch.cat([x, x]), torch.cat([t, t]), both)
            with_it, without = output.chunk(2)
            led = without + self.weight * (with_it - without)
            return led if led.shape[1] == self.channels else torch.cat([led[:, : self.channels], with_it[:, self.channels :]], dim=1)

        return look


NONE = Guidance()
