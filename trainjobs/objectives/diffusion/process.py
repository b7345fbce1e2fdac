"""The forward process: how much signal and noise there is at each step."""

from __future__ import annotations

import math
from functools import cache
from typing import Literal

import torch
from torch import Tensor

_LARGEST_BETA = 0.999


def cumulative_signal(schedule: Literal["linear", "cosine"], timesteps: int) -> Tensor:
    """abar, float64 [timesteps], on the CPU."""
    if schedule == "linear":
        scale = 1000.0 / timesteps
        betas = torch.linspace(scale * 1e-4, scale * 0.02, timesteps, dtype=torch.float64)
    else:
        grid = torch.arange(timesteps + 1, dtype=torch.float64) / timesteps
        exact = ((grid + 0.008) / 1.008 * math.pi / 2).cos().square()
        betas = 1.0 - exact[1:] / exact[:-1]
    return (1.0 - betas.clamp(max=_LARGEST_BETA)).cumprod(0)


@cache
def signal_and_noise(schedule: Literal["linear", "cosine"], timesteps: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(a, s), float32 [timesteps], kept on the device: copying them at each step would wait for it."""
    with torch.inference_mode(False):  # Kept tensors must be usable in training, whoever asks first.
        abar = cumulative_signal(schedule, timesteps)
        return abar.sqrt().float().to(device), (1.0 - abar).sqrt().float().to(device)
