"""Denoising diffusion: a network f(x_t, t) learns to undo x_t = a_t x_0 + s_t eps (process.py) by what it predicts (prediction.py).

Ho et al., "Denoising diffusion probabilistic models", 2020 (arXiv 2006.11239), the simple loss (equation 14):
L = E_{t, eps} mean (f(x_t, t) - target)^2,   t uniform over the T steps, all weights 1, or those of min-SNR.

Learned variance: f has twice the channels, and L = L_simple + T / 1000 L_vb, L_vb the bits per dimension of step t (bound.py): Nichol and
Dhariwal, 2021 (arXiv 2102.09672, equation 16), where lambda = 0.001 weighs the sum over T steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion import bound
from trainjobs.objectives.diffusion.guidance import NONE, Guidance
from trainjobs.objectives.diffusion.prediction import Prediction, image, target, weight
from trainjobs.objectives.diffusion.process import Schedule, cumulative_signal, signal_and_noise
from trainjobs.objectives.diffusion.sampler import Look, Visit, ddim, spread, told, visits
from trainjobs.objectives.diffusion.space import PIXELS, Space
from trainjobs.objectives.phase import Batch, Phase, Samples, over


@dataclass(frozen=True)
class DiffusionObjective:
    """`denoiser(x_t, t)` takes float [B, C, H, W] and int64 [B] in [0, T) and returns float32 of the image's shape, or of twice its
    channels: those behind the image's are the variance's."""

    denoiser: nn.Module
    process: DiffusionProcess
    sampler: Sampler
    shape: tuple[int, ...]  # of one image
    guidance: Guidance = NONE
    space: Space = PIXELS

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="denoiser", loss=self.simple_loss),)

    @property
    def highest_stage(self) -> int:
        return 3

    @property
    def prediction(self) -> Prediction:
        assert self.process.prediction != "flow"
        return self.process.prediction

    @property
    def schedule(self) -> tuple[Schedule, int, bool]:
        assert self.process.schedule != "learned"
        return self.process.schedule, self.process.timesteps, self.process.zero_terminal_snr

    def simple_loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        t_B = batch.noise.integers("t", self.process.timesteps, 1).squeeze(1)
        x, x_t, eps = self._noised(batch.data["image"], t_B, batch.noise)
        predicted, variance = self._predicted(self.denoiser(x_t, t_B, *self.guidance.trained(batch)))
        loss = self._simple(x, eps, t_B, predicted)
        if variance is None:
            return loss, {"loss": loss.detach()}
        bits_B = self._bits(x, x_t, t_B, predicted.detach(), variance)
        loss = loss + self.process.timesteps / 1000.0 * bits_B.mean()
        return loss, {"loss": loss.detach(), "bits": self.process.timesteps * bits_B.detach().mean()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The simple loss and, of pixels, the bound, at timesteps and noise that belong to the sample: the same at every evaluation,
        however the samples are batched."""
        samples = batch.noise.samples
        t_B = (spread(samples) * self.process.timesteps).long()
        x, x_t, eps = self._noised(batch.data["image"], t_B, Noise.of(0, 0, "heldout", samples))
        predicted, variance = self._predicted(self.denoiser(x_t, t_B, *self.guidance.given(batch)))
        loss = self._simple(x, eps, t_B, predicted)
        if self.space.decode is not None:
            return {"loss": over(loss, batch.size)}
        steps_B = self.process.timesteps * self._bits(x, x_t, t_B, predicted, variance, clip=True)
        bits_B = steps_B + bound.prior_bits(x, self._tables(x).last)
        return {"loss": over(loss, batch.size), "bits": over(bits_B.mean(), batch.size)}

    def sample(self, batch: Batch) -> Samples:
        return self.space.seen(ddim(self.look(batch), self.visits(), self.sampler.eta, batch.noise, self.shape, self.space.clipped))

    def visits(self) -> list[Visit]:
        """The steps of its sampler."""
        return visits(cumulative_signal(*self.schedule).tolist(), self.sampler.steps)

    def look(self, batch: Batch) -> Look:
        """What the network says of x_0 at a step, for the batch's conditions."""
        denoiser = self.guidance.guided(self.denoiser, batch)

        def look(x: Tensor, visit: Visit) -> tuple[Tensor, Tensor | None]:
            predicted, variance = self._predicted(denoiser(x, told(visit.time, x)))
            return image(self.prediction, predicted, x, visit.here**0.5, (1.0 - visit.here) ** 0.5), variance

        return look

    def _noised(self, x_BCHW: Tensor, t_B: Tensor, noise: Noise) -> tuple[Tensor, Tensor, Tensor]:
        """(x_0, x_t, eps)."""
        x = x_BCHW.float()
        a, s = self._scales(t_B, x.device)
        eps = noise.normal("epsilon", *x.shape[1:])
        return x, a * x + s * eps, eps

    def _predicted(self, output: Tensor) -> tuple[Tensor, Tensor | None]:
        """What the network says of the image, and of the variance."""
        if not self.process.learned_variance:
            return output.float(), None
        predicted, variance = output.float().chunk(2, dim=1)
        return predicted, variance

    def _simple(self, x: Tensor, eps: Tensor, t_B: Tensor, predicted: Tensor) -> Tensor:
        a, s = self._scales(t_B, x.device)
        wanted, gamma = target(self.prediction, x, eps, a, s), self.process.min_snr_gamma
        if gamma is None:
            return F.mse_loss(predicted, wanted)
        return (weight(self.prediction, gamma, a, s) * (predicted - wanted).square()).mean()

    def _bits(self, x: Tensor, x_t: Tensor, t_B: Tensor, predicted: Tensor, variance: Tensor | None, *, clip: bool = False) -> Tensor:
        """Bits per dimension of the step at which each sample is, float [B]."""
        rebuilt = image(self.prediction, predicted, x_t, *self._scales(t_B, x.device))
        return bound.step_bits(self._tables(x), t_B, x, rebuilt.clamp(-1.0, 1.0) if clip else rebuilt, variance)

    def _scales(self, t_B: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        a, s = signal_and_noise(*self.schedule, device)
        return a[t_B].view(-1, 1, 1, 1), s[t_B].view(-1, 1, 1, 1)

    def _tables(self, x: Tensor) -> bound.Posterior:
        return bound.posterior(*self.schedule, x.device)
