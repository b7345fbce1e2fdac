"""Denoising diffusion: a network f(x_t, t) learns to undo x_t = a_t x_0 + s_t eps, with a_t^2 = abar_t, s_t^2 = 1 - abar_t.

Ho et al., "Denoising diffusion probabilistic models", 2020 (arXiv 2006.11239): abar_t = prod_{i <= t} (1 - beta_i), and the simple loss
(equation 14)   L = E_{t, eps} mean (f(x_t, t) - target)^2,   t uniform over the T steps, all weights 1.
epsilon   target = eps                   x_0 = (x_t - s_t f) / a_t
v         target = a_t eps - s_t x_0     x_0 = a_t x_t - s_t f      (Salimans and Ho, 2022, arXiv 2202.00512, appendix D)

linear    beta from 1e-4 to 0.02 over 1000 steps; for T steps, 1000/T times that, so that the last step is as noisy (Nichol and Dhariwal)
cosine    abar(t) = cos^2((t/T + 0.008) / 1.008 * pi/2), by way of beta_t = 1 - abar(t + 1) / abar(t), at most 0.999
          (Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", 2021, arXiv 2102.09672, equation 17)

Sampling is DDIM (Song et al., 2021, arXiv 2010.02502, equations 12 and 16): from t to the earlier s, with abar = 1 before the first step,
sigma = eta sqrt((1 - abar_s) / (1 - abar_t)) sqrt(1 - abar_t / abar_s),   x_s = a_s x_0 + sqrt(1 - abar_s - sigma^2) eps + sigma noise.
x_0 is clipped to [-1, 1] and eps is what then explains x_t, as in Nichol and Dhariwal's code: at the last steps of the cosine schedule
a_t is below 1e-4, and an unclipped x_0 would be nothing but the network's error. The steps are spaced "trailing" and so start from t = T
- 1, whose x_t is the noise that sampling starts from (Lin et al., 2023, arXiv 2305.08891, section 3.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.process import cumulative_signal, signal_and_noise
from trainjobs.objectives.diffusion.sampler import trailing_steps
from trainjobs.objectives.phase import Batch, Phase, Samples, over


@dataclass(frozen=True)
class DiffusionObjective:
    """`denoiser(x_t, t)` takes float [B, C, H, W] and int64 [B] in [0, T) and returns float32 of the image's shape."""

    denoiser: nn.Module
    process: DiffusionProcess
    sampler: Sampler
    shape: tuple[int, ...]  # of one image

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="denoiser", loss=self.simple_loss),)

    @property
    def highest_stage(self) -> int:
        return 3

    def simple_loss(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        t_B = batch.noise.integers("t", self.process.timesteps, 1).squeeze(1)
        loss = self._loss(batch.data["image"], t_B, batch.noise)
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The loss at timesteps and noise that belong to the sample: the same at every evaluation, however the samples are batched.

        Sample number n has t = T frac(n phi), phi the golden ratio: the fractional parts of consecutive n are spread evenly (Weyl), so
        any run of samples covers the timesteps as strata would.
        """
        samples = batch.noise.samples
        fraction = (samples.double() * ((math.sqrt(5.0) - 1.0) / 2.0)).frac()
        t_B = (fraction * self.process.timesteps).long()
        return {"loss": over(self._loss(batch.data["image"], t_B, Noise.of(0, 0, "heldout", samples)), batch.size)}

    def _loss(self, x_BCHW: Tensor, t_B: Tensor, noise: Noise) -> Tensor:
        x = x_BCHW.float()
        a, s = (table[t_B].view(-1, 1, 1, 1) for table in signal_and_noise(self.process.schedule, self.process.timesteps, x.device))
        eps = noise.normal("epsilon", *x.shape[1:])
        target = eps if self.process.prediction == "epsilon" else a * eps - s * x
        predicted: Tensor = self.denoiser(a * x + s * eps, t_B)
        return F.mse_loss(predicted.float(), target)

    def sample(self, batch: Batch) -> Samples:
        noise, count = batch.noise, batch.size
        x = noise.normal("start", *self.shape)
        # Numbers of the host, in double precision: 1 - abar_t / abar_s of neighbouring steps cancels in single precision.
        abar = cumulative_signal(self.process.schedule, self.process.timesteps).tolist()
        steps = trailing_steps(self.process.timesteps, self.sampler.steps)
        for i, t in enumerate(steps):
            abar_t, abar_s = abar[t], abar[steps[i + 1]] if i + 1 < len(steps) else 1.0
            a_t, s_t = math.sqrt(abar_t), math.sqrt(1.0 - abar_t)
            predicted: Tensor = self.denoiser(x, torch.full((count,), t, device=x.device)).float()
            x0 = (x - s_t * predicted) / a_t if self.process.prediction == "epsilon" else a_t * x - s_t * predicted
            x0 = x0.clamp(-1.0, 1.0)
            eps = (x - a_t * x0) / s_t
            sigma = self.sampler.eta * math.sqrt((1.0 - abar_s) / (1.0 - abar_t) * (1.0 - abar_t / abar_s))
            x = math.sqrt(abar_s) * x0 + math.sqrt(max(1.0 - abar_s - sigma**2, 0.0)) * eps
            if sigma > 0.0:
                x = x + sigma * noise.normal(f"step-{t}", *self.shape)
        return Samples(images=x)
