"""Variational diffusion in continuous time, with a learned noise schedule: the loss is the variational bound itself.

x_t = a x_0 + s eps,   a^2 = sigmoid(-gamma(t)),   s^2 = sigmoid(gamma(t)),   gamma: models/noise_schedule.py
L = 1/2 E_{t, eps} gamma'(t) |eps - f(x_t, T (gamma(t) - gamma(0)) / (gamma(1) - gamma(0)))|^2, in bits per dimension
(Kingma, Salimans, Poole and Ho, "Variational diffusion models", 2021, arXiv 2107.00630, equation 17)

L depends on the ends of gamma alone, which are fixed (ibid., section 5.1); what lies between them changes how much L varies from sample to
sample. So it is trained by a phase of its own, on E L^2, the variance but for a constant (appendix I.2). A loss is a mean over samples.

Times are antithetic (appendix I.1): sample n of a global batch of G has t = frac(u + n / G), u drawn once for all of them.

-log p(x_0) <= L + KL(q(x_1|x_0) || N(0, I)) - log p(x_0|x at t = 0), whose p(x_0|x) is proportional to q(x|x_0) over the 256 values of a
pixel (equation 12 and section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.models.noise_schedule import FIRST, LAST
from trainjobs.noise import Noise, mix
from trainjobs.objectives.diffusion.bound import prior_bits
from trainjobs.objectives.diffusion.guidance import NONE, Guidance
from trainjobs.objectives.diffusion.prediction import image
from trainjobs.objectives.diffusion.sampler import Visit, ddim, spread, told
from trainjobs.objectives.phase import Batch, Phase, Samples, over

Time = TypeVar("Time", float, Tensor)
_VALUE = 2.0 / 255.0  # between neighbouring values of a pixel
_NEAR = 4  # values on either side: at the first end the noise is a sixth of one, so that further ones have no probability


@dataclass(frozen=True)
class LearnedObjective:
    """`denoiser(x_t, time)` takes float [B, C, H, W] and float32 [B] in [0, T] and returns float32 of the image's shape; `schedule(t)` is a
    NoiseSchedule. `batch` is the global batch."""

    denoiser: nn.Module
    schedule: nn.Module
    process: DiffusionProcess
    sampler: Sampler
    shape: tuple[int, ...]  # of one image
    batch: int
    guidance: Guidance = NONE

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (
            Phase("train", trains="denoiser", loss=self.bound),
            Phase("noise_schedule", trains="noise_schedule", loss=self.variance),
        )

    @property
    def highest_stage(self) -> int:
        return 3

    def bound(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss = self._bits(batch.data["image"].float(), self._times(batch.noise), batch.noise, self.guidance.trained(batch)).mean()
        return loss, {"loss": loss.detach()}

    def variance(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss = self._bits(batch.data["image"].float(), self._times(batch.noise), batch.noise, self.guidance.trained(batch)).square().mean()
        return loss, {"loss/noise_schedule": loss.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The loss and the bound at times and noise that belong to the sample: the same at every evaluation, however the samples are
        batched."""
        samples, x = batch.noise.samples, batch.data["image"].float()
        noise = Noise.of(0, 0, "heldout", samples)
        loss = self._bits(x, spread(samples).float(), noise, self.guidance.given(batch))
        ends = prior_bits(x, LAST) + value_bits(x, noise.normal("first", *x.shape[1:]))
        return {"loss": over(loss.mean(), batch.size), "bits": over((loss + ends).mean(), batch.size)}

    def sample(self, batch: Batch) -> Samples:
        denoiser = self.guidance.guided(self.denoiser, batch)

        def look(x: Tensor, visit: Visit) -> tuple[Tensor, Tensor | None]:
            predicted = denoiser(x, told(visit.time, x))
            return image("epsilon", predicted.float(), x, visit.here**0.5, (1.0 - visit.here) ** 0.5), None

        count = self.sampler.steps
        times = torch.arange(count, 0, -1, device=batch.noise.samples.device) / count
        gammas = self.schedule(times)[0].double().tolist()
        signal = [*(1.0 / (1.0 + math.exp(gamma)) for gamma in gammas), 1.0]
        visits = [Visit(f"step-{k}", self._told(gamma), signal[k], signal[k + 1]) for k, gamma in enumerate(gammas)]
        return Samples(images=ddim(look, visits, self.sampler.eta, batch.noise, self.shape))

    def _times(self, noise: Noise) -> Tensor:
        """float32 [B]. Which of the batch's times is whose follows from its number, so that nothing depends on the cut."""
        first = mix(noise.seed, "t") * 2.0**-63
        return (first + (noise.samples % self.batch).double() / self.batch).frac().float()

    def _bits(self, x: Tensor, t_B: Tensor, noise: Noise, told: tuple[Tensor, ...]) -> Tensor:
        """Of each sample, float [B]: bits per dimension."""
        gamma_B, slope_B = self.schedule(t_B)
        gamma = gamma_B.view(-1, 1, 1, 1)
        eps = noise.normal("epsilon", *x.shape[1:])
        x_t = (-gamma).sigmoid().sqrt() * x + gamma.sigmoid().sqrt() * eps
        predicted: Tensor = self.denoiser(x_t, self._told(gamma_B), *told)
        error_B = (eps - predicted.float()).square().flatten(1).mean(dim=1)
        bits_B: Tensor = 0.5 * slope_B * error_B / math.log(2.0)
        return bits_B

    def _told(self, gamma: Time) -> Time:
        return self.process.timesteps * (gamma - FIRST) / (LAST - FIRST)


def value_bits(x: Tensor, eps: Tensor) -> Tensor:
    """-log p(x_0|x at t = 0), float [B]: bits per dimension."""
    width = math.exp(0.5 * FIRST) / _VALUE  # the noise over the signal, in values
    offsets = torch.arange(-_NEAR, _NEAR + 1, device=x.device, dtype=torch.float32).view(-1, *[1] * x.dim())
    logits = -0.5 * (eps - offsets / width).square()
    there = (x + _VALUE * offsets).abs() <= 1.0 + 0.5 * _VALUE
    nats = logits.masked_fill(~there, -math.inf).logsumexp(dim=0) - logits[_NEAR]
    return nats.flatten(1).mean(dim=1) / math.log(2.0)
