"""Generative adversarial networks: a discriminator D and a generator G that take turns, z ~ N(0, I). Their losses stand in losses.py.

wgan-gp adds a penalty to L_D: lambda E_y (||grad_y D(y)||_2 - 1)^2,   y = u x + (1 - u) G(z),  u ~ U[0, 1) per sample
          Gulrajani et al., "Improved training of Wasserstein GANs", 2017 (arXiv 1704.00028, equation 3 and algorithm 1).

The penalty needs the derivative of a derivative. In bf16 that loses what it is to measure, so it is computed in float32 with autocast
off; and DeepSpeed's stage 3 frees the weights between the two, which is why GANs are limited to stage 2.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from trainjobs.api.gan import GanLoss
from trainjobs.objectives.gan.gradient_penalty import gradient_penalty
from trainjobs.objectives.gan.losses import LOSSES
from trainjobs.objectives.phase import Batch, Phase, Samples


@dataclass(frozen=True)
class GanObjective:
    """`kind` names the entry of Batch.data and the field of Samples that the generator imitates."""

    generator: nn.Module
    discriminator: nn.Module
    loss: GanLoss
    latent_dim: int
    kind: Literal["image", "point"]

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase("D", trains="discriminator", loss=self.discriminator_loss, repeat=self.loss.critic_steps),
            Phase("G", trains="generator", loss=self.generator_loss, draws="nothing"),
        )

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        real = batch.data[self.kind]
        with torch.no_grad():
            fake: Tensor = self.generator(batch.noise.normal("z", self.latent_dim))
        # Two passes, not one over both: batch norm must not see real and generated samples mixed (Radford et al., 2016).
        score_real, score_fake = self.discriminator(real).float(), self.discriminator(fake).float()
        metrics = {"score/real": score_real.detach().mean(), "score/fake": score_fake.detach().mean()}
        loss = LOSSES[self.loss.type].discriminator(score_real, score_fake)
        if self.loss.type == "wgan-gp":
            penalty = gradient_penalty(self.discriminator, real, fake, batch.noise)
            loss = loss + self.loss.gradient_penalty * penalty
            metrics["gradient_penalty"] = penalty.detach()
        return loss, {"loss/D": loss.detach(), **metrics}

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        score: Tensor = self.discriminator(self.generator(batch.noise.normal("z", self.latent_dim))).float()
        loss = LOSSES[self.loss.type].generator(score)
        return loss, {"loss/G": loss.detach()}

    @property
    def highest_stage(self) -> int:
        return 2

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        return {}

    def sample(self, batch: Batch) -> Samples:
        made: Tensor = self.generator(batch.noise.normal("z", self.latent_dim)).float()
        return Samples(images=made) if self.kind == "image" else Samples(points=made)
