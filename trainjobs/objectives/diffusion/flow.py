"""Flow matching: a network learns the velocity from an image to noise, on the straight path between them.

x_t = (1 - t) x_0 + t eps,   L = E_{t, eps} mean (f(x_t, T t) - (eps - x_0))^2
(Lipman et al., "Flow matching for generative modeling", 2023, arXiv 2210.02747; Liu et al., "Flow straight and fast", 2023, arXiv
2209.03003)

t is uniform in [0, 1), or logit-normal, the sigmoid of a standard normal; then shifted: t <- shift t / (1 + (shift - 1) t)
(Esser et al., "Scaling rectified flow transformers for high-resolution image synthesis", 2024, arXiv 2403.03206, equations 19 and 23).

Sampling is Euler's method from t = 1 to 0: x <- x + (t' - t) f(x, T t), at times that are evenly spaced before the shift.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from trainjobs.api.diffusion import DiffusionProcess, Sampler
from trainjobs.noise import Noise
from trainjobs.objectives.diffusion.guidance import NONE, Guidance
from trainjobs.objectives.diffusion.sampler import spread, told
from trainjobs.objectives.diffusion.space import PIXELS, Space
from trainjobs.objectives.phase import Batch, Phase, Samples, over

Time = TypeVar("Time", float, Tensor)


@dataclass(frozen=True)
class FlowObjective:
    """`denoiser(x_t, time)` takes float [B, C, H, W] and float32 [B] in [0, T] and returns float32 of the image's shape."""

    denoiser: nn.Module
    process: DiffusionProcess
    sampler: Sampler
    shape: tuple[int, ...]  # of one image
    guidance: Guidance = NONE
    space: Space = PIXELS

    @property
    def phases(self) -> tuple[Phase, ...]:
        return (Phase("train", trains="denoiser", loss=self.matching),)

    @property
    def highest_stage(self) -> int:
        return 3

    def matching(self, batch: Batch) -> tuple[Tensor, Mapping[str, Tensor]]:
        loss = self._loss(batch.data["image"], batch.noise.uniform("t", 1).squeeze(1), batch.noise, self.guidance.trained(batch))
        return loss, {"loss": loss.detach()}

    def heldout(self, batch: Batch) -> Mapping[str, tuple[Tensor, Tensor]]:
        """The loss at times and noise that belong to the sample: the same at every evaluation, however the samples are batched."""
        samples = batch.noise.samples
        noise, told = Noise.of(0, 0, "heldout", samples), self.guidance.given(batch)
        loss = self._loss(batch.data["image"], spread(samples).float(), noise, told)
        return {"loss": over(loss, batch.size)}

    def _loss(self, x_BCHW: Tensor, u_B: Tensor, noise: Noise, told: tuple[Tensor, ...]) -> Tensor:
        """`u_B` is uniform in [0, 1)."""
        x = x_BCHW.float()
        t_B = times(self.process, u_B)
        t = t_B.view(-1, 1, 1, 1)
        eps = noise.normal("epsilon", *x.shape[1:])
        predicted: Tensor = self.denoiser((1.0 - t) * x + t * eps, self.process.timesteps * t_B, *told)
        return F.mse_loss(predicted.float(), eps - x)

    def sample(self, batch: Batch) -> Samples:
        x, denoiser = batch.noise.normal("start", *self.shape), self.guidance.guided(self.denoiser, batch)
        steps = self.sampler.steps
        stops = [shifted(1.0 - k / steps, self.process.shift) for k in range(steps + 1)]
        for here, there in pairwise(stops):
            velocity = denoiser(x, told(self.process.timesteps * here, x))
            x = x + (there - here) * velocity.float()
        return self.space.seen(x)


def times(process: DiffusionProcess, u: Tensor) -> Tensor:
    """The times that uniform numbers in [0, 1) stand for: 0 stays 0."""
    return shifted(torch.special.ndtri(u).sigmoid() if process.time_sampling == "logit-normal" else u, process.shift)


def shifted(t: Time, shift: float) -> Time:
    return shift * t / (1.0 + (shift - 1.0) * t)
