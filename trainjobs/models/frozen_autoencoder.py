"""A frozen AutoencoderKL of diffusers, in fp32 whatever the run's precision: that of Stable Diffusion XL overflows in half precision.

It stands on the host. To encode it is placed on the device, for as long as that takes; to decode it goes there and back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from trainjobs.models.autoencoder_kl import loaded
from trainjobs.models.tf32 import single

TOGETHER = 8  # pictures that are decoded together


class FrozenAutoencoder:
    """`whole` is a diffusers AutoencoderKL, frozen. Latents are those of a diffusion model: moved by `shift`, then times `scale`."""

    def __init__(self, whole: Any) -> None:
        self.whole: Any = whole
        told: Mapping[str, Any] = whole.config
        self.channels, self.latent_channels = int(told["in_channels"]), int(told["latent_channels"])
        self.factor = 1 << (len(told["block_out_channels"]) - 1)
        self.shift, self.scale = scaling(told)

    @classmethod
    def of(cls, folder: Path, where: str) -> FrozenAutoencoder:
        """JobErrors of `loaded`."""
        return cls(loaded(folder, where))

    @contextmanager
    def on(self, device: torch.device) -> Iterator[None]:
        """On the device while the block runs, then where it was."""
        before = _device(self.whole)
        self.whole.to(device)
        try:
            yield
        finally:
            self.whole.to(before)

    def encode(self, images: Tensor) -> Tensor:
        """float32 [n, 2c, h, w]: means, then logarithms of variances, as diffusers clamps them; where the pictures and it are."""
        with torch.no_grad(), single(images.device):
            found = self.whole.encode(images.float()).latent_dist
        return torch.cat([found.mean, found.logvar], dim=1)

    def decode(self, latents: Tensor) -> Tensor:
        """float32 [n, C, H, W], unbounded."""
        z = latents.float() / self.scale.to(latents.device) + self.shift.to(latents.device)
        with self.on(z.device), torch.no_grad(), single(z.device):
            return torch.cat([self.whole.decode(z[start : start + TOGETHER]).sample for start in range(0, len(z), TOGETHER)])


def scaling(told: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """(shift, scale) of a config.json: (z - shift_factor) scaling_factor; or, where there are statistics of each channel,
    (z - latents_mean) scaling_factor / latents_std, float32 [c, 1, 1]. As diffusers' pipelines have it."""
    factor = told.get("scaling_factor")
    scale, shift = torch.tensor(1.0 if factor is None else float(factor)), torch.tensor(float(told.get("shift_factor") or 0.0))
    if told.get("latents_mean") is not None and told.get("latents_std") is not None:
        mean, std = (torch.tensor(told[name], dtype=torch.float32).view(-1, 1, 1) for name in ("latents_mean", "latents_std"))
        return mean, scale / std
    return shift, scale


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device
