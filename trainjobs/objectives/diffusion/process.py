"""The forward process: how much signal and noise there is at each step.

x_t = a_t x_0 + s_t eps, with a_t^2 = abar_t, s_t^2 = 1 - abar_t, abar_t = prod_{i <= t} (1 - beta_i)   (Ho et al., 2020, equation 4)

linear         beta from 1e-4 to 0.02 over 1000 steps; for T steps, 1000/T times that, so that the last step is as noisy (Nichol and
               Dhariwal)
scaled-linear  sqrt(beta) from sqrt(0.00085) to sqrt(0.012) over 1000 steps; for T steps likewise (Rombach et al., "High-resolution image
               synthesis with latent diffusion models", 2022, arXiv 2112.10752, the configurations of its code)
cosine         abar(t) = cos^2((t/T + 0.008) / 1.008 * pi/2), by way of beta_t = 1 - abar(t + 1) / abar(t), at most 0.999
               (Nichol and Dhariwal, "Improved denoising diffusion probabilistic models", 2021, arXiv 2102.09672, equation 17)

Zero terminal SNR: a_t <- (a_t - a_T) a_0 / (a_0 - a_T), so that the first step is as it was and the last has no signal (Lin et al.,
"Common diffusion noise schedules and sample steps are flawed", 2023, arXiv 2305.08891, algorithm 1).
"""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor

Schedule = Literal["linear", "cosine", "scaled-linear"]
_LARGEST_BETA = 0.999


def cumulative_signal(schedule: Schedule, timesteps: int, zero_terminal: bool = False) -> Tensor:
    """abar, float64 [timesteps], on the CPU."""
    if schedule == "cosine":
        grid = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        exact = ((grid + 0.008) / 1.008 * math.pi / 2).cos().square()
        betas = 1.0 - exact[1:] / exact[:-1]
    elif schedule == "scaled-linear":
        betas = 1000.0 / timesteps * torch.linspace(0.00085**0.5, 0.012**0.5, timesteps, dtype=torch.float64).square()
    else:
        scale = 1000.0 / timesteps
        betas = torch.linspace(scale * 1e-4, scale * 0.02, timesteps, dtype=torch.float64)
    abar = (1.0 - betas.clamp(max=_LARGEST_BETA)).cumprod(0)
    if not zero_terminal:
        return abar
    a = abar.sqrt()
    return ((a - a[-1]) * (a[0] / (a[0] - a[-1]))).square()


@cache
def signal_and_noise(schedule: Schedule, timesteps: int, zero_terminal: bool, device: torch.device) -> tuple[Tensor, Tensor]:
    """(a, s), float32 [timesteps], kept on the device: copying them at each step would wait for it."""
    with torch.inference_mode(False):  # Kept tensors must be usable in training, whoever asks first.
        abar = cumulative_signal(schedule, timesteps, zero_terminal)
        return abar.sqrt().float().to(device), (1.0 - abar).sqrt().float().to(device)
