"""Generative adversarial networks: a discriminator D and a generator G that take turns, z ~ N(0, I). Their losses stand in losses.py.

What is added to L_D, with T the augmentation that D sees (diffaugment.py, ada.py; without any, T(x) = x):

wgan-gp   lambda E (||grad_y D(y)||_2 - 1)^2 between real and generated samples                                    gradient_penalty.py
r1        gamma / 2 E_x ||grad D(T(x))||_2^2; with `every` k > 1 in an optimizer step of its own every k steps, as much heavier, on the
          same real samples, and D's Adam is corrected for it (api/gan.py)                                          gradient_penalty.py
drift     epsilon E_x D(T(x))^2, lest the scores drift away, of which Wasserstein's loss knows differences alone: Karras et al., 2018
          (arXiv 1710.10196, appendix A.1)

To L_G:

path      E (l - a)^2, l how far a step in the styles moves the image; with `every` k > 1 in a step of its own, as r1    path_length.py
          orthogonal                                                                                                     orthogonal.py

DeepSpeed's stage 3 frees the weights between a derivative and its derivative, which is why GANs are limited to stage 2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from trainjobs.api.gan import Gan, GanLoss
from trainjobs.data.wanted import ROLE
from trainjobs.models import stylegan2
from trainjobs.objectives.deferred import Deferred, Metric, Metrics, mean
from trainjobs.objectives.gan.ada import Ada, augmented
from trainjobs.objectives.gan.diffaugment import diffaugment
from trainjobs.objectives.gan.gradient_penalty import gradient_penalty, r1
from trainjobs.objectives.gan.growing import Growth, whole
from trainjobs.objectives.gan.losses import LOSSES
from trainjobs.objectives.gan.orthogonal import orthogonal
from trainjobs.objectives.gan.path_length import PathMean, fewer, path_lengths
from trainjobs.objectives.phase import Batch, Phase, Samples

LABEL = ROLE["class"]


@dataclass(frozen=True)
class GanObjective:
    """`kind` names the entry of Batch.data and the field of Samples that the generator imitates; `path`,
    `ada` and `growth` are there where the manifest has them."""

    generator: nn.Module
    discriminator: nn.Module
    gan: Gan
    kind: Literal["image", "point"]
    path: PathMean | None = None
    ada: Ada | None = None
    growth: Growth | None = None

    @property
    def loss(self) -> GanLoss:
        return self.gan.loss

    @property
    def latent_dim(self) -> int:
        return self.gan.generator.latent_dim

    @property
    def phases(self) -> tuple[Phase, ...]:
        lazy, path = self.gan.r1_lazy, self.gan.path_lazy
        made: Literal["step", "nothing"] = "step" if self.gan.conditional else "nothing"  # for the classes of the data
        return (
            Phase("D", trains="discriminator", loss=self.discriminator_loss, repeat=self.loss.critic_steps),
            *([Phase("D_r1", trains="discriminator", loss=self.r1_loss, every=lazy.every, draws="step")] if lazy else []),
            Phase("G", trains="generator", loss=self.generator_loss, draws=made),
            *([Phase("G_path", trains="generator", loss=self.path_loss, every=path.every, draws=made)] if path else []),
        )

    def discriminator_loss(self, batch: Batch) -> tuple[Tensor, Metrics]:
        with torch.no_grad():
            made = self.made(batch)
        told = self.told(batch)
        real, fake = self.seen(self.real(batch), batch, "real"), self.seen(made, batch, "fake")
        # Two passes, not one over both: batch norm must not see real and generated samples mixed (Radford et al., 2016).
        score_real, score_fake = self.discriminator(real, *told).float(), self.discriminator(fake, *told).float()
        told_real, told_fake, kind = score_real.detach(), score_fake.detach(), LOSSES[self.loss.type]
        metrics: dict[str, Metric] = {"score/real": Deferred(mean, (told_real,)), "score/fake": Deferred(mean, (told_fake,))}
        if kind.boundary is not None:
            metrics["accuracy/D"] = Deferred(kind.accuracy, (told_real, told_fake))
        if self.ada is not None:
            metrics["sign/real"] = Deferred(kind.signs, (told_real,))
            metrics["augment/p"] = torch.tensor(self.ada.p)
        loss = kind.discriminator(score_real, score_fake, self.loss.real_label)
        if self.loss.type == "wgan-gp":
            penalty = gradient_penalty(self.discriminator, real, fake, batch.noise, *told)
            loss = loss + self.loss.gradient_penalty * penalty
            metrics["gradient_penalty"] = penalty.detach()
        if self.loss.drift:
            loss = loss + self.loss.drift * score_real.square().mean()
        if beside := self.gan.r1_beside:
            slope = r1(self.discriminator, real, *told)
            loss = loss + 0.5 * beside.gamma * slope
            metrics["r1"] = slope.detach()
        return loss, {"loss/D": loss.detach(), **metrics}

    def r1_loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        lazy = self.gan.r1_lazy
        assert lazy is not None
        slope = r1(self.discriminator, self.seen(self.real(batch), batch, "real"), *self.told(batch))
        return 0.5 * lazy.gamma * self.gan.lazy["discriminator"] * slope, {"r1": slope.detach()}

    def generator_loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        score: Tensor = self.discriminator(self.seen(self.made(batch), batch, "fake"), *self.told(batch)).float()
        loss, metrics = LOSSES[self.loss.type].generator(score), {}
        if self.path and not self.gan.path_lazy:
            lengths = self.lengths(batch)
            loss = loss + self.path.penalty(lengths)
            metrics["path_length"] = lengths.detach().mean()
        if weight := self.gan.regularization.orthogonal:
            angles = orthogonal(self.generator)
            loss = loss + weight * angles
            metrics["orthogonal"] = angles.detach()
        return loss, {"loss/G": loss.detach(), **metrics}

    def path_loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        lazy, lengths = self.gan.path_lazy, self.lengths(batch)
        assert lazy is not None
        assert self.path is not None
        return lazy.every * self.path.penalty(lengths), {"path_length": lengths.detach().mean()}

    def lengths(self, batch: Batch) -> Tensor:
        assert isinstance(self.generator, stylegan2.Generator)
        assert self.path is not None
        shrink = self.path.settings.batch_shrink
        noise, told = fewer(batch.noise, shrink), [label[::shrink] for label in self.told(batch)]
        return path_lengths(self.generator, noise.normal("z", self.latent_dim), noise, self.gan.generator.style_mixing, *told)

    def made(self, batch: Batch) -> Tensor:
        """What is generated to train on."""
        return self.generated(batch, **({"mixing": self.gan.generator.style_mixing} if self.gan.styled else {}))

    def generated(self, batch: Batch, **styles: float) -> Tensor:
        z = batch.noise.normal("z", self.latent_dim)
        noise = (batch.noise,) if self.gan.styled else ()
        level = [self.growth.at(batch.at.step).level] if self.growth else []
        made: Tensor = self.generator(z, *noise, *level, *self.told(batch), **styles)
        return made

    def real(self, batch: Batch) -> Tensor:
        """The real samples, of a GAN that grows at its size."""
        real = batch.data[self.kind]
        return self.growth.at(batch.at.step).shrunk(real) if self.growth else real

    def told(self, batch: Batch) -> tuple[Any, ...]:
        """The classes of samples, of those that are real and those that are made alike: so both have the data's frequencies. Of networks
        that grow, how far the newest layers are faded in."""
        if self.growth:
            return (self.growth.at(batch.at.step).alpha,)
        return (batch.data[LABEL],) if self.gan.conditional else ()

    def seen(self, samples: Tensor, batch: Batch, which: str) -> Tensor:
        """What D sees of samples."""
        augment, name = self.gan.augment, f"augment.{which}"
        if self.ada is not None:
            return augmented(samples, self.ada.settings.pipeline, self.ada.p, batch.noise, name)
        return samples if augment is None else diffaugment(samples, augment.policy, batch.noise, name)

    @property
    def highest_stage(self) -> int:
        return 2

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        return {}

    def sample(self, batch: Batch) -> Samples:
        styles = {"truncation": self.gan.generator.truncation} if self.gan.styled else {}
        made = self.generated(batch, **styles).float()
        if self.growth:
            made = whole(made, self.growth.size)
        return Samples(images=made) if self.kind == "image" else Samples(points=made)


class AdaptiveGan(GanObjective):
    """One with something that adapts to what it measures: all that stands here is the same on every rank, and in every commit."""

    @property
    def adapts_every(self) -> int:
        return math.gcd(self.path.settings.every if self.path else 0, self.ada.settings.every_steps if self.ada else 0)

    def adapt(self, means: Mapping[str, float]) -> None:
        if self.path:
            self.path.adapt(means)
        if self.ada:
            self.ada.adapt(means, self.adapts_every)

    def state(self) -> dict[str, Any]:
        return {name: kept.state() for name, kept in (("path", self.path), ("ada", self.ada)) if kept}

    def load_state(self, state: dict[str, Any]) -> None:
        for name, kept in (("path", self.path), ("ada", self.ada)):
            if kept and name in state:
                kept.load_state(state[name])
